//! `ledger replay`.

use std::fmt::Write as _;

use queries::replay::Work;

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::hub;
use crate::replay::{ReplayReport, ReplayWish, replay};

/// Do a run again, from its imports on, and compare every fact bit for bit. Says the tier it used
/// and names the first divergence with both values.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run, by id or the start of it
    run: String,
    /// Base model: a known name or a GGUF file
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Change a field of the recipe on purpose, as seed=8, to see what it would diverge from
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    changes: Vec<String>,
    /// Make only the first steps of training again
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Answer only the first cases again
    #[arg(long)]
    cases: Option<usize>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let wish =
        ReplayWish { run: args.run, changes: args.changes, steps: args.steps, cases: args.cases };
    let report = globals.with_lab(|lab| {
        let plan = queries::replay::plan(&lab.notebook.reader(), &wish.run)?;
        // Damaged bodies are named before a model is loaded.
        for needed in &plan.needed {
            lab.notebook.blobs().check(&needed.body.digest)?;
        }
        let runs = |work: &Work| matches!(work, Work::Train { .. } | Work::Eval { .. });
        let needs_model = plan.stages.iter().any(|stage| runs(&stage.work))
            && plan.tier != queries::replay::Tier::L4;
        let base = if needs_model { Some(hub::load(lab, &args.model)?) } else { None };
        replay(lab, base.as_ref(), &wish)
    })?;
    let failure = report.divergence.as_ref().map(|divergence| {
        AppError::said(
            Kind::Diverged,
            format!(
                "event {} ({}) came out otherwise at {:?}: {} in the record, {} now",
                divergence.seq,
                divergence.kind,
                divergence.path,
                divergence.recorded,
                divergence.replayed
            ),
        )
    });
    Ok(Output::document(&report, text(&report))?.failing(failure))
}

/// Says what a replay did, for people.
pub(super) fn text(report: &ReplayReport) -> String {
    let mut text = format!(
        "replay of {} ({}): {} bodies whole, {} events compared fact by fact",
        report.run, report.tier, report.bodies, report.compared
    );
    for stage in &report.stages {
        let what = match &stage.work {
            Work::Import { source } => format!("import {source}"),
            Work::Split { name } => format!("split {name}"),
            Work::Suite { name } => format!("suite {name}"),
            Work::Train { run } | Work::Eval { run } => run.clone(),
        };
        let _ = write!(text, "\n  {} {what}: {} events", stage.tier, stage.compared);
        if let Some(scope) = &stage.scope {
            let _ = write!(text, " ({scope})");
        }
    }
    for change in &report.changed {
        let _ = write!(text, "\n  changed on purpose: {change}");
    }
    let end = if report.divergence.is_none() { "all equal" } else { "DIVERGED" };
    let _ = write!(text, "\n{end} (event {})", report.event);
    text
}
