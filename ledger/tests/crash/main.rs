//! What survives when the writer or the machine ends: by processes that are killed, and by file
//! systems that are cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kill;
mod power;
mod writer;

/// Reads how often something is done from the environment.
fn times(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}
