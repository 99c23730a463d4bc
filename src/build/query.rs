//! Turning what a search found into rows: traces with a gold or a correction, failed cases with
//! their gold.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use datasets::manifest::Stored as _;
use datasets::{Episode, Gold, SplitSpec, SuiteManifest};
use ledger::catalogue::{CaseScored, FeedbackRecorded, SuiteBuilt, TraceIngested, TraceRevised};
use ledger::{Digest, Facts as _};
use queries::search::{Index, Options, SavedSearch};

use super::DEV_OF;
use super::split::{SplitSource, SplitWish};
use crate::error::{AppError, Kind};
use crate::lab::Lab;
use crate::rows::{Traces, View};

/// Name of the feedback that carries the answer that should have come.
pub const CORRECTION: &str = "correction";

/// Rows that a search gives.
#[derive(Default)]
pub struct QueryRows {
    /// Rows with a gold, by event.
    pub rows: Vec<(u64, Episode)>,
    /// Events that gave no row, with the reason.
    pub left_out: Vec<(u64, String)>,
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
) -> Result<SplitWish, AppError> {
    let reader = lab.notebook.reader();
    let mut index = Index::open_or_rebuild(&lab.notebook.dir().join("index"))?;
    let caught_up = index.catch_up(&reader)?;
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
    let source = SplitSource::Search {
        search: serde_json::to_value(search)?,
        n: hits.len() as u64,
        hits: lab.notebook.blobs().put(&serde_json::to_vec(&hits)?)?,
    };
    Ok(SplitWish { name: name.to_owned(), source, split, keep_out, check: Vec::new() })
}

/// Names the test suites of a notebook: those whose questions are no dev side of a dataset.
///
/// # Errors
/// When the record cannot be read.
pub fn test_suites(view: &View) -> Result<Vec<String>, AppError> {
    let mut newest: BTreeMap<String, bool> = BTreeMap::new();
    for event in view.events()? {
        let event = event?;
        if event.kind == SuiteBuilt::KIND {
            let facts: SuiteBuilt = event.facts()?;
            newest.insert(facts.name.clone(), is_test(&facts));
        }
    }
    Ok(newest.into_iter().filter(|(_, test)| *test).map(|(name, _)| name).collect())
}

fn is_test(suite: &SuiteBuilt) -> bool {
    let questions = suite.spec.get("questions").and_then(serde_json::Value::as_str);
    !questions.is_some_and(|questions| questions.starts_with(DEV_OF))
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
    let corrections = corrections(view)?;
    let mut suites = Suites::default();
    let mut found: BTreeMap<u64, Episode> = BTreeMap::new();
    let mut left_out = Vec::new();
    for hit in hits {
        let seq = match row_of(view, *hit, &mut suites)? {
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
        let mut episode = traces.episode(seq)?;
        if let Some(gold) = corrections.get(&episode.source.external_id) {
            episode.gold = gold.clone();
            episode.add_flag("gold.corrected");
        }
        if episode.gold == Gold::None {
            left_out.push((*hit, "no gold: send a correction as feedback".to_owned()));
            continue;
        }
        found.insert(seq, episode);
    }
    Ok(QueryRows { rows: found.into_iter().collect(), left_out })
}

/// Returns the event of the row behind a hit, or why there is none.
fn row_of(view: &View, hit: u64, suites: &mut Suites) -> Result<Result<u64, String>, AppError> {
    let Some(event) = view.get(hit)? else { return Ok(Err("no such event".to_owned())) };
    Ok(match event.kind.as_str() {
        TraceIngested::KIND | TraceRevised::KIND => Ok(hit),
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
        if is_test(suite) {
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

/// Lists the newest correction of each response or trace id.
fn corrections(view: &View) -> Result<BTreeMap<String, Gold>, AppError> {
    let mut corrections = BTreeMap::new();
    for event in view.events()? {
        let event = event?;
        if event.kind != FeedbackRecorded::KIND {
            continue;
        }
        let feedback: FeedbackRecorded = event.facts()?;
        let text = feedback.value.as_str().filter(|_| feedback.name == CORRECTION);
        if let Some(Ok(calls)) = text.map(datasets::gold::read_calls) {
            corrections.insert(feedback.target, Gold::Calls { calls });
        }
    }
    Ok(corrections)
}

/// Makes the request key of a piece of feedback.
///
/// # Errors
/// When the feedback has no JSON form.
pub fn feedback_id(feedback: &FeedbackRecorded) -> Result<String, AppError> {
    Ok(format!("feedback/{}", Digest::of_json(feedback)?))
}
