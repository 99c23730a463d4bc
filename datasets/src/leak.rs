//! Leakage: questions of a suite that stand among the rows to train on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::episode::Episode;
use crate::near::{NearDuplicate, Shingles};
use crate::suite::SuiteManifest;
use crate::template::normalise_query;

/// Pairs of a case and a row that [`LeakReport`] shows.
const NEAREST_SHOWN: usize = 5;

/// What a suite and the rows to train on share, by normalised query: whatever the template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakReport {
    /// Cases whose question stands among the rows, each once, with the first such row.
    pub shared_questions: Vec<Shared>,
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
            nearest.push(Nearest { case: case.id.clone(), seq: *seq, similarity });
        }
        keep_nearest(&mut nearest);
    }
    let found = suite.cases.iter().zip(shared);
    LeakReport {
        shared_questions: found
            .filter_map(|(case, seq)| seq.map(|seq| Shared { case: case.id.clone(), seq }))
            .collect(),
        max: nearest.first().map_or(0.0, |pair| pair.similarity),
        nearest,
    }
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
