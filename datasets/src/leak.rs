//! Leakage: questions of a suite that stand among the rows to train on, in what surrounds these
//! rows' own questions, or in a text that is put before all of them; and what two sets share.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::episode::Episode;
use crate::near::{NearDuplicate, Shingles};
use crate::suite::{Case, SuiteManifest};
use crate::template::normalise_query;

mod between;
mod context;
mod rendered;
mod text;

pub use between::{NearPair, NearRows, Overlap, PairReport, RowPair, between};
pub(crate) use context::{Questions, stands_alone};
pub use text::{InText, Part, in_text};

/// Pairs of a case and a row that [`LeakReport`] shows.
const NEAREST_SHOWN: usize = 5;

/// What a suite and the rows to train on share, by normalised query: whatever the template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakReport {
    /// Cases whose question stands among the rows, each once, with the first such row.
    pub shared_questions: Vec<Shared>,
    /// Cases whose question stands in what a row shows beside its own question (system text,
    /// examples, earlier turns and calls, tools, gold, recorded answer), each once, with the first
    /// such row. Questions of fewer than four words are not looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_context: Vec<Shared>,
    /// The most similar pairs that are not the same question, most similar first.
    pub nearest: Vec<Nearest>,
    /// Similarity of the most similar pair that is not the same question; 0 where nothing is alike.
    pub max: f64,
}

/// A case whose question stands among the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Case.
    pub case: String,
    /// Event of the row.
    pub seq: u64,
}

/// A case and a row that ask something similar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nearest {
    /// Case.
    pub case: String,
    /// Event of the row.
    pub seq: u64,
    /// Jaccard similarity of their shingles.
    pub similarity: f64,
}

/// Checks `train` against the questions of `suite`.
pub fn leakage(train: &[(u64, &Episode)], suite: &SuiteManifest) -> LeakReport {
    let words = NearDuplicate::default().shingle_words;
    let queries: Vec<String> =
        suite.cases.iter().map(|case| normalise_query(&case.query)).collect();
    let shingles: Vec<Shingles> = queries.iter().map(|query| Shingles::of(query, words)).collect();
    let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (place, of_case) in shingles.iter().enumerate() {
        of_case.hashes().iter().for_each(|&hash| places.entry(hash).or_default().push(place));
    }
    let mut shared: Vec<Option<u64>> = vec![None; queries.len()];
    let mut nearest: Vec<Nearest> = Vec::new();
    for (seq, row) in train {
        let query = row.group();
        let of_row = Shingles::of(&query, words);
        let alike: Vec<usize> =
            of_row.hashes().iter().filter_map(|h| places.get(h)).flatten().copied().collect();
        for place in sorted_once(alike) {
            let (Some(known), Some(of_case), Some(case)) =
                (queries.get(place), shingles.get(place), suite.cases.get(place))
            else {
                continue;
            };
            if *known == query {
                if let Some(first) = shared.get_mut(place) {
                    first.get_or_insert(*seq);
                }
                continue;
            }
            let similarity = of_row.similarity(of_case);
            // Most pairs are less alike than those that are shown already.
            if nearest.get(NEAREST_SHOWN - 1).is_none_or(|last| similarity >= last.similarity) {
                nearest.push(Nearest { case: case.id.clone(), seq: *seq, similarity });
            }
        }
        keep_nearest(&mut nearest);
    }
    LeakReport {
        shared_questions: named(suite, shared),
        in_context: named(suite, in_context(train, &suite.cases, &queries)),
        max: nearest.first().map_or(0.0, |pair| pair.similarity),
        nearest,
    }
}

/// Finds for each case the first row that shows its question beside its own.
fn in_context(train: &[(u64, &Episode)], cases: &[Case], queries: &[String]) -> Vec<Option<u64>> {
    let questions = Questions::of(cases.iter().map(|case| case.query.as_str()));
    let mut by_question: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in 0..cases.len() {
        if let Some(which) = questions.which(place) {
            by_question.entry(which).or_default().push(place);
        }
    }
    let mut first: Vec<Option<u64>> = vec![None; cases.len()];
    for (seq, row) in train {
        let found = shown(row, &questions);
        if found.is_empty() {
            continue;
        }
        let own = row.group();
        for place in found.iter().filter_map(|which| by_question.get(which)).flatten() {
            let Some(first) = first.get_mut(*place) else { continue };
            if queries.get(*place).is_some_and(|query| *query != own) {
                first.get_or_insert(*seq);
            }
        }
    }
    first
}

/// Returns the questions that stand in any text of a row that is rendered or trained on.
pub(crate) fn shown(row: &Episode, questions: &Questions) -> Vec<usize> {
    let mut found = BTreeSet::new();
    if !questions.is_empty() {
        rendered::each(row, &mut |text| found.extend(questions.within(text)));
    }
    found.into_iter().collect()
}

fn named(suite: &SuiteManifest, found: Vec<Option<u64>>) -> Vec<Shared> {
    let found = suite.cases.iter().zip(found);
    found.filter_map(|(case, seq)| seq.map(|seq| Shared { case: case.id.clone(), seq })).collect()
}

fn sorted_once(mut places: Vec<usize>) -> Vec<usize> {
    places.sort_unstable();
    places.dedup();
    places
}

fn keep_nearest(nearest: &mut Vec<Nearest>) {
    nearest.sort_by(|a, b| {
        b.similarity.total_cmp(&a.similarity).then(a.seq.cmp(&b.seq)).then(a.case.cmp(&b.case))
    });
    nearest.truncate(NEAREST_SHOWN);
}

#[cfg(test)]
mod tests;
