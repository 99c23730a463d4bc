//! The record beside its peers, in one run: every figure of ours stands next to that of a raw
//! file, of sled by itself or of SQLite, which encode and write the same events.
//!
//! `record-bench <folder> [part...]`; parts: one, burst, million, scan, open, verify, proof,
//! and, only when named, body.
//! Each peer takes its turn in every round; the median round counts.

mod events;
mod peers;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use ledger::{Digest, Notebook, Reader, SystemClock, verify};

use events::event;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Events of the long parts.
const MILLION: u64 = 1_000_000;
/// Rounds of the short parts.
const ROUNDS: usize = 5;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one row: what, our rate, and each peer's with the ratio to it.
fn row(what: &str, ours: f64, unit: &str, peers: &[(&str, f64)]) {
    print!("{what:34} ours {ours:>11.0} {unit}");
    for (name, rate) in peers {
        print!("   {name} {rate:>11.0} ({:.2}x)", ours / rate);
    }
    println!();
}

/// Appends `total` events in groups to a fresh notebook. Returns events a second until the last
/// acknowledgement, and until the notebook was closed with its store up to date.
fn append(dir: &Path, total: u64, group: u64) -> Outcome<(f64, f64)> {
    let dir = dir.join("notebook");
    let _ = fs::remove_dir_all(&dir);
    let notebook = Notebook::create(&dir, Arc::new(SystemClock), "bench")?;
    let begun = Instant::now();
    let mut n = 0;
    while n < total {
        let end = total.min(n + group);
        notebook.append(&[], (n..end).map(event).collect())?;
        n = end;
    }
    let acknowledged = begun.elapsed().as_secs_f64();
    notebook.close()?;
    let closed = begun.elapsed().as_secs_f64();
    Ok((total as f64 / acknowledged, total as f64 / closed))
}

/// Appends in rounds beside raw file and SQLite.
fn appends(dir: &Path, what: &str, total: u64, group: u64) -> Outcome<()> {
    let (mut raw, mut ours, mut sqlite) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(peers::raw(dir, total, group)?);
        ours.push(append(dir, total, group)?.0);
        sqlite.push(peers::sqlite(dir, total, group)?);
    }
    let peers = [("raw+fdatasync", median(raw)), ("SQLite WAL FULL", median(sqlite))];
    row(what, median(ours), "events/s", &peers);
    Ok(())
}

fn million(dir: &Path) -> Outcome<()> {
    let sled = peers::sled(dir, MILLION, 1000)?;
    let (acknowledged, closed) = append(dir, MILLION, 1000)?;
    let sqlite = peers::sqlite(dir, MILLION, 1000)?;
    let peers = [("sled alone", sled), ("SQLite WAL FULL", sqlite)];
    row("a million, until acknowledged", acknowledged, "events/s", &peers);
    row("a million, store durable too", closed, "events/s", &peers);
    Ok(())
}

/// A notebook of a million events, made once.
fn large(dir: &Path) -> Outcome<PathBuf> {
    let notebook = dir.join("notebook");
    let size = Reader::open(&notebook).and_then(|reader| reader.head()).map_or(0, |head| head.size);
    if size != MILLION + 1 {
        append(dir, MILLION, 1000)?;
    }
    Ok(notebook)
}

fn scan(dir: &Path) -> Outcome<()> {
    let notebook = large(dir)?;
    let (mut whole, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let begun = Instant::now();
        let mut bytes = 0;
        for file in peers::segments(&notebook)? {
            bytes += fs::read(file)?.len();
        }
        raw.push(bytes as f64 / 1024.0 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let mut events = 0_u64;
        for event in Reader::open(&notebook)?.events(0)? {
            events += u64::from(event?.seq < u64::MAX);
        }
        whole.push(events as f64 / begun.elapsed().as_secs_f64());
    }
    row("scan, every event decoded", median(whole), "events/s", &[("reading KiB", median(raw))]);
    Ok(())
}

fn open(dir: &Path) -> Outcome<()> {
    let notebook = large(dir)?;
    for _ in 0..3 {
        // In a process of its own, so that its memory is its own.
        let child = Command::new(std::env::current_exe()?).arg("--open").arg(&notebook).output()?;
        print!("{}", String::from_utf8_lossy(&child.stdout));
    }
    Ok(())
}

/// Opens a notebook and says what that took.
fn open_here(notebook: &Path) -> Outcome<()> {
    let begun = Instant::now();
    let notebook = Notebook::open(notebook, Arc::new(SystemClock))?;
    let took = begun.elapsed().as_secs_f64();
    let (events, resident) = (notebook.opened().events, memory("VmRSS")?);
    println!("open of {events} events: {took:.3} s, {resident:.0} MB resident");
    notebook.close()?;
    Ok(())
}

fn verified(dir: &Path) -> Outcome<()> {
    let notebook = large(dir)?;
    let (mut whole, mut journal, mut sha) = (Vec::new(), Vec::new(), Vec::new());
    let aside = notebook.with_extension("store");
    for _ in 0..3 {
        let mut bytes = 0.0;
        let begun = Instant::now();
        for file in peers::segments(&notebook)? {
            let content = fs::read(file)?;
            bytes += content.len() as f64;
            std::hint::black_box(Digest::of(&content));
        }
        let mib = bytes / 1024.0 / 1024.0;
        sha.push(mib / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        assert!(verify(&notebook)?.good());
        whole.push(mib / begun.elapsed().as_secs_f64());
        // Without the store beside it, what is left is the journal.
        fs::rename(notebook.join("store"), &aside)?;
        let begun = Instant::now();
        assert!(verify(&notebook)?.good());
        journal.push(mib / begun.elapsed().as_secs_f64());
        fs::rename(&aside, notebook.join("store"))?;
    }
    let sha = median(sha);
    row("verify, journal only", median(journal), "MiB/s", &[("SHA-256, one thread", sha)]);
    row("verify, with store and tree", median(whole), "MiB/s", &[("SHA-256, one thread", sha)]);
    Ok(())
}

fn proof(dir: &Path) -> Outcome<()> {
    let notebook = large(dir)?;
    let held = Notebook::open(&notebook, Arc::new(SystemClock))?;
    let signed = held.checkpoint()?;
    let prover = held.reader().prover(&signed)?;
    let begun = Instant::now();
    let (mut n, count) = (7_u64, 5000);
    for _ in 0..count {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::hint::black_box(prover.path((n >> 33) % signed.size)?);
    }
    let each = begun.elapsed().as_secs_f64() / f64::from(count) * 1e6;
    println!("inclusion proof in {} events: {each:.1} us", signed.size);
    held.close()?;
    Ok(())
}

/// Stores a body of 5 GB from a file and reads it back, in a process of its own.
fn body(dir: &Path) -> Outcome<()> {
    let child = Command::new(std::env::current_exe()?).arg("--body").arg(dir).output()?;
    print!("{}", String::from_utf8_lossy(&child.stdout));
    eprint!("{}", String::from_utf8_lossy(&child.stderr));
    Ok(())
}

/// Memory of this process: `VmRSS` now, `VmHWM` at its highest, in MB.
fn memory(what: &str) -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn body_here(dir: &Path) -> Outcome<()> {
    let (input, notebook) = (dir.join("input"), dir.join("bodies"));
    let _ = fs::remove_dir_all(&notebook);
    let mut file = fs::File::create(&input)?;
    for n in 0..5000_u32 {
        let mut part = vec![0_u8; 1_000_000];
        let mut state = n.wrapping_mul(2_654_435_761) | 1;
        for word in part.chunks_mut(4) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
        file.write_all(&part)?;
    }
    file.sync_all()?;
    let held = Notebook::create(&notebook, Arc::new(SystemClock), "bench")?;
    let begun = Instant::now();
    let stored = held.blobs().put_file(&input)?;
    let put = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    held.blobs().copy_to(&stored.digest, &mut std::io::sink())?;
    let read = begun.elapsed().as_secs_f64();
    let megabytes = stored.length as f64 / 1e6;
    println!(
        "body of {megabytes:.0} MB: stored at {:.0} MB/s, read and checked at {:.0} MB/s, at most \
         {:.0} MB resident",
        megabytes / put,
        megabytes / read,
        memory("VmHWM")?
    );
    held.close()?;
    fs::remove_file(&input)?;
    fs::remove_dir_all(&notebook)?;
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(dir) = arguments.next() else {
        println!("usage: record-bench <folder> [one|burst|million|scan|open|verify|proof|body]...");
        return Ok(());
    };
    let parts: Vec<String> = arguments.collect();
    if dir == "--open" {
        return open_here(Path::new(parts.first().map_or("", String::as_str)));
    }
    if dir == "--body" {
        return body_here(Path::new(parts.first().map_or("", String::as_str)));
    }
    let dir = Path::new(&dir);
    fs::create_dir_all(dir)?;
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    println!("events of {} bytes", events::encoded(1).len());
    if wanted("one") {
        appends(dir, "durable appends, one at a time", 2000, 1)?;
    }
    if wanted("burst") {
        appends(dir, "100 thousand in groups of 100", 100_000, 100)?;
        appends(dir, "100 thousand in groups of 1000", 100_000, 1000)?;
    }
    let long: [(&str, fn(&Path) -> Outcome<()>); 5] = [
        ("million", million),
        ("scan", scan),
        ("open", open),
        ("verify", verified),
        ("proof", proof),
    ];
    for (name, part) in long {
        if wanted(name) {
            part(dir)?;
        }
    }
    // Takes 10 GB of disk, so only where it is asked for.
    if parts.iter().any(|part| part == "body") {
        body(dir)?;
    }
    Ok(())
}
