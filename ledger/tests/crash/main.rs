//! What survives when the writer, the machine or a disk ends: by processes that are killed, file
//! systems that are cut off, and one that is full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;

mod full;
mod kill;
mod power;
mod writer;

/// Says that a test was passed over, past the harness, which keeps what passing tests print.
fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

/// Reads how often something is done from the environment.
fn times(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}
