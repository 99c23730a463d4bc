//! Runs: what was asked for, how far it came, and what came out.

use std::collections::BTreeMap;

use ledger::catalogue::{
    CaseScored, CheckpointSaved, RunClaimed, RunFailed, RunFinished, RunInputs, RunOutcome,
    RunReplayed, RunRequested, RunStarted, StepCompleted,
};
use ledger::event::FactsError;
use ledger::{Digest, Envelope, Facts};
use serde::Serialize;
use serde_json::Value;

use super::Projection;

/// All runs, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Runs {
    /// The runs.
    pub runs: BTreeMap<String, Run>,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It was asked for.
    #[default]
    Requested,
    /// A worker took it.
    Claimed,
    /// It began.
    Running,
    /// It is done.
    Finished,
    /// It broke off.
    Failed,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// How far it came.
    pub status: RunStatus,
    /// Event that asked for it.
    pub requested: Option<u64>,
    /// `train`, `eval` or `replay`.
    pub work: String,
    /// Everything that was asked.
    pub request: Value,
    /// Event with which it began.
    pub started: Option<u64>,
    /// What it works on.
    pub inputs: Option<RunInputs>,
    /// Its seed, in decimal.
    pub seed: Option<String>,
    /// Steps of training, in order.
    pub steps: Vec<StepEntry>,
    /// Checkpoints of training, in order.
    pub checkpoints: Vec<CheckpointEntry>,
    /// Scored cases, in the order of events.
    pub cases: Vec<CaseEntry>,
    /// Event with which it ended.
    pub ended: Option<u64>,
    /// What came out.
    pub outcome: Option<RunOutcome>,
    /// What was measured over the whole run.
    pub measured: Value,
    /// Why it broke off.
    pub reason: Option<String>,
    /// Replays of it.
    pub replays: Vec<ReplayEntry>,
}

/// A step with its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepEntry {
    /// Event.
    pub event: u64,
    /// Its facts.
    pub facts: StepCompleted,
}

/// A checkpoint with its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointEntry {
    /// Event.
    pub event: u64,
    /// Its facts.
    pub facts: CheckpointSaved,
}

/// A scored case with its event and latency.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseEntry {
    /// Event.
    pub event: u64,
    /// Its facts.
    pub facts: CaseScored,
    /// `latency_ms` of its measurements.
    pub latency_ms: Option<f64>,
}

/// A replay with its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayEntry {
    /// Event.
    pub event: u64,
    /// Its facts.
    pub facts: RunReplayed,
}

impl Runs {
    /// Finds a run.
    pub fn get(&self, id: &str) -> Option<&Run> {
        self.runs.get(id)
    }

    /// Lists the runs whose id starts with `prefix`.
    pub fn matching<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.values().filter(move |run| run.id.starts_with(prefix))
    }

    /// Finds the run that trained an adapter: the first one, where a repetition gave the same.
    pub fn training_of(&self, adapter: &str) -> Option<&Run> {
        let mut runs: Vec<&Run> =
            self.runs.values().filter(|run| run.adapter().is_some_and(|a| a == adapter)).collect();
        runs.sort_by_key(|run| run.ended);
        runs.first().copied()
    }

    fn of(&mut self, event: &Envelope) -> &mut Run {
        // A run's events stand in its own stream, whatever their facts repeat.
        let id = event.stream.strip_prefix("run/").or(event.run.as_deref()).unwrap_or_default();
        self.named(id)
    }

    fn named(&mut self, id: &str) -> &mut Run {
        self.runs
            .entry(id.to_owned())
            .or_insert_with(|| Run { id: id.to_owned(), ..Run::default() })
    }
}

impl Run {
    /// Returns the id of the adapter that the run trained.
    pub fn adapter(&self) -> Option<String> {
        match &self.outcome {
            Some(RunOutcome::Train { adapter, .. }) => Some(adapter.to_string()),
            _ => None,
        }
    }

    /// Returns the suite that the run scores.
    pub fn suite(&self) -> Option<Digest> {
        match &self.inputs {
            Some(RunInputs::Eval { suite, .. }) => Some(*suite),
            _ => None,
        }
    }
}

impl Projection for Runs {
    const NAME: &'static str = "runs";

    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        match event.kind.as_str() {
            RunRequested::KIND => {
                let facts: RunRequested = event.facts()?;
                let run = self.named(&facts.run);
                (run.requested, run.status) = (Some(event.seq), RunStatus::Requested);
                (run.work, run.request) = (facts.work, facts.request);
            }
            RunClaimed::KIND => {
                let facts: RunClaimed = event.facts()?;
                self.named(&facts.run).status = RunStatus::Claimed;
            }
            RunStarted::KIND => {
                let facts: RunStarted = event.facts()?;
                let run = self.named(&facts.run);
                if run.work.is_empty() {
                    run.work = work_of(&facts.inputs).to_owned();
                }
                (run.started, run.status) = (Some(event.seq), RunStatus::Running);
                (run.inputs, run.seed) = (Some(facts.inputs), Some(facts.seed));
            }
            StepCompleted::KIND => {
                let facts = event.facts()?;
                self.of(event).steps.push(StepEntry { event: event.seq, facts });
            }
            CheckpointSaved::KIND => {
                let facts = event.facts()?;
                self.of(event).checkpoints.push(CheckpointEntry { event: event.seq, facts });
            }
            CaseScored::KIND => {
                let facts = event.facts()?;
                let latency_ms = event.measured.get("latency_ms").and_then(Value::as_f64);
                self.of(event).cases.push(CaseEntry { event: event.seq, facts, latency_ms });
            }
            RunFinished::KIND => {
                let facts: RunFinished = event.facts()?;
                let run = self.named(&facts.run);
                (run.ended, run.status) = (Some(event.seq), RunStatus::Finished);
                (run.outcome, run.reason) = (Some(facts.outcome), None);
                run.measured = event.measured.clone();
            }
            RunFailed::KIND => {
                let facts: RunFailed = event.facts()?;
                let run = self.named(&facts.run);
                (run.ended, run.status) = (Some(event.seq), RunStatus::Failed);
                run.reason = Some(facts.reason);
            }
            RunReplayed::KIND => {
                let facts: RunReplayed = event.facts()?;
                let entry = ReplayEntry { event: event.seq, facts };
                self.named(&entry.facts.run.clone()).replays.push(entry);
            }
            _ => {}
        }
        Ok(())
    }
}

const fn work_of(inputs: &RunInputs) -> &'static str {
    match inputs {
        RunInputs::Train { .. } => "train",
        RunInputs::Eval { .. } => "eval",
    }
}
