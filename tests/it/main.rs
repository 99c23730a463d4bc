//! The integration tests: through the public API and the `ledger` binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod datasets;
mod docs;
mod erasure;
mod fetching;
mod gaps;
mod gateway;
mod ingesting;
mod langfuse;
mod licences;
mod otlp;
mod record;
mod refusals;
mod sdks;
mod searching;
mod serving;
mod support;
mod tidy;
mod training;
mod tree;
mod whole;
