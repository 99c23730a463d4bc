//! Traces in, frozen datasets out: canonical episodes, splits, suites and scoring.
//!
//! Everything here is a pure function of its input: readers turn rows into [`Episode`]s, builders
//! freeze episodes into manifests of row references, and scorers compare answers with golds.
//! Nothing writes to the record, and nothing depends on clock, host or hash-map order.

pub mod cep;
pub mod episode;
pub mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gold;
pub mod ingest;
pub mod leak;
pub mod literal;
pub mod manifest;
pub mod near;
pub mod redact;
#[cfg(test)]
mod samples;
pub mod score;
mod signature;
pub mod span;
pub mod split;
pub mod suite;
pub mod template;

pub use cep::Cep;
pub use episode::{Answer, Call, Episode, Gold, Source, Tool, Turn};
pub use ingest::{Format, IngestError, Reading, Row, SourceInfo};
pub use score::{CaseScore, Expected, Metrics, Prf};
pub use split::{Side, SplitManifest, SplitSpec};
pub use suite::{Case, SuiteManifest, SuiteSpec};
