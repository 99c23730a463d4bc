//! Turning what a search found into rows: served traces with a correction, failed cases with
//! their gold.

use std::collections::BTreeMap;

use datasets::manifest::Stored as _;
use datasets::{Episode, Gold, SuiteManifest};
use ledger::catalogue::{CaseScored, FeedbackRecorded, SuiteBuilt, TraceIngested, TraceRevised};
use ledger::{Digest, Facts as _};
use queries::search::{Filters, Index, Options};

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

/// Most events that a search may bring into a dataset.
const HITS_MAX: usize = 5_000;

/// Turns a search into the wish for a dataset: its hits are frozen in the wish.
///
/// # Errors
/// When the search cannot be run or finds nothing.
pub fn wish_of_query(
    lab: &Lab<'_>,
    name: &str,
    query: &str,
    split: datasets::SplitSpec,
    keep_out: Vec<String>,
) -> Result<SplitWish, AppError> {
    let mut index = Index::open_or_rebuild(&lab.notebook.dir().join("index"))?;
    index.catch_up(&lab.notebook.reader())?;
    let found = index.find((query, &Filters::default()), &Options::best(HITS_MAX))?;
    if found.total > HITS_MAX as u64 {
        return Err(AppError::hinted(
            Kind::Usage,
            format!("the search {query:?} finds {} events, more than {HITS_MAX}", found.total),
            "narrow it, or build several datasets",
        ));
    }
    let mut hits = found.events;
    hits.sort_unstable();
    if hits.is_empty() {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("the search {query:?} finds nothing"),
            "try it with `ledger search` first",
        ));
    }
    let source = SplitSource::Query { query: query.to_owned(), hits };
    Ok(SplitWish { name: name.to_owned(), source, split, keep_out, check: Vec::new() })
}

/// Reads the rows behind events that a search found.
///
/// A trace is taken with its gold, or with the gold of the newest correction of its id. A scored
/// case is taken as the row that its question came from.
///
/// # Errors
/// When the record cannot be read or a body is missing or damaged.
pub fn rows_of_query(view: &View, traces: &Traces, hits: &[u64]) -> Result<QueryRows, AppError> {
    let corrections = corrections(view)?;
    let mut found: BTreeMap<u64, Episode> = BTreeMap::new();
    let mut left_out = Vec::new();
    for hit in hits {
        let Some(event) = view.get(*hit)? else {
            left_out.push((*hit, "no such event".to_owned()));
            continue;
        };
        let seq = match event.kind.as_str() {
            TraceIngested::KIND | TraceRevised::KIND => *hit,
            CaseScored::KIND => match question_of(view, &event.facts()?)? {
                Some(seq) => seq,
                None => {
                    left_out.push((*hit, "its question stands in no dataset".to_owned()));
                    continue;
                }
            },
            kind => {
                left_out.push((*hit, format!("a {kind} is no row")));
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

/// Returns the event of the row that a case's gold came from.
fn question_of(view: &View, case: &CaseScored) -> Result<Option<u64>, AppError> {
    for event in view.events()? {
        let event = event?;
        if event.kind != SuiteBuilt::KIND {
            continue;
        }
        let suite: SuiteBuilt = event.facts()?;
        if suite.suite != case.suite {
            continue;
        }
        let manifest = SuiteManifest::from_stored(&view.blobs().get(&suite.manifest)?)?;
        return Ok(manifest.cases.iter().find(|c| c.id == case.case).map(|c| c.gold_seq));
    }
    Ok(None)
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
