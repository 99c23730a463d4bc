//! `ledger dataset diff`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use datasets::{Side, SplitManifest};
use ledger::Digest;
use serde::Serialize;

use super::super::{Globals, Output, one_line};
use crate::build::{Split, load_split};
use crate::error::AppError;
use crate::rows::{Traces, View};

/// Rows that are named in each part of the text.
const NAMED: usize = 10;

/// Show what another dataset has more, less or elsewhere.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, or the start of its identity
    before: String,
    /// Name, or the start of its identity
    after: String,
}

/// What is different, by the events of rows.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Diff {
    /// Rows on both, on the same side.
    same: u64,
    /// Rows of the second only.
    added: Vec<u64>,
    /// Rows of the first only.
    removed: Vec<u64>,
    /// Rows on another side: the event in the second.
    moved: Vec<u64>,
    /// Reasons for which rows of the first are left out of the second.
    left_out: BTreeMap<String, u64>,
    /// Fields of the specification that differ, with both values.
    spec: BTreeMap<String, (serde_json::Value, serde_json::Value)>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let (before, after) = (load_split(&view, &args.before)?, load_split(&view, &args.after)?);
    let mut diff = compare(&before.manifest, &after.manifest);
    diff.spec = spec_diff(&before.facts.spec, &after.facts.spec);
    let traces = Traces::list(&view)?;
    Output::document(&diff, text(&diff, (&before, &after), &traces)?)
}

/// Compares by content, so that a row that was read from another file is still the same.
fn compare(before: &SplitManifest, after: &SplitManifest) -> Diff {
    let sides = |manifest: &SplitManifest| -> BTreeMap<Digest, (Side, u64)> {
        manifest.rows.iter().map(|row| (row.content, (row.side, row.seq))).collect()
    };
    let (old, new) = (sides(before), sides(after));
    let mut diff = Diff::default();
    for (content, (side, seq)) in &new {
        match old.get(content) {
            None => diff.added.push(*seq),
            Some((known, _)) if known != side => diff.moved.push(*seq),
            Some(_) => diff.same += 1,
        }
    }
    let gone = |content: &&Digest| !new.contains_key(*content);
    diff.removed =
        old.keys().filter(gone).filter_map(|c| old.get(c)).map(|(_, seq)| *seq).collect();
    for excluded in &after.excluded {
        if old.contains_key(&excluded.content) && !new.contains_key(&excluded.content) {
            *diff.left_out.entry(excluded.reason.clone()).or_default() += 1;
        }
    }
    for events in [&mut diff.added, &mut diff.removed, &mut diff.moved] {
        events.sort_unstable();
    }
    diff
}

fn spec_diff(
    before: &serde_json::Value,
    after: &serde_json::Value,
) -> BTreeMap<String, (serde_json::Value, serde_json::Value)> {
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    };
    let all = keys(before).into_iter().chain(keys(after));
    let differ = all.filter(|key| before.get(key) != after.get(key));
    let both = |key: &String| {
        let of = |spec: &serde_json::Value| spec.get(key).cloned().unwrap_or_default();
        (of(before), of(after))
    };
    differ.map(|key| (key.clone(), both(&key))).collect()
}

fn text(
    diff: &Diff,
    (before, after): (&Split, &Split),
    traces: &Traces,
) -> Result<String, AppError> {
    let mut text = format!(
        "{} {} (event {}) -> {} {} (event {})\n{} rows the same, {} added, {} removed, {} on the \
         other side\n",
        before.facts.name,
        before.facts.dataset.short(),
        before.event,
        after.facts.name,
        after.facts.dataset.short(),
        after.event,
        diff.same,
        diff.added.len(),
        diff.removed.len(),
        diff.moved.len()
    );
    for (mark, events) in [("+", &diff.added), ("-", &diff.removed), ("~", &diff.moved)] {
        for seq in events.iter().take(NAMED) {
            let query = one_line(&traces.episode(*seq)?.query);
            let _ = writeln!(text, "{mark} event {seq} {query}");
        }
        if events.len() > NAMED {
            let _ = writeln!(text, "{mark} and {} more", events.len() - NAMED);
        }
    }
    for (reason, n) in &diff.left_out {
        let _ = writeln!(text, "{n} of the removed were left out: {reason}");
    }
    for (field, (was, is)) in &diff.spec {
        let _ = writeln!(text, "{field}: {was} -> {is}");
    }
    Ok(text)
}
