//! The form of a report. Its facts are stored as canonical JSON, hashed apart from what was
//! measured.

use ledger::catalogue::{Count, Deployment, Reading};
use ledger::{BodyRef, Digest};
use serde::{Deserialize, Serialize};

use crate::stats::Interval;

/// Version of the form of [`ReportFacts`].
pub const REPORT_SCHEMA: u32 = 1;

/// The stratum that holds every case.
pub const ALL: &str = "all";

/// A comparison of arms over one suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What the same events always give.
    pub facts: ReportFacts,
    /// What was measured on the way.
    pub measured: Vec<ArmMeasured>,
}

/// What a report says, without measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportFacts {
    /// Version of this form.
    pub schema: u32,
    /// Name of the report.
    pub name: String,
    /// What was asked of every arm.
    pub suite: SuiteFacts,
    /// How often the suite's answers had been scored when the report was made.
    pub looks: u64,
    /// How the intervals were made.
    pub intervals: IntervalSpec,
    /// Arms, in the order asked for.
    pub arms: Vec<ArmFacts>,
    /// Every pair of arms.
    pub comparisons: Vec<Comparison>,
    /// Training runs behind the arms.
    pub training: Vec<TrainingFacts>,
}

/// The suite that a report is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteFacts {
    /// Its name.
    pub name: String,
    /// Its track.
    pub track: String,
    /// Its identity.
    pub digest: Digest,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// Event that built it.
    pub event: u64,
    /// Cases.
    pub n: u64,
    /// Cases by stratum.
    pub strata: Vec<Count>,
}

/// How intervals were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalSpec {
    /// Confidence of every interval in the tables.
    pub confidence: f64,
    /// Bootstrap resamples.
    pub resamples: u32,
    /// Seed of the bootstrap, in decimal.
    pub seed: String,
}

impl Default for IntervalSpec {
    fn default() -> Self {
        Self { confidence: 0.95, resamples: 10_000, seed: "0".to_owned() }
    }
}

/// One arm's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmFacts {
    /// Name in tables.
    pub label: String,
    /// Run that scored it.
    pub run: String,
    /// What was scored.
    pub deployment: Deployment,
    /// Its identity.
    pub deployment_id: Digest,
    /// Factors that a recorded arm does not tell.
    pub unknown: Vec<String>,
    /// Marks such as `cep-shift`, `recorded`, `leak`.
    pub flags: Vec<String>,
    /// Cases whose question stands in the adapter's training side.
    pub leaked_questions: u64,
    /// Figures by stratum and reading.
    pub groups: Vec<Group>,
    /// Issue tags of the strict reading, most frequent first.
    pub issues: Vec<Count>,
    /// Why answers ended.
    pub ended: Vec<Count>,
    /// Tokens of all prompts, where every case tells.
    pub prompt_tokens: Option<u64>,
    /// Tokens of all answers, where every case tells.
    pub answer_tokens: Option<u64>,
    /// Case by case, in the suite's order.
    pub cases: Vec<CaseOutcome>,
}

/// Which text counts as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadingKind {
    /// The whole trimmed answer.
    Strict,
    /// The first call or value found in it.
    Lenient,
}

impl ReadingKind {
    /// Both readings, strict first.
    pub const BOTH: [Self; 2] = [Self::Strict, Self::Lenient];

    /// Returns the reading's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lenient => "lenient",
        }
    }
}

/// How one case came out in one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseOutcome {
    /// Case id.
    pub case: String,
    /// Event that scored it.
    pub event: u64,
    /// Its stratum.
    pub stratum: String,
    /// Tool that the gold calls.
    pub tool: String,
    /// Strict reading.
    pub strict: Reading,
    /// Lenient reading.
    pub lenient: Reading,
    /// Issue tags of the strict reading.
    pub issues: Vec<String>,
    /// The answer's text.
    pub answer: Option<BodyRef>,
}

impl CaseOutcome {
    /// Returns the outcome in one reading.
    pub const fn reading(&self, kind: ReadingKind) -> Reading {
        match kind {
            ReadingKind::Strict => self.strict,
            ReadingKind::Lenient => self.lenient,
        }
    }
}

/// Figures of one arm in one stratum and reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Stratum, or `all`.
    pub stratum: String,
    /// Reading.
    pub reading: ReadingKind,
    /// Cases.
    pub n: u64,
    /// Answers that could be read.
    pub valid: Share,
    /// Answers with the right tool.
    pub name: Share,
    /// Answers with exact arguments (or an exact value).
    pub exact: Share,
    /// Precision, recall and F1 over the leaves of all cases together.
    pub micro: Prf,
    /// Their means over cases.
    pub r#macro: Prf,
}

/// `k` of `n` with Wilson's interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Cases that have it.
    pub k: u64,
    /// Cases asked.
    pub n: u64,
    /// Their ratio; none for no cases.
    pub rate: Option<f64>,
    /// Interval of the ratio.
    pub interval: Option<Interval>,
}

/// A figure with its bootstrap interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure; none where there is nothing to compute it from.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// Precision, recall and F1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prf {
    /// Share of answered leaves that the gold has.
    pub precision: Estimate,
    /// Share of gold leaves that were answered.
    pub recall: Estimate,
    /// Their harmonic mean.
    pub f1: Estimate,
}

/// Two arms on the same cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Label of the first arm.
    pub first: String,
    /// Label of the second arm.
    pub second: String,
    /// Figures by stratum and reading.
    pub groups: Vec<PairedGroup>,
    /// Cases that one arm has exact and the other has not, in any reading.
    pub discordant: Vec<Discordant>,
}

/// A paired comparison of exact answers in one stratum and reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedGroup {
    /// Stratum, or `all`.
    pub stratum: String,
    /// Reading.
    pub reading: ReadingKind,
    /// Cases.
    pub n: u64,
    /// Exact in both.
    pub both: u64,
    /// Exact in the first only.
    pub first_only: u64,
    /// Exact in the second only.
    pub second_only: u64,
    /// Exact in neither.
    pub neither: u64,
    /// Exact two-sided McNemar p-value.
    pub p_two_sided: f64,
    /// Share exact in the first less that in the second, with its bootstrap interval.
    pub exact_difference: Estimate,
    /// Tango's score interval of the same difference.
    pub exact_score_interval: Option<Interval>,
    /// Micro F1 of the first less that of the second, with its bootstrap interval.
    pub f1_difference: Estimate,
}

/// A case that two arms answered differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discordant {
    /// Case id.
    pub case: String,
    /// Its stratum.
    pub stratum: String,
    /// Tool that the gold calls.
    pub tool: String,
    /// The first arm's answer.
    pub first: Side,
    /// The second arm's answer.
    pub second: Side,
}

/// One arm's side of a discordant case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Exact in the strict reading.
    pub strict: bool,
    /// Exact in the lenient reading.
    pub lenient: bool,
    /// Issue tags.
    pub issues: Vec<String>,
    /// Event that scored it.
    pub event: u64,
}

/// How an adapter was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingFacts {
    /// Run that trained it.
    pub run: String,
    /// Adapter id.
    pub adapter: Digest,
    /// Loss after each step.
    pub losses: Vec<LossPoint>,
    /// Loss on the dev side at each checkpoint.
    pub checkpoints: Vec<LossPoint>,
    /// Step of the checkpoint that was chosen.
    pub chosen_step: u64,
}

/// A loss at a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Step from 1.
    pub step: u64,
    /// Epoch from 1.
    pub epoch: u64,
    /// Mean loss over supervised tokens (nats).
    pub loss: f64,
}

/// What was measured of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmMeasured {
    /// Name in tables.
    pub label: String,
    /// Cases with a measured latency.
    pub n: u64,
    /// Median time in milliseconds from the start of a case's batch to the end of its answer.
    pub latency_ms_p50: Option<f64>,
    /// 95th percentile of it.
    pub latency_ms_p95: Option<f64>,
    /// Answer tokens per second over the run.
    pub tokens_per_second: Option<f64>,
}

impl ReportFacts {
    /// Finds an arm by its label.
    pub fn arm(&self, label: &str) -> Option<&ArmFacts> {
        self.arms.iter().find(|arm| arm.label == label)
    }

    /// Returns `all` and the suite's strata, in the order of tables.
    pub fn strata(&self) -> Vec<&str> {
        std::iter::once(ALL).chain(self.suite.strata.iter().map(|s| s.name.as_str())).collect()
    }

    /// Encodes the facts as they are stored and hashed.
    ///
    /// # Errors
    /// When a figure has no JSON form, which no report that was built here has.
    pub fn canonical(&self) -> Result<Vec<u8>, serde_json::Error> {
        ledger::id::canonical_json(self)
    }
}

impl Report {
    /// Encodes the measurements as they are stored and hashed, apart from the facts.
    ///
    /// # Errors
    /// When a figure has no JSON form.
    pub fn canonical_measured(&self) -> Result<Vec<u8>, serde_json::Error> {
        ledger::id::canonical_json(&self.measured)
    }
}

impl ArmFacts {
    /// Finds the figures of a stratum and reading.
    pub fn group(&self, stratum: &str, reading: ReadingKind) -> Option<&Group> {
        self.groups.iter().find(|group| group.stratum == stratum && group.reading == reading)
    }
}

/// Lists the factors of a deployment that are unknown.
pub(crate) fn unknown_factors(deployment: &Deployment) -> Vec<String> {
    let Deployment { base, adapter, template, cep, decoding } = deployment;
    [
        ("base", base),
        ("adapter", adapter),
        ("template", template),
        ("cep", cep),
        ("decoding", &decoding.method),
    ]
    .into_iter()
    .filter(|(_, factor)| factor.as_str() == "unknown")
    .map(|(name, _)| name.to_owned())
    .collect()
}
