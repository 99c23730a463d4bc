//! What is measured of the machine: never part of a fact.

use models::kernels::Isa;
use serde_json::{Value, json};

/// Describes the machine, the program and the path that its kernels take.
pub fn environment(isa: Isa) -> Value {
    json!({
        "program": concat!("ledger ", env!("CARGO_PKG_VERSION")),
        "kernels": isa.name(),
        "threads": threads(),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
    })
}

/// Returns the threads that kernels use.
pub fn threads() -> usize {
    models::kernels::threads()
}

/// Returns the most memory that this process held so far, in MiB, where the system tells.
pub fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kb: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1024)
}
