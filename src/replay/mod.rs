//! Replay: does a run again, from its imports on, and compares every fact.

mod import;
mod stages;

use ledger::catalogue::{Divergence, RunInputs, RunReplayed, RunStarted, SplitBuilt};
use ledger::{Digest, Envelope, Facts as _};
use queries::replay::{self, Plan, Replayed, Stage, Work};
use serde::Serialize;

use crate::build::{SplitWish, load_suite};
use crate::error::{AppError, Kind};
use crate::eval::find_cep;
use crate::hub::Base;
use crate::lab::{Lab, Place};

/// What should be replayed, and how much of it.
#[derive(Clone, Debug, Default)]
pub struct ReplayWish {
    /// The run, by id or the start of it.
    pub run: String,
    /// Recipe fields that are changed on purpose, as `seed=8`.
    pub changes: Vec<String>,
    /// Training steps that are made again; all where none is named.
    pub steps: Option<u64>,
    /// Cases that are answered again; all where none is named.
    pub cases: Option<usize>,
}

/// What came of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// What was done.
    pub work: Work,
    /// Tier.
    pub tier: String,
    /// Events compared.
    pub compared: u64,
    /// What was left out, if anything.
    pub scope: Option<String>,
}

/// What came of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Run.
    pub run: String,
    /// Highest tier among its stages.
    pub tier: String,
    /// Bodies that were checked before anything ran.
    pub bodies: u64,
    /// Stage by stage.
    pub stages: Vec<StageReport>,
    /// Events compared.
    pub compared: u64,
    /// Where it first differs, if it does.
    pub divergence: Option<Divergence>,
    /// What was changed on purpose.
    pub changed: Vec<String>,
    /// Event that records the replay.
    pub event: u64,
}

/// What a stage gave: the events to compare with, what came out, and what was left out.
pub(crate) struct Redone {
    recorded: Vec<Envelope>,
    replayed: Vec<Replayed>,
    scope: Option<String>,
}

/// Replays a run, with `base` as its model.
///
/// Every body that is needed is checked first. Stages are compared in their order; the first
/// divergence ends the replay.
///
/// # Errors
/// When the run cannot be found or is not done, a body is missing or damaged, or the record
/// refuses the event.
pub fn replay(
    lab: &Lab<'_>,
    base: Option<&Base>,
    wish: &ReplayWish,
) -> Result<ReplayReport, AppError> {
    let plan: Plan = replay::plan(&lab.notebook.reader(), &wish.run)?;
    for needed in &plan.needed {
        lab.notebook.blobs().check(&needed.body.digest)?;
    }
    check_prefixes(lab, &plan)?;
    let trains = plan.stages.iter().any(|stage| matches!(stage.work, Work::Train { .. }));
    if !wish.changes.is_empty() && !trains {
        return Err(AppError::said(
            Kind::Usage,
            format!("--set changes a recipe, and {} rests on no training", plan.run),
        ));
    }
    let mut report = ReplayReport {
        run: plan.run.clone(),
        tier: plan.tier.name().to_owned(),
        bodies: plan.needed.len() as u64,
        stages: Vec::new(),
        compared: 0,
        divergence: None,
        changed: wish.changes.clone(),
        event: 0,
    };
    for stage in &plan.stages {
        let redone = redo(lab, base, wish, stage)?;
        let divergence = replay::compare(&redone.recorded, &redone.replayed);
        let compared = redone.recorded.len() as u64;
        report.compared += compared;
        report.stages.push(StageReport {
            work: stage.work.clone(),
            tier: stage.tier.name().to_owned(),
            compared,
            scope: redone.scope,
        });
        if divergence.is_some() {
            report.divergence = divergence;
            break;
        }
    }
    report.event = record(lab, &report)?;
    Ok(report)
}

/// Reads the prefixes and kept-out suites that stages refer to, so that damage shows before
/// anything runs.
fn check_prefixes(lab: &Lab<'_>, plan: &Plan) -> Result<(), AppError> {
    let view = lab.view();
    for event in plan.stages.iter().flat_map(|stage| &stage.recorded) {
        if event.kind == RunStarted::KIND {
            let factor = match event.facts::<RunStarted>()?.inputs {
                RunInputs::Train { cep, .. } => cep,
                RunInputs::Eval { deployment, .. } => deployment.cep,
            };
            find_cep(&view, &factor)?;
        }
        if event.kind == SplitBuilt::KIND {
            let wish: SplitWish = serde_json::from_value(event.facts::<SplitBuilt>()?.spec)?;
            for suite in wish.keep_out.iter().chain(&wish.check) {
                load_suite(&view, suite)?;
            }
        }
    }
    Ok(())
}

fn redo(
    lab: &Lab<'_>,
    base: Option<&Base>,
    wish: &ReplayWish,
    stage: &Stage,
) -> Result<Redone, AppError> {
    match &stage.work {
        Work::Import { source } => import::redo(source, &stage.recorded, lab.notebook.blobs()),
        Work::Suite { .. } => stages::suite(lab, &stage.recorded),
        Work::Split { .. } => stages::split(lab, &stage.recorded),
        Work::Train { .. } => stages::train(lab, base, wish, &stage.recorded),
        Work::Eval { .. } => stages::eval(lab, base, wish, &stage.recorded),
    }
}

fn record(lab: &Lab<'_>, report: &ReplayReport) -> Result<u64, AppError> {
    let facts = RunReplayed {
        run: report.run.clone(),
        tier: report.tier.clone(),
        compared: report.compared,
        divergence: report.divergence.clone(),
        changed: report.changed.clone(),
        scope: report.stages.iter().filter_map(|stage| stage.scope.clone()).collect(),
    };
    let run = &report.run;
    let head = lab.notebook.reader().head()?.size;
    let id = format!("{run}/replay/{head}/{}", Digest::of_json(&facts)?.short());
    lab.record(&format!("run/{run}"), &id, &facts, Place::run(run))
}
