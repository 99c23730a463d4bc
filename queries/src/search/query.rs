//! From what is asked to what tantivy runs.

use std::collections::BTreeSet;
use std::ops::Bound;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery,
    PhraseQuery, Query, RangeQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{Searcher, Term};

use super::SearchError;
use super::language::{Amount, Node, parse, parse_feedback};
use super::rank::targets;
use super::schema::{Exact, Fields, Number};
use super::tokens;

/// What hits must have beside the words asked for. Empty ones ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// Kind of event, or family: `trace`, `case`, `decision`, `rejection`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Issue tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue: Option<String>,
    /// Run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Source of a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Outcome: `failed`, `passed`, `promoted`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Label of an arm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Earliest time of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// The event is older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Only traces that have feedback of this name, or with a value in bounds: `correction`,
    /// `quality<0.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
}

impl Filters {
    fn values(&self) -> [(Exact, &Option<String>); 8] {
        [
            (Exact::Kind, &self.kind),
            (Exact::Tool, &self.tool),
            (Exact::Issue, &self.issue),
            (Exact::Run, &self.run),
            (Exact::Model, &self.model),
            (Exact::Source, &self.source),
            (Exact::Outcome, &self.outcome),
            (Exact::Label, &self.label),
        ]
    }
}

/// What tantivy runs, with the words that count for the order and are marked in snippets.
pub(super) struct Asked {
    pub(super) query: Box<dyn Query>,
    /// Whole words.
    pub(super) words: BTreeSet<String>,
    /// Beginnings of words.
    pub(super) beginnings: BTreeSet<String>,
}

/// Makes the query of words and filters.
///
/// # Errors
/// When either cannot be read, or the index cannot be searched for feedback.
pub(super) fn asked(
    fields: &Fields,
    searcher: &Searcher,
    (query, filters): (&str, &Filters),
) -> Result<Asked, SearchError> {
    let mut builder = Builder::new(fields, searcher);
    let words = builder.build(&parse(query)?, true);
    let mut parts = vec![words.unwrap_or_else(|| Box::new(EmptyQuery))];
    for (field, value) in filters.values() {
        if let Some(value) = value {
            parts.extend(builder.value(field, value, false));
        }
    }
    let within = |time: &DateTime<Utc>| Amount::Time(time.timestamp_micros());
    if filters.since.is_some() || filters.until.is_some() {
        let low = filters.since.as_ref().map_or(Bound::Unbounded, |t| Bound::Included(within(t)));
        let high = filters.until.as_ref().map_or(Bound::Unbounded, |t| Bound::Excluded(within(t)));
        parts.push(builder.range(Number::Time, low, high));
    }
    if let Some(feedback) = &filters.feedback {
        parts.push(judged(fields, searcher, feedback)?);
    }
    let query = match parts.len() {
        1 => parts.remove(0),
        _ => Box::new(BooleanQuery::intersection(parts)),
    };
    Ok(Asked { query, words: builder.words, beginnings: builder.beginnings })
}

/// Makes the query for traces that have some feedback.
fn judged(
    fields: &Fields,
    searcher: &Searcher,
    condition: &str,
) -> Result<Box<dyn Query>, SearchError> {
    let feedback = Builder::new(fields, searcher).build(&parse_feedback(condition)?, false);
    let (Some(feedback), Some(id)) = (feedback, fields.exact(Exact::Id)) else {
        return Ok(Box::new(EmptyQuery));
    };
    let judged = targets(searcher, feedback.as_ref())
        .map_err(|source| SearchError::Feedback { source: Box::new(source) })?;
    if judged.is_empty() {
        return Ok(Box::new(EmptyQuery));
    }
    let ids = judged.iter().map(|target| Term::from_field_text(id, target));
    let of_traces = with_value(fields, Exact::Kind, "trace");
    let judged = Box::new(TermSetQuery::new(ids));
    Ok(Box::new(BooleanQuery::intersection(vec![judged, of_traces])))
}

/// Makes the query for documents with a value.
pub(super) fn with_value(fields: &Fields, field: Exact, value: &str) -> Box<dyn Query> {
    match fields.exact(field) {
        Some(field) => term(field, value),
        None => Box::new(EmptyQuery),
    }
}

struct Builder<'a> {
    fields: &'a Fields,
    searcher: &'a Searcher,
    words: BTreeSet<String>,
    beginnings: BTreeSet<String>,
}

impl<'a> Builder<'a> {
    fn new(fields: &'a Fields, searcher: &'a Searcher) -> Self {
        Self { fields, searcher, words: BTreeSet::new(), beginnings: BTreeSet::new() }
    }

    /// Makes the query of a node; none where it has nothing to search for. `wanted` is false
    /// within what is excluded.
    fn build(&mut self, node: &Node, wanted: bool) -> Option<Box<dyn Query>> {
        match node {
            Node::Everything => Some(Box::new(AllQuery)),
            Node::All(nodes) => self.all(nodes, wanted),
            Node::Any(nodes) => {
                let parts: Vec<_> = nodes.iter().filter_map(|n| self.build(n, wanted)).collect();
                (!parts.is_empty()).then(|| Box::new(BooleanQuery::union(parts)) as Box<dyn Query>)
            }
            Node::Not(_) => self.all(std::slice::from_ref(node), wanted),
            Node::Words { words, begins } => self.words(words, *begins, wanted),
            Node::Value { field, value, begins } => self.value(*field, value, *begins),
            Node::Range { number, low, high } => Some(self.range(*number, *low, *high)),
        }
    }

    fn all(&mut self, nodes: &[Node], wanted: bool) -> Option<Box<dyn Query>> {
        let mut parts: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for node in nodes {
            let (occur, query) = match node {
                Node::Not(inner) => (Occur::MustNot, self.build(inner, !wanted)),
                node => (Occur::Must, self.build(node, wanted)),
            };
            parts.extend(query.map(|query| (occur, query)));
        }
        if parts.is_empty() {
            return None;
        }
        if parts.iter().all(|(occur, _)| *occur == Occur::MustNot) {
            parts.push((Occur::Must, Box::new(AllQuery)));
        }
        Some(match parts.len() {
            1 => parts.remove(0).1,
            _ => Box::new(BooleanQuery::new(parts)),
        })
    }

    fn words(&mut self, text: &str, begins: bool, wanted: bool) -> Option<Box<dyn Query>> {
        let mut found: Vec<(usize, String)> = Vec::new();
        tokens::of_queries().token_stream(text).process(&mut |token| {
            found.push((token.position, token.text.clone()));
        });
        let last = found.last().map(|(_, word)| word.clone())?;
        // In documents, characters that are cut into pairs stand at the beginning of tokens.
        let begins = begins || tokens::is_lone(&last);
        if wanted {
            let whole = if begins { found.len() - 1 } else { found.len() };
            self.words.extend(found.iter().take(whole).map(|(_, word)| word.clone()));
            self.beginnings.extend(begins.then(|| last.clone()));
        }
        let field = self.fields.text;
        if found.len() == 1 {
            return Some(if begins { beginning(field, &last) } else { term(field, &last) });
        }
        let terms = found.iter().map(|(at, word)| (*at, Term::from_field_text(field, word)));
        let terms = terms.collect();
        if !begins {
            return Some(Box::new(PhraseQuery::new_with_offset(terms)));
        }
        let mut phrase = PhrasePrefixQuery::new_with_offset(terms);
        // Exactly as many as there are, because room for all is taken at once.
        phrase.set_max_expansions(expansions(self.searcher, field, &last));
        Some(Box::new(phrase))
    }

    fn value(&self, field: Exact, value: &str, begins: bool) -> Option<Box<dyn Query>> {
        let field = self.fields.exact(field)?;
        Some(if begins { beginning(field, value) } else { term(field, value) })
    }

    fn range(&self, number: Number, low: Bound<Amount>, high: Bound<Amount>) -> Box<dyn Query> {
        let field = self.fields.number(number);
        let term = |amount| match amount {
            Amount::Seq(seq) => Term::from_field_u64(field, seq),
            Amount::Time(micros) => Term::from_field_i64(field, micros),
            Amount::Score(score) => Term::from_field_f64(field, score),
        };
        let (low, high) = (low.map(term), high.map(term));
        if matches!((&low, &high), (Bound::Unbounded, Bound::Unbounded)) {
            return Box::new(AllQuery);
        }
        Box::new(RangeQuery::new(low, high))
    }
}

fn term(field: Field, value: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(field, value), IndexRecordOption::Basic))
}

/// Makes the query for terms that begin with `value`.
fn beginning(field: Field, value: &str) -> Box<dyn Query> {
    let last = format!("{value}{}", char::MAX);
    Box::new(InvertedIndexRangeQuery::new(
        Bound::Included(Term::from_field_text(field, value)),
        Bound::Included(Term::from_field_text(field, &last)),
    ))
}

/// Counts the terms that begin with `value`, in the segment that has most of them.
fn expansions(searcher: &Searcher, field: Field, value: &str) -> u32 {
    let last = format!("{value}{}", char::MAX);
    let counted = searcher.segment_readers().iter().map(|segment| {
        let Ok(inverted) = segment.inverted_index(field) else { return 0 };
        let range = inverted.terms().range().ge(value.as_bytes()).le(last.as_bytes());
        let Ok(mut terms) = range.into_stream() else { return 0 };
        let mut count = 0;
        while terms.advance() {
            count += 1;
        }
        count
    });
    counted.max().unwrap_or_default().max(1)
}
