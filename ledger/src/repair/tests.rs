#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::id::Digest;
use crate::journal::{Cursor, Mark, Step, segment_bytes, segments};
use crate::merkle::Frontier;
use crate::notebook::tests::copy;
use crate::reader::Reader;
use crate::verify;
use crate::writer::Options;

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::default())
}

/// A notebook of several segments with bodies, closed.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let with = Options { segment_bytes: 1024, reserve_bytes: 0, ..Options::default() };
    let notebook = Notebook::create_with(dir.path(), clock(), "tester", with).unwrap();
    for n in 0..30 {
        let body = notebook.blobs().put(format!("body {n}").as_bytes()).unwrap();
        let mut first = event("s/one", &format!("id-{n}"), n);
        first.facts = serde_json::json!({ "n": n, "body": body });
        notebook.append(&[], vec![first, event("s/two", &format!("more-{n}"), n)]).unwrap();
    }
    notebook.checkpoint().unwrap();
    notebook.close().unwrap();
    dir
}

/// Every segment in turn: a flipped byte in each of its frames, a broken header, and no file.
#[test]
fn the_journal_is_restored_from_the_store() {
    let sound = sample();
    let root = verify(sound.path()).unwrap().root;
    let names: Vec<_> = segments(&sound.path().join("journal")).unwrap();
    assert!(names.len() > 3);
    for segment in &names {
        let name = segment.path.file_name().unwrap();
        for damage in ["frames", "header", "missing"] {
            let dir = tempfile::tempdir().unwrap();
            copy(sound.path(), dir.path());
            let path = dir.path().join("journal").join(name);
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "frames" => (60..bytes.len()).step_by(150).for_each(|at| bytes[at] ^= 4),
                "header" => bytes[9] ^= 1,
                _ => {}
            }
            fs::write(&path, &bytes).unwrap();
            if damage == "missing" {
                fs::remove_file(&path).unwrap();
            }
            let report = repair(dir.path(), None, clock()).unwrap();
            let what = format!("{damage} of {}: {:?}", name.display(), report.after.damage);
            assert!(report.after.good() && !report.done.journal.is_empty(), "{what}");
            let notebook = Notebook::open(dir.path(), clock()).unwrap();
            let reader = notebook.reader();
            let last = reader.head().unwrap().size - 1;
            assert_eq!(reader.get(last).unwrap().unwrap().kind, "ledger.repaired");
            let mut tree = Frontier::default();
            for seq in 0..last {
                tree.push_leaf(record_hash(&reader.raw(seq).unwrap().unwrap()));
            }
            assert_eq!(tree.root(), root, "{what}");
        }
    }
}

#[test]
fn nothing_is_restored_from_nothing() {
    let dir = sample();
    let path = segments(&dir.path().join("journal")).unwrap().remove(1).path;
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let refused = repair(dir.path(), None, clock()).unwrap_err();
    assert!(matches!(refused, RepairError::NoCopy { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was touched");
    let blobs = Blobs::open(dir.path());
    fs::remove_file(blobs.path(&Digest::of(b"body 3"))).unwrap();
    assert!(!verify(dir.path()).unwrap().good());
}

#[test]
fn copies_are_rebuilt_and_bodies_fetched_from_another_notebook() {
    let (dir, other) = (sample(), tempfile::tempdir().unwrap());
    copy(dir.path(), other.path());
    let blobs = Blobs::open(dir.path());
    fs::remove_file(blobs.path(&Digest::of(b"body 3"))).unwrap();
    fs::write(blobs.path(&Digest::of(b"body 4")), b"other").unwrap();
    let tiles = dir.path().join("tree/0.tiles");
    let mut bytes = fs::read(&tiles).unwrap();
    bytes[40] ^= 1;
    fs::write(&tiles, bytes).unwrap();
    let report = repair(dir.path(), None, clock()).unwrap();
    assert!(report.done.store && report.done.bodies.is_empty());
    assert_eq!(report.after.damage.len(), 2, "{:?}", report.after.damage);
    let report = repair(dir.path(), Some(other.path()), clock()).unwrap();
    assert_eq!(report.done.bodies.len(), 2);
    assert!(report.after.good(), "{:?}", report.after.damage);
    let again = repair(dir.path(), Some(other.path()), clock()).unwrap();
    assert_eq!(again.done, LedgerRepaired::default());
}

/// Changes one event of the journal as somebody would who knows the format: all checksums right.
fn forge(dir: &Path, seq: u64) {
    let segment = segments(&dir.join("journal")).unwrap();
    let segment = segment.iter().rfind(|segment| segment.first <= seq).unwrap();
    let mut cursor = Cursor::open(&segment.path, segment.first).unwrap();
    let mut frames = Vec::new();
    while let Step::Frame(frame) = cursor.step().unwrap() {
        let mut bytes = frame.event;
        if frame.mark.seq == seq {
            let at = bytes.windows(6).position(|window| window == b"tester").unwrap();
            bytes[at] = b'f';
        }
        frames.push((frame.mark.seq, bytes));
    }
    let marks =
        frames.iter().map(|(seq, bytes)| (Mark { seq: *seq, since: 0, rest: 0 }, bytes.as_slice()));
    let (_, bytes) = segment_bytes(segment.first, marks).unwrap();
    fs::write(&segment.path, bytes).unwrap();
}

/// The journal is not believed because its checksums are right: what was noted decides.
#[test]
fn a_forged_event_is_replaced_by_its_copy_and_kept_as_evidence() {
    let dir = sample();
    let right = Reader::open(dir.path()).unwrap().raw(20).unwrap();
    forge(dir.path(), 20);
    assert!(!verify(dir.path()).unwrap().good());
    let report = repair(dir.path(), None, clock()).unwrap();
    assert_eq!(report.done.journal, [(20, 20)]);
    assert!(report.after.good(), "{:?}", report.after.damage);
    assert_eq!(Reader::open(dir.path()).unwrap().raw(20).unwrap(), right);
    let kept = fs::read_dir(dir.path().join("journal/quarantine")).unwrap().count();
    assert_eq!(kept, 1, "the forged segment");
}

#[test]
fn where_neither_copy_is_what_was_noted_nothing_is_touched() {
    let dir = sample();
    forge(dir.path(), 20);
    // The store's copy of another event is changed as well, so that it comes to no noted root.
    {
        let (mut store, _, _) = Store::open(&dir.path().join("store")).unwrap();
        let bytes = store.event(5).unwrap().unwrap();
        let leaf = Digest::of(b"leaf");
        let mut other = bytes.clone();
        other[40] ^= 1;
        let head = store.stream("s/one").unwrap().unwrap();
        let row = |seq, bytes| crate::store::Applied {
            seq,
            stream: "s/other",
            version: head.0,
            leaf,
            bytes,
        };
        let last = Reader::open(dir.path()).unwrap().head().unwrap().size - 1;
        let newest = store.event(last).unwrap().unwrap();
        store.apply(&[row(5, &other), row(last, &newest)]).unwrap();
    }
    let journal = |dir: &Path| {
        let all = segments(&dir.join("journal")).unwrap();
        all.iter().map(|segment| fs::read(&segment.path).unwrap()).collect::<Vec<_>>()
    };
    let before = journal(dir.path());
    let refused = repair(dir.path(), None, clock()).unwrap_err();
    assert!(matches!(refused, RepairError::Contradiction { seq: 5, .. }), "{refused}");
    assert_eq!(journal(dir.path()), before);
    assert!(dir.path().join("store").is_dir() && dir.path().join("tree").is_dir());
}

/// Cut short after the new segments got their names, it is simply asked again.
#[test]
fn a_repair_that_was_cut_short_is_asked_again() {
    let dir = sample();
    let all = segments(&dir.path().join("journal")).unwrap();
    let (first, second) = (all[1].clone(), all[2].clone());
    for segment in [&first, &second] {
        let mut bytes = fs::read(&segment.path).unwrap();
        bytes[9] ^= 1;
        fs::write(&segment.path, bytes).unwrap();
    }
    let damaged = fs::read(&second.path).unwrap();
    assert!(repair(dir.path(), None, clock()).unwrap().after.good());
    assert!(!second.path.exists(), "both are in one segment now");
    // As if the old file had not been removed yet.
    fs::write(&second.path, damaged).unwrap();
    fs::write(first.path.with_extension("new"), b"unfinished").unwrap();
    let report = repair(dir.path(), None, clock()).unwrap();
    assert!(report.after.good(), "{:?}", report.after.damage);
}
