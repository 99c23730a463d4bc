//! `ledger status`.

use std::fmt::Write as _;

use ledger::Reader;
use queries::projection::{RunStatus, fold_all};
use queries::search::Index;
use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Show how the notebook stands: events, sources, runs, aliases.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(globals: &Globals, _args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let head = reader.head()?;
    let state = fold_all(&reader)?;
    let traces: u64 = state.datasets.sources.values().map(|source| source.traces).sum();
    let rejected: u64 = state.datasets.sources.values().map(|source| source.rejected).sum();
    let indexed = indexed(&reader)?;
    let with = |status| state.runs.runs.values().filter(|run| run.status == status).count();
    let finished = with(RunStatus::Finished);
    let runs = state.runs.runs.len();
    let document = json!({
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
    for (model, aliases) in &state.selection.models {
        for (alias, selected) in aliases {
            let loud = if selected.overridden.is_some() { "  OVERRIDDEN" } else { "" };
            let id = selected.deployment.short();
            let _ = writeln!(text, "{model}@{alias} = {id} since event {}{loud}", selected.since);
        }
    }
    Output::document(&document, text)
}

/// Says how many events the search index has read. An index that is not there has read none.
fn indexed(reader: &Reader) -> Result<u64, AppError> {
    let path = reader.dir().join("index");
    if !path.exists() {
        return Ok(0);
    }
    Ok(Index::open_or_rebuild(&path)?.next()?)
}
