//! `ledger dataset build`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use datasets::near::{SourceDuplicates, duplicates_by_source};
use serde_json::json;

use super::super::finding::Finding;
use super::super::split::Sides;
use super::super::{Globals, Output, one_line};
use super::lines;
use crate::build::{
    QueryRows, Searched, Split, record_split, rows_of_query, split_of, test_suites, wish_of_search,
};
use crate::error::{AppError, Kind};
use crate::lab::Lab;
use crate::rows::Traces;

/// Rows that a preview shows.
const SHOWN: usize = 10;
/// Events without a row that are named one by one.
const LEFT_OUT_SHOWN: usize = 20;

/// Freeze a dataset from what a search finds: traces with a gold or a correction, failed cases of
/// dev suites.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name
    name: String,
    /// Words and fields, as in `ledger search`
    #[arg(long = "query", visible_alias = "from-query", value_name = "WORDS", default_value = "")]
    query: String,
    #[command(flatten)]
    finding: Finding,
    /// Suites whose questions are kept out [default: every test suite of the notebook]
    #[arg(long)]
    keep_out: Vec<String>,
    #[command(flatten)]
    sides: Sides,
    /// Show what would be frozen, and freeze nothing
    #[arg(long)]
    preview: bool,
}

/// What was or would be built.
struct Built {
    split: Split,
    rows: QueryRows,
    duplicates: Vec<SourceDuplicates>,
    keep_out: Vec<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let is_preview = args.preview;
    let built = globals.with_lab(|lab| build(lab, args))?;
    let mut text = lines(&built.split.facts, built.split.event);
    if is_preview {
        text = text.replace(", event 0", ", a preview: nothing was frozen");
    }
    if !built.keep_out.is_empty() {
        let _ = write!(text, "\n  kept out: {}", built.keep_out.join(", "));
    }
    for source in &built.duplicates {
        let _ = write!(
            text,
            "\n  source {}: {} rows, {} repeat an earlier row, {} nearly",
            source.source, source.rows, source.exact, source.near
        );
    }
    left_out(&mut text, &built.rows);
    if is_preview {
        for (seq, episode) in built.rows.rows.iter().take(SHOWN) {
            let (asks, gold) = (one_line(&episode.query), one_line(&episode.gold_text()));
            let _ = write!(text, "\n  event {seq} {asks} -> {gold}");
        }
    }
    let document = json!({
        "dataset": built.split.facts,
        "event": (!is_preview).then_some(built.split.event),
        "preview": is_preview,
        "kept_out": built.keep_out,
        "duplicates": built.duplicates,
        "left_out": built.rows.left_out,
    });
    Output::document(&document, text)
}

fn build(lab: &Lab<'_>, args: Args) -> Result<Built, AppError> {
    let view = lab.view();
    let search = args.finding.search(&view, &args.query)?;
    let keep_out = if args.keep_out.is_empty() { test_suites(&view)? } else { args.keep_out };
    let how = (args.sides.spec(), keep_out.clone());
    let Searched { wish, hits, bytes } = wish_of_search(lab, &args.name, &search, how)?;
    let rows = rows_of_query(&view, &Traces::list(&view)?, &hits)?;
    if rows.rows.is_empty() {
        return Err(no_rows(&rows));
    }
    let episodes = rows.rows.iter().map(|(_, episode)| episode);
    let duplicates = duplicates_by_source(episodes, &wish.split.near_duplicate);
    let (facts, manifest) = split_of(&view, &wish, &rows)?;
    let split = if args.preview {
        Split { event: 0, facts, manifest }
    } else {
        lab.notebook.blobs().put(&bytes)?;
        record_split(lab, &wish, (facts, manifest))?
    };
    Ok(Built { split, rows, duplicates, keep_out })
}

/// The failure of a search whose hits give no row.
fn no_rows(rows: &QueryRows) -> AppError {
    let why: Vec<String> =
        reasons(rows).into_iter().map(|(reason, n)| format!("{n}: {reason}")).collect();
    AppError::hinted(
        Kind::Input,
        format!("no rows: none of {} hits gives one ({})", rows.left_out.len(), why.join("; ")),
        "rows are traces with a gold or a correction, and failed cases of dev suites",
    )
}

fn reasons(rows: &QueryRows) -> BTreeMap<&str, u64> {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, reason) in &rows.left_out {
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

fn left_out(text: &mut String, rows: &QueryRows) {
    if rows.left_out.len() <= LEFT_OUT_SHOWN {
        for (event, reason) in &rows.left_out {
            let _ = write!(text, "\n  event {event} gave no row: {reason}");
        }
        return;
    }
    for (reason, n) in reasons(rows) {
        let _ = write!(text, "\n  {n} events gave no row: {reason}");
    }
}
