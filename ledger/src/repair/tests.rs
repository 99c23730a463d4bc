#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::notebook::tests::copy;
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
