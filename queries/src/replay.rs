//! Replay: what must be done again, what it needs, and whether it came out the same.

use std::collections::BTreeSet;

use datasets::SplitManifest;
use datasets::manifest::Stored as _;
use ledger::catalogue::{
    CaseScored, CheckpointSaved, DatasetImported, Divergence, RunFinished, RunInputs, RunOutcome,
    RunStarted, SplitBuilt, StepCompleted, SuiteBuilt, TraceIngested, TraceRejected, TraceRevised,
};
use ledger::{BodyRef, Digest, Envelope, Facts, ReadError, Reader};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::projection::{FoldError, Run, RunStatus, State, fold_all};
use crate::report::{LoadError, find_run};

/// Says why a run cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The record could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The run cannot be found.
    #[error(transparent)]
    Run(#[from] LoadError),
    /// The run never began or is not done, so that there is nothing to compare with.
    #[error("run {run} is not finished but {status}: there is nothing to compare with")]
    Unfinished {
        /// The run.
        run: String,
        /// How far it came.
        status: String,
    },
}

/// How closely a stage can be reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tier {
    /// Pure stages: the same everywhere.
    L1,
    /// Training and inference on a CPU: the same bits on the same instruction set.
    L2,
    /// Remote models: from their recorded answers.
    L4,
}

impl Tier {
    /// Returns the tier's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L4 => "L4",
        }
    }
}

/// Everything that a replay of a run does again.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run.
    pub run: String,
    /// The highest tier among its stages.
    pub tier: Tier,
    /// Stages in the order in which they are done.
    pub stages: Vec<Stage>,
    /// Bodies that must be whole before anything runs, each once.
    pub needed: Vec<Needed>,
}

/// One stage of a plan.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is done.
    pub work: Work,
    /// How closely it can be reproduced.
    pub tier: Tier,
    /// Events to compare with, in their order.
    pub recorded: Vec<Envelope>,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Reads a source's rows again.
    Import {
        /// The source.
        source: String,
    },
    /// Builds a dataset again.
    Split {
        /// Its name.
        name: String,
    },
    /// Builds a suite again.
    Suite {
        /// Its name.
        name: String,
    },
    /// Trains again.
    Train {
        /// The run.
        run: String,
    },
    /// Answers and scores again.
    Eval {
        /// The run.
        run: String,
    },
}

/// A body that a replay needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// What it is.
    pub what: String,
    /// Event that names it.
    pub event: u64,
    /// The body.
    pub body: BodyRef,
}

/// What came out of doing something again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Kind of the event that would have been appended.
    pub kind: String,
    /// Schema of its facts.
    pub schema: u32,
    /// Its facts.
    pub facts: Value,
}

impl Replayed {
    /// Makes what is compared of the facts that came out.
    ///
    /// # Errors
    /// When the facts have no JSON form.
    pub fn new<F: Facts>(facts: &F) -> Result<Self, serde_json::Error> {
        let (kind, schema) = (F::KIND.to_owned(), F::SCHEMA);
        Ok(Self { kind, schema, facts: serde_json::to_value(facts)? })
    }
}

/// Plans the replay of the run that `run` names, by its id or the start of it: the run itself, and
/// before it the imports, the split or suite and the training that it rests on.
///
/// # Errors
/// When the run cannot be found or is not done, or the record cannot be read.
pub fn plan(reader: &Reader, run: &str) -> Result<Plan, PlanError> {
    plan_in(&fold_all(reader)?, reader, run)
}

/// Does what [`plan`] does with a state that is already folded.
///
/// # Errors
/// As [`plan`].
pub fn plan_in(state: &State, reader: &Reader, run: &str) -> Result<Plan, PlanError> {
    let run = find_run(state, run)?;
    if run.status != RunStatus::Finished {
        let status = format!("{:?}", run.status).to_lowercase();
        return Err(PlanError::Unfinished { run: run.id.clone(), status });
    }
    let roots = Roots::of(state, reader, run);
    let mut stages = roots.empty_stages();
    let mut needed: Vec<Needed> = Vec::new();
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    for event in reader.events(0)? {
        let event = event?;
        let Some(place) = stages.iter().position(|stage| roots.belongs(&event, &stage.work)) else {
            continue;
        };
        for (what, body) in bodies(&event) {
            if seen.insert(body.digest) {
                needed.push(Needed { what: what.to_owned(), event: event.seq, body });
            }
        }
        if let Some(stage) = stages.get_mut(place) {
            stage.recorded.push(event);
        }
    }
    let tier = stages.iter().map(|stage| stage.tier).max().unwrap_or(Tier::L1);
    Ok(Plan { run: run.id.clone(), tier, stages, needed })
}

/// What a run rests on.
#[derive(Default)]
struct Roots {
    /// Rows of the split and the suite, whose sources are imported again.
    sources: BTreeSet<String>,
    /// Event of the split.
    split: Option<(u64, String)>,
    /// Event of the suite.
    suite: Option<(u64, String)>,
    /// The training run.
    training: Option<String>,
    /// The evaluation, and whether its answers were recorded elsewhere.
    eval: Option<(String, bool)>,
}

impl Roots {
    fn of(state: &State, reader: &Reader, run: &Run) -> Self {
        let mut roots = Self::default();
        let mut training = None;
        match &run.inputs {
            Some(RunInputs::Eval { name, suite_event, deployment, .. }) => {
                let recorded = deployment.decoding.method == "unknown";
                roots.suite = Some((*suite_event, name.clone()));
                roots.eval = Some((run.id.clone(), recorded));
                training = state.runs.training_of(&deployment.adapter);
            }
            Some(RunInputs::Train { .. }) => training = Some(run),
            None => {}
        }
        if let Some(Run { id, inputs: Some(RunInputs::Train { split, .. }), .. }) = training {
            roots.training = Some(id.clone());
            let built = state.datasets.splits.iter().find(|built| built.event == *split);
            roots.split = built.map(|built| (*split, built.facts.name.clone()));
        }
        roots.add_sources(state, reader);
        roots
    }

    /// Finds the sources of the rows that the split and the suite refer to.
    fn add_sources(&mut self, state: &State, reader: &Reader) {
        let mut rows: BTreeSet<u64> = BTreeSet::new();
        let split = self.split.as_ref().and_then(|(event, _)| {
            let built = state.datasets.splits.iter().find(|built| built.event == *event)?;
            let bytes = reader.blobs().get(&built.facts.manifest).ok()?;
            SplitManifest::from_stored(&bytes).ok()
        });
        let suite = self.suite.as_ref().and_then(|(event, _)| {
            let built = state.datasets.suites.iter().find(|built| built.event == *event)?;
            let bytes = reader.blobs().get(&built.facts.manifest).ok()?;
            datasets::SuiteManifest::from_stored(&bytes).ok()
        });
        if let Some(split) = split {
            rows.extend(split.rows.iter().map(|row| row.seq));
            rows.extend(split.excluded.iter().map(|row| row.seq));
        }
        for case in suite.into_iter().flat_map(|suite| suite.cases) {
            rows.extend(
                [Some(case.seq), Some(case.gold_seq), case.wider_seq].into_iter().flatten(),
            );
        }
        for (name, source) in &state.datasets.sources {
            // A source's events may interleave with another's; the rows themselves decide.
            if rows.range(source.first..=source.last).next().is_some() {
                self.sources.insert(name.clone());
            }
        }
    }

    fn empty_stages(&self) -> Vec<Stage> {
        let stage = |work, tier| Stage { work, tier, recorded: Vec::new() };
        let mut stages: Vec<Stage> = self
            .sources
            .iter()
            .map(|source| stage(Work::Import { source: source.clone() }, Tier::L1))
            .collect();
        if let Some((_, name)) = &self.suite {
            stages.push(stage(Work::Suite { name: name.clone() }, Tier::L1));
        }
        if let Some((_, name)) = &self.split {
            stages.push(stage(Work::Split { name: name.clone() }, Tier::L1));
        }
        if let Some(run) = &self.training {
            stages.push(stage(Work::Train { run: run.clone() }, Tier::L2));
        }
        if let Some((run, recorded)) = &self.eval {
            let tier = if *recorded { Tier::L4 } else { Tier::L2 };
            stages.push(stage(Work::Eval { run: run.clone() }, tier));
        }
        stages
    }

    fn belongs(&self, event: &Envelope, work: &Work) -> bool {
        let kind = event.kind.as_str();
        let in_run = |run: &str| event.stream.strip_prefix("run/") == Some(run);
        match work {
            Work::Import { source } => {
                event.stream.strip_prefix("trace/") == Some(source) && is_import(kind)
            }
            Work::Split { .. } => self.split.as_ref().is_some_and(|(seq, _)| *seq == event.seq),
            Work::Suite { .. } => self.suite.as_ref().is_some_and(|(seq, _)| *seq == event.seq),
            Work::Train { run } => in_run(run) && is_training(kind),
            Work::Eval { run } => in_run(run) && is_evaluation(kind),
        }
    }
}

fn is_import(kind: &str) -> bool {
    [TraceIngested::KIND, TraceRevised::KIND, TraceRejected::KIND, DatasetImported::KIND]
        .contains(&kind)
}

fn is_training(kind: &str) -> bool {
    [RunStarted::KIND, StepCompleted::KIND, CheckpointSaved::KIND, RunFinished::KIND]
        .contains(&kind)
}

fn is_evaluation(kind: &str) -> bool {
    [RunStarted::KIND, CaseScored::KIND, RunFinished::KIND].contains(&kind)
}

/// Lists the bodies that an event names, with what they are.
fn bodies(event: &Envelope) -> Vec<(&'static str, BodyRef)> {
    let mut found = Vec::new();
    match event.kind.as_str() {
        TraceIngested::KIND => {
            found.extend(event.facts::<TraceIngested>().ok().map(|f| ("trace", f.body)));
        }
        TraceRevised::KIND => {
            found.extend(event.facts::<TraceRevised>().ok().map(|f| ("trace", f.trace.body)));
        }
        SplitBuilt::KIND => {
            found.extend(event.facts::<SplitBuilt>().ok().map(|f| ("split manifest", f.manifest)));
        }
        SuiteBuilt::KIND => {
            found.extend(event.facts::<SuiteBuilt>().ok().map(|f| ("suite manifest", f.manifest)));
        }
        CheckpointSaved::KIND => {
            found.extend(event.facts::<CheckpointSaved>().ok().map(|f| ("checkpoint", f.weights)));
        }
        CaseScored::KIND => {
            let answer = event.facts::<CaseScored>().ok().and_then(|facts| facts.answer);
            found.extend(answer.map(|body| ("answer", body)));
        }
        RunFinished::KIND => {
            if let Ok(RunFinished { outcome: RunOutcome::Train { config, weights, .. }, .. }) =
                event.facts()
            {
                found.extend([("adapter configuration", config), ("adapter weights", weights)]);
            }
        }
        _ => {}
    }
    found
}

/// Compares what is in the record with what came out, bit for bit, and answers the first fact that
/// differs. Order counts; `seq`, time and measurements do not.
pub fn compare(recorded: &[Envelope], replayed: &[Replayed]) -> Option<Divergence> {
    for (place, event) in recorded.iter().enumerate() {
        let Some(again) = replayed.get(place) else {
            return Some(divergence(event, "", (Value::String(event.kind.clone()), Value::Null)));
        };
        if event.kind != again.kind {
            let kinds = (Value::from(event.kind.as_str()), Value::from(again.kind.as_str()));
            return Some(divergence(event, "kind", kinds));
        }
        if event.schema != again.schema {
            let schemas = (Value::from(event.schema), Value::from(again.schema));
            return Some(divergence(event, "schema", schemas));
        }
        if let Some((path, recorded, replayed)) = first_difference("", &event.facts, &again.facts) {
            return Some(divergence(event, &path, (recorded, replayed)));
        }
    }
    // Something came out for which the record has nothing.
    let (extra, last) = (replayed.get(recorded.len())?, recorded.last());
    Some(Divergence {
        seq: last.map_or(0, |event| event.seq),
        kind: extra.kind.clone(),
        path: String::new(),
        recorded: Value::Null,
        replayed: extra.facts.clone(),
    })
}

fn divergence(event: &Envelope, path: &str, (recorded, replayed): (Value, Value)) -> Divergence {
    let (seq, kind) = (event.seq, event.kind.clone());
    Divergence { seq, kind, path: path.to_owned(), recorded, replayed }
}

/// Finds the first place, in the order of sorted keys, at which two values differ.
fn first_difference(path: &str, left: &Value, right: &Value) -> Option<(String, Value, Value)> {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => keys(a, b).into_iter().find_map(|key| {
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => first_difference(&path, a, b),
                (a, b) => Some((path, or_null(a), or_null(b))),
            }
        }),
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|place| {
            let path = format!("{path}[{place}]");
            match (a.get(place), b.get(place)) {
                (Some(a), Some(b)) => first_difference(&path, a, b),
                (a, b) => Some((path, or_null(a), or_null(b))),
            }
        }),
        _ if same(left, right) => None,
        _ => Some((path.to_owned(), left.clone(), right.clone())),
    }
}

fn keys<'a>(a: &'a Map<String, Value>, b: &'a Map<String, Value>) -> BTreeSet<&'a str> {
    a.keys().chain(b.keys()).map(String::as_str).collect()
}

fn or_null(value: Option<&Value>) -> Value {
    value.cloned().unwrap_or(Value::Null)
}

/// Says whether two scalars are the same. Zero and minus zero are equal numbers but other bits.
fn same(left: &Value, right: &Value) -> bool {
    let sign = |value: &Value| value.as_f64().map(f64::to_bits);
    left == right && (!left.is_f64() || sign(left) == sign(right))
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
