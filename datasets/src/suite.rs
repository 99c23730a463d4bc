//! Frozen test suites: cases with all their golds, and an identity.

use std::collections::{BTreeMap, BTreeSet};

use ledger::Digest;
use ledger::catalogue::Count;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::episode::{Call, Episode, Gold, Turn};
use crate::manifest::digest_of;
use crate::score::{Expected, score, scorer_digest, values_equal};

/// Version of the form of [`SuiteManifest`].
pub const SUITE_SCHEMA: u32 = 1;

/// Stratum of cases whose question wants one call, as far as any source knows.
pub const SINGLE_CALL: &str = "single-call";
/// Stratum of cases whose question wants more calls than the scored gold keeps.
pub const TRUNCATED: &str = "truncated";

/// What a suite is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteSpec {
    /// Name.
    pub name: String,
    /// Track, which decides the scorer: `toolcall` or `structured`.
    pub track: String,
    /// Source whose rows are the questions.
    pub questions: String,
    /// Sources with the golds of the same prompts.
    pub golds: Vec<String>,
    /// Sources that know more calls for the same queries.
    pub wider: Vec<String>,
}

/// A frozen suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteManifest {
    /// Version of this form.
    pub schema: u32,
    /// What was asked for.
    pub spec: SuiteSpec,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// The cases, in the order of the questions.
    pub cases: Vec<Case>,
    /// Licences of the rows, sorted.
    pub licences: Vec<String>,
    /// Whom the licences ask to name, sorted.
    pub attributions: Vec<String>,
}

/// One question with everything that is known about its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Short id, made from the prompt.
    pub id: String,
    /// Digest of the question's episode, as stored.
    pub episode: Digest,
    /// Event of the question's episode.
    pub seq: u64,
    /// Event of the row that the gold came from.
    pub gold_seq: u64,
    /// Event of the row that knows more calls, where one does.
    pub wider_seq: Option<u64>,
    /// What a model is shown.
    pub turns: Vec<Turn>,
    /// The request without its template.
    pub query: String,
    /// What is scored: the answer that the prompt asks for.
    pub expected: Expected,
    /// All calls that any source knows for this question.
    pub gold_all: Vec<Call>,
    /// `single-call` or `truncated`.
    pub stratum: String,
    /// Tool that the gold calls; empty where it calls none.
    pub tool: String,
    /// Marks such as `gold.truncated`, sorted.
    pub flags: Vec<String>,
}

/// What a recorded model answered to a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Event of the recorded answer.
    pub seq: u64,
    /// Its text.
    pub text: String,
}

/// Says why a suite cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// There are no questions.
    #[error("suite {name} has no cases: no row of {questions:?} is there")]
    Empty {
        /// Name of the suite.
        name: String,
        /// Source that was asked.
        questions: String,
    },
    /// A question has no gold that the track can score.
    #[error("suite {name}: the question of event {seq} has no gold of track {track}")]
    NoGold {
        /// Name of the suite.
        name: String,
        /// Event of the question.
        seq: u64,
        /// Track of the suite.
        track: String,
    },
    /// Two rows know different golds for one prompt.
    #[error("suite {name}: events {first} and {second} have different golds for one prompt")]
    GoldsDiffer {
        /// Name of the suite.
        name: String,
        /// One row.
        first: u64,
        /// Another.
        second: u64,
    },
    /// Two questions are the same.
    #[error("suite {name}: events {first} and {second} ask the same question (case {id})")]
    Duplicate {
        /// Name of the suite.
        name: String,
        /// The id that both would have.
        id: String,
        /// One question.
        first: u64,
        /// The other.
        second: u64,
    },
    /// A gold does not score as exact against itself.
    #[error("suite {name}: gold against gold gives {rate:.4}, not 1: cases {cases:?}")]
    GoldAgainstGold {
        /// Name of the suite.
        name: String,
        /// Share that is exact.
        rate: f64,
        /// Cases that are not.
        cases: Vec<String>,
    },
    /// The track has no scorer.
    #[error("suite {name}: no scorer for track {track:?} (known: toolcall, structured)")]
    Track {
        /// Name of the suite.
        name: String,
        /// The track.
        track: String,
    },
}

impl SuiteManifest {
    /// Returns the identity: the digest of everything but event numbers and episode digests (which
    /// depend on where a file lay).
    pub fn identity(&self) -> Digest {
        let mut plain = self.clone();
        for case in &mut plain.cases {
            case.episode = Digest::from_bytes([0; 32]);
            (case.seq, case.gold_seq) = (0, 0);
            case.wider_seq = case.wider_seq.map(|_| 0);
        }
        digest_of(&plain)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Returns the track.
    pub fn track(&self) -> &str {
        &self.spec.track
    }

    /// Returns the number of cases.
    pub fn n(&self) -> u64 {
        self.cases.len() as u64
    }

    /// Counts cases by stratum, sorted by name.
    pub fn strata(&self) -> Vec<Count> {
        count(self.cases.iter().map(|case| case.stratum.as_str()))
    }

    /// Returns the share of golds that score as exact against themselves.
    pub fn gold_against_gold(&self) -> f64 {
        let wrong = self.wrong_golds().len();
        if self.cases.is_empty() { 0.0 } else { 1.0 - wrong as f64 / self.cases.len() as f64 }
    }

    fn wrong_golds(&self) -> Vec<String> {
        let is_wrong = |case: &&Case| {
            let scored = score(self.track(), &case.expected, Some(&case.expected.text()));
            !(scored.strict.exact && scored.strict.name && scored.lenient.exact)
        };
        self.cases.iter().filter(is_wrong).map(|case| case.id.clone()).collect()
    }

    /// Finds what a recorded model answered, case by case. None where it gave no answer.
    ///
    /// Rows are matched by prompt. Of several answers to one prompt the last counts.
    pub fn recorded_answers(&self, rows: &[(u64, Episode)]) -> Vec<Option<Recorded>> {
        let by_prompt: BTreeMap<Digest, (u64, &str)> = rows
            .iter()
            .filter_map(|(seq, row)| {
                let text = row.answer.as_ref()?.text.as_deref()?;
                Some((prompt_digest(row.prompt_turns()), (*seq, text)))
            })
            .collect();
        let find = |case: &Case| {
            let &(seq, text) = by_prompt.get(&prompt_digest(&case.turns))?;
            Some(Recorded { seq, text: text.to_owned() })
        };
        self.cases.iter().map(find).collect()
    }
}

/// Freezes a suite.
///
/// `questions` define the cases, in order. `golds` are rows where the same prompt has its gold; a
/// question's own gold serves where no row has one. `wider` are rows that know more calls for the
/// same query: the full list is kept, while the call that the prompt asks for is scored.
///
/// # Errors
/// When there is no case, a gold is missing, contradicted or unscorable, or two cases are the same.
pub fn build_suite(
    spec: &SuiteSpec,
    questions: &[(u64, Episode)],
    golds: &[(u64, Episode)],
    wider: &[(u64, Episode)],
) -> Result<SuiteManifest, SuiteError> {
    let name = || spec.name.clone();
    if !matches!(spec.track.as_str(), "toolcall" | "structured") {
        return Err(SuiteError::Track { name: name(), track: spec.track.clone() });
    }
    if questions.is_empty() {
        return Err(SuiteError::Empty { name: name(), questions: spec.questions.clone() });
    }
    let sources = Sources::new(spec, golds, wider)?;
    let mut cases: Vec<Case> = Vec::with_capacity(questions.len());
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for (seq, question) in questions {
        let case = sources.case(*seq, question)?;
        if let Some(first) = seen.insert(case.id.clone(), *seq) {
            return Err(SuiteError::Duplicate { name: name(), id: case.id, first, second: *seq });
        }
        cases.push(case);
    }
    let mut licences: BTreeSet<String> = BTreeSet::new();
    let mut attributions: BTreeSet<String> = BTreeSet::new();
    for (_, row) in questions {
        licences.insert(row.licence.clone());
        attributions.insert(row.attribution.clone());
    }
    let suite = SuiteManifest {
        schema: SUITE_SCHEMA,
        spec: spec.clone(),
        scorer: scorer_digest(&spec.track),
        cases,
        licences: licences.into_iter().collect(),
        attributions: attributions.into_iter().filter(|name| !name.is_empty()).collect(),
    };
    let wrong = suite.wrong_golds();
    if !wrong.is_empty() {
        let rate = suite.gold_against_gold();
        return Err(SuiteError::GoldAgainstGold { name: name(), rate, cases: wrong });
    }
    Ok(suite)
}

/// The rows that golds are looked up in.
struct Sources<'a> {
    spec: &'a SuiteSpec,
    golds: BTreeMap<Digest, (u64, &'a Gold)>,
    wider: BTreeMap<String, (u64, &'a [Call])>,
}

impl<'a> Sources<'a> {
    fn new(
        spec: &'a SuiteSpec,
        golds: &'a [(u64, Episode)],
        wider: &'a [(u64, Episode)],
    ) -> Result<Self, SuiteError> {
        let mut by_prompt: BTreeMap<Digest, (u64, &Gold)> = BTreeMap::new();
        for (seq, row) in golds.iter().filter(|(_, row)| row.gold != Gold::None) {
            let (first, known) =
                *by_prompt.entry(prompt_digest(row.prompt_turns())).or_insert((*seq, &row.gold));
            check_same(spec, (first, known), (*seq, &row.gold))?;
        }
        let mut by_query: BTreeMap<String, (u64, &[Call])> = BTreeMap::new();
        for (seq, row) in wider {
            let calls = row.gold.calls();
            let (_, known) = by_query.entry(row.group()).or_insert((*seq, calls));
            if calls.len() > known.len() {
                by_query.insert(row.group(), (*seq, calls));
            }
        }
        Ok(Self { spec, golds: by_prompt, wider: by_query })
    }

    fn case(&self, seq: u64, question: &Episode) -> Result<Case, SuiteError> {
        let turns = question.prompt_turns();
        let prompt = prompt_digest(turns);
        let own = (seq, &question.gold);
        let (gold_seq, gold) = match self.golds.get(&prompt) {
            Some(&known) => {
                if question.gold != Gold::None {
                    check_same(self.spec, known, own)?;
                }
                known
            }
            None => own,
        };
        let no_gold = || SuiteError::NoGold {
            name: self.spec.name.clone(),
            seq,
            track: self.spec.track.clone(),
        };
        let expected = expected_of(&self.spec.track, gold).ok_or_else(no_gold)?;
        let known = known_calls(gold, &expected);
        let mut flags = question.flags.clone();
        let wider = self.wider.get(&question.group()).copied();
        let wider = wider.filter(|(_, calls)| is_longer_list(&known, calls));
        let gold_all = wider.map_or(known, |(_, calls)| calls.to_vec());
        // Also told where the scored call is the first of several that the row itself knows.
        let is_truncated = gold_all.len() > 1;
        if is_truncated && !question.has_flag("gold.truncated") {
            flags.push("gold.truncated".to_owned());
            flags.sort();
        }
        Ok(Case {
            id: prompt.short(),
            episode: question.digest(),
            seq,
            gold_seq,
            wider_seq: wider.map(|(seq, _)| seq),
            turns: turns.to_vec(),
            query: question.query.clone(),
            tool: expected.tool().unwrap_or_default().to_owned(),
            expected,
            gold_all,
            stratum: if is_truncated { TRUNCATED } else { SINGLE_CALL }.to_owned(),
            flags,
        })
    }
}

/// Returns the digest of what a model is shown.
pub fn prompt_digest(turns: &[Turn]) -> Digest {
    digest_of(turns)
}

fn check_same(
    spec: &SuiteSpec,
    first: (u64, &Gold),
    second: (u64, &Gold),
) -> Result<(), SuiteError> {
    if same_gold(first.1, second.1) {
        return Ok(());
    }
    Err(SuiteError::GoldsDiffer { name: spec.name.clone(), first: first.0, second: second.0 })
}

fn same_gold(left: &Gold, right: &Gold) -> bool {
    match (left, right) {
        (Gold::Json { value: left }, Gold::Json { value: right }) => values_equal(left, right),
        (Gold::Calls { calls: left }, Gold::Calls { calls: right }) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same_call(l, r))
        }
        (left, right) => left == right,
    }
}

fn same_call(left: &Call, right: &Call) -> bool {
    let value = |call: &Call| Value::Object(call.arguments.clone());
    left.name == right.name && values_equal(&value(left), &value(right))
}

fn expected_of(track: &str, gold: &Gold) -> Option<Expected> {
    match (track, gold) {
        ("toolcall", Gold::Calls { calls }) => {
            calls.first().map(|call| Expected::Call { call: call.clone() })
        }
        ("structured", Gold::Json { value }) => Some(Expected::Json { value: value.clone() }),
        _ => None,
    }
}

/// Returns the calls that the gold itself knows. A structured gold names one tool.
fn known_calls(gold: &Gold, expected: &Expected) -> Vec<Call> {
    match (gold, expected) {
        (Gold::Calls { calls }, _) => calls.clone(),
        (_, Expected::Json { value }) => {
            let name = value.get("tool_name").and_then(Value::as_str);
            let arguments: Option<&Map<String, Value>> =
                value.get("arguments").and_then(Value::as_object);
            match (name, arguments) {
                (Some(name), Some(arguments)) => {
                    vec![Call { name: name.to_owned(), arguments: arguments.clone() }]
                }
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// Returns whether `calls` knows more than `known`, and agrees with it on what both know.
fn is_longer_list(known: &[Call], calls: &[Call]) -> bool {
    calls.len() > known.len()
        && known.iter().all(|call| calls.iter().any(|other| same_call(call, other)))
}

/// Counts names, sorted.
pub(crate) fn count<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Count> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().map(|(name, n)| Count { name: name.to_owned(), n }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
