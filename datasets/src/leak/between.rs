//! What two sets of rows share, without a suite.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ledger::Digest;
use serde::{Deserialize, Serialize};

use super::{NEAREST_SHOWN, Questions, shown};
use crate::episode::Episode;
use crate::near::{Index, NearDuplicate, Order, Ranks, Shingles};
use crate::suite::prompt_digest;

/// Pairs that a report shows of each kind.
const SHOWN: usize = 20;
/// Rows of `a` that each row of `b` is compared with to find the most similar pairs.
const COMPARED_MAX: usize = 4096;

/// What two sets of rows share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairReport {
    /// Rows of the first set.
    pub rows_a: u64,
    /// Rows of the second set.
    pub rows_b: u64,
    /// Ids within their sources. Sources that only count their rows share ids without a meaning.
    pub shared_ids: Overlap,
    /// Normalised questions, whatever the template.
    pub shared_questions: Overlap,
    /// All that a model is shown, byte for byte.
    pub shared_prompts: Overlap,
    /// Questions of `b` that stand in the turns, tools, gold or answer of a row of `a` that asks
    /// something else.
    pub in_context: Overlap,
    /// Rows of `b` whose question nearly repeats one of `a`, and is none of `a`.
    pub near: NearRows,
    /// The most similar pairs that are not the same question, most similar first, from half the
    /// threshold of a near duplicate up.
    pub nearest: Vec<NearPair>,
}

/// What stands in both sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    /// Rows of `b` that have it.
    pub rows: u64,
    /// Different values among them.
    pub distinct: u64,
    /// The first 20 of these rows, each with the first such row of `a`.
    pub shown: Vec<RowPair>,
}

/// A row of each set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowPair {
    /// Event of the row of the first set.
    pub a: u64,
    /// Event of the row of the second set.
    pub b: u64,
}

/// Rows of `b` that nearly repeat rows of `a`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearRows {
    /// How many.
    pub rows: u64,
    /// The first 20 of them, each with the first such row of `a`.
    pub shown: Vec<NearPair>,
}

/// A row of each set that ask something similar.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearPair {
    /// Event of the row of the first set.
    pub a: u64,
    /// Event of the row of the second set.
    pub b: u64,
    /// Jaccard similarity of their questions' shingles.
    pub similarity: f64,
}

impl PairReport {
    /// Says whether no question of either set stands in the other, nearly or whole, or in the
    /// prompts of the first. Ids may be shared: they need not mean the same in two sources.
    pub fn is_clean(&self) -> bool {
        let shared = [&self.shared_questions, &self.shared_prompts, &self.in_context];
        shared.iter().all(|overlap| overlap.rows == 0) && self.near.rows == 0
    }
}

impl Overlap {
    /// Collects what rows of `b` share with rows of `a`.
    fn of<K: Ord>(a: impl Iterator<Item = (u64, K)>, b: impl Iterator<Item = (u64, K)>) -> Self {
        let mut first: BTreeMap<K, u64> = BTreeMap::new();
        for (seq, key) in a {
            first.entry(key).or_insert(seq);
        }
        let found = b.filter_map(|(seq, key)| first.get_key_value(&key).map(|(k, a)| (seq, k, *a)));
        let (mut overlap, mut distinct) = (Self::default(), BTreeSet::new());
        for (b, key, a) in found {
            overlap.add(RowPair { a, b });
            distinct.insert(key);
        }
        overlap.distinct = distinct.len() as u64;
        overlap
    }

    fn add(&mut self, pair: RowPair) {
        self.rows += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(pair);
        }
    }
}

/// Compares two sets of rows, numbered by their events: `a` to learn from, `b` to be tested on.
///
/// The time grows with the rows and their texts, not with the pairs: words are looked up, questions
/// are told by their rarest shingles, and equal ones are compared once.
pub fn between(a: &[(u64, &Episode)], b: &[(u64, &Episode)]) -> PairReport {
    let keys = |rows: &[(u64, &Episode)]| -> Vec<(u64, String)> {
        rows.iter().map(|(seq, row)| (*seq, row.group())).collect()
    };
    let (asked_a, asked_b) = (keys(a), keys(b));
    let prompts = |rows: &[(u64, &Episode)]| -> Vec<(u64, Digest)> {
        rows.iter().map(|(seq, row)| (*seq, prompt_digest(row.prompt_turns()))).collect()
    };
    let ids = |(seq, row): &(u64, &Episode)| (*seq, row.source.external_id.clone());
    let (near, nearest) = similar(&asked_a, &asked_b);
    let texts_b: Vec<(u64, String, &str)> =
        b.iter().map(|(seq, row)| (*seq, row.group(), row.query.as_str())).collect();
    PairReport {
        rows_a: a.len() as u64,
        rows_b: b.len() as u64,
        shared_ids: Overlap::of(a.iter().map(ids), b.iter().map(ids)),
        shared_questions: Overlap::of(asked_a.iter().cloned(), asked_b.iter().cloned()),
        shared_prompts: Overlap::of(prompts(a).into_iter(), prompts(b).into_iter()),
        in_context: in_context(a, &texts_b),
        near,
        nearest,
    }
}

/// Finds questions of `b` in what rows of `a` show or train on.
fn in_context(a: &[(u64, &Episode)], b: &[(u64, String, &str)]) -> Overlap {
    let questions = Questions::of(b.iter().map(|(_, _, query)| *query));
    // The first two rows that ask different things: one of them asks something else than any row.
    let mut first: BTreeMap<usize, Vec<(u64, String)>> = BTreeMap::new();
    for (seq, row) in a {
        for which in shown(row, &questions) {
            let known = first.entry(which).or_default();
            let own = row.group();
            if known.len() < 2 && known.iter().all(|(_, other)| *other != own) {
                known.push((*seq, own));
            }
        }
    }
    let (mut overlap, mut distinct) = (Overlap::default(), BTreeSet::new());
    for (place, (seq, query, _)) in b.iter().enumerate() {
        let Some(which) = questions.which(place) else { continue };
        let rows = first.get(&which).into_iter().flatten();
        if let Some((a, _)) = rows.into_iter().find(|(_, own)| own != query) {
            overlap.add(RowPair { a: *a, b: *seq });
            distinct.insert(which);
        }
    }
    overlap.distinct = distinct.len() as u64;
    overlap
}

/// Finds questions of `b` that nearly repeat one of `a`, and the most similar pairs.
fn similar(a: &[(u64, String)], b: &[(u64, String)]) -> (NearRows, Vec<NearPair>) {
    let rule = NearDuplicate::default();
    let sets = |rows: &[(u64, String)]| -> Vec<Shingles> {
        rows.iter().map(|(_, query)| Shingles::of(query, rule.shingle_words)).collect()
    };
    let (sets_a, sets_b) = (sets(a), sets(b));
    let order = Order::of(sets_a.iter().chain(&sets_b));
    let mut index = Index::new(rule, &order);
    let mut wide = Index::new(NearDuplicate { threshold: rule.threshold / 2.0, ..rule }, &order);
    let mut known = BTreeSet::new();
    for ((seq, query), set) in a.iter().zip(&sets_a) {
        let ranks = order.ranks(set);
        index.insert(*seq, ranks.clone());
        wide.insert((*seq, query.as_str()), ranks);
        known.insert(query.as_str());
    }
    let (mut near, mut nearest) = (NearRows::default(), Vec::new());
    let mut asked = BTreeSet::new();
    for ((seq, query), set) in b.iter().zip(&sets_b) {
        let ranks = order.ranks(set);
        let repeats = index.earliest(&ranks).filter(|_| !known.contains(query.as_str()));
        if let Some((a, similarity)) = repeats {
            near.rows += 1;
            if near.shown.len() < SHOWN {
                near.shown.push(NearPair { a, b: *seq, similarity });
            }
        }
        if asked.insert(query.as_str()) {
            look_for_nearest(&wide, (*seq, query, &ranks), &mut nearest);
        }
    }
    (near, nearest)
}

/// Compares one row of `b` with those of `a` that may be like it.
fn look_for_nearest(
    wide: &Index<(u64, &str)>,
    (b, query, ranks): (u64, &str, &Ranks),
    nearest: &mut Vec<NearPair>,
) {
    let mut compared = 0;
    wide.visit(ranks, |(a, other), similarity| {
        compared += 1;
        let is_shown = nearest.get(NEAREST_SHOWN - 1).is_none_or(|l| similarity > l.similarity);
        if other != query && is_shown {
            nearest.push(NearPair { a, b, similarity });
            nearest.sort_by(|l, r| {
                r.similarity.total_cmp(&l.similarity).then((l.b, l.a).cmp(&(r.b, r.a)))
            });
            nearest.truncate(NEAREST_SHOWN);
        }
        if compared < COMPARED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
}
