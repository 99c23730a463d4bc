//! Frozen test suites: cases with all their golds, and an identity.

use std::collections::{BTreeMap, BTreeSet};

use ledger::Digest;
use ledger::catalogue::Count;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::episode::{Call, Episode, Gold, Tool, Turn};
use crate::gold::write_wrapper;
use crate::manifest::digest_of;
use crate::score::{Expected, score, scorer_digest, values_equal};

mod domain;
mod select;
mod strata;

use select::Chosen;
pub use select::{Kind, Rows, Select, Selected, Stratum, describe};
pub use strata::{
    CLARIFICATION, COMPLEX, CONTEXT_DEPENDENT, IRRELEVANCE, MODERATE, SEQUENTIAL, SIMPLE,
};

/// Version of the form of [`SuiteManifest`].
pub const SUITE_SCHEMA: u32 = 1;

/// Stratum of cases whose question wants one call, as far as any source knows.
pub const SINGLE_CALL: &str = "single-call";
/// Stratum of cases whose question wants more calls than the scored gold keeps.
pub const TRUNCATED: &str = "truncated";
/// Stratum of cases of which several calls are scored (track `calls`).
pub const SEVERAL_CALLS: &str = "several-calls";
/// Stratum of cases for which no call is right (track `calls`).
pub const NO_CALL: &str = "no-call";

/// The strata by the calls that are wanted.
const STRATA: [&str; 4] = [SINGLE_CALL, SEVERAL_CALLS, NO_CALL, TRUNCATED];

/// Tracks that have a scorer.
const TRACKS: [&str; 3] = ["toolcall", "structured", "calls"];

/// What a suite is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteSpec {
    /// Name.
    pub name: String,
    /// Track, which decides the scorer: `toolcall` (the first gold call), `calls` (all of them) or
    /// `structured`.
    pub track: String,
    /// Source whose rows are the questions.
    pub questions: String,
    /// Sources with the golds of the same prompts.
    pub golds: Vec<String>,
    /// Sources that know more calls for the same queries.
    pub wider: Vec<String>,
    /// Further sources whose rows are questions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_questions: Vec<String>,
    /// Which of the rows are questions; all of them, in their order, where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Each look at the suite must be allowed and is counted: it is kept for the last word.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sealed: bool,
}

impl SuiteSpec {
    /// Returns the sources whose rows are the questions.
    pub fn sources(&self) -> Vec<&str> {
        let more = self.more_questions.iter().map(String::as_str);
        std::iter::once(self.questions.as_str()).chain(more).collect()
    }
}

/// Skips a flag that is not set, so that what was written before it existed keeps its bytes.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
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
    /// What was looked at, found and taken, where the questions were selected. No part of the
    /// identity: rows that are not taken change no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<Selected>,
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
    /// Stratum by the calls that are wanted, or that of the selection.
    pub stratum: String,
    /// Tool that the gold calls; empty where it calls none.
    pub tool: String,
    /// Marks such as `gold.truncated`, sorted.
    pub flags: Vec<String>,
    /// Tools on offer, where the questions were selected: prompts can be rendered with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
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
    /// A question has a gold of a kind that the track cannot score.
    #[error(
        "suite {name}: track {track} cannot score the question of event {seq}: it is one of the \
         rows that {reason}; leave them out, or select rows by kind"
    )]
    Unscorable {
        /// Name of the suite.
        name: String,
        /// Event of the question.
        seq: u64,
        /// Track of the suite.
        track: String,
        /// What is wrong with its gold.
        reason: &'static str,
    },
    /// No row is a question of the kind.
    #[error("suite {name}: no row of {sources} makes a {kind} case: {why}")]
    NothingFound {
        /// Name of the suite.
        name: String,
        /// Kind of its questions.
        kind: &'static str,
        /// Sources that were looked at.
        sources: String,
        /// How many rows were looked at, and what they lacked.
        why: String,
    },
    /// There are fewer questions than were asked for.
    #[error(
        "suite {name}: strata are short: {short}; ask for fewer, add rows, or allow short strata"
    )]
    Short {
        /// Name of the suite.
        name: String,
        /// The strata, with found and asked.
        short: String,
    },
    /// The spec asks for 0 questions.
    #[error("suite {name}: 0 of {found} questions found are asked for: ask for some")]
    NothingAsked {
        /// Name of the suite.
        name: String,
        /// Questions that were found.
        found: u64,
    },
    /// A stratum that is asked for does not exist.
    #[error("suite {name}: no stratum {stratum:?} (known: {known})")]
    Stratum {
        /// Name of the suite.
        name: String,
        /// The stratum.
        stratum: String,
        /// Those that exist.
        known: String,
    },
    /// Datasets to keep out were named, and what they ask was not given.
    #[error("suite {name}: the questions to keep out of {datasets} are not given: fix the caller")]
    KeepOut {
        /// Name of the suite.
        name: String,
        /// The datasets.
        datasets: String,
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
    #[error("suite {name}: no scorer for track {track:?} (known: toolcall, structured, calls)")]
    Track {
        /// Name of the suite.
        name: String,
        /// The track.
        track: String,
    },
}

impl SuiteManifest {
    /// Returns the identity: the digest of everything but event numbers, episode digests (which
    /// depend on where a file lay) and the account of the selection.
    pub fn identity(&self) -> Digest {
        let mut plain = Self { selected: None, ..self.clone() };
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

    /// Returns whether each look at the suite must be allowed and counted.
    pub fn is_sealed(&self) -> bool {
        self.spec.sealed
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
    /// Rows are matched by prompt. Of several answers to one prompt the last counts. On the track
    /// `calls`, calls that a provider decoded are written as wrappers, one a line.
    pub fn recorded_answers(&self, rows: &[(u64, Episode)]) -> Vec<Option<Recorded>> {
        let by_prompt: BTreeMap<Digest, (u64, String)> = rows
            .iter()
            .filter_map(|(seq, row)| {
                let text = self.recorded_text(row)?;
                Some((prompt_digest(row.prompt_turns()), (*seq, text)))
            })
            .collect();
        let find = |case: &Case| {
            let (seq, text) = by_prompt.get(&prompt_digest(&case.turns))?;
            Some(Recorded { seq: *seq, text: text.clone() })
        };
        self.cases.iter().map(find).collect()
    }

    fn recorded_text(&self, row: &Episode) -> Option<String> {
        let answer = row.answer.as_ref()?;
        if self.track() == "calls" && !answer.calls.is_empty() {
            return Some(answer.calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n"));
        }
        answer.text.clone()
    }
}

/// Freezes a suite.
///
/// `questions` define the cases, in order, unless the spec selects among them. `golds` are rows
/// where the same prompt has its gold; a question's own gold serves where no row has one. `wider`
/// are rows that know more calls for the same query: the full list is kept, while what the prompt
/// asks for is scored.
///
/// # Errors
/// When there is no case, a gold is missing, contradicted or unscorable, two cases are the same, or
/// a selection finds too little.
pub fn build_suite(
    spec: &SuiteSpec,
    questions: &[(u64, Episode)],
    golds: &[(u64, Episode)],
    wider: &[(u64, Episode)],
) -> Result<SuiteManifest, SuiteError> {
    if let Some(select) = spec.select.as_ref().filter(|select| !select.keep_out.is_empty()) {
        let datasets = select.keep_out.join(", ");
        return Err(SuiteError::KeepOut { name: spec.name.clone(), datasets });
    }
    build_from(spec, &Rows { questions, golds, wider, keep_out: &BTreeSet::new() })
}

/// Freezes a suite, keeping questions out.
///
/// # Errors
/// As [`build_suite`].
pub fn build_from(spec: &SuiteSpec, rows: &Rows<'_>) -> Result<SuiteManifest, SuiteError> {
    check_track(spec)?;
    if rows.questions.is_empty() {
        let questions = spec.sources().join(", ");
        return Err(SuiteError::Empty { name: spec.name.clone(), questions });
    }
    let sources = Sources::new(spec, rows.golds, rows.wider)?;
    let mut suite = SuiteManifest {
        schema: SUITE_SCHEMA,
        spec: spec.clone(),
        scorer: scorer_digest(&spec.track),
        cases: Vec::new(),
        licences: Vec::new(),
        attributions: Vec::new(),
        selected: None,
    };
    match &spec.select {
        None => {
            let questions = || rows.questions.iter().map(|(seq, row)| (*seq, row));
            for (seq, question) in questions() {
                suite.cases.push(sources.case(seq, question)?);
            }
            suite.name_licences(questions().map(|(_, row)| row));
        }
        Some(select) => {
            let chosen = sources.choose(select, rows)?;
            select::check(spec, select, &chosen.selected)?;
            for (seq, question, stratum) in &chosen.rows {
                let case = sources.case(*seq, question)?;
                let tools = question.tools.clone();
                suite.cases.push(Case { stratum: stratum.clone(), tools, ..case });
            }
            suite.name_licences(chosen.rows.iter().map(|(_, row, _)| *row));
            suite.selected = Some(chosen.selected);
        }
    }
    suite.check_cases()?;
    Ok(suite)
}

/// Says what a selection would find and take, without refusing what is short or empty.
///
/// # Errors
/// When the spec selects nothing, names an unknown track or stratum, or golds contradict.
pub fn survey(spec: &SuiteSpec, rows: &Rows<'_>) -> Result<Selected, SuiteError> {
    check_track(spec)?;
    let Some(select) = &spec.select else {
        return Ok(Selected { looked_at: rows.questions.len() as u64, ..Selected::default() });
    };
    let sources = Sources::new(spec, rows.golds, rows.wider)?;
    Ok(sources.choose(select, rows)?.selected)
}

fn check_track(spec: &SuiteSpec) -> Result<(), SuiteError> {
    if TRACKS.contains(&spec.track.as_str()) {
        return Ok(());
    }
    Err(SuiteError::Track { name: spec.name.clone(), track: spec.track.clone() })
}

impl SuiteManifest {
    fn name_licences<'a>(&mut self, rows: impl Iterator<Item = &'a Episode>) {
        let mut licences: BTreeSet<String> = BTreeSet::new();
        let mut attributions: BTreeSet<String> = BTreeSet::new();
        for row in rows {
            licences.insert(row.licence.clone());
            attributions.insert(row.attribution.clone());
        }
        self.licences = licences.into_iter().collect();
        self.attributions = attributions.into_iter().filter(|name| !name.is_empty()).collect();
    }

    /// Refuses two cases that are the same, and golds that are not right by themselves.
    fn check_cases(&self) -> Result<(), SuiteError> {
        let name = || self.spec.name.clone();
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for case in &self.cases {
            if let Some(first) = seen.insert(&case.id, case.seq) {
                let (id, second) = (case.id.clone(), case.seq);
                return Err(SuiteError::Duplicate { name: name(), id, first, second });
            }
        }
        let wrong = self.wrong_golds();
        if wrong.is_empty() {
            return Ok(());
        }
        let rate = self.gold_against_gold();
        Err(SuiteError::GoldAgainstGold { name: name(), rate, cases: wrong })
    }
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

    /// Finds the gold of a question, and the row that it stands in.
    fn gold_of<'q>(
        &'q self,
        seq: u64,
        question: &'q Episode,
    ) -> Result<(u64, &'q Gold), SuiteError> {
        let own = (seq, &question.gold);
        let Some(&known) = self.golds.get(&prompt_digest(question.prompt_turns())) else {
            return Ok(own);
        };
        if question.gold != Gold::None {
            check_same(self.spec, known, own)?;
        }
        Ok(known)
    }

    fn choose<'q>(&self, select: &Select, rows: &Rows<'q>) -> Result<Chosen<'q>, SuiteError> {
        select::choose((self.spec, select), rows, |seq, row| {
            let (_, gold) = self.gold_of(seq, row)?;
            let stratum = match strata::of_row(select.kind, row, gold) {
                Ok(stratum) => stratum,
                Err(reason) => return Ok(Err(reason)),
            };
            if expected_of(&self.spec.track, gold).is_none() {
                return Ok(Err(unscorable(&self.spec.track, gold)));
            }
            match stratum {
                Some(stratum) => Ok(Ok(stratum.to_owned())),
                None => Ok(Ok(self.case(seq, row)?.stratum)),
            }
        })
    }

    fn no_gold(&self, seq: u64, gold: &Gold) -> SuiteError {
        let (name, track) = (self.spec.name.clone(), self.spec.track.clone());
        if track != "calls" || *gold == Gold::None {
            return SuiteError::NoGold { name, seq, track };
        }
        let reason = unscorable(&track, gold);
        SuiteError::Unscorable { name, seq, track, reason }
    }

    fn case(&self, seq: u64, question: &Episode) -> Result<Case, SuiteError> {
        let turns = question.prompt_turns();
        let (gold_seq, gold) = self.gold_of(seq, question)?;
        let expected =
            expected_of(&self.spec.track, gold).ok_or_else(|| self.no_gold(seq, gold))?;
        let known = known_calls(gold, &expected);
        let mut flags = question.flags.clone();
        let wider = self.wider.get(&question.group()).copied();
        let wider = wider.filter(|(_, calls)| is_longer_list(&known, calls));
        // Another row's calls are no answer where none of the tools on offer fits.
        let wider = wider.filter(|_| expected != Expected::NoCall);
        let gold_all = wider.map_or(known, |(_, calls)| calls.to_vec());
        // Also told where the scored call is the first of several that the row itself knows.
        let is_truncated = gold_all.len() > expected.calls_scored();
        if is_truncated && !question.has_flag("gold.truncated") {
            flags.push("gold.truncated".to_owned());
            flags.sort();
        }
        Ok(Case {
            id: prompt_digest(turns).short(),
            episode: question.digest(),
            seq,
            gold_seq,
            wider_seq: wider.map(|(seq, _)| seq),
            turns: turns.to_vec(),
            query: question.query.clone(),
            tool: expected.tool().unwrap_or_default().to_owned(),
            stratum: match expected.calls_scored() {
                _ if is_truncated => TRUNCATED,
                0 => NO_CALL,
                1 => SINGLE_CALL,
                _ => SEVERAL_CALLS,
            }
            .to_owned(),
            expected,
            gold_all,
            flags,
            tools: Vec::new(),
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
        ("calls", Gold::Calls { calls }) if !calls.is_empty() => {
            Some(Expected::Calls { calls: calls.clone(), options: None, in_order: true })
        }
        ("calls", Gold::AnyOf { calls, options, in_order })
            if !calls.is_empty() && calls.len() == options.len() =>
        {
            let options = Some(options.clone());
            Some(Expected::Calls { calls: calls.clone(), options, in_order: *in_order })
        }
        ("calls", Gold::NoCall) => Some(Expected::NoCall),
        _ => None,
    }
}

/// Says why a gold cannot be scored on a track; continues "rows that".
fn unscorable(track: &str, gold: &Gold) -> &'static str {
    match (track, gold) {
        (_, Gold::None) => "have no gold",
        (_, Gold::Text { .. }) => "have a text as gold, which says nothing about calls",
        (_, Gold::Json { .. }) => "have a JSON value as gold, which is scored on track structured",
        (_, Gold::NoCall) => "have no call as gold, which is scored on track calls",
        ("calls", Gold::Calls { .. }) => {
            "have a gold of no calls without saying that none is right"
        }
        ("calls", Gold::AnyOf { .. }) => "have a gold whose options do not belong to its calls",
        (_, Gold::Calls { .. }) => "have calls as gold, which are scored on track calls",
        (_, Gold::AnyOf { .. }) => "have options as gold, which are scored on track calls",
    }
}

/// Returns the calls that the gold itself knows. A structured gold names one tool.
fn known_calls(gold: &Gold, expected: &Expected) -> Vec<Call> {
    match (gold, expected) {
        (Gold::Calls { calls } | Gold::AnyOf { calls, .. }, _) => calls.clone(),
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
