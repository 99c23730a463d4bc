//! Asking the index.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::PoisonError;

use chrono::{DateTime, Utc};
use ledger::Reader;
use serde::Serialize;
use tantivy::Searcher;

use super::context::Lookup;
use super::document::draft;
use super::index::Committed;
use super::query::{Asked, Filters, asked};
use super::rank::{Place, Ranker, Sort};
use super::schema::Exact;
use super::snippet::{Snippet, snippet};
use super::{Index, SearchError};

/// Which of the hits are wanted, in which order, and what is counted over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most hits.
    pub limit: usize,
    /// Hits that are left out before them.
    pub offset: usize,
    /// Their order.
    pub sort: Sort,
    /// Fields whose values are counted over all hits.
    pub facets: Vec<String>,
    /// Most values of each of these fields.
    pub values: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit: 20, offset: 0, sort: Sort::Best, facets: Vec::new(), values: 10 }
    }
}

impl Options {
    /// Asks for the best `limit` hits.
    pub fn best(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hits {
    /// Documents that fit: exactly, not only those that are shown.
    pub total: u64,
    /// Those that were asked for, in order; ties by event.
    pub hits: Vec<Hit>,
    /// Values of the fields that were asked for, over all documents that fit.
    pub facets: Vec<Facet>,
}

/// What was found, as events only.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// Documents that fit: exactly, not only those that are listed.
    pub total: u64,
    /// Events of those that were asked for, in order.
    pub events: Vec<u64>,
    /// Values of the fields that were asked for, over all documents that fit.
    pub facets: Vec<Facet>,
}

/// A field with how many hits have which value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Its values: those that most hits have first, then by value.
    pub values: Vec<FacetValue>,
    /// Values that there are beside these.
    pub more: u64,
}

/// A value with how many hits have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FacetValue {
    /// The value.
    pub value: String,
    /// Hits that have it.
    pub hits: u64,
}

/// One document that fits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Event.
    pub seq: u64,
    /// When it was appended.
    pub at: DateTime<Utc>,
    /// Its kind.
    pub kind: String,
    /// How well it fits: 0 where it is not sorted by that.
    pub score: f32,
    /// How good the answer was: F1 of the strict reading of a case, the value of feedback.
    pub value: Option<f64>,
    /// What it is about.
    pub title: String,
    /// Where the words stand in it.
    pub snippet: Snippet,
    /// Its other fields.
    pub fields: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Finds what fits all words of `query` and all `filters`, and tells it out of the record of
    /// `reader`.
    ///
    /// The query may name fields (`tool:get_weather issue:arguments_mismatch`), bound numbers
    /// (`score:<0.5`, `time:>2026-11-01`), join words with `OR`, exclude with `-` and quote
    /// phrases. Without any word everything fits.
    ///
    /// # Errors
    /// When the query names an unknown field or a number cannot be read, or index or record
    /// cannot be read.
    pub fn search(
        &self,
        reader: &Reader,
        (query, filters): (&str, &Filters),
        options: &Options,
    ) -> Result<Hits, SearchError> {
        let searcher = self.reader.searcher();
        let asked = asked(&self.fields, &searcher, (query, filters))?;
        let (total, places, facets) = self.rank(&searcher, &asked, options)?;
        let finder = Committed { searcher: &searcher, fields: &self.fields };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lookup = Lookup::new(reader, &mut told, &finder);
        let mut hits = Vec::new();
        for place in places {
            hits.extend(tell(&mut lookup, &asked, (place, options.sort))?);
        }
        Ok(Hits { total, hits, facets })
    }

    /// Finds what fits, as events only: for many hits, or where their text does not matter.
    ///
    /// # Errors
    /// When the query names an unknown field or a number cannot be read, or the index cannot be
    /// read.
    pub fn find(
        &self,
        (query, filters): (&str, &Filters),
        options: &Options,
    ) -> Result<Found, SearchError> {
        let searcher = self.reader.searcher();
        let asked = asked(&self.fields, &searcher, (query, filters))?;
        let (total, places, facets) = self.rank(&searcher, &asked, options)?;
        Ok(Found { total, events: places.iter().map(Place::seq).collect(), facets })
    }

    fn rank(
        &self,
        searcher: &Searcher,
        asked: &Asked,
        options: &Options,
    ) -> Result<(u64, Vec<Place>, Vec<Facet>), SearchError> {
        let facets = facets_of(&options.facets)?;
        let wanted = options.offset.saturating_add(options.limit);
        // No more than there are, so that no limit takes more room than the hits.
        let wanted = wanted.min(usize::try_from(searcher.num_docs()).unwrap_or(usize::MAX));
        let (text, order) = (self.fields.text, (options.sort, wanted));
        let ranker = Ranker::new(searcher, text, &asked.words, order, facets.clone());
        let ranked = ranker
            .and_then(|ranker| searcher.search(asked.query.as_ref(), &ranker))
            .map_err(|source| self.failed(source))?;
        let places = ranked.places.into_iter().skip(options.offset).collect();
        let counted = facets.into_iter().zip(ranked.counts);
        let facets = counted.map(|(field, counts)| facet(field, counts, options.values)).collect();
        Ok((ranked.total, places, facets))
    }
}

/// Reads names of fields whose values can be counted.
pub(super) fn facets_of(names: &[String]) -> Result<Vec<Exact>, SearchError> {
    let facet = |name: &String| {
        let field = Exact::named(name).filter(|field| field.is_facet());
        field.ok_or_else(|| SearchError::NoFacet { name: name.clone() })
    };
    names.iter().map(facet).collect()
}

/// Takes the most frequent values.
fn facet(field: Exact, counts: BTreeMap<String, u64>, most: usize) -> Facet {
    let mut values: Vec<FacetValue> =
        counts.into_iter().map(|(value, hits)| FacetValue { value, hits }).collect();
    // They come by value, and sorting keeps that order among equals.
    values.sort_by_key(|value| Reverse(value.hits));
    let more = values.len().saturating_sub(most) as u64;
    values.truncate(most);
    Facet { field: field.name().to_owned(), values, more }
}

/// Tells a hit out of the record; none where the record has no such event.
fn tell(
    lookup: &mut Lookup<'_>,
    asked: &Asked,
    (place, sort): (Place, Sort),
) -> Result<Option<Hit>, SearchError> {
    let Some(event) = lookup.reader.get(place.seq())? else { return Ok(None) };
    let draft = draft(&event, lookup).ok().flatten().unwrap_or_default();
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (field, value) in draft.exact {
        if field != Exact::Kind {
            fields.entry(field.name().to_owned()).or_default().push(value);
        }
    }
    Ok(Some(Hit {
        seq: event.seq,
        at: event.at,
        kind: event.kind,
        score: place.score(sort),
        value: draft.score,
        title: draft.title,
        snippet: snippet(asked, &draft.text),
        fields,
    }))
}
