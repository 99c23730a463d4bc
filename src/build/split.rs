//! Building datasets and reading them back.

use std::collections::BTreeSet;

use datasets::manifest::Stored as _;
use datasets::{Episode, Side, SplitManifest, SplitSpec, SuiteManifest};
use ledger::BodyRef;
use ledger::catalogue::{Leakage, SplitBuilt};
use serde::{Deserialize, Serialize};

use super::query::{QueryRows, rows_of_query};
use super::suite::load_suite;
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place, body_ref};
use crate::rows::{Traces, View};

/// Where the rows of a dataset come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitSource {
    /// All rows of these sources.
    Sources {
        /// Sources.
        sources: Vec<String>,
    },
    /// What a search of words found. Older datasets were built so.
    Query {
        /// The search.
        query: String,
        /// Events that it found, in their order.
        hits: Vec<u64>,
    },
    /// What a search found: traces as they are, failed cases as the rows they were asked from.
    Search {
        /// The search, with its filters.
        search: serde_json::Value,
        /// Events that it found.
        n: u64,
        /// Their numbers, as a JSON array in their order.
        hits: BodyRef,
    },
}

/// What a dataset should be. Stands in its event, so that it can be built again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitWish {
    /// Name.
    pub name: String,
    /// Rows.
    pub source: SplitSource,
    /// Sides and near duplicates.
    pub split: SplitSpec,
    /// Suites whose questions are kept out.
    pub keep_out: Vec<String>,
    /// Suites that are only checked against.
    pub check: Vec<String>,
}

/// A frozen dataset with its event.
pub struct Split {
    /// Event that built it.
    pub event: u64,
    /// Facts of that event.
    pub facts: SplitBuilt,
    /// Its rows.
    pub manifest: SplitManifest,
}

/// Builds a dataset and records it; building it again from the same rows changes nothing.
///
/// # Errors
/// When a source or suite is unknown, or the split is refused.
pub fn build_split(lab: &Lab<'_>, wish: &SplitWish) -> Result<Split, AppError> {
    let (facts, manifest) = split_facts(&lab.view(), wish)?;
    record_split(lab, wish, (facts, manifest))
}

/// Records a dataset that was built.
///
/// # Errors
/// When the record refuses it.
pub fn record_split(
    lab: &Lab<'_>,
    wish: &SplitWish,
    (facts, manifest): (SplitBuilt, SplitManifest),
) -> Result<Split, AppError> {
    lab.notebook.blobs().put(&manifest.to_stored())?;
    let newest = lab.view().newest(|known: &SplitBuilt| known.name == wish.name)?;
    if let Some((event, known)) = &newest
        && *known == facts
    {
        return Ok(Split { event: *event, facts, manifest });
    }
    // Built again after another of its name, it becomes the newest again.
    let after = newest.map_or(0, |(event, _)| event);
    let id = format!("split/{}/{}/{after}", wish.name, ledger::Digest::of_json(&facts)?);
    let event = lab.record(&format!("dataset/{}", wish.name), &id, &facts, Place::default())?;
    Ok(Split { event, facts, manifest })
}

/// Builds a dataset without recording it.
///
/// # Errors
/// As [`build_split`].
pub fn split_facts(view: &View, wish: &SplitWish) -> Result<(SplitBuilt, SplitManifest), AppError> {
    split_of(view, wish, &rows_of_wish(view, &Traces::list(view)?, wish)?)
}

/// Builds a dataset of rows that were read, without recording it.
///
/// # Errors
/// As [`build_split`].
pub fn split_of(
    view: &View,
    wish: &SplitWish,
    read: &QueryRows,
) -> Result<(SplitBuilt, SplitManifest), AppError> {
    let rows = read.rows.as_slice();
    let suites = |names: &[String]| -> Result<Vec<SuiteManifest>, AppError> {
        names.iter().map(|name| Ok(load_suite(view, name)?.manifest)).collect()
    };
    let keep_out = suites(&wish.keep_out)?;
    let mut manifest = datasets::split::build_split(&wish.split, rows, &keep_out)?;
    for row in &mut manifest.rows {
        row.correction = read.corrections.get(&row.seq).copied();
    }
    let facts = SplitBuilt {
        name: wish.name.clone(),
        spec: serde_json::to_value(wish)?,
        manifest: body_ref(&manifest.to_stored()),
        dataset: manifest.identity(),
        train: manifest.n(Side::Train),
        dev: manifest.n(Side::Dev),
        excluded: manifest.excluded_by_reason(),
        strata: manifest.strata(),
        licences: manifest.licences.clone(),
        leakage: leakage(&manifest, rows, &suites(&wish.check)?),
    };
    Ok((facts, manifest))
}

/// Reads the rows that a wish names, and says which events gave none.
///
/// # Errors
/// When a source is unknown, or a body is missing or damaged.
pub(super) fn rows_of_wish(
    view: &View,
    traces: &Traces,
    wish: &SplitWish,
) -> Result<QueryRows, AppError> {
    match &wish.source {
        SplitSource::Sources { sources } => {
            Ok(QueryRows { rows: traces.of_sources(sources)?, ..QueryRows::default() })
        }
        SplitSource::Query { hits, .. } => rows_of_query(view, traces, hits),
        SplitSource::Search { hits, .. } => {
            let hits: Vec<u64> = serde_json::from_slice(&view.blobs().get(hits)?)?;
            rows_of_query(view, traces, &hits)
        }
    }
}

/// Says what the kept rows share with the suites kept out, and with those only checked.
fn leakage(
    manifest: &SplitManifest,
    rows: &[(u64, Episode)],
    check: &[SuiteManifest],
) -> Vec<Leakage> {
    let kept_out = manifest.suites.iter().map(|suite| Leakage {
        suite: suite.name.clone(),
        digest: suite.suite,
        n: suite.n,
        shared_questions: suite.leak.shared_questions.len() as u64,
        nearest: suite.leak.max,
    });
    let kept: BTreeSet<u64> = manifest.rows.iter().map(|row| row.seq).collect();
    let kept: Vec<(u64, &Episode)> = rows
        .iter()
        .filter(|(seq, _)| kept.contains(seq))
        .map(|(seq, episode)| (*seq, episode))
        .collect();
    let checked = check.iter().map(|suite| {
        let found = datasets::leak::leakage(&kept, suite);
        // As its own question or in its prompt: either way the row knows the case.
        let shared = found.shared_questions.iter().chain(&found.in_context);
        let cases: BTreeSet<&str> = shared.map(|shared| shared.case.as_str()).collect();
        Leakage {
            suite: suite.name().to_owned(),
            digest: suite.identity(),
            n: suite.n(),
            shared_questions: cases.len() as u64,
            nearest: found.max,
        }
    });
    kept_out.chain(checked).collect()
}

/// Reads back the newest dataset of a name, or the one whose identity begins so.
///
/// # Errors
/// When there is none, or its manifest is missing or damaged.
pub fn load_split(view: &View, name: &str) -> Result<Split, AppError> {
    let by_identity =
        |facts: &SplitBuilt| name.len() >= 6 && facts.dataset.to_string().starts_with(name);
    let found = view.newest(|facts: &SplitBuilt| facts.name == name || by_identity(facts))?;
    let Some((event, facts)) = found else {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("no dataset {name:?}"),
            "`ledger dataset list` names them; `ledger split` makes one",
        ));
    };
    let manifest = SplitManifest::from_stored(&view.blobs().get(&facts.manifest)?)?;
    Ok(Split { event, facts, manifest })
}
