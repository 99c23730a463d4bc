//! `ledger status`.

use std::fmt::Write as _;

use ledger::Reader;
use queries::projection::{RunStatus, fold_all};
use queries::search::Index;
use serde_json::json;

use super::{Globals, Output, one_line};
use crate::capture::{Lost, untold};
use crate::error::AppError;

/// Show how the notebook stands: events, sources, runs, aliases.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(globals: &Globals, _args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    // Gaps first: one that is told meanwhile is then seen twice, and never not at all.
    let gaps = untold(reader.dir()).map_err(AppError::file(reader.dir()))?;
    let head = reader.head()?;
    let state = fold_all(&reader)?;
    let traces: u64 = state.datasets.sources.values().map(|source| source.traces).sum();
    let rejected: u64 = state.datasets.sources.values().map(|source| source.rejected).sum();
    // A read command makes no index, and does without one that cannot be read.
    let indexed = indexed(&reader);
    let with = |status| state.runs.runs.values().filter(|run| run.status == status).count();
    let finished = with(RunStatus::Finished);
    let runs = state.runs.runs.len();
    let mut document = json!({
        "dir": reader.dir(),
        "events": head.size,
        "indexed": indexed,
        "root": head.root,
        "traces": traces,
        "rejected": rejected,
        "sources": state.datasets.sources.len(),
        "suites": state.datasets.suites.len(),
        "datasets": state.datasets.splits.len(),
        "runs": runs,
        "runs_finished": finished,
        "deployments": state.catalog.deployments.len(),
        "selection": state.selection,
    });
    let lost = state.datasets.lost();
    if let Some(document) = document.as_object_mut() {
        document.insert("calls_lost".to_owned(), json!(lost));
        document.insert("gaps".to_owned(), json!(gaps));
    }
    let mut text = String::new();
    let _ = writeln!(text, "{}: {} events, root {}", reader.dir().display(), head.size, head.root);
    let _ = writeln!(
        text,
        "{traces} traces from {} sources, {rejected} rejected",
        state.datasets.sources.len()
    );
    let _ = writeln!(
        text,
        "{} suites, {} datasets, {finished} of {runs} runs finished, {} deployments",
        state.datasets.suites.len(),
        state.datasets.splits.len(),
        state.catalog.deployments.len()
    );
    let _ = writeln!(text, "the search index has read {indexed} of {} events", head.size);
    if lost > 0 {
        let _ = writeln!(text, "{lost} calls were answered but not recorded: see capture.lost");
    }
    for gap in &gaps {
        let _ = writeln!(text, "GAP: {}", told(gap));
    }
    for (model, aliases) in &state.selection.models {
        for (alias, selected) in aliases {
            let loud = if selected.overridden.is_some() { "  OVERRIDDEN" } else { "" };
            let id = selected.deployment.short();
            let _ = writeln!(text, "{model}@{alias} = {id} since event {}{loud}", selected.since);
        }
    }
    Output::document(&document, text)
}

/// Says what a server lost and could not tell the record yet.
fn told(gap: &Lost) -> String {
    let Lost { source, calls, reason, since_us, until_us, .. } = gap;
    let time = |us| chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
    let (since, until) = (time(*since_us), time(*until_us));
    format!(
        "{calls} calls of source {source} are not recorded, from {} to {}: {}",
        since.format("%Y-%m-%dT%H:%M:%SZ"),
        until.format("%Y-%m-%dT%H:%M:%SZ"),
        one_line(reason)
    )
}

/// Says how many events the search index has read. An index that is not there has read none.
fn indexed(reader: &Reader) -> u64 {
    let path = reader.dir().join("index");
    let index = Index::open(&path).ok().flatten();
    index.and_then(|index| index.next().ok()).unwrap_or_default()
}
