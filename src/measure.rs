//! What is measured of the machine: never part of a fact.

use ledger::Envelope;
use models::kernels::Isa;
use models::trainer::Target;
use serde_json::{Value, json};

/// Describes the machine, the program, the path that its kernels take and what computes.
pub fn environment(isa: Isa, target: Target) -> Value {
    json!({
        "program": concat!("ledger ", env!("CARGO_PKG_VERSION")),
        "kernels": isa.name(),
        "device": target.name(),
        "arithmetic": models::kernels::ARITHMETIC,
        "threads": threads(),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
    })
}

/// Returns the path that the event of a run's start tells, if this machine has it.
pub fn path_of(started: &Envelope) -> Option<Isa> {
    let name = started.measured.get("kernels")?.as_str()?;
    Isa::named(name).filter(|isa| isa.is_here())
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

/// Returns the bytes that this process could still take: what the machine has free, or less where
/// its control group is held to less.
pub fn available_bytes() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kb: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    // What is kept of files is given up where memory is wanted.
    let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let of_files = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        ["inactive_file", "active_file"].contains(&name).then(|| bytes.parse::<usize>().ok())?
    };
    let files: usize = stat.lines().filter_map(of_files).sum();
    let used = used.saturating_sub(files);
    let of_group = limit.map_or(usize::MAX, |limit| limit.saturating_sub(used));
    Some(of_group.min(kb * 1024))
}
