//! What a report is built from: plain structs, so that one can be built without a record.

use ledger::Digest;
use ledger::catalogue::{CaseScored, Deployment};

use super::{IntervalSpec, SuiteFacts, TrainingFacts};

/// Everything that a report is built from.
#[derive(Clone, Debug)]
pub struct ReportInput {
    /// Name of the report.
    pub name: String,
    /// The suite.
    pub suite: SuiteFacts,
    /// Scorings of the suite so far.
    pub looks: u64,
    /// Arms, in the order of tables.
    pub arms: Vec<Arm>,
    /// Training runs behind them.
    pub training: Vec<TrainingFacts>,
    /// How intervals are made.
    pub intervals: IntervalSpec,
}

/// One scored arm, as its run recorded it.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Name in tables.
    pub label: String,
    /// Run that scored it.
    pub run: String,
    /// Suite that the run answered.
    pub suite: Digest,
    /// Scorer that the run used.
    pub scorer: Digest,
    /// What was scored.
    pub deployment: Deployment,
    /// Its identity.
    pub deployment_id: Digest,
    /// Marks.
    pub flags: Vec<String>,
    /// Cases whose question stands in the adapter's training side.
    pub leaked_questions: u64,
    /// Cases, in any order.
    pub cases: Vec<ScoredCase>,
    /// Answer tokens per second that the run measured.
    pub tokens_per_second: Option<f64>,
}

/// A scored case with its event number and what was measured.
#[derive(Clone, Debug)]
pub struct ScoredCase {
    /// Event that scored it.
    pub event: u64,
    /// Its facts.
    pub facts: CaseScored,
    /// Measured latency in milliseconds.
    pub latency_ms: Option<f64>,
}
