//! Streams `dataset/<name>`, `suite/<name>`, `cep/<name>` and `search/<name>`: frozen data,
//! prefixes and saved searches.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts;
use crate::event::BodyRef;
use crate::id::Digest;

/// A dataset was frozen with its sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitBuilt {
    /// Name, which also names the stream.
    pub name: String,
    /// What was asked for: sources or query, salt, dev fraction, near-duplicate rule, suites kept
    /// out. Enough to build it again.
    pub spec: Value,
    /// Manifest of row references (never copies).
    pub manifest: BodyRef,
    /// Identity: SHA-256 of the canonical manifest without event numbers.
    pub dataset: Digest,
    /// Rows to train on.
    pub train: u64,
    /// Rows held out for choices.
    pub dev: u64,
    /// Rows left out, by reason.
    pub excluded: Vec<Count>,
    /// Rows by stratum, over train and dev.
    pub strata: Vec<Count>,
    /// Licences of the rows, rolled up.
    pub licences: Vec<String>,
    /// What the leakage check of the kept rows found against each suite.
    pub leakage: Vec<Leakage>,
}

/// How many of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Of what.
    pub name: String,
    /// How many.
    pub n: u64,
}

/// What two sets of rows share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// Suite that was checked.
    pub suite: String,
    /// Its digest.
    pub digest: Digest,
    /// Cases in it.
    pub n: u64,
    /// Cases whose question stands among the kept rows of either side, whatever the template, or in
    /// their prompts.
    pub shared_questions: u64,
    /// Highest similarity of another kept question to a case's, 0 to 1.
    pub nearest: f64,
}

/// A suite was frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteBuilt {
    /// Name, which also names the stream.
    pub name: String,
    /// Track, which decides the scorer.
    pub track: String,
    /// What was asked for. Enough to build it again.
    pub spec: Value,
    /// Manifest: case ids with episode digests, golds, strata.
    pub manifest: BodyRef,
    /// Identity: SHA-256 of the canonical manifest without event numbers.
    pub suite: Digest,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// Cases.
    pub n: u64,
    /// Cases by stratum.
    pub strata: Vec<Count>,
    /// Share of golds that score as exact against themselves: 1.0, or the suite is refused.
    pub gold_against_gold: f64,
    /// Licences of the rows, rolled up.
    pub licences: Vec<String>,
}

/// A suite's answers were scored: one look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestLookedAt {
    /// Name of the suite.
    pub name: String,
    /// Its digest.
    pub suite: Digest,
    /// Deployment that was scored; none where somebody read the questions.
    pub deployment: Option<Digest>,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// Why: `eval`, `replay`, or `show: ` with the reason that was given.
    pub purpose: String,
}

/// Schema 1 always named a deployment, in the same form.
fn looked_of_1(facts: Value) -> Value {
    facts
}

/// A search was given a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSaved {
    /// Name, which also names the stream.
    pub name: String,
    /// Words, filters and order; null where the name was given up.
    pub search: Value,
}

/// A context engineering prefix was put forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CepProposed {
    /// Name, which also names the stream.
    pub name: String,
    /// Identity: SHA-256 of its text.
    pub cep: Digest,
    /// Its text.
    pub body: BodyRef,
    /// The prefix that it was made from.
    pub parent: Option<Digest>,
    /// Error types that it is meant to mend.
    pub targets: Vec<String>,
}

facts! {
    SplitBuilt = "split.built" / 1,
    SuiteBuilt = "suite.built" / 1,
    TestLookedAt = "test.looked_at" / 2 from [looked_of_1],
    SearchSaved = "search.saved" / 1,
    CepProposed = "cep.proposed" / 1,
}
