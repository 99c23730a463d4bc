//! Splits: which rows are trained on, which are held out for choices, and which are left out.
//!
//! A row's side is a salted hash of its session, where it has one, else of its question, so that it
//! never changes as data grows and no conversation stands on both sides. What is left out depends
//! on suites and on earlier rows only.

use std::collections::{BTreeMap, BTreeSet};

use ledger::Digest;
use ledger::catalogue::Count;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::episode::{Episode, Gold};
use crate::leak::{LeakReport, Questions, leakage, shown};
use crate::manifest::digest_of;
use crate::near::{Index, Order, Ranks, Shingles};
use crate::suite::{Case, SuiteManifest, count};
use crate::template::normalise_query;

pub use crate::near::NearDuplicate;

/// Format of rows whose ids are those of a trace and of an observation in it.
const LANGFUSE: &str = "langfuse-export";

/// Version of the form of [`SplitManifest`].
pub const SPLIT_SCHEMA: u32 = 1;

/// How rows are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// Salt of the hash that decides the sides.
    pub salt: String,
    /// Share of sessions and questions held out, from 0 to 1.
    pub dev_fraction: f64,
    /// When two questions count as near duplicates.
    pub near_duplicate: NearDuplicate,
    /// Also leaves out rows whose question nearly repeats that of an earlier row on the same side.
    /// Absent where false, so that specs from before keep their identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop_near: bool,
}

impl Default for SplitSpec {
    /// The demo's split. The salt has no meaning: of `ledger-0`, `ledger-1`, ... it is the first
    /// that holds out exactly 30 of the 250 toolcall rows. No score was looked at to choose it.
    fn default() -> Self {
        Self {
            salt: "ledger-7".to_owned(),
            dev_fraction: 0.12,
            near_duplicate: NearDuplicate::default(),
            drop_near: false,
        }
    }
}

/// Side of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Trained on.
    Train,
    /// Held out for choices.
    Dev,
}

/// A frozen dataset: references to rows, never copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Version of this form.
    pub schema: u32,
    /// How the rows were split.
    pub spec: SplitSpec,
    /// Suites that were kept out.
    pub suites: Vec<KeptOut>,
    /// Rows on either side, in ledger order.
    pub rows: Vec<RowRef>,
    /// Rows left out, in ledger order.
    pub excluded: Vec<Excluded>,
    /// Licences of the rows on either side, sorted.
    pub licences: Vec<String>,
    /// Whom the licences ask to name, sorted.
    pub attributions: Vec<String>,
}

/// A suite that was kept out, and what it shares with the rows that were kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptOut {
    /// Name of the suite.
    pub name: String,
    /// Its identity.
    pub suite: Digest,
    /// Its cases.
    pub n: u64,
    /// What the check found. A shared question is an error, and so is one in the context of a row,
    /// so that none is here.
    pub leak: LeakReport,
}

/// Reference to a row on one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowRef {
    /// Event of the row.
    pub seq: u64,
    /// Digest of the stored episode.
    pub episode: Digest,
    /// Digest of its content, wherever it came from.
    pub content: Digest,
    /// Digest of what keeps rows together: the session, else the normalised query.
    pub group: Digest,
    /// Gold calls and arguments of the first, as in `calls=1 args=2`.
    pub stratum: String,
    /// Side.
    pub side: Side,
    /// Event of the feedback whose correction takes the place of the gold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<u64>,
}

/// Reference to a row that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    /// Event of the row.
    pub seq: u64,
    /// Digest of the stored episode.
    pub episode: Digest,
    /// Digest of its content.
    pub content: Digest,
    /// Why, in one line.
    pub reason: String,
    /// Event of the earlier row or case that it nearly repeats, or of the case that it shows.
    pub near_duplicate_of: Option<u64>,
}

/// Says why a split cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// There are no rows.
    #[error("no rows to split")]
    NoRows,
    /// The training side is empty.
    #[error("no row is left to train on: {dev} held out, {excluded} left out{reasons}")]
    NoTrainRows {
        /// Rows held out.
        dev: usize,
        /// Rows left out.
        excluded: usize,
        /// Reasons with counts.
        reasons: String,
    },
    /// A question or session stands on both sides, or a question in a suite and among the rows.
    #[error("event {seq} stands on both sides: its question or session is also {other}")]
    Overlap {
        /// Event of the row.
        seq: u64,
        /// Where else.
        other: String,
    },
    /// A row shows the question of a suite beside its own.
    #[error("the prompt of event {seq} shows the question of case {case} of suite {suite}")]
    Shows {
        /// Event of the row.
        seq: u64,
        /// The case.
        case: String,
        /// Name of its suite.
        suite: String,
    },
    /// The specification makes no sense.
    #[error("{field} is {value}: it must lie {range}")]
    Spec {
        /// Field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

impl SplitManifest {
    /// Returns the identity: the digest of everything but event numbers and episode digests (which
    /// depend on where a file lay).
    pub fn identity(&self) -> Digest {
        let nothing = Digest::from_bytes([0; 32]);
        let mut plain = self.clone();
        for row in &mut plain.rows {
            (row.seq, row.episode) = (0, nothing);
            row.correction = row.correction.map(|_| 0);
        }
        for row in &mut plain.excluded {
            (row.seq, row.episode) = (0, nothing);
            row.near_duplicate_of = row.near_duplicate_of.map(|_| 0);
        }
        for kept_out in &mut plain.suites {
            kept_out.leak.nearest.iter_mut().for_each(|pair| pair.seq = 0);
            kept_out.leak.in_context.iter_mut().for_each(|shared| shared.seq = 0);
        }
        digest_of(&plain)
    }

    /// Returns the rows of one side, in ledger order.
    pub fn side(&self, side: Side) -> impl Iterator<Item = &RowRef> {
        self.rows.iter().filter(move |row| row.side == side)
    }

    /// Counts rows of one side.
    pub fn n(&self, side: Side) -> u64 {
        self.side(side).count() as u64
    }

    /// Counts rows left out by reason, sorted.
    pub fn excluded_by_reason(&self) -> Vec<Count> {
        count(self.excluded.iter().map(|row| row.reason.as_str()))
    }

    /// Counts rows of both sides by stratum, sorted.
    pub fn strata(&self) -> Vec<Count> {
        count(self.rows.iter().map(|row| row.stratum.as_str()))
    }
}

/// Returns what keeps rows together: the session of a row, which is its source and a part of its id
/// there, else its normalised query.
///
/// Rows of one conversation have ids `<session>#<place>`. Those of a Langfuse export are
/// `<trace>/<observation>`, and a trace is a session. A row whose id names no session has none.
pub fn group_key(row: &Episode) -> String {
    match session(row) {
        // A query has no line ends, so that none is ever the key of a session.
        Some(session) => format!("session\n{}\n{session}", row.source.name),
        None => row.group(),
    }
}

fn session(row: &Episode) -> Option<&str> {
    let id = row.source.external_id.as_str();
    let trace = (row.source.format == LANGFUSE).then(|| id.split_once('/')).flatten();
    let (session, _) = trace.or_else(|| id.rsplit_once('#'))?;
    (!session.is_empty()).then_some(session)
}

/// Returns the side of a group (see [`group_key`]): a salted hash, whatever else there is.
pub fn side_of(spec: &SplitSpec, group: &str) -> Side {
    let hash =
        Sha256::new().chain_update(&spec.salt).chain_update([0]).chain_update(group).finalize();
    let first = hash.iter().take(8).fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
    // 2^64 as a float; the quotient lies from 0 to 1.
    if first as f64 / 18_446_744_073_709_551_616.0 < spec.dev_fraction {
        Side::Dev
    } else {
        Side::Train
    }
}

/// Freezes a split of `rows`, keeping out whatever stands in `suites`.
///
/// # Errors
/// When there are no rows, none is left to train on, or the two sides overlap.
pub fn build_split(
    spec: &SplitSpec,
    rows: &[(u64, Episode)],
    suites: &[SuiteManifest],
) -> Result<SplitManifest, SplitError> {
    check(spec)?;
    if rows.is_empty() {
        return Err(SplitError::NoRows);
    }
    let mut ordered: Vec<&(u64, Episode)> = rows.iter().collect();
    ordered.sort_by_key(|(seq, _)| *seq);
    let asked: Vec<Asked> = ordered.iter().map(|(_, row)| Asked::of(spec, row.group())).collect();
    let mut builder = Builder::new(spec, suites, &asked);
    ordered.iter().zip(&asked).for_each(|((seq, row), asked)| builder.add(*seq, row, asked));
    let kept_out = suites.iter().map(|suite| KeptOut {
        name: suite.name().to_owned(),
        suite: suite.identity(),
        n: suite.n(),
        leak: leakage(&builder.rows, suite),
    });
    let manifest = SplitManifest {
        schema: SPLIT_SCHEMA,
        spec: spec.clone(),
        suites: kept_out.collect(),
        rows: builder.kept,
        excluded: builder.excluded,
        licences: builder.licences.into_iter().collect(),
        attributions: builder.attributions.into_iter().filter(|name| !name.is_empty()).collect(),
    };
    verify(&manifest)?;
    Ok(manifest)
}

fn check(spec: &SplitSpec) -> Result<(), SplitError> {
    let wrong = |field, value, range| Err(SplitError::Spec { field, value, range });
    if !(0.0..1.0).contains(&spec.dev_fraction) {
        return wrong("dev_fraction", spec.dev_fraction, "from 0 to below 1");
    }
    let near = &spec.near_duplicate;
    if !(near.threshold > 0.0 && near.threshold <= 1.0) {
        return wrong("near_duplicate.threshold", near.threshold, "above 0, at most 1");
    }
    if !(1..=4096).contains(&near.permutations) {
        return wrong(
            "near_duplicate.permutations",
            f64::from(near.permutations),
            "from 1 to 4096",
        );
    }
    if near.shingle_words == 0 {
        return wrong("near_duplicate.shingle_words", 0.0, "from 1 up");
    }
    Ok(())
}

/// Refuses a manifest that breaks what a split promises, however it came about.
fn verify(manifest: &SplitManifest) -> Result<(), SplitError> {
    if manifest.n(Side::Train) == 0 {
        let reasons = manifest.excluded_by_reason();
        let reasons: Vec<String> = reasons.iter().map(|c| format!("{}: {}", c.name, c.n)).collect();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        return Err(SplitError::NoTrainRows {
            dev: manifest.rows.len(),
            excluded: manifest.excluded.len(),
            reasons,
        });
    }
    let mut sides: BTreeMap<Digest, Side> = BTreeMap::new();
    for row in &manifest.rows {
        if *sides.entry(row.group).or_insert(row.side) != row.side {
            return Err(SplitError::Overlap {
                seq: row.seq,
                other: "on the other side".to_owned(),
            });
        }
    }
    for kept_out in &manifest.suites {
        if let Some(shared) = kept_out.leak.shared_questions.first() {
            let other = format!("case {} of suite {}", shared.case, kept_out.name);
            return Err(SplitError::Overlap { seq: shared.seq, other });
        }
        if let Some(shown) = kept_out.leak.in_context.first() {
            return Err(SplitError::Shows {
                seq: shown.seq,
                case: shown.case.clone(),
                suite: kept_out.name.clone(),
            });
        }
    }
    Ok(())
}

/// A normalised query with its shingles.
struct Asked {
    query: String,
    shingles: Shingles,
}

impl Asked {
    fn of(spec: &SplitSpec, query: String) -> Self {
        let shingles = Shingles::of(&query, spec.near_duplicate.shingle_words);
        Self { query, shingles }
    }
}

struct Builder<'a> {
    spec: &'a SplitSpec,
    order: Order,
    /// Questions of suites, with the name of the suite.
    asked: BTreeMap<String, &'a str>,
    /// Shingles of the suites' questions: (name of the suite, event of the case).
    cases: Index<(&'a str, u64)>,
    /// The suites' questions, to be looked for in prompts.
    questions: Questions,
    /// For each of them, a suite and case that asks it.
    askers: BTreeMap<usize, (&'a str, u64)>,
    /// Shingles of the rows kept so far, on the training and on the dev side.
    seen: [Index<u64>; 2],
    contents: BTreeMap<Digest, u64>,
    kept: Vec<RowRef>,
    excluded: Vec<Excluded>,
    /// Rows kept so far, of both sides: a test question that choices are made on leaks as well.
    rows: Vec<(u64, &'a Episode)>,
    licences: BTreeSet<String>,
    attributions: BTreeSet<String>,
}

impl<'a> Builder<'a> {
    fn new(spec: &'a SplitSpec, suites: &'a [SuiteManifest], rows: &[Asked]) -> Self {
        let cases: Vec<(&str, &Case)> =
            suites.iter().flat_map(|s| s.cases.iter().map(|case| (s.name(), case))).collect();
        let known: Vec<Asked> =
            cases.iter().map(|(_, case)| Asked::of(spec, normalise_query(&case.query))).collect();
        let order = Order::of(known.iter().chain(rows).map(|asked| &asked.shingles));
        let questions = Questions::of(cases.iter().map(|(_, case)| case.query.as_str()));
        let index = || Index::new(spec.near_duplicate, &order);
        let seen = [index(), index()];
        let mut of_cases = Index::new(spec.near_duplicate, &order);
        let (mut askers, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (place, ((name, case), asked)) in cases.iter().zip(known).enumerate() {
            of_cases.insert((*name, case.seq), order.ranks(&asked.shingles));
            names.entry(asked.query).or_insert(*name);
            if let Some(which) = questions.which(place) {
                askers.entry(which).or_insert((*name, case.seq));
            }
        }
        Self {
            spec,
            order,
            asked: names,
            cases: of_cases,
            questions,
            askers,
            seen,
            contents: BTreeMap::new(),
            kept: Vec::new(),
            excluded: Vec::new(),
            rows: Vec::new(),
            licences: BTreeSet::new(),
            attributions: BTreeSet::new(),
        }
    }

    fn add(&mut self, seq: u64, row: &'a Episode, asked: &Asked) {
        let key = group_key(row);
        let side = side_of(self.spec, &key);
        let ranks = self.order.ranks(&asked.shingles);
        let content = row.content_digest();
        let episode = row.digest();
        let objection = self
            .objection(row, &asked.query, &ranks)
            .or_else(|| self.repetition(content, side, &ranks));
        if let Some((reason, near_duplicate_of)) = objection {
            self.excluded.push(Excluded { seq, episode, content, reason, near_duplicate_of });
            return;
        }
        self.contents.insert(content, seq);
        let [train, dev] = &mut self.seen;
        if side == Side::Train { train } else { dev }.insert(seq, ranks);
        self.rows.push((seq, row));
        self.licences.insert(row.licence.clone());
        self.attributions.insert(row.attribution.clone());
        let group = Digest::of(key.as_bytes());
        let stratum = stratum_of(row);
        self.kept.push(RowRef { seq, episode, content, group, stratum, side, correction: None });
    }

    /// Returns why a row is left out whatever the other rows are, and the case that it repeats.
    fn objection(
        &self,
        row: &Episode,
        query: &str,
        ranks: &Ranks,
    ) -> Option<(String, Option<u64>)> {
        if row.gold == Gold::None {
            return Some(("no gold".to_owned(), None));
        }
        if row.gold_text().is_empty() {
            return Some(("no words of an answer to train on".to_owned(), None));
        }
        if let Some(suite) = self.asked.get(query) {
            return Some((format!("in suite {suite}"), None));
        }
        if let Some(((suite, seq), _)) = self.cases.earliest(ranks) {
            return Some((format!("near duplicate of a case of suite {suite}"), Some(seq)));
        }
        let shown = shown(row, &self.questions);
        let (suite, seq) = shown.first().and_then(|which| self.askers.get(which))?;
        Some((format!("a case of suite {suite} stands in its prompt"), Some(*seq)))
    }

    /// Returns why a row is left out because of an earlier one, and which.
    fn repetition(
        &self,
        content: Digest,
        side: Side,
        ranks: &Ranks,
    ) -> Option<(String, Option<u64>)> {
        if let Some(&earlier) = self.contents.get(&content) {
            return Some(("repeats an earlier row".to_owned(), Some(earlier)));
        }
        let [train, dev] = &self.seen;
        let (own, other) = if side == Side::Train { (train, dev) } else { (dev, train) };
        if let Some((seq, _)) = other.earliest(ranks) {
            return Some(("near duplicate of a row on the other side".to_owned(), Some(seq)));
        }
        let (seq, _) = self.spec.drop_near.then(|| own.earliest(ranks))??;
        Some(("near duplicate of an earlier row".to_owned(), Some(seq)))
    }
}

/// Names the stratum of a row: its gold calls, and the arguments of the first.
fn stratum_of(row: &Episode) -> String {
    match &row.gold {
        Gold::Calls { calls } | Gold::AnyOf { calls, .. } => {
            let arguments = calls.first().map_or(0, |call| call.arguments.len());
            let several = if arguments >= 4 { "+" } else { "" };
            format!("calls={} args={}{several}", calls.len(), arguments.min(4))
        }
        Gold::Json { .. } => "json".to_owned(),
        Gold::Text { .. } => "text".to_owned(),
        Gold::NoCall => "no call".to_owned(),
        Gold::None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests;
