//! Turning what a search found into rows: traces with a gold or a correction, failed cases with
//! their gold.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use datasets::manifest::Stored as _;
use datasets::{Episode, Gold, SplitSpec, SuiteManifest, SuiteSpec};
use ledger::catalogue::{CaseScored, FeedbackRecorded, SuiteBuilt};
use ledger::{Digest, Facts as _};
use queries::search::{Index, Options, SavedSearch};

use super::DEV_OF;
use super::split::{SplitSource, SplitWish};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, body_ref};
use crate::rows::{Correction, Traces, View};

/// How often, and how long each time, another process is waited for that keeps the index up.
const WAITS: u32 = 50;
const WAIT: Duration = Duration::from_millis(100);

/// Name of the feedback that carries the answer that should have come.
pub const CORRECTION: &str = "correction";

/// Rows that a search gives.
#[derive(Default)]
pub struct QueryRows {
    /// Rows with a gold, by event.
    pub rows: Vec<(u64, Episode)>,
    /// Events that gave no row, with the reason.
    pub left_out: Vec<(u64, String)>,
    /// Corrections that were applied: row -> feedback event.
    pub corrections: BTreeMap<u64, u64>,
}

/// A search that was made, and what a dataset of its hits should be.
pub struct Searched {
    /// The wish, which names the body with the hits.
    pub wish: SplitWish,
    /// Events that were found.
    pub hits: Vec<u64>,
    /// The body with them, which must be stored before the dataset is built.
    pub bytes: Vec<u8>,
}

/// Turns a search into the wish for a dataset: its hits are frozen in a body that the wish names.
///
/// # Errors
/// When the search cannot be run or finds nothing.
pub fn wish_of_search(
    lab: &Lab<'_>,
    name: &str,
    search: &SavedSearch,
    (split, keep_out): (SplitSpec, Vec<String>),
) -> Result<Searched, AppError> {
    let reader = lab.notebook.reader();
    let mut index = Index::open_or_rebuild(&lab.notebook.dir().join("index"))?;
    let mut caught_up = index.catch_up(&reader)?;
    // Whoever keeps the index up commits about twice a second.
    for _ in 0..WAITS {
        if caught_up.next >= caught_up.head {
            break;
        }
        std::thread::sleep(WAIT);
        caught_up = index.catch_up(&reader)?;
    }
    if caught_up.next < caught_up.head {
        let behind = caught_up.head - caught_up.next;
        return Err(AppError::hinted(
            Kind::Busy,
            format!("the search index is {behind} events behind the log"),
            "another process is bringing it up: try again in a moment",
        ));
    }
    let options = Options { limit: usize::MAX, ..search.options(0, usize::MAX) };
    let mut hits = index.find((&search.query, &search.filters), &options)?.events;
    hits.sort_unstable();
    if hits.is_empty() {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("the search {:?} finds nothing", search.query),
            "try it with `ledger search` first",
        ));
    }
    let bytes = serde_json::to_vec(&hits)?;
    let (search, n) = (serde_json::to_value(search)?, hits.len() as u64);
    let source = SplitSource::Search { search, n, hits: body_ref(&bytes) };
    // In which order suites are named says nothing.
    let mut keep_out = keep_out;
    keep_out.sort();
    keep_out.dedup();
    let wish = SplitWish { name: name.to_owned(), source, split, keep_out, check: Vec::new() };
    Ok(Searched { wish, hits, bytes })
}

/// Names the test suites of a notebook, also those whose name another has by now: suites whose
/// questions are not all of dev sides of datasets.
///
/// # Errors
/// When the record cannot be read.
pub fn test_suites(view: &View) -> Result<Vec<String>, AppError> {
    let mut newest: BTreeMap<String, Digest> = BTreeMap::new();
    let mut tests: BTreeMap<Digest, String> = BTreeMap::new();
    for event in view.events()? {
        let event = event?;
        if event.kind == SuiteBuilt::KIND {
            let facts: SuiteBuilt = event.facts()?;
            newest.insert(facts.name.clone(), facts.suite);
            if is_test(&facts)? {
                tests.insert(facts.suite, facts.name);
            }
        }
    }
    // Scores may stand on a suite though another has its name by now: that one goes by identity.
    let name = |(suite, name): (Digest, String)| {
        if newest.get(&name) == Some(&suite) { name } else { suite.to_string() }
    };
    let mut names: Vec<String> = tests.into_iter().map(name).collect();
    names.sort();
    Ok(names)
}

fn is_test(suite: &SuiteBuilt) -> Result<bool, AppError> {
    let spec: SuiteSpec = serde_json::from_value(suite.spec.clone())?;
    Ok(!is_of_dev(&spec))
}

/// Says whether all questions of a suite are of dev sides: only then may choices be made on it.
pub fn is_of_dev(spec: &SuiteSpec) -> bool {
    spec.sources().iter().all(|source| source.starts_with(DEV_OF))
}

/// Reads the rows behind events that a search found.
///
/// A trace is taken with its gold, or with the gold of the newest correction of its id. A scored
/// case is taken as the row that its question came from, unless its suite is for tests: a question
/// that is trained on measures nothing any more.
///
/// # Errors
/// When the record cannot be read or a body is missing or damaged.
pub fn rows_of_query(view: &View, traces: &Traces, hits: &[u64]) -> Result<QueryRows, AppError> {
    let mut suites = Suites::default();
    let mut found: BTreeMap<u64, (Episode, Option<u64>)> = BTreeMap::new();
    let mut left_out = Vec::new();
    for hit in hits {
        let seq = match row_of((view, traces), *hit, &mut suites)? {
            Ok(seq) => seq,
            Err(why) => {
                left_out.push((*hit, why));
                continue;
            }
        };
        if traces.is_personal(seq) {
            left_out.push((*hit, "it belongs to a subject".to_owned()));
            continue;
        }
        let correction = match traces.correction(seq) {
            Correction::None => None,
            Correction::By(event) => Some(event),
            Correction::Ambiguous => {
                let why = "its correction names an id that several sources have";
                left_out.push((*hit, why.to_owned()));
                continue;
            }
        };
        let episode = traces.corrected(seq, correction)?;
        if episode.gold == Gold::None {
            left_out.push((*hit, "no gold: send a correction as feedback".to_owned()));
            continue;
        }
        found.insert(seq, (episode, correction));
    }
    let mut rows = QueryRows { left_out, ..QueryRows::default() };
    for (seq, (episode, correction)) in found {
        rows.rows.push((seq, episode));
        rows.corrections.extend(correction.map(|event| (seq, event)));
    }
    Ok(rows)
}

/// Returns the event of the row behind a hit, or why there is none.
fn row_of(
    (view, traces): (&View, &Traces),
    hit: u64,
    suites: &mut Suites,
) -> Result<Result<u64, String>, AppError> {
    // Most hits are traces, and what is known of those is at hand.
    if traces.facts(hit).is_some() {
        return Ok(Ok(hit));
    }
    let Some(event) = view.get(hit)? else { return Ok(Err("no such event".to_owned())) };
    Ok(match event.kind.as_str() {
        CaseScored::KIND => suites.question_of(view, &event.facts()?)?,
        kind => Err(format!("a {kind} is no row")),
    })
}

/// The suites of a record by identity, read when the first case asks.
#[derive(Default)]
struct Suites {
    known: Option<BTreeMap<Digest, SuiteBuilt>>,
    /// Events of the golds by case.
    golds: BTreeMap<Digest, BTreeMap<String, u64>>,
}

impl Suites {
    /// Returns the event of the row that a case's gold came from, or why there is none.
    fn question_of(
        &mut self,
        view: &View,
        case: &CaseScored,
    ) -> Result<Result<u64, String>, AppError> {
        let known = match &mut self.known {
            Some(known) => known,
            None => self.known.insert(suites(view)?),
        };
        let Some(suite) = known.get(&case.suite) else {
            return Ok(Err("its suite is not in this record".to_owned()));
        };
        if is_test(suite)? {
            return Ok(Err(format!("it is a question of test suite {}", suite.name)));
        }
        let golds = match self.golds.entry(case.suite) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let manifest = SuiteManifest::from_stored(&view.blobs().get(&suite.manifest)?)?;
                let cases = manifest.cases.into_iter();
                place.insert(cases.map(|case| (case.id, case.gold_seq)).collect())
            }
        };
        Ok(golds
            .get(&case.case)
            .copied()
            .ok_or_else(|| "its question stands in no dataset".to_owned()))
    }
}

fn suites(view: &View) -> Result<BTreeMap<Digest, SuiteBuilt>, AppError> {
    let mut suites = BTreeMap::new();
    for event in view.events()? {
        let event = event?;
        if event.kind == SuiteBuilt::KIND {
            let facts: SuiteBuilt = event.facts()?;
            suites.insert(facts.suite, facts);
        }
    }
    Ok(suites)
}

/// Makes the request key of a piece of feedback.
///
/// # Errors
/// When the feedback has no JSON form.
pub fn feedback_id(feedback: &FeedbackRecorded) -> Result<String, AppError> {
    Ok(format!("feedback/{}", Digest::of_json(feedback)?))
}
