//! Builds reports from the record's projections.

use std::collections::BTreeMap;

use ledger::Digest;
use ledger::catalogue::{RunInputs, RunOutcome};
use serde_json::Value;

use super::{
    Arm, IntervalSpec, LossPoint, Report, ReportError, ReportInput, ScoredCase, SuiteFacts,
    TrainingFacts, build_report,
};
use crate::projection::{Run, RunStatus, State};

/// What a report is asked to hold.
#[derive(Clone, Debug, Default)]
pub struct ReportSpec {
    /// Name of the report.
    pub name: String,
    /// Name of the suite, or the start of its identity.
    pub suite: String,
    /// Evaluation runs, in the order of tables. None at all means the latest finished run of
    /// every label.
    pub runs: Vec<String>,
    /// How intervals are made.
    pub intervals: IntervalSpec,
}

/// Says why no report is made from the record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The record has no such suite.
    #[error("the record has no suite {0}")]
    NoSuite(String),
    /// The record has no such run.
    #[error("the record has no run {0}")]
    NoRun(String),
    /// The start of an id fits several runs.
    #[error("{0} is the start of several run ids: write more of it")]
    Ambiguous(String),
    /// The run did something else.
    #[error("run {run} is no evaluation but {work}")]
    NotAnEval {
        /// The run.
        run: String,
        /// What it did.
        work: String,
    },
    /// The run is not done.
    #[error("run {run} (arm {label}) is not finished but {status}")]
    Unfinished {
        /// The run.
        run: String,
        /// Its arm.
        label: String,
        /// How far it came.
        status: String,
    },
    /// The arms cannot be compared.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Builds the report that `spec` asks for.
///
/// # Errors
/// When the suite or a run is missing or not finished, or when the arms cannot be compared.
pub fn load(state: &State, spec: &ReportSpec) -> Result<Report, LoadError> {
    let missing = || LoadError::NoSuite(spec.suite.clone());
    let built = state.datasets.suite(&spec.suite).ok_or_else(missing)?;
    let suite = SuiteFacts {
        name: built.facts.name.clone(),
        track: built.facts.track.clone(),
        digest: built.facts.suite,
        scorer: built.facts.scorer,
        event: built.event,
        n: built.facts.n,
        strata: built.facts.strata.clone(),
    };
    let latest;
    let runs = if spec.runs.is_empty() {
        latest = latest_runs(state, &suite.digest);
        &latest
    } else {
        &spec.runs
    };
    let arms: Vec<Arm> = runs.iter().map(|run| arm(state, run)).collect::<Result<_, _>>()?;
    let training = training(state, &arms);
    Ok(build_report(ReportInput {
        name: spec.name.clone(),
        looks: state.datasets.looks(&suite.digest),
        suite,
        arms,
        training,
        intervals: spec.intervals.clone(),
    })?)
}

/// Lists the latest finished evaluation of each label over a suite, in the order in which the
/// labels first appeared.
pub fn latest_runs(state: &State, suite: &Digest) -> Vec<String> {
    let mut by_label: BTreeMap<&str, (u64, u64, &str)> = BTreeMap::new();
    for run in state.runs.runs.values() {
        let Some(RunInputs::Eval { suite: of, label, .. }) = &run.inputs else { continue };
        let (Some(started), Some(ended)) = (run.started, run.ended) else { continue };
        if of != suite || run.status != RunStatus::Finished {
            continue;
        }
        let entry = by_label.entry(label).or_insert((started, ended, &run.id));
        entry.0 = entry.0.min(started);
        if ended > entry.1 {
            (entry.1, entry.2) = (ended, &run.id);
        }
    }
    let mut latest: Vec<(u64, &str)> =
        by_label.into_values().map(|(first, _, id)| (first, id)).collect();
    latest.sort_unstable();
    latest.into_iter().map(|(_, id)| id.to_owned()).collect()
}

/// Finds a run by its id or the start of it.
pub(crate) fn find_run<'a>(state: &'a State, id: &str) -> Result<&'a Run, LoadError> {
    if let Some(run) = state.runs.get(id) {
        return Ok(run);
    }
    let mut fitting = state.runs.runs.values().filter(|run| run.id.starts_with(id));
    match (fitting.next(), fitting.next()) {
        (Some(run), None) if !id.is_empty() => Ok(run),
        (Some(_), Some(_)) => Err(LoadError::Ambiguous(id.to_owned())),
        _ => Err(LoadError::NoRun(id.to_owned())),
    }
}

fn arm(state: &State, id: &str) -> Result<Arm, LoadError> {
    let run = find_run(state, id)?;
    let Some(RunInputs::Eval {
        suite,
        scorer,
        deployment,
        deployment_id,
        label,
        flags,
        leaked_questions,
        ..
    }) = &run.inputs
    else {
        return Err(LoadError::NotAnEval { run: run.id.clone(), work: run.work.clone() });
    };
    if run.status != RunStatus::Finished {
        let status = format!("{:?}", run.status).to_lowercase();
        return Err(LoadError::Unfinished { run: run.id.clone(), label: label.clone(), status });
    }
    let cases = run.cases.iter().map(|case| ScoredCase {
        event: case.event,
        facts: case.facts.clone(),
        latency_ms: case.latency_ms,
    });
    Ok(Arm {
        label: label.clone(),
        run: run.id.clone(),
        suite: *suite,
        scorer: *scorer,
        deployment: deployment.clone(),
        deployment_id: *deployment_id,
        flags: flags.clone(),
        leaked_questions: *leaked_questions,
        cases: cases.collect(),
        tokens_per_second: run.measured.get("tokens_per_second").and_then(Value::as_f64),
    })
}

/// Collects the training runs behind the arms, each once.
fn training(state: &State, arms: &[Arm]) -> Vec<TrainingFacts> {
    let mut found: Vec<TrainingFacts> = Vec::new();
    for arm in arms {
        let Some(run) = state.runs.training_of(&arm.deployment.adapter) else { continue };
        let Some(RunOutcome::Train { adapter, checkpoint_step, .. }) = &run.outcome else {
            continue;
        };
        if found.iter().any(|known| known.run == run.id) {
            continue;
        }
        let losses = run.steps.iter().map(|step| LossPoint {
            step: step.facts.step,
            epoch: step.facts.epoch,
            loss: step.facts.loss,
        });
        let checkpoints = run.checkpoints.iter().filter_map(|saved| {
            let (step, epoch) = (saved.facts.step, saved.facts.epoch);
            Some(LossPoint { step, epoch, loss: saved.facts.dev_loss? })
        });
        found.push(TrainingFacts {
            run: run.id.clone(),
            adapter: *adapter,
            losses: losses.collect(),
            checkpoints: checkpoints.collect(),
            chosen_step: *checkpoint_step,
        });
    }
    found
}
