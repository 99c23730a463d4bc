//! The fault matrix: every write, sync and rename of a small history fails once, in each of the
//! ways in which it can, and then the notebook is opened again on a sound device.
//!
//! By default each call fails in one way, drawn by a seed; `LEDGER_FAULTS=all` tries every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::blob::Blobs;
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::device::{Device, Disk};
use crate::event::NewEvent;
use crate::id::Digest;
use crate::notebook::{AppendError, Appended, Notebook};
use crate::verify::verify;
use crate::writer::Options;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing was done.
    Failed,
    /// All was done, and yet an error comes back.
    Persisted,
    /// Half of the bytes were written.
    Short,
    /// Nothing was done, for want of space.
    Full,
}

const FAULTS: [Fault; 4] = [Fault::Failed, Fault::Persisted, Fault::Short, Fault::Full];

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("input/output error"),
        }
    }
}

/// Fails at call number `at`, counted from 0, and at none other.
#[derive(Debug)]
struct Once {
    at: u64,
    fault: Fault,
    calls: AtomicU64,
}

impl Once {
    fn new(at: u64, fault: Fault) -> Arc<Self> {
        Arc::new(Self { at, fault, calls: AtomicU64::new(0) })
    }

    /// Does `whole`, or what a failure leaves of it.
    fn call(
        &self,
        whole: impl FnOnce() -> io::Result<()>,
        half: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) != self.at {
            return whole();
        }
        match self.fault {
            Fault::Persisted => whole()?,
            Fault::Short => half()?,
            Fault::Failed | Fault::Full => {}
        }
        Err(self.fault.error())
    }
}

impl Device for Once {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = || file.write_all_at(&bytes[..bytes.len() / 2], offset);
        self.call(|| Disk.write(file, bytes, offset), half)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.call(|| Disk.sync(file), || Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| Disk.rename(from, to), || Ok(()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(|| Disk.sync_dir(dir), || Ok(()))
    }

    fn syncs_all(&self, _: &File) -> bool {
        // Whatever file system the test has: it is the order of the calls that is tried here.
        true
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        self.call(|| Disk.sync_all(dir), || Ok(()))
    }
}

fn options(device: Arc<dyn Device>) -> Options {
    Options { segment_bytes: 2048, reserve_bytes: 0, device, ..Options::default() }
}

/// What the history was told: events by id, and the numbers that were acknowledged.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<String, u64>,
    failed: bool,
}

/// A batch of the history: its events name one body, which is stored in one of four ways.
fn batch(blobs: &Blobs, n: u64) -> Option<Vec<NewEvent>> {
    let text = format!("body {n}");
    let body = match n % 4 {
        0 => {
            let key = blobs.subjects().key_of("ann").ok()?;
            blobs.put_for(&key, text.as_bytes()).ok()?
        }
        1 => blobs.put_from(text.as_bytes(), Path::new("text")).ok()?,
        // With others, so many that they are synced together.
        3 => {
            let texts = (0..17).map(|i| format!("{text}, {i}").into_bytes());
            blobs.put_many(&texts.collect::<Vec<_>>()).ok()?.pop()?
        }
        _ => blobs.put(text.as_bytes()).ok()?,
    };
    let events = (0..=n % 3).map(|i| {
        let mut event = event(&format!("s/{}", n % 2), &format!("id-{n}-{i}"), n);
        event.facts = json!({ "n": n, "body": body, "text": "x".repeat(150) });
        event
    });
    Some(events.collect())
}

/// Runs the history until something fails.
fn run(notebook: &Notebook) -> Told {
    let mut told = Told::default();
    for n in 0..14 {
        let appended = batch(notebook.blobs(), n).map(|events| {
            let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
            (ids, notebook.append(&[], events))
        });
        match appended {
            Some((ids, Ok(appended))) => {
                let seqs = appended.into_iter().map(Appended::seq);
                told.acknowledged.extend(ids.into_iter().zip(seqs));
            }
            Some((_, Err(error))) => {
                let poisoned = matches!(error, AppendError::Poisoned { .. });
                assert!(poisoned, "{error}");
                // Nothing more is taken, and nothing unacknowledged is shown.
                let again = notebook.append_one(event("s/0", "later", 1));
                assert!(matches!(again, Err(AppendError::Poisoned { .. })), "{again:?}");
                told.failed = true;
                break;
            }
            // A body that is not stored: the caller appends no event that names it.
            None => told.failed = true,
        }
        if n % 6 == 5 && notebook.checkpoint().is_err() {
            told.failed = true;
        }
        if n == 9 && notebook.rotate_key().is_err() {
            told.failed = true;
        }
    }
    told
}

/// One run with one fault of the device that acknowledgements rest on. Returns how many calls
/// there were.
fn one(at: u64, fault: Fault) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let device = Once::new(at, fault);
    let name = format!("call {at}: {fault:?}");
    let with = options(Arc::clone(&device) as Arc<dyn Device>);
    let told = match Notebook::create_with(dir.path(), clock(), "tester", with) {
        Ok(notebook) => {
            let told = run(&notebook);
            let _ = notebook.close();
            told
        }
        // A creation that failed can be repeated, or what it made can be opened.
        Err(_) => Told { failed: true, ..Told::default() },
    };
    let calls = device.calls.load(Ordering::SeqCst);
    assert!(told.failed || at >= calls || spared(&told), "{name}: nobody heard of it");
    check(dir.path(), &told, &name);
    calls
}

/// One run with one fault of the device under tree and request ids: nobody who appends hears of
/// it, and nothing is lost. Returns how many calls there were.
fn one_copy(at: u64, fault: Fault) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let device = Once::new(at, fault);
    let name = format!("copy, call {at}: {fault:?}");
    let with = Options {
        copies: Arc::clone(&device) as Arc<dyn Device>,
        flush_events: 4,
        ..options(Arc::new(Disk))
    };
    let told = match Notebook::create_with(dir.path(), clock(), "tester", with) {
        Ok(notebook) => {
            let told = run(&notebook);
            assert!(!told.failed, "{name}");
            let _ = notebook.close();
            told
        }
        Err(_) => Told::default(),
    };
    check(dir.path(), &told, &name);
    device.calls.load(Ordering::SeqCst)
}

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::default())
}

/// Opens the notebook on a sound device: what was acknowledged is there, the rest is there whole
/// or not at all, and it goes on.
fn check(dir: &Path, told: &Told, name: &str) {
    let sound = || options(Arc::new(Disk));
    every_named_body_is_whole(dir, name);
    let notebook = Notebook::open_as(dir, clock(), "tester", sound())
        .or_else(|_| Notebook::create_with(dir, clock(), "tester", sound()))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let events: Vec<_> = notebook.reader().events(0).unwrap().map(Result::unwrap).collect();
    for (id, seq) in &told.acknowledged {
        assert_eq!(&events[*seq as usize].id, id, "{name}");
    }
    // What was not acknowledged is there whole or not at all, and can be asked for again.
    for n in 0..14 {
        let there = (0..=n % 3).filter(|i| events.iter().any(|e| e.id == format!("id-{n}-{i}")));
        let there = there.count() as u64;
        assert!(there == 0 || there == n % 3 + 1, "{name}: {there} of batch {n}");
        let events = batch(notebook.blobs(), n).unwrap();
        notebook.append(&[], events).unwrap();
    }
    notebook.checkpoint().unwrap_or_else(|error| panic!("{name}: {error}"));
    notebook.close().unwrap();
    let report = verify(dir).unwrap();
    assert!(report.good(), "{name}: {:?}", report.damage);
}

/// Whatever failed, and whether an event names it or not: what has a body's name has its bytes.
fn every_named_body_is_whole(dir: &Path, name: &str) {
    let Ok(shards) = std::fs::read_dir(dir.join("blobs")) else { return };
    for shard in shards.map(|shard| shard.unwrap()).filter(|shard| shard.file_name() != "tmp") {
        for file in std::fs::read_dir(shard.path()).unwrap().map(|file| file.unwrap()) {
            let found = Digest::of(&std::fs::read(file.path()).unwrap()).to_string();
            let named =
                shard.file_name().into_string().unwrap() + file.file_name().to_str().unwrap();
            assert_eq!(found, named, "{name}");
        }
    }
}

/// A segment that could not be made beforehand is made again when it is needed, so the fault of
/// such a call is mended before anybody could hear of it.
fn spared(told: &Told) -> bool {
    told.acknowledged.len() == 27
}

#[test]
fn every_call_may_fail() {
    let calls = one(u64::MAX, Fault::Failed);
    assert!(calls > 80, "{calls}");
    let all = std::env::var("LEDGER_FAULTS").is_ok_and(|text| text == "all");
    let mut state = 7_u64;
    let mut runs = 0;
    for at in 0..calls {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let drawn = FAULTS[(state >> 33) as usize % 4];
        for fault in FAULTS.into_iter().filter(|fault| all || *fault == drawn) {
            one(at, fault);
            runs += 1;
        }
    }
    println!("{runs} faults in {calls} calls");
}

#[test]
fn every_call_under_the_copies_may_fail() {
    let calls = one_copy(u64::MAX, Fault::Failed);
    assert!(calls > 12, "{calls}");
    for at in 0..calls {
        for fault in FAULTS {
            one_copy(at, fault);
        }
    }
    println!("{} faults in {calls} calls", 4 * calls);
}
