//! The integration tests: through the public API and the `ledger` binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod datasets;
mod docs;
mod erasure;
mod fetching;
mod gateway;
mod ingesting;
mod licences;
mod record;
mod refusals;
mod searching;
mod serving;
mod support;
mod tidy;
mod tree;
mod whole;
