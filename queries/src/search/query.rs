//! Asking the index.

use std::collections::BTreeMap;

use serde::Serialize;
use tantivy::collector::sort_key::{SortBySimilarityScore, SortByStaticFastValue};
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, BooleanQuery, Query, QueryParser, QueryParserError, TermQuery};
use tantivy::schema::{IndexRecordOption, Value as _};
use tantivy::snippet::SnippetGenerator;
use tantivy::{DocAddress, Order, Searcher, TantivyDocument, Term};

use super::{Index, SearchError};

/// Most characters of a snippet.
const SNIPPET_CHARS: usize = 160;

/// What hits must have beside the words asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Kind of event, or family: `trace`, `case`, `decision`, `rejection`, ...
    pub kind: Option<String>,
    /// Tool.
    pub tool: Option<String>,
    /// Issue tag.
    pub issue: Option<String>,
    /// Run.
    pub run: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hits {
    /// Documents that fit.
    pub total: u64,
    /// The best of them: by score, then by event.
    pub hits: Vec<Hit>,
}

/// One document that fits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Event.
    pub seq: u64,
    /// Its kind.
    pub kind: String,
    /// How well it fits.
    pub score: f32,
    /// What it is about.
    pub title: String,
    /// Where the words stand in it.
    pub snippet: Snippet,
    /// Its other fields.
    pub fields: BTreeMap<String, Vec<String>>,
}

/// A piece of text with the words found marked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// The piece.
    pub text: String,
    /// Byte ranges of the words found, from and up to.
    pub highlights: Vec<(usize, usize)>,
}

impl Snippet {
    /// Returns the text with `before` and `after` around each word found.
    pub fn marked(&self, before: &str, after: &str) -> String {
        let (mut marked, mut done) = (String::new(), 0);
        for (from, to) in &self.highlights {
            let (Some(plain), Some(word)) = (self.text.get(done..*from), self.text.get(*from..*to))
            else {
                continue;
            };
            marked.push_str(plain);
            marked.push_str(before);
            marked.push_str(word);
            marked.push_str(after);
            done = *to;
        }
        marked.push_str(self.text.get(done..).unwrap_or_default());
        marked
    }
}

impl Index {
    /// Finds what fits all words of `query` and all `filters`.
    ///
    /// The query may name fields (`tool:get_weather issue:arguments_mismatch`), join words with
    /// `OR`, exclude with `-` and quote phrases. Without any word everything fits.
    ///
    /// # Errors
    /// When the query names an unknown field or the index cannot be read.
    pub fn search(
        &self,
        query: &str,
        filters: &Filters,
        limit: usize,
    ) -> Result<Hits, SearchError> {
        let searcher = self.reader.searcher();
        let words = self.words(query)?;
        let asked = self.filtered(words.as_ref(), filters);
        let order = (
            (SortBySimilarityScore, Order::Desc),
            (SortByStaticFastValue::<u64>::for_field("seq"), Order::Asc),
        );
        let best = TopDocs::with_limit(limit.max(1)).order_by(order);
        let (total, found) =
            searcher.search(&asked, &(Count, best)).map_err(|source| self.failed(source))?;
        let generator = self.snippets(&searcher, words.as_ref())?;
        let hits = found
            .into_iter()
            .take(limit)
            .map(|((score, _), address)| self.hit(&searcher, &generator, (score, address)))
            .collect::<Result<_, _>>()?;
        Ok(Hits { total: total as u64, hits })
    }

    fn words(&self, query: &str) -> Result<Box<dyn Query>, SearchError> {
        if query.trim().is_empty() {
            return Ok(Box::new(AllQuery));
        }
        let mut parser = QueryParser::for_index(&self.index, vec![self.fields.text]);
        parser.set_conjunction_by_default();
        match parser.parse_query(query) {
            Ok(parsed) => Ok(parsed),
            Err(QueryParserError::FieldDoesNotExist(name)) => {
                Err(SearchError::UnknownField { name })
            }
            // Text that was pasted in often is no proper query; its words still are.
            Err(QueryParserError::SyntaxError(_)) => Ok(parser.parse_query_lenient(query).0),
            Err(other) => Err(SearchError::Query(other.to_string())),
        }
    }

    fn filtered(&self, words: &dyn Query, filters: &Filters) -> BooleanQuery {
        let wanted = [
            ("kind", &filters.kind),
            ("tool", &filters.tool),
            ("issue", &filters.issue),
            ("run", &filters.run),
        ];
        let mut parts = vec![words.box_clone()];
        for (name, value) in wanted {
            if let (Some(value), Some(field)) = (value, self.fields.exact(name)) {
                let term = Term::from_field_text(field, value);
                parts.push(Box::new(TermQuery::new(term, IndexRecordOption::Basic)));
            }
        }
        BooleanQuery::intersection(parts)
    }

    fn snippets(
        &self,
        searcher: &Searcher,
        words: &dyn Query,
    ) -> Result<SnippetGenerator, SearchError> {
        let mut generator = SnippetGenerator::create(searcher, words, self.fields.text)
            .map_err(|source| self.failed(source))?;
        generator.set_max_num_chars(SNIPPET_CHARS);
        Ok(generator)
    }

    fn hit(
        &self,
        searcher: &Searcher,
        generator: &SnippetGenerator,
        (score, address): (f32, DocAddress),
    ) -> Result<Hit, SearchError> {
        let document: TantivyDocument =
            searcher.doc(address).map_err(|source| self.failed(source))?;
        let text =
            |field| document.get_first(field).and_then(|value| value.as_str()).unwrap_or_default();
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, field) in &self.fields.exact {
            let values = document.get_all(*field).filter_map(|v| v.as_str().map(str::to_owned));
            let values: Vec<String> = values.collect();
            if !values.is_empty() {
                fields.insert((*name).to_owned(), values);
            }
        }
        let kind = fields.remove("kind").and_then(|kinds| kinds.into_iter().next());
        Ok(Hit {
            seq: document
                .get_first(self.fields.seq)
                .and_then(|value| value.as_u64())
                .unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            score,
            title: text(self.fields.title).to_owned(),
            snippet: snippet(generator, text(self.fields.text)),
            fields,
        })
    }
}

/// Cuts the piece of `text` in which most words stand; its beginning where none does.
fn snippet(generator: &SnippetGenerator, text: &str) -> Snippet {
    let found = generator.snippet(text);
    if found.is_empty() {
        let text = text.chars().take(SNIPPET_CHARS).collect();
        return Snippet { text, highlights: Vec::new() };
    }
    let highlights = found.highlighted().iter().map(|range| (range.start, range.end)).collect();
    Snippet { text: found.fragment().to_owned(), highlights }
}
