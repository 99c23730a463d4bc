//! What fuzzers call, and the test that reads the kept corpus again.
//!
//! Each function takes any bytes and must return: what it asserts holds for every input, and no
//! input makes the code below it panic or run without end. `fuzz/README.md` says how to run them.

use std::sync::OnceLock;

use tantivy::collector::Count;
use tantivy::{Index, IndexReader, TantivyDocument, TantivyError};

use super::language::{parse, parse_feedback};
use super::query::{Filters, asked};
use super::saved::SavedSearch;
use super::schema::{Exact, Fields};
use super::snippet::snippet;
use super::tokens::{WORDS, of_documents};

/// What the documents say.
const TEXTS: [&str; 3] =
    ["what is the weather in São Paulo?", "東京の天気は晴れ get_weather", "a b a b a b"];

/// A small index in memory.
struct Small {
    fields: Fields,
    reader: IndexReader,
}

impl Small {
    fn build() -> Result<Self, TantivyError> {
        let fields = Fields::new();
        let index = Index::create_in_ram(fields.schema.clone());
        index.tokenizers().register(WORDS, of_documents());
        let mut writer = index.writer_with_num_threads(1, 15_000_000)?;
        for (seq, text) in (0_u64..).zip(TEXTS) {
            let mut document = TantivyDocument::new();
            document.add_text(fields.text, text);
            document.add_u64(fields.seq, seq);
            document.add_i64(fields.time, 1_764_000_000_000_000);
            document.add_f64(fields.score, 0.5);
            if let Some(tool) = fields.exact(Exact::Tool) {
                document.add_text(tool, "get_weather");
            }
            writer.add_document(document)?;
        }
        writer.commit()?;
        Ok(Self { reader: index.reader()?, fields })
    }

    fn shared() -> Option<&'static Self> {
        static SMALL: OnceLock<Option<Small>> = OnceLock::new();
        SMALL.get_or_init(|| Self::build().ok()).as_ref()
    }
}

/// A query as somebody types it, and a condition on feedback. What is read can be run; what is cut
/// out of a text for it stands in that text, and what is marked stands in what is cut.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(small) = Small::shared() else { return };
    let searcher = small.reader.searcher();
    let is_condition = parse_feedback(text).is_ok();
    let judged = Filters { feedback: Some(text.to_owned()), ..Filters::default() };
    assert_eq!(asked(&small.fields, &searcher, ("", &judged)).is_ok(), is_condition);
    let read = asked(&small.fields, &searcher, (text, &Filters::default()));
    assert_eq!(read.is_ok(), parse(text).is_ok());
    let Ok(read) = read else { return };
    let found = searcher.search(&read.query, &Count).map_err(|error| error.to_string());
    assert!(found.as_ref().is_ok_and(|&found| found <= TEXTS.len()), "{found:?}");
    for said in TEXTS.iter().copied().chain([text]) {
        let cut = snippet(&read, said);
        assert!(said.contains(&cut.text));
        let marks = cut.highlights.iter();
        assert!(marks.clone().all(|&(from, to)| from < to && cut.text.get(from..to).is_some()));
        assert!(marks.clone().zip(marks.skip(1)).all(|(one, next)| one.1 <= next.0));
    }
}

/// A saved search as a file or as facts of an event. What is read is written as the same search.
pub fn saved(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let facts = serde_json::from_str(text).ok();
    let of_facts = facts.and_then(|facts| SavedSearch::from_value(&facts).ok());
    for search in SavedSearch::parse("fuzz", text).ok().into_iter().chain(of_facts) {
        let written = search.to_value().ok();
        let again = written.as_ref().and_then(|facts| SavedSearch::from_value(facts).ok());
        assert_eq!(again.as_ref(), Some(&search));
    }
}

#[cfg(test)]
mod tests;
