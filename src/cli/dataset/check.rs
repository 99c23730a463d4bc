//! `ledger dataset check`.

use std::fmt::Write as _;

use datasets::Episode;
use datasets::leak::{Overlap, PairReport, between};

use super::super::{Globals, Output};
use crate::build::{load_split, load_suite};
use crate::error::{AppError, Kind};
use crate::rows::{Traces, View};

/// Show what two sets of rows share: ids, questions whatever the template, prompts, questions
/// inside of prompts, near duplicates. Fails where they share anything but ids, which need not mean
/// the same in two sources.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is learnt from: a source, or dataset:NAME
    train: String,
    /// What is tested on: a source, dataset:NAME, or suite:NAME
    test: String,
}

type Rows = Vec<(u64, Episode)>;

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let traces = Traces::list(&view)?;
    let (train, test) = (rows(&view, &traces, &args.train)?, rows(&view, &traces, &args.test)?);
    let report = between(&borrowed(&train), &borrowed(&test));
    let text = text(&report, (&args.train, &args.test));
    let failure = (!report.is_clean()).then(|| {
        AppError::hinted(
            Kind::Refused,
            format!("{} and {} are not clean of each other", args.train, args.test),
            "a score on the second says little of what was learnt from the first: keep its suite \
             out with `ledger split --keep-out`",
        )
    });
    Ok(Output::document(&report, text)?.failing(failure))
}

fn borrowed(rows: &Rows) -> Vec<(u64, &Episode)> {
    rows.iter().map(|(seq, episode)| (*seq, episode)).collect()
}

fn rows(view: &View, traces: &Traces, name: &str) -> Result<Rows, AppError> {
    if let Some(name) = name.strip_prefix("dataset:") {
        let rows = load_split(view, name)?.manifest.rows;
        return rows.iter().map(|row| Ok((row.seq, traces.row(row)?))).collect();
    }
    let seqs: Vec<u64> = if let Some(name) = name.strip_prefix("suite:") {
        load_suite(view, name)?.manifest.cases.iter().map(|case| case.seq).collect()
    } else {
        return traces.of_sources(&[name.to_owned()]);
    };
    seqs.into_iter().map(|seq| Ok((seq, traces.episode(seq)?))).collect()
}

fn text(report: &PairReport, (train, test): (&str, &str)) -> String {
    let mut text =
        format!("{} rows of {train} against {} rows of {test}\n", report.rows_a, report.rows_b);
    let n = report.rows_b;
    for (what, overlap) in [
        ("share an id", &report.shared_ids),
        ("share a question", &report.shared_questions),
        ("share a prompt", &report.shared_prompts),
        ("have their question inside another row's prompt", &report.in_context),
    ] {
        let _ = writeln!(text, "{} of {n} {what}{}", overlap.rows, shown(overlap));
    }
    let _ = writeln!(text, "{} of {n} nearly repeat a question", report.near.rows);
    for pair in report.nearest.iter().take(3) {
        let _ = writeln!(
            text,
            "  nearest: event {} and event {} ({:.2})",
            pair.a, pair.b, pair.similarity
        );
    }
    text.push_str(if report.is_clean() { "clean" } else { "NOT clean" });
    text
}

fn shown(overlap: &Overlap) -> String {
    let pairs: Vec<String> =
        overlap.shown.iter().take(3).map(|pair| format!("{} = {}", pair.b, pair.a)).collect();
    let more = if overlap.rows > 3 { ", ..." } else { "" };
    if pairs.is_empty() {
        return String::new();
    }
    format!(" (events {}{more}; {} different)", pairs.join(", "), overlap.distinct)
}
