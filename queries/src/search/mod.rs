//! Search: traces, scored cases and decisions by words and by field, in tantivy.
//!
//! The index follows the record. It can be deleted at any time: built again from event 0 it gives
//! the same answers. Searching needs no lock; keeping the index up needs tantivy's writer lock,
//! and where another process holds it, that process keeps it up.

mod document;
mod index;
mod query;

pub use index::{CaughtUp, Index};
pub use query::{Filters, Hit, Hits, Snippet};

use std::path::PathBuf;

use ledger::ReadError;
use tantivy::schema::{FAST, Field, INDEXED, STORED, STRING, Schema, TEXT};

/// Says why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index could not be opened, written or searched.
    #[error("search index {path}: {source}")]
    Index {
        /// Its directory.
        path: PathBuf,
        /// What tantivy says.
        source: Box<tantivy::TantivyError>,
    },
    /// A file of the index could not be made or removed.
    #[error("search index {path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The query names a field that there is not.
    #[error("there is no field {name}: search in {}", FIELDS.join(", "))]
    UnknownField {
        /// The name.
        name: String,
    },
    /// The query cannot be read.
    #[error("query cannot be read: {0}")]
    Query(String),
}

/// Fields that a query may name, as in `tool:get_weather`.
pub const FIELDS: [&str; 10] =
    ["text", "kind", "tool", "issue", "run", "label", "source", "flag", "stratum", "outcome"];

/// Fields that hold one exact value or several.
const EXACT_FIELDS: [&str; 10] =
    ["kind", "tool", "issue", "run", "label", "source", "flag", "stratum", "outcome", "case"];

/// The index's fields.
#[derive(Clone)]
struct Fields {
    schema: Schema,
    seq: Field,
    title: Field,
    text: Field,
    exact: Vec<(&'static str, Field)>,
}

impl Fields {
    fn new() -> Self {
        let mut builder = Schema::builder();
        let seq = builder.add_u64_field("seq", INDEXED | STORED | FAST);
        let title = builder.add_text_field("title", STORED);
        let text = builder.add_text_field("text", TEXT | STORED);
        let exact = EXACT_FIELDS
            .iter()
            .map(|name| (*name, builder.add_text_field(name, STRING | STORED)))
            .collect();
        Self { schema: builder.build(), seq, title, text, exact }
    }

    fn exact(&self, name: &str) -> Option<Field> {
        self.exact.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }
}
