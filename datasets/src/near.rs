//! Near duplicates among queries: MinHash finds candidates, exact Jaccard similarity decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Seed of the permutations. Another seed could only change which candidates are looked at.
const SEED: u64 = 0x6c65_6467_6572_0001;
/// Rows of one band: at similarity .7 a pair is missed by all 42 bands of three rows about twice
/// in a hundred million times.
const BAND_ROWS: usize = 3;

/// When two queries count as near duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearDuplicate {
    /// Words in a shingle.
    pub shingle_words: u32,
    /// Permutations in a MinHash signature.
    pub permutations: u32,
    /// Least Jaccard similarity of the shingle sets.
    pub threshold: f64,
}

impl Default for NearDuplicate {
    fn default() -> Self {
        Self { shingle_words: 3, permutations: 128, threshold: 0.7 }
    }
}

/// The shingles of one normalised query, hashed and sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shingles(Vec<u64>);

impl Shingles {
    /// Cuts a normalised query into runs of words. A shorter query is one shingle.
    pub(crate) fn of(normalised: &str, words: u32) -> Self {
        let all: Vec<&str> = normalised.split(' ').filter(|word| !word.is_empty()).collect();
        let size = usize::try_from(words).unwrap_or(usize::MAX).clamp(1, all.len().max(1));
        let mut hashes: Vec<u64> =
            all.windows(size).map(|run| hash(run.join(" ").as_bytes())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    /// Returns the Jaccard similarity; two empty queries share nothing.
    pub(crate) fn similarity(&self, other: &Self) -> f64 {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut shared = 0_usize;
        while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
            match l.cmp(r) {
                std::cmp::Ordering::Less => drop(left.next()),
                std::cmp::Ordering::Greater => drop(right.next()),
                std::cmp::Ordering::Equal => {
                    shared += 1;
                    left.next();
                    right.next();
                }
            }
        }
        let all = self.0.len() + other.0.len() - shared;
        if all == 0 { 0.0 } else { shared as f64 / all as f64 }
    }

    /// Returns the hashes, sorted.
    pub(crate) fn hashes(&self) -> &[u64] {
        &self.0
    }
}

/// Finds earlier entries that are near duplicates of a new one.
pub(crate) struct Index<K> {
    rule: NearDuplicate,
    permutations: Vec<(u64, u64)>,
    bands: BTreeMap<(usize, u64), Vec<usize>>,
    entries: Vec<(K, Shingles)>,
}

impl<K: Copy> Index<K> {
    pub(crate) fn new(rule: NearDuplicate) -> Self {
        let mut state = SEED;
        let mut draw = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        };
        // An odd factor makes each permutation one to one.
        let permutations = (0..rule.permutations).map(|_| (draw() | 1, draw())).collect();
        Self { rule, permutations, bands: BTreeMap::new(), entries: Vec::new() }
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, key: K, shingles: Shingles) {
        let place = self.entries.len();
        for band in self.bands_of(&shingles) {
            self.bands.entry(band).or_default().push(place);
        }
        self.entries.push((key, shingles));
    }

    /// Returns the earliest entry that `accept`s and is at least as similar as the rule asks.
    pub(crate) fn earliest(
        &self,
        shingles: &Shingles,
        accept: impl Fn(K) -> bool,
    ) -> Option<(K, f64)> {
        let mut candidates = BTreeSet::new();
        for band in self.bands_of(shingles) {
            candidates.extend(self.bands.get(&band).into_iter().flatten().copied());
        }
        candidates.into_iter().filter_map(|place| self.entries.get(place)).find_map(
            |(key, other)| {
                let similarity = shingles.similarity(other);
                (similarity >= self.rule.threshold && accept(*key)).then_some((*key, similarity))
            },
        )
    }

    fn bands_of(&self, shingles: &Shingles) -> Vec<(usize, u64)> {
        if shingles.hashes().is_empty() {
            return Vec::new();
        }
        let signature: Vec<u64> = self
            .permutations
            .iter()
            .map(|&(factor, offset)| {
                let permuted = |hash: &u64| mix(hash.wrapping_mul(factor).wrapping_add(offset));
                shingles.hashes().iter().map(permuted).min().unwrap_or(u64::MAX)
            })
            .collect();
        let key = |rows: &[u64]| rows.iter().fold(SEED, |key, &row| mix(key ^ row));
        signature.chunks(BAND_ROWS).map(key).enumerate().collect()
    }
}

/// Hashes bytes: FNV-1a, then mixed.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn shingles(text: &str) -> Shingles {
        Shingles::of(text, 3)
    }

    #[test]
    fn similarity_is_jaccard_over_runs_of_three_words() {
        let left = shingles("find the missing number in the list [0, 1, 2, 3, 5]");
        let right = shingles("find the missing number in the list [0, 1, 2, 4, 5]");
        assert_eq!(left.similarity(&right), 2.0 / 3.0);
        assert_eq!(left.similarity(&left), 1.0);
        assert_eq!(shingles("hi there").similarity(&shingles("hi there")), 1.0);
        assert_eq!(shingles("").similarity(&shingles("")), 0.0);
    }

    #[test]
    fn earliest_near_duplicate_is_found() {
        let mut index = Index::new(NearDuplicate::default());
        let base = "please list the first ten prime numbers above one hundred for my class";
        index.insert(0, shingles("what is the weather in oslo today"));
        index.insert(1, shingles(base));
        index.insert(2, shingles(base));
        let probe = shingles(&format!("{base} now"));
        assert_eq!(index.earliest(&probe, |_| true).unwrap().0, 1);
        assert_eq!(index.earliest(&probe, |key| key != 1).unwrap().0, 2);
        assert!(index.earliest(&shingles("nothing like it at all"), |_| true).is_none());
    }

    proptest! {
        #[test]
        fn candidates_hold_every_pair_above_the_threshold(
            words in prop::collection::vec("[a-f]{1,3}", 6..40),
            at in 0_usize..40,
            new in "[g-k]{2}",
        ) {
            let mut changed = words.clone();
            let place = at % changed.len();
            changed[place] = new;
            let (left, right) = (shingles(&words.join(" ")), shingles(&changed.join(" ")));
            let mut index = Index::new(NearDuplicate::default());
            index.insert((), left.clone());
            let similar = left.similarity(&right) >= 0.7;
            prop_assert_eq!(index.earliest(&right, |()| true).is_some(), similar);
        }
    }
}
