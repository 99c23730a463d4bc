#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::clock::FixedClock;
use crate::device::{Device, Disk};
use crate::event::EVENT_BYTES_MAX;
use crate::verify::verify;

fn clock() -> Arc<dyn Clock> {
    Arc::new(FixedClock::default())
}

fn options() -> Options {
    Options { segment_bytes: 8 * 1024, reserve_bytes: 0, ..Options::default() }
}

fn event(stream: &str, id: &str, n: u64) -> NewEvent {
    NewEvent {
        id: id.to_owned(),
        stream: stream.to_owned(),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "tester".to_owned(),
        cause: None,
        run: None,
        facts: json!({"n": n, "x": 0.5, "text": "some words"}),
        measured: json!({"ms": 3}),
    }
}

fn create(dir: &Path) -> Notebook {
    Notebook::create_with(dir, clock(), "tester", options()).unwrap()
}

fn open(dir: &Path) -> Result<Notebook, OpenError> {
    Notebook::open_as(dir, clock(), RECORD, options())
}

/// A notebook with `ledger.created` and 20 events, closed.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    for n in 0..20 {
        let stream = format!("s/{}", n % 3);
        notebook.append_one(event(&stream, &format!("id-{n}"), n)).unwrap();
    }
    notebook.close().unwrap();
    dir
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn creates_appends_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let made = notebook.reader().get(0).unwrap().unwrap();
    assert_eq!((made.kind.as_str(), made.actor.as_str()), ("ledger.created", "tester"));
    let facts: LedgerCreated = made.facts().unwrap();
    assert!(facts.origin.starts_with("ledger/") && facts.origin.len() == 19);
    let mode = fs::metadata(dir.path().join("keys/signer.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let batch = vec![event("a/x", "1", 1), event("a/y", "2", 2), event("a/x", "3", 3)];
    let appended = notebook.append(&[], batch).unwrap();
    assert_eq!(appended, [Appended::New(1), Appended::New(2), Appended::New(3)]);
    assert_eq!(notebook.version("a/x").unwrap(), Some(1));
    assert_eq!(notebook.version("a/z").unwrap(), None);
    let first = notebook.reader().get(1).unwrap().unwrap();
    let third = notebook.reader().get(3).unwrap().unwrap();
    assert_eq!((first.version, first.prev), (0, None));
    let bytes = notebook.reader().raw(1).unwrap().unwrap();
    assert_eq!(
        (third.version, third.prev),
        (1, Some(crate::Digest::from_bytes(tlog_tiles::record_hash(&bytes).0)))
    );
    assert!(third.at > first.at);
    assert_eq!(third.facts, json!({"n": 3, "x": 0.5, "text": "some words"}));

    let other = Reader::open(dir.path()).unwrap();
    assert_eq!(other.head().unwrap(), notebook.reader().head().unwrap());
    let kinds: Vec<_> = other.events(2).unwrap().map(|event| event.unwrap().seq).collect();
    assert_eq!(kinds, [2, 3]);
    notebook.close().unwrap();
    assert!(matches!(
        Notebook::create(dir.path(), clock(), "x"),
        Err(CreateError::AlreadyExists { .. })
    ));
    let again = open(dir.path()).unwrap();
    let report = OpenReport { events: 4, ..OpenReport::default() };
    assert_eq!(*again.opened(), report, "a clean close leaves nothing to mend");
}

#[test]
fn a_creation_cut_short_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).close().unwrap();
    let key = fs::read(dir.path().join("keys/signer.key")).unwrap();
    // As if the process had ended before `ledger.toml` was written.
    fs::remove_file(dir.path().join("ledger.toml")).unwrap();
    assert!(
        matches!(
            Notebook::create(dir.path(), clock(), "x"),
            Err(CreateError::AlreadyExists { .. })
        ),
        "a journal without ledger.toml is not overwritten"
    );
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::NotANotebook { .. })));
    let notebook = create(dir.path());
    assert_eq!(fs::read(dir.path().join("keys/signer.key")).unwrap(), key);
    assert_eq!(notebook.opened().rebuilt, None);
}

#[test]
fn one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    match open(dir.path()) {
        Err(OpenError::Locked { by, .. }) => assert_eq!(by, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    assert!(Reader::open(dir.path()).is_ok(), "reading takes no lock");
    let clone = notebook.clone();
    notebook.close().unwrap();
    assert!(matches!(clone.append_one(event("a", "1", 1)), Err(AppendError::Closed)));
    open(dir.path()).unwrap();
}

#[test]
fn bad_configurations_are_named() {
    let dir = filled();
    let path = dir.path().join("ledger.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (text, part) in [
        (format!("{good}colour = 3\n"), "line 4: unknown key \"colour\""),
        (good.replace("layout =", "# layout ="), "\"layout\" is missing"),
        (good.replace("layout = 2", "layout = two"), "line 1"),
        (good.replace("layout = 2", "layout = 1"), "never released"),
        (good.replace('"', ""), "line 3"),
        (format!("{good}layout = 2\n"), "line 4: layout is set twice"),
        ("garbage".to_owned(), "line 1"),
    ] {
        fs::write(&path, text).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("ledger.toml"), "{error}");
    }
    fs::write(&path, good.replace("layout = 2", "layout = 3")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Newer { found: 3, known: 2, .. })));
    // A newer version that says that we can read it: readers do, writers do not.
    let newer = good.replace("layout = 2", "layout = 3") + "shape = \"round\"\n";
    fs::write(&path, &newer).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().events(0).unwrap().count(), 21);
    assert!(verify(dir.path()).unwrap().good());
    assert!(matches!(open(dir.path()), Err(OpenError::Newer { found: 3, known: 2, .. })));
    let attached = Notebook::attach(dir.path(), clock());
    assert!(matches!(attached, Err(OpenError::Newer { found: 3, known: 2, .. })));
    fs::write(&path, newer.replace("readable_from = 2", "readable_from = 3")).unwrap();
    assert!(matches!(Reader::open(dir.path()), Err(ReadError::Newer { found: 3, .. })));
    fs::write(&path, &good).unwrap();
    open(dir.path()).unwrap();
    let file = dir.path().join("ledger.toml");
    assert!(matches!(Reader::open(&file), Err(ReadError::NotANotebook { .. })));
}

#[test]
fn repetitions_and_reused_ids() {
    let dir = filled();
    let notebook = open(dir.path()).unwrap();
    let again = notebook.append_one(event("s/0", "id-0", 0)).unwrap();
    assert_eq!(again, Appended::Duplicate(1));
    let mut other_measure = event("s/0", "id-0", 0);
    other_measure.measured = json!({"ms": 99});
    assert_eq!(notebook.append_one(other_measure).unwrap(), Appended::Duplicate(1));
    for changed in [event("s/0", "id-0", 1), event("s/1", "id-0", 0)] {
        match notebook.append_one(changed) {
            Err(AppendError::IdReused { id, seq }) => assert_eq!((id.as_str(), seq), ("id-0", 1)),
            other => panic!("{other:?}"),
        }
    }
    // A batch may repeat itself and the log; the rest of it is new.
    let batch = vec![event("s/0", "id-0", 0), event("n", "new", 5), event("n", "new", 5)];
    let appended = notebook.append(&[], batch.clone()).unwrap();
    assert_eq!(appended, [Appended::Duplicate(1), Appended::New(21), Appended::Duplicate(21)]);
    let stale = Expected { stream: "n".to_owned(), version: None };
    let repeated = notebook.append(&[stale], batch).unwrap();
    assert!(repeated.iter().all(|one| matches!(one, Appended::Duplicate(_))));
    let clash = vec![event("n", "fresh", 1), event("n", "fresh", 2)];
    assert!(matches!(notebook.append(&[], clash), Err(AppendError::IdReused { .. })));
    assert_eq!(notebook.reader().head().unwrap().size, 22, "a refused batch leaves nothing");
}

#[test]
fn conflicts_name_the_actual_version() {
    let dir = filled();
    let notebook = open(dir.path()).unwrap();
    let expect = |stream: &str, version| Expected { stream: stream.to_owned(), version };
    for (expected, actual) in [
        (expect("s/0", None), Some(6)),
        (expect("s/0", Some(5)), Some(6)),
        (expect("q", Some(0)), None),
    ] {
        match notebook.append(std::slice::from_ref(&expected), vec![event("s/0", "late", 1)]) {
            Err(AppendError::Conflict { stream, expected: said, actual: found }) => {
                assert_eq!((stream, said, found), (expected.stream, expected.version, actual));
            }
            other => panic!("{other:?}"),
        }
    }
    let both = [expect("s/0", Some(6)), expect("q", None)];
    let appended = notebook.append(&both, vec![event("q", "q0", 1), event("s/0", "q1", 1)]);
    assert_eq!(appended.unwrap(), [Appended::New(21), Appended::New(22)]);
    assert_eq!(notebook.version("s/0").unwrap(), Some(7));
}

#[test]
fn sizes_and_names_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let mut large = event("a", "large", 1);
    large.facts = json!({"text": "x".repeat(EVENT_BYTES_MAX)});
    match notebook.append(&[], vec![event("a", "small", 1), large.clone()]) {
        Err(AppendError::TooLarge { id, bytes, .. }) => {
            assert_eq!(id, "large");
            assert!(bytes > EVENT_BYTES_MAX);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(notebook.version("a").unwrap(), None);
    // The largest event that is allowed goes in, also where a segment is smaller than it.
    let empty = {
        let mut empty = large.clone();
        empty.facts = json!({"text": ""});
        notebook.append_one(event("a", "before", 1)).unwrap();
        empty.id = "empty".to_owned();
        let seq = notebook.append_one(empty).unwrap().seq();
        notebook.reader().raw(seq).unwrap().unwrap().len()
    };
    // The text's own header grows by two bytes.
    large.id = "equal".to_owned();
    large.facts = json!({"text": "x".repeat(EVENT_BYTES_MAX - empty - 200)});
    let seq = notebook.append_one(large).unwrap().seq();
    assert!(notebook.reader().raw(seq).unwrap().unwrap().len() > EVENT_BYTES_MAX - 200);
    for bad in [event("", "x", 1), event("a", "", 1), event("a", &"i".repeat(513), 1)] {
        assert!(matches!(notebook.append_one(bad), Err(AppendError::Name { .. })));
    }
}

#[test]
fn eight_threads_share_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let mut numbers = BTreeSet::new();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let notebook = notebook.clone();
            std::thread::spawn(move || {
                let mut own = Vec::new();
                for n in 0..40_u64 {
                    let id = format!("{thread}-{n}");
                    let batch = vec![
                        event(&format!("t/{thread}"), &id, n),
                        event("shared", &format!("{id}-s"), n),
                    ];
                    let appended = notebook.append(&[], batch).unwrap();
                    assert_eq!(appended[1].seq(), appended[0].seq() + 1, "a batch is not torn");
                    own.extend(appended.iter().map(|one| one.seq()));
                }
                assert!(own.is_sorted(), "a thread's own appends keep their order");
                own
            })
        })
        .collect();
    for thread in threads {
        numbers.extend(thread.join().unwrap());
    }
    assert_eq!(numbers, (1..=640).collect(), "no gap, no number twice");
    assert_eq!(notebook.version("shared").unwrap(), Some(319));
    notebook.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.good(), "{:?}", report.damage);
    assert_eq!((report.events, report.store.as_str()), (641, "equal"));
}

/// A copy made while the writer is at work is what kill -9 leaves behind.
#[test]
fn a_crash_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    for n in 0..60 {
        notebook.append_one(event("s", &format!("id-{n}"), n)).unwrap();
        if n % 20 != 7 {
            continue;
        }
        let head = notebook.reader().head().unwrap();
        let crashed = tempfile::tempdir().unwrap();
        copy(dir.path(), crashed.path());
        let again = open(crashed.path()).unwrap();
        assert_eq!(again.reader().head().unwrap(), head);
        assert_eq!(again.version("s").unwrap(), Some(n));
        assert_eq!(again.append_one(event("s", "id-0", 0)).unwrap(), Appended::Duplicate(1));
        assert_eq!(again.append_one(event("s", "more", 0)).unwrap().seq(), n + 2);
        again.close().unwrap();
        let report = verify(crashed.path()).unwrap();
        assert!(report.good(), "{:?}", report.damage);
    }
}

/// Whatever becomes of the store, it is rebuilt to the same root, and opening says so.
#[test]
fn a_lost_store_is_rebuilt() {
    let dir = filled();
    let head = Reader::open(dir.path()).unwrap().head().unwrap();
    let store = dir.path().join("store");
    type Break = fn(&Path);
    let break_it: [(&str, Break); 4] = [
        ("missing", |store| fs::remove_dir_all(store).unwrap()),
        ("emptied", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("garbage", |store| overwrite_files(store, |bytes| bytes.fill(0x5a))),
        ("cut", |store| overwrite_files(store, |bytes| bytes.truncate(bytes.len() / 2))),
    ];
    for (n, (name, break_it)) in break_it.into_iter().enumerate() {
        break_it(&store);
        let notebook = open(dir.path()).unwrap();
        let report = notebook.opened();
        let rebuilt = report.rebuilt.as_ref().unwrap_or_else(|| panic!("{name}: {report:?}"));
        assert_eq!(rebuilt.set_aside.is_some(), n > 0, "{name}");
        assert!(rebuilt.set_aside.as_ref().is_none_or(|aside| aside.is_dir()));
        assert_eq!(notebook.reader().head().unwrap(), head, "{name}");
        assert_eq!(notebook.append_one(event("s/0", "id-0", 0)).unwrap(), Appended::Duplicate(1));
        assert_eq!(notebook.version("s/0").unwrap(), Some(6));
        notebook.close().unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(report.good() && report.store == "equal", "{name}: {report:?}");
    }
}

fn overwrite_files(dir: &Path, change: impl Fn(&mut Vec<u8>) + Copy) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite_files(&path, change);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// A journal that ends before the store does has lost acknowledged events: it is left alone.
#[test]
fn a_journal_behind_the_store_is_corruption() {
    let dir = filled();
    let segment = dir.path().join("journal/00000000000000000000.seg");
    let bytes = fs::read(&segment).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    for flipped in [last, last - 40, last - 300] {
        let mut damaged = bytes.clone();
        damaged[flipped] ^= 0x10;
        fs::write(&segment, &damaged).unwrap();
        match open(dir.path()) {
            Err(OpenError::Corrupt { seq, .. }) => assert!((19..=20).contains(&seq)),
            other => panic!("byte {flipped}: {other:?}"),
        }
        assert_eq!(fs::read(&segment).unwrap(), damaged);
    }
    fs::write(&segment, &bytes).unwrap();
    open(dir.path()).unwrap();
}

/// Journal and store that are each sound but differ were changed on purpose: neither is trusted.
#[test]
fn a_rewritten_journal_is_not_believed() {
    let dir = filled();
    let other = tempfile::tempdir().unwrap();
    let notebook = create(other.path());
    for n in 0..20 {
        notebook.append_one(event("s/forged", &format!("id-{n}"), n)).unwrap();
    }
    notebook.close().unwrap();
    let name = "journal/00000000000000000000.seg";
    fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Corrupt { seq: 20, .. })));
}

/// What a device does at its next write or sync.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    WriteFails,
    WritesHalf,
    SyncFailsPersisted,
    SyncFailsHalf,
}

#[derive(Debug)]
struct Faulty(Mutex<Fault>);

impl Device for Faulty {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        match *self.0.lock().unwrap() {
            Fault::WriteFails => return Err(io::ErrorKind::StorageFull.into()),
            Fault::WritesHalf => {
                file.write_all_at(half, offset)?;
                return Err(io::Error::other("short write"));
            }
            Fault::SyncFailsHalf => file.write_all_at(half, offset)?,
            Fault::None | Fault::SyncFailsPersisted => file.write_all_at(bytes, offset)?,
        }
        Ok(())
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        match *self.0.lock().unwrap() {
            Fault::SyncFailsPersisted | Fault::SyncFailsHalf => Err(io::Error::other("EIO")),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }

    fn syncs_all(&self, _: &File) -> bool {
        true
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        self.sync(dir)
    }
}

#[test]
fn a_failed_write_poisons_until_reopened() {
    for fault in
        [Fault::WriteFails, Fault::WritesHalf, Fault::SyncFailsPersisted, Fault::SyncFailsHalf]
    {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(Faulty(Mutex::new(Fault::None)));
        let with = Options { device: Arc::clone(&device) as Arc<dyn Device>, ..options() };
        let notebook = Notebook::create_with(dir.path(), clock(), "tester", with).unwrap();
        notebook.append_one(event("s", "good", 0)).unwrap();
        *device.0.lock().unwrap() = fault;
        let batch = vec![event("s", "a", 1), event("s", "b", 2)];
        let failed = notebook.append(&[], batch.clone());
        assert!(matches!(failed, Err(AppendError::Poisoned { .. })), "{fault:?}: {failed:?}");
        *device.0.lock().unwrap() = Fault::None;
        let later = notebook.append_one(event("s", "c", 3));
        assert!(matches!(later, Err(AppendError::Poisoned { .. })), "{fault:?}: {later:?}");
        assert_eq!(notebook.reader().head().unwrap().size, 2, "nothing unacknowledged is shown");
        notebook.close().unwrap();

        let notebook = open(dir.path()).unwrap();
        let persisted = fault == Fault::SyncFailsPersisted;
        let report = notebook.opened();
        assert_eq!(report.events, if persisted { 4 } else { 2 }, "{fault:?}");
        let torn = matches!(fault, Fault::WritesHalf | Fault::SyncFailsHalf);
        assert_eq!(report.dropped.is_some(), torn, "{fault:?}");
        let repeated = notebook.append(&[], batch).unwrap();
        let expected = if persisted {
            [Appended::Duplicate(2), Appended::Duplicate(3)]
        } else {
            [Appended::New(2), Appended::New(3)]
        };
        assert_eq!(repeated, expected, "{fault:?}");
        notebook.close().unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(report.good(), "{fault:?}: {:?}", report.damage);
    }
}

#[test]
fn a_full_disk_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).close().unwrap();
    let journal = dir.path().join("journal/00000000000000000000.seg");
    let before = fs::read(&journal).unwrap();
    let full = Options { reserve_bytes: u64::MAX / 2, ..options() };
    let notebook = Notebook::open_as(dir.path(), clock(), RECORD, full).unwrap();
    let refused = notebook.append_one(event("s", "a", 1));
    assert!(matches!(refused, Err(AppendError::DiskLow { .. })), "{refused:?}");
    let seen = notebook.append(&[], vec![]).unwrap();
    assert!(seen.is_empty(), "the writer is not poisoned");
    notebook.close().unwrap();
    assert_eq!(fs::read(&journal).unwrap(), before);
    open(dir.path()).unwrap().append_one(event("s", "a", 1)).unwrap();
}

#[test]
fn checkpoints_are_signed_recorded_and_kept() {
    let dir = filled();
    let notebook = open(dir.path()).unwrap();
    let head = notebook.reader().head().unwrap();
    let signed = notebook.checkpoint().unwrap();
    assert_eq!((signed.size, signed.root), (head.size, head.root));
    let event = notebook.reader().get(21).unwrap().unwrap();
    assert_eq!(event.facts::<crate::catalogue::CheckpointSigned>().unwrap().note, signed.note);
    let kept = fs::read_to_string(dir.path().join("checkpoints/latest")).unwrap();
    assert_eq!(kept, signed.note);
    let created: LedgerCreated = notebook.reader().get(0).unwrap().unwrap().facts().unwrap();
    assert_eq!(checkpoint::open_note(&kept, &created.verifier_key).unwrap(), signed);
    assert!(kept.starts_with(&format!("{}\n21\n", created.origin)));

    let forged = kept.replacen("\n21\n", "\n20\n", 1);
    assert!(matches!(
        checkpoint::open_note(&forged, &created.verifier_key),
        Err(CheckpointError::Signature { .. })
    ));
    let other = filled();
    let other = Reader::open(other.path()).unwrap().get(0).unwrap().unwrap();
    let other: LedgerCreated = other.facts().unwrap();
    assert!(checkpoint::open_note(&kept, &other.verifier_key).is_err());
    assert!(matches!(
        checkpoint::open_note("nonsense", &created.verifier_key),
        Err(CheckpointError::Malformed { .. })
    ));
}

/// A checkpoint covers only what was durable, so a journal that ends before it was damaged.
#[test]
fn a_checkpoint_keeps_its_events_from_being_cut() {
    let dir = filled();
    let notebook = open(dir.path()).unwrap();
    notebook.checkpoint().unwrap();
    notebook.close().unwrap();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    let segment = dir.path().join("journal/00000000000000000000.seg");
    let bytes = fs::read(&segment).unwrap();
    let place = |text: &str| {
        bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
    };
    // Event 20 is covered: it cannot be cut. Event 21, the checkpoint's own, can.
    let mut covered = bytes.clone();
    covered[place("id-19")..].fill(0);
    fs::write(&segment, &covered).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Corrupt { seq: 20, .. })));
    let mut beyond = bytes.clone();
    beyond[place("checkpoint.signed")..].fill(0);
    fs::write(&segment, &beyond).unwrap();
    let notebook = open(dir.path()).unwrap();
    assert_eq!(notebook.opened().events, 21);
    assert_eq!(notebook.opened().dropped.as_ref().unwrap().seq, 21);
}

/// The store is flushed as it grows, not only at the end.
#[test]
fn the_store_is_flushed_as_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    // Appending waits for the store when that is five events behind.
    let with = Options { flush_events: 10, lag_events: 5, ..options() };
    let notebook = Notebook::create_with(dir.path(), clock(), "tester", with).unwrap();
    for n in 0..45 {
        notebook.append_one(event("s", &format!("id-{n}"), n)).unwrap();
    }
    // The copy is made while the store's thread rests.
    let super::Hand::Held { writer, .. } = &notebook.inner.hand else { unreachable!() };
    while writer.applier.applied() < 46 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let again = open(crashed.path()).unwrap();
    assert_eq!(again.opened().events, 46);
    assert!(again.opened().reapplied < 35, "{:?}", again.opened());
    assert_eq!(again.opened().rebuilt, None);
}

/// Readers of other processes look on while segments are written and begun: they see whole
/// batches in order, and never take work in progress for damage.
#[test]
fn readers_look_on_while_a_writer_works() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let looking: Vec<_> = (0..2)
        .map(|_| {
            let (dir, done) = (dir.path().to_owned(), Arc::clone(&done));
            std::thread::spawn(move || {
                let follower = Reader::open(&dir).unwrap();
                let mut followed = follower.events(0).unwrap();
                let mut seen = 0;
                loop {
                    let last = done.load(std::sync::atomic::Ordering::Acquire);
                    for event in followed.by_ref() {
                        assert_eq!(event.unwrap().seq, seen);
                        seen += 1;
                    }
                    let head = Reader::open(&dir).unwrap().head().unwrap();
                    assert_eq!(head.size % 3, 1, "a batch is seen whole or not at all");
                    let report = verify(&dir).unwrap();
                    assert!(report.good(), "{:?}", report.damage);
                    if last {
                        return seen;
                    }
                }
            })
        })
        .collect();
    for n in 0..300_u64 {
        let batch = (0..3).map(|i| event("s", &format!("{n}-{i}"), n)).collect();
        notebook.append(&[], batch).unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    for thread in looking {
        assert_eq!(thread.join().unwrap(), 901);
    }
}

/// Ends this process's child at a random moment, as kill -9 does, many times on one notebook.
#[test]
fn kill_nine_loses_nothing_acknowledged() {
    const ROLE: &str = "LEDGER_TEST_VICTIM";
    if let Some(dir) = std::env::var_os(ROLE) {
        let notebook = open(Path::new(&dir)).unwrap();
        let start = notebook.reader().head().unwrap().size;
        for n in start.. {
            let batch = vec![event("s", &format!("{n}-a"), n), event("t", &format!("{n}-b"), n)];
            let appended = notebook.append(&[], batch).unwrap();
            println!("acknowledged {}", appended[1].seq());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).close().unwrap();
    let test = "notebook::tests::kill_nine_loses_nothing_acknowledged";
    let mut acknowledged = 0;
    for round in 0..8_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(ROLE, dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(output));
        // At least one acknowledgement, then a while that differs from round to round.
        let number = |line: &str| line.strip_prefix("acknowledged ")?.parse::<u64>().ok();
        let first = lines.by_ref().find_map(|line| number(&line.unwrap()));
        acknowledged = acknowledged.max(first.unwrap());
        std::thread::sleep(std::time::Duration::from_millis(7 * round % 31));
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = acknowledged.max(number(&line).unwrap_or(0));
        }
        child.wait().unwrap();
        let notebook = open(dir.path()).unwrap();
        let size = notebook.reader().head().unwrap().size;
        assert!(size > acknowledged, "round {round}: {size} events, {acknowledged} acknowledged");
        assert_eq!(size % 2, 1, "a batch is there whole or not at all");
        notebook.close().unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(report.good(), "round {round}: {:?}", report.damage);
    }
}

#[test]
fn is_a_log() {
    let dirs = std::cell::RefCell::new(Vec::new());
    crate::conformance::check(&|clock| {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), clock, "tester").unwrap();
        dirs.borrow_mut().push(dir);
        Arc::new(notebook)
    });
}
