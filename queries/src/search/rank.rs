//! Which of the hits come first, and how many there are of what.
//!
//! The order depends on the documents alone, never on how the index is laid out in segments:
//! a rebuilt index answers the same to the last bit. So the marks of a hit are ours. They are
//! BM25 over the words asked for, with the counts of documents that are alive and a fixed average
//! length (what tantivy counts of lengths is rounded and depends on merges), in whole numbers,
//! whose sum does not depend on the order of adding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Cardinality, Column, ColumnValues, StrColumn};
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::{Postings, SegmentPostings};
use tantivy::query::Query;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, DocSet, Score, Searcher, SegmentOrdinal, SegmentReader, Term};

use super::schema::Exact;

/// Marks that a score of 1 has.
const UNIT: f64 = (1 << 20) as f64;
/// Constants of BM25, as they are in most search engines.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// Words that a document is taken to have on average.
const AVERAGE: f64 = 100.0;
/// Times that a word stands in a document, up to which marks are kept in a table.
const OFTEN: usize = 8;
/// Documents that are looked at together.
const BLOCK: usize = 64;
/// Candidates that are kept before the worse half is dropped.
const CANDIDATES: usize = 4096;

/// In which order hits come. Ties are broken by event, the earlier first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// The best first: by how often the words stand in a document and how rare they are.
    #[default]
    Best,
    /// The last appended first.
    Newest,
    /// The first appended first.
    Oldest,
    /// The lowest score first; what has none comes last.
    LowestScore,
    /// The highest score first; what has none comes last.
    HighestScore,
}

/// A hit's place: what comes first is greater. The upper half is the key of the order, the lower
/// one the event, so that among equal keys the earlier event is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u128);

impl Place {
    fn new(key: u64, seq: u64) -> Self {
        Self(u128::from(key) << 64 | u128::from(!seq))
    }

    fn key(self) -> u64 {
        (self.0 >> 64) as u64
    }

    pub(super) fn seq(&self) -> u64 {
        !(self.0 as u64)
    }

    /// Returns how well the hit fits, where hits are sorted by that.
    pub(super) fn score(self, sort: Sort) -> f32 {
        if sort == Sort::Best { (self.key() as f64 / UNIT) as f32 } else { 0.0 }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    pub(super) total: u64,
    /// The first hits, in order.
    pub(super) places: Vec<Place>,
    /// How many hits have which value, for each field asked for.
    pub(super) counts: Vec<BTreeMap<String, u64>>,
}

/// A word with its marks.
#[derive(Clone)]
struct Word {
    term: Term,
    marks: Arc<Marks>,
}

/// Marks by how often a word stands in a document and how long that is.
struct Marks {
    rarity: f64,
    table: Vec<u32>,
}

impl Marks {
    /// Makes the marks of a word that `with` of `all` documents have.
    fn new(with: u64, all: u64) -> Self {
        let (with, all) = (with as f64, all.max(with) as f64);
        let rarity = (1.0 + (all - with + 0.5) / (with + 0.5)).ln();
        let mut marks = Self { rarity, table: Vec::new() };
        let often = 0..u32::try_from(OFTEN).unwrap_or_default();
        marks.table = often
            .flat_map(|n| (0..=u8::MAX).map(move |norm| (n, norm)))
            .map(|(n, norm)| marks.compute(n, norm))
            .collect();
        marks
    }

    fn compute(&self, times: u32, norm: u8) -> u32 {
        let times = f64::from(times);
        let length = f64::from(FieldNormReader::id_to_fieldnorm(norm)) / AVERAGE;
        let weight = times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length));
        // At most some 30 units: far below the largest number.
        (self.rarity * weight * UNIT).round() as u32
    }

    fn of(&self, times: u32, norm: u8) -> u32 {
        let at = times as usize * 256 + usize::from(norm);
        self.table.get(at).copied().unwrap_or_else(|| self.compute(times, norm))
    }
}

/// Collects the first hits of all, counts all, and counts values of fields.
pub(super) struct Ranker {
    sort: Sort,
    wanted: usize,
    text: Field,
    words: Vec<Word>,
    facets: Vec<Exact>,
}

impl Ranker {
    /// Makes a ranker for the first `wanted` hits.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn new(
        searcher: &Searcher,
        text: Field,
        words: &BTreeSet<String>,
        (sort, wanted): (Sort, usize),
        facets: Vec<Exact>,
    ) -> tantivy::Result<Self> {
        let all = searcher.num_docs();
        let weigh = |word: &String| {
            let term = Term::from_field_text(text, word);
            let with = alive_with(searcher, &term)?;
            Ok(Word { term, marks: Arc::new(Marks::new(with, all)) })
        };
        let words = match sort {
            Sort::Best => words.iter().map(weigh).collect::<tantivy::Result<_>>()?,
            _ => Vec::new(),
        };
        Ok(Self { sort, wanted, text, words, facets })
    }
}

/// Counts the documents with a term that are not deleted.
fn alive_with(searcher: &Searcher, term: &Term) -> tantivy::Result<u64> {
    let mut count = 0;
    for segment in searcher.segment_readers() {
        let inverted = segment.inverted_index(term.field())?;
        count += match segment.alive_bitset() {
            None => u64::from(inverted.doc_freq(term)?),
            Some(alive) => inverted
                .read_postings(term, IndexRecordOption::Basic)?
                .map_or(0, |postings| u64::from(postings.doc_freq_given_deletes(alive))),
        };
    }
    Ok(count)
}

impl Collector for Ranker {
    type Fruit = Ranked;
    type Child = InSegment;

    fn for_segment(
        &self,
        _segment: SegmentOrdinal,
        reader: &SegmentReader,
    ) -> tantivy::Result<InSegment> {
        let inverted = reader.inverted_index(self.text)?;
        let mut words = Vec::new();
        for word in &self.words {
            let postings = inverted.read_postings(&word.term, IndexRecordOption::WithFreqs)?;
            words.extend(postings.map(|postings| (postings, Arc::clone(&word.marks))));
        }
        let fast = reader.fast_fields();
        let scores = match self.sort {
            Sort::LowestScore | Sort::HighestScore => fast.column_opt::<f64>("score")?,
            _ => None,
        };
        let facets = self.facets.iter().map(|field| Counter::open(reader, *field));
        Ok(InSegment {
            sort: self.sort,
            first: First { wanted: self.wanted, kept: Vec::new(), least: None },
            words,
            norms: reader.get_fieldnorms_reader(self.text)?,
            seqs: fast.u64("seq")?.first_or_default_col(0),
            scores,
            facets: facets.collect::<tantivy::Result<_>>()?,
            waiting: Vec::with_capacity(BLOCK),
            total: 0,
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, found: Vec<Ranked>) -> tantivy::Result<Ranked> {
        let mut first = First { wanted: self.wanted, kept: Vec::new(), least: None };
        let mut all =
            Ranked { counts: vec![BTreeMap::new(); self.facets.len()], ..Ranked::default() };
        for part in found {
            all.total += part.total;
            part.places.into_iter().for_each(|place| first.offer(place));
            for (counts, more) in all.counts.iter_mut().zip(part.counts) {
                for (value, n) in more {
                    *counts.entry(value).or_default() += n;
                }
            }
        }
        all.places = first.finish();
        Ok(all)
    }
}

/// The first hits so far.
struct First {
    wanted: usize,
    kept: Vec<Place>,
    /// What comes behind this is not among the first.
    least: Option<Place>,
}

impl First {
    fn offer(&mut self, place: Place) {
        if self.least.is_some_and(|least| place <= least) {
            return;
        }
        self.kept.push(place);
        if self.kept.len() >= CANDIDATES.max(self.wanted.saturating_mul(2)) {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.kept.len() > self.wanted && self.wanted > 0 {
            let (_, least, _) = self.kept.select_nth_unstable_by(self.wanted - 1, |a, b| b.cmp(a));
            self.least = Some(*least);
        }
        self.kept.truncate(self.wanted);
    }

    fn finish(mut self) -> Vec<Place> {
        self.shrink();
        self.kept.sort_unstable_by(|a, b| b.cmp(a));
        self.kept
    }
}

/// Counts values of a field.
struct Counter {
    column: Option<StrColumn>,
    counts: Vec<u64>,
}

impl Counter {
    fn open(reader: &SegmentReader, field: Exact) -> tantivy::Result<Self> {
        let column = reader.fast_fields().str(field.name())?;
        let values = column.as_ref().map_or(0, |column| column.num_terms());
        Ok(Self { column, counts: vec![0; values] })
    }

    fn count(&mut self, docs: &[DocId]) {
        let Some(column) = &self.column else { return };
        let (ords, counts) = (column.ords(), &mut self.counts);
        let mut add = |ord: u64| {
            let at = usize::try_from(ord).unwrap_or(usize::MAX);
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        };
        if ords.get_cardinality() != Cardinality::Full {
            docs.iter().for_each(|doc| ords.values_for_doc(*doc).for_each(&mut add));
            return;
        }
        // One value each: those of a block are read together.
        let mut block = [0_u64; BLOCK];
        let Some(block) = block.get_mut(..docs.len()) else { return };
        ords.values.get_vals(docs, block);
        block.iter().for_each(|ord| add(*ord));
    }

    fn finish(self) -> BTreeMap<String, u64> {
        let mut counted = BTreeMap::new();
        let Some(column) = self.column else { return counted };
        let there = (0..).zip(&self.counts).filter(|(_, count)| **count > 0);
        let (ords, counts): (Vec<u64>, Vec<u64>) = there.unzip();
        let mut counts = counts.into_iter();
        // A value that cannot be read is not counted; the index is damaged then, and searching
        // its words fails as well.
        let _ = column.dictionary().sorted_ords_to_term_cb(&ords, |value| {
            let value = String::from_utf8_lossy(value).into_owned();
            counted.insert(value, counts.next().unwrap_or_default());
        });
        counted
    }
}

/// Collects within a segment.
pub(super) struct InSegment {
    sort: Sort,
    first: First,
    words: Vec<(SegmentPostings, Arc<Marks>)>,
    norms: FieldNormReader,
    seqs: Arc<dyn ColumnValues<u64>>,
    scores: Option<Column<f64>>,
    facets: Vec<Counter>,
    waiting: Vec<DocId>,
    total: u64,
}

impl InSegment {
    fn take(&mut self, docs: &[DocId]) {
        for docs in docs.chunks(BLOCK) {
            self.total += docs.len() as u64;
            self.facets.iter_mut().for_each(|facet| facet.count(docs));
            if self.first.wanted > 0 {
                self.place(docs);
            }
        }
    }

    fn place(&mut self, docs: &[DocId]) {
        let mut marks = [0_u64; BLOCK];
        for (postings, table) in &mut self.words {
            for (doc, marks) in docs.iter().zip(&mut marks) {
                if postings.doc() < *doc {
                    postings.seek(*doc);
                }
                if postings.doc() == *doc {
                    let norm = self.norms.fieldnorm_id(*doc);
                    *marks += u64::from(table.of(postings.term_freq(), norm));
                }
            }
        }
        let by_marks = self.sort == Sort::Best;
        if by_marks && !self.words.is_empty() {
            self.place_best(docs, &marks);
            return;
        }
        let mut seqs = [0_u64; BLOCK];
        let Some(seqs) = seqs.get_mut(..docs.len()) else { return };
        self.seqs.get_vals(docs, seqs);
        for (doc, seq) in docs.iter().zip(seqs) {
            let key = match (self.sort, &self.scores) {
                (Sort::Newest, _) => *seq,
                (Sort::LowestScore, Some(scores)) => {
                    scores.first(*doc).map_or(0, |score| !ascending(score))
                }
                (Sort::HighestScore, Some(scores)) => scores.first(*doc).map_or(0, ascending),
                _ => 0,
            };
            self.first.offer(Place::new(key, *seq));
        }
    }

    /// Asks for the event only of documents that may be among the first.
    fn place_best(&mut self, docs: &[DocId], marks: &[u64; BLOCK]) {
        for (doc, marks) in docs.iter().zip(marks) {
            if self.first.least.is_none_or(|least| *marks >= least.key()) {
                let seq = self.seqs.get_val(*doc);
                self.first.offer(Place::new(*marks, seq));
            }
        }
    }
}

/// Maps numbers to whole ones in the same order. No finite number becomes 0.
fn ascending(score: f64) -> u64 {
    let bits = score.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

impl SegmentCollector for InSegment {
    type Fruit = Ranked;

    fn collect(&mut self, doc: DocId, _score: Score) {
        self.waiting.push(doc);
        if self.waiting.len() == BLOCK {
            let docs = std::mem::take(&mut self.waiting);
            self.take(&docs);
            self.waiting = docs;
            self.waiting.clear();
        }
    }

    fn collect_block(&mut self, docs: &[DocId]) {
        self.take(docs);
    }

    fn harvest(mut self) -> Ranked {
        let docs = std::mem::take(&mut self.waiting);
        self.take(&docs);
        let counts = self.facets.into_iter().map(Counter::finish).collect();
        Ranked { total: self.total, places: self.first.finish(), counts }
    }
}

/// Lists what the feedback that fits a query is about.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn targets(
    searcher: &Searcher,
    feedback: &dyn Query,
) -> tantivy::Result<BTreeSet<String>> {
    let facets = vec![Exact::Target];
    let counting =
        Ranker { sort: Sort::Oldest, wanted: 0, text: text_of(searcher)?, words: vec![], facets };
    let found = searcher.search(feedback, &counting)?;
    Ok(found.counts.into_iter().flat_map(BTreeMap::into_keys).collect())
}

fn text_of(searcher: &Searcher) -> tantivy::Result<Field> {
    searcher.schema().get_field("text")
}

#[cfg(test)]
mod tests;
