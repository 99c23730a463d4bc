//! Search: traces, scored cases, failures, reports and decisions by words and by field, in
//! tantivy.
//!
//! The index follows the record and holds no text: what a hit says is made again from the record.
//! It can be deleted at any time: built again from event 0 it gives the same answers. Searching
//! needs no lock; keeping the index up needs tantivy's writer lock, and where another process
//! holds it, that process keeps it up. When a subject is forgotten, its documents go, and the
//! files that held their words are written anew.

mod context;
mod decisions;
mod document;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hits;
mod index;
mod language;
mod query;
mod rank;
mod saved;
mod schema;
mod snippet;
mod tokens;
mod write;

pub use follow::{Followed, Follower};
pub use hits::{Facet, FacetValue, Found, Hit, Hits, Options};
pub use index::{CaughtUp, Index, Progress};
pub use query::Filters;
pub use rank::Sort;
pub use saved::{SavedError, SavedSearch, SavedSearches, shipped};
pub use snippet::Snippet;

use std::path::PathBuf;

use ledger::ReadError;

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
    /// The index could not be searched for feedback.
    #[error("search index: {source}")]
    Feedback {
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
    #[error("there is no field {name}: search in {}, or quote what has a colon", FIELDS.join(", "))]
    UnknownField {
        /// The name.
        name: String,
    },
    /// The values of a field cannot be counted.
    #[error("values of {name} cannot be counted: count one of {}", FACETS.join(", "))]
    NoFacet {
        /// The name.
        name: String,
    },
    /// The query cannot be read.
    #[error("query cannot be read: {0}")]
    Query(String),
}

/// Fields that a query may name, as in `tool:get_weather`.
pub const FIELDS: [&str; 23] = [
    "text", "kind", "tool", "issue", "run", "label", "model", "source", "flag", "stratum",
    "outcome", "suite", "feedback", "licence", "format", "track", "case", "id", "target",
    "subject", "seq", "time", "score",
];

/// Fields whose values can be counted over all hits.
pub const FACETS: [&str; 15] = [
    "kind", "tool", "issue", "run", "label", "model", "source", "flag", "stratum", "outcome",
    "suite", "feedback", "licence", "format", "track",
];

#[cfg(test)]
mod tests {
    use super::schema::{Exact, Number};
    use super::*;

    #[test]
    fn the_lists_of_fields_are_whole() {
        let names = Exact::ALL.iter().map(|(_, name)| *name);
        let numbers = Number::ALL.iter().map(|(_, name)| *name);
        let all: Vec<&str> = ["text"].into_iter().chain(names).chain(numbers).collect();
        assert_eq!(FIELDS.as_slice(), all);
        let facets = Exact::ALL.iter().filter(|(field, _)| field.is_facet());
        assert_eq!(FACETS.as_slice(), facets.map(|(_, name)| *name).collect::<Vec<_>>());
    }
}
