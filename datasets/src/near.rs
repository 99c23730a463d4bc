//! Near duplicates among queries: all pairs that can be similar enough are found by their rarest
//! shingles, and exact Jaccard similarity decides.
//!
//! Two sets whose similarity is at least `t` share one of the `n - ceil(t n) + 1` first shingles of
//! each, whatever the order that shingles are taken in ("prefix filtering": Chaudhuri, Ganti and
//! Kaushik 2006; with the filter on places, Xiao et al. 2008). With the rarest first, few sets are
//! looked at, and no pair is missed: unlike with MinHash, the result does not depend on chance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::episode::Episode;
use crate::leak::stands_alone;
use crate::template::normalise_query;

/// Ends a list of places.
const END: u32 = u32::MAX;
/// What rounding may take from a product of a threshold and a length.
const ROUNDING: f64 = 1e-9;

/// When two queries count as near duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearDuplicate {
    /// Words in a shingle.
    pub shingle_words: u32,
    /// Permutations of the MinHash signatures that once found candidates. All pairs are found
    /// without any now; the figure stays in the form, so that specs keep their identity.
    pub permutations: u32,
    /// Least Jaccard similarity of the shingle sets.
    pub threshold: f64,
}

impl Default for NearDuplicate {
    fn default() -> Self {
        Self { shingle_words: 3, permutations: 128, threshold: 0.7 }
    }
}

/// How many rows of a source repeat earlier rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceDuplicates {
    /// Name of the source.
    pub source: String,
    /// Its rows.
    pub rows: u64,
    /// Rows with the same content as an earlier row, wherever that came from.
    pub exact: u64,
    /// Other rows whose question is, or nearly repeats, that of an earlier row.
    pub near: u64,
}

/// Counts rows that repeat earlier ones, by source, sorted by name.
///
/// `rows` stand in ledger order. A row counts as a duplicate of rows that are none themselves, of
/// any source: these are the rows that a split with `drop_near` would keep.
pub fn duplicates_by_source<'a>(
    rows: impl IntoIterator<Item = &'a Episode>,
    rule: &NearDuplicate,
) -> Vec<SourceDuplicates> {
    let rows: Vec<&Episode> = rows.into_iter().collect();
    let sets: Vec<Shingles> =
        rows.iter().map(|row| Shingles::of(&row.group(), rule.shingle_words)).collect();
    let order = Order::of(&sets);
    let mut index = Index::new(*rule, &order);
    let mut contents = BTreeSet::new();
    let mut counts: BTreeMap<&str, SourceDuplicates> = BTreeMap::new();
    for (row, set) in rows.iter().zip(&sets) {
        let count = counts.entry(&row.source.name).or_default();
        count.rows += 1;
        if !contents.insert(row.content_digest()) {
            count.exact += 1;
            continue;
        }
        let ranks = order.ranks(set);
        match index.earliest(&ranks) {
            Some(_) => count.near += 1,
            None => index.insert((), ranks),
        }
    }
    let named = |(name, count): (&str, SourceDuplicates)| SourceDuplicates {
        source: name.to_owned(),
        ..count
    };
    counts.into_iter().map(named).collect()
}

/// Finds for each query the earliest one before it that it nearly repeats, and their similarity.
///
/// Queries are normalised first; equal ones have similarity 1. No pair is missed.
pub fn earliest_near<'a>(
    queries: impl IntoIterator<Item = &'a str>,
    rule: &NearDuplicate,
) -> Vec<Option<(usize, f64)>> {
    let set = |query| Shingles::of(&normalise_query(query), rule.shingle_words);
    let sets: Vec<Shingles> = queries.into_iter().map(set).collect();
    let order = Order::of(&sets);
    let mut index = Index::new(*rule, &order);
    let mut found = Vec::with_capacity(sets.len());
    for (place, set) in sets.iter().enumerate() {
        let ranks = order.ranks(set);
        found.push(index.earliest(&ranks));
        index.insert(place, ranks);
    }
    found
}

/// The shingles of one normalised query, hashed and sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shingles(Vec<u64>);

impl Shingles {
    /// Cuts a normalised query into runs of words. A shorter query is one shingle. Where a script
    /// has no spaces between words, and in Korean, whose words change their ends, each letter is a
    /// word.
    pub(crate) fn of(normalised: &str, words: u32) -> Self {
        let mut all: Vec<&str> = Vec::new();
        normalised.split(' ').for_each(|word| push_words(word, &mut all));
        let size = usize::try_from(words).unwrap_or(usize::MAX).clamp(1, all.len().max(1));
        let mut hashes: Vec<u64> = all.windows(size).map(hash_of_run).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    /// Returns the Jaccard similarity; two empty queries share nothing.
    pub(crate) fn similarity(&self, other: &Self) -> f64 {
        jaccard(&self.0, &other.0)
    }

    /// Returns the hashes, sorted.
    pub(crate) fn hashes(&self) -> &[u64] {
        &self.0
    }
}

/// Adds a word, or its letters where these are words of their own, with what stands between them.
fn push_words<'a>(word: &'a str, all: &mut Vec<&'a str>) {
    let mut rest = word;
    let is_letter =
        |c: char| stands_alone(c) || matches!(c, '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7ff}');
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_letter(*c)) {
        let (before, here) = rest.split_at(at);
        let (letter, after) = here.split_at(c.len_utf8());
        all.extend((!before.is_empty()).then_some(before));
        all.push(letter);
        rest = after;
    }
    all.extend((!rest.is_empty()).then_some(rest));
}

/// Returns the Jaccard similarity of two sorted sets; two empty ones share nothing.
fn jaccard<T: Ord>(left: &[T], right: &[T]) -> f64 {
    let sizes = left.len() + right.len();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
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
    share(shared, sizes)
}

/// Returns the Jaccard similarity of sets that share so many of their elements.
fn share(shared: usize, sizes: usize) -> f64 {
    let all = sizes - shared.min(sizes);
    if all == 0 { 0.0 } else { shared as f64 / all as f64 }
}

/// All shingles of a collection of sets, the rarest first.
pub(crate) struct Order {
    /// Hashes, sorted.
    hashes: Vec<u64>,
    /// Rank of each hash.
    ranks: Vec<u32>,
    /// Ranks below this occur in one set only.
    alone: u32,
}

/// A set of shingles by their ranks in an [`Order`], the rarest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ranks(Box<[u32]>);

impl Order {
    /// Ranks the shingles of `sets`, which must be all sets that will be compared, those that are
    /// looked for and those that are found: what one set alone holds is not looked up.
    pub(crate) fn of<'a>(sets: impl IntoIterator<Item = &'a Shingles>) -> Self {
        let mut all: Vec<u64> = sets.into_iter().flat_map(|set| set.hashes()).copied().collect();
        all.sort_unstable();
        let counted: Vec<(u32, u64)> = all
            .chunk_by(|a, b| a == b)
            .filter_map(|same| Some((narrow(same.len()), *same.first()?)))
            .collect();
        let alone = narrow(counted.iter().filter(|(count, _)| *count == 1).count());
        let mut by_count: Vec<u32> = (0..narrow(counted.len())).collect();
        let count_of = |place: &u32| counted.get(*place as usize).copied();
        by_count.sort_unstable_by_key(count_of);
        let mut ranks = vec![0; counted.len()];
        for (rank, place) in (0..).zip(by_count) {
            if let Some(known) = ranks.get_mut(place as usize) {
                *known = rank;
            }
        }
        Self { hashes: counted.into_iter().map(|(_, hash)| hash).collect(), ranks, alone }
    }

    /// Returns the ranks of a set. Shingles that the order does not know are left out.
    pub(crate) fn ranks(&self, set: &Shingles) -> Ranks {
        let rank = |hash: &u64| self.ranks.get(self.hashes.binary_search(hash).ok()?).copied();
        let mut ranks: Vec<u32> = set.hashes().iter().filter_map(rank).collect();
        ranks.sort_unstable();
        Ranks(ranks.into())
    }
}

/// One entry that holds a shingle.
#[derive(Clone, Copy)]
struct Posting {
    /// Which entry.
    entry: u32,
    /// The next posting of the same list.
    next: u32,
}

/// Finds earlier entries that are near duplicates of a new one.
///
/// Entries with equal sets are kept once, with the key of the earliest, so that thousands of equal
/// queries cost no more than one.
pub(crate) struct Index<K> {
    rule: NearDuplicate,
    alone: u32,
    /// First and last posting by a shingle's rank, the size of the sets that hold it, and its place
    /// in them: a whole list is passed over where sets of this size cannot share enough.
    lists: BTreeMap<(u32, u32, u32), (u32, u32)>,
    postings: Vec<Posting>,
    entries: Vec<(K, Ranks)>,
    /// Entries by a hash of their set.
    known: BTreeSet<(u64, u32)>,
    /// Entries that were compared, to see that few are.
    #[cfg(test)]
    compared: std::cell::Cell<u64>,
}

impl<K: Copy> Index<K> {
    pub(crate) fn new(rule: NearDuplicate, order: &Order) -> Self {
        Self {
            rule,
            alone: order.alone,
            lists: BTreeMap::new(),
            postings: Vec::new(),
            entries: Vec::new(),
            known: BTreeSet::new(),
            #[cfg(test)]
            compared: std::cell::Cell::new(0),
        }
    }

    /// Adds an entry, unless an equal set is there.
    pub(crate) fn insert(&mut self, key: K, ranks: Ranks) {
        if self.equal(&ranks).is_some() {
            return;
        }
        let (entry, size) = (narrow(self.entries.len()), narrow(ranks.0.len()));
        let prefix = ranks.0.iter().take(self.prefix(ranks.0.len()));
        // What no other set holds need not be found.
        for (at, &rank) in (0..).zip(prefix).filter(|(_, rank)| **rank >= self.alone) {
            let place = narrow(self.postings.len());
            let (_, last) = self.lists.entry((rank, size, at)).or_insert((place, place));
            if let Some(before) = self.postings.get_mut(*last as usize) {
                before.next = place;
            }
            *last = place;
            self.postings.push(Posting { entry, next: END });
        }
        self.known.insert((hash_of_ranks(&ranks), entry));
        self.entries.push((key, ranks));
    }

    /// Returns the earliest entry that is at least as similar as the rule asks.
    pub(crate) fn earliest(&self, ranks: &Ranks) -> Option<(K, f64)> {
        let mut found = None;
        self.visit(ranks, |key, similarity| {
            if similarity < self.rule.threshold {
                return ControlFlow::Continue(());
            }
            found = Some((key, similarity));
            ControlFlow::Break(())
        });
        found
    }

    /// Shows all entries that may be as similar as the rule asks, in order, with their similarity.
    pub(crate) fn visit(&self, ranks: &Ranks, mut each: impl FnMut(K, f64) -> ControlFlow<()>) {
        let mut lists = self.lists_of(ranks);
        let mut last = None;
        while let Some(Reverse((entry, place))) = lists.pop() {
            let next = self.postings.get(place as usize).map_or(END, |posting| posting.next);
            lists.extend(self.head(next));
            let Some((key, other)) = self.entries.get(entry as usize) else { continue };
            if last.replace(entry) == Some(entry) {
                continue;
            }
            #[cfg(test)]
            self.compared.set(self.compared.get() + 1);
            if each(*key, jaccard(&ranks.0, &other.0)).is_break() {
                return;
            }
        }
    }

    /// Returns the lists of entries that share one of the rarest shingles, and may share enough.
    fn lists_of(&self, ranks: &Ranks) -> BinaryHeap<Reverse<(u32, u32)>> {
        let (size, threshold) = (ranks.0.len(), self.rule.threshold);
        let least = narrow((threshold * size as f64 - ROUNDING).ceil() as usize);
        let most = narrow((size as f64 / threshold + ROUNDING).floor() as usize);
        let mut found = BinaryHeap::new();
        let prefix = ranks.0.iter().enumerate().take(self.prefix(size));
        for (here, &rank) in prefix.filter(|(_, rank)| **rank >= self.alone) {
            let of_rank = self.lists.range((rank, least, 0)..=(rank, most.max(least), END));
            for (&(_, other, there), &(first, _)) in of_rank {
                // No more than what stands behind the rarest that both have is shared.
                let left = (size - here).min((other - there.min(other)) as usize);
                if share(left, size + other as usize) >= threshold - ROUNDING {
                    found.extend(self.head(first));
                }
            }
        }
        found
    }

    fn head(&self, place: u32) -> Option<Reverse<(u32, u32)>> {
        self.postings.get(place as usize).map(|posting| Reverse((posting.entry, place)))
    }

    /// Returns the key of the entry with the same set.
    fn equal(&self, ranks: &Ranks) -> Option<K> {
        let hash = hash_of_ranks(ranks);
        let same = self.known.range((hash, 0)..=(hash, END));
        let entries = same.filter_map(|(_, entry)| self.entries.get(*entry as usize));
        entries.filter(|(_, other)| other == ranks).map(|(key, _)| *key).next()
    }

    /// Returns how many of a set's rarest shingles meet one of each set that is similar enough.
    fn prefix(&self, size: usize) -> usize {
        let least = (self.rule.threshold * size as f64 - ROUNDING).ceil().max(1.0);
        // A float from 1 to the size.
        (size + 1).saturating_sub(least as usize)
    }
}

/// Narrows a place. Four thousand million shingles do not fit into memory before.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(END)
}

fn hash_of_ranks(ranks: &Ranks) -> u64 {
    ranks.0.iter().fold(FNV_OFFSET, |hash, &rank| mix(hash ^ u64::from(rank)))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Hashes words joined by spaces: FNV-1a, then mixed.
fn hash_of_run(words: &[&str]) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = FNV_OFFSET;
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            hash = add(hash, b' ');
        }
        hash = word.bytes().fold(hash, add);
    }
    mix(hash)
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
