#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::clock::FixedClock;
use crate::event::NewEvent;
use crate::notebook::Notebook;
use crate::writer::Options;

fn event(id: &str, facts: serde_json::Value) -> NewEvent {
    NewEvent {
        id: id.to_owned(),
        stream: "s/one".to_owned(),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "tester".to_owned(),
        cause: None,
        run: None,
        facts,
        measured: json!({}),
    }
}

/// A small notebook over several segments, with bodies and two checkpoints, closed.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1024, reserve_bytes: 0, ..Options::default() };
    let clock = Arc::new(FixedClock::default());
    let notebook = Notebook::create_with(dir.path(), clock, "tester", options).unwrap();
    for n in 0..6 {
        let body = notebook.blobs().put(format!("body {n}").as_bytes()).unwrap();
        let facts = json!({"n": n, "deep": [{"body": body}]});
        notebook.append_one(event(&format!("id-{n}"), facts)).unwrap();
        if n % 3 == 2 {
            notebook.checkpoint().unwrap();
        }
    }
    notebook.append_one(event("last", json!({}))).unwrap();
    notebook.close().unwrap();
    dir
}

#[test]
fn a_sound_notebook_is_good() {
    let dir = sample();
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!((report.events, report.blobs, report.checkpoints), (10, 6, 3));
    assert_eq!((report.signed, report.store.as_str()), (8, "equal"));
    assert!(report.segments > 1);
    let reader = crate::Reader::open(dir.path()).unwrap();
    assert_eq!(report.root, reader.head().unwrap().root);
    let notebook = Notebook::open(dir.path(), Arc::new(FixedClock::default())).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.good());
    assert_eq!(report.store, format!("skipped: held by process {}", std::process::id()));
    drop(notebook);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.good());
    assert_eq!(report.store, "missing");
}

/// Every byte of every segment, the empty space behind the last frame included.
#[test]
fn every_flipped_byte_of_the_journal_is_located() {
    let dir = sample();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let segments = crate::journal::segments(&dir.path().join("journal")).unwrap();
    for (index, segment) in segments.iter().enumerate() {
        let bytes = fs::read(&segment.path).unwrap();
        let end = segments.get(index + 1).map_or(10, |next| next.first);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&segment.path, &damaged).unwrap();
            let report = match verify(dir.path()) {
                Ok(report) => report,
                // The format field itself: a newer segment cannot be read at all.
                Err(VerifyError::Read(ReadError::Newer { .. })) => continue,
                Err(error) => panic!("{error}"),
            };
            let name = segment.path.display().to_string();
            let here = report.damage.iter().find(|damage| damage.where_ == name);
            let seq = here.and_then(|damage| damage.seq);
            assert!(
                seq.is_some_and(|seq| (segment.first..=end).contains(&seq)),
                "byte {at} of {name}: {:?}",
                report.damage
            );
        }
        fs::write(&segment.path, &bytes).unwrap();
    }
    assert!(verify(dir.path()).unwrap().good());
}

#[test]
fn damaged_and_missing_bodies_are_named() {
    let dir = sample();
    let blobs = Blobs::open(dir.path());
    let path = blobs.path(&Digest::of(b"body 2"));
    fs::write(&path, b"body X").unwrap();
    fs::remove_file(blobs.path(&Digest::of(b"body 4"))).unwrap();
    let report = verify(dir.path()).unwrap();
    let mut found: Vec<_> = report.damage.iter().map(|damage| damage.seq).collect();
    found.sort();
    assert_eq!(found, [Some(3), Some(6)]);
    assert!(report.damage.iter().any(|damage| damage.where_ == path.display().to_string()));
}

/// A missing segment, and one that was rewritten with right checksums.
#[test]
fn a_forged_history_does_not_meet_its_checkpoints() {
    let dir = sample();
    let forged = sample();
    let name = "00000000000000000000.seg";
    let theirs = forged.path().join("journal").join(name);
    fs::copy(theirs, dir.path().join("journal").join(name)).unwrap();
    let report = verify(dir.path()).unwrap();
    // The forger's segment brings the forger's key along; the checkpoints are by the old one.
    assert!(report.damage.iter().any(|damage| damage.what.contains("not signed by")));
    assert!(report.damage.iter().any(|damage| damage.what.contains("different bytes")));
    assert!(report.damage.iter().any(|damage| damage.where_ == "ledger.toml"));

    let dir = sample();
    let segments = crate::journal::segments(&dir.path().join("journal")).unwrap();
    fs::remove_file(&segments[1].path).unwrap();
    let report = verify(dir.path()).unwrap();
    let gap = report.damage.iter().find(|damage| damage.what.contains("cannot be read"));
    assert_eq!(gap.unwrap().seq, Some(segments[1].first));
}

/// The end of the log is cut off cleanly: the store and the newest checkpoint know better.
#[test]
fn a_shortened_journal_is_found() {
    let dir = sample();
    let segments = crate::journal::segments(&dir.path().join("journal")).unwrap();
    let last = segments.last().unwrap();
    fs::remove_file(&last.path).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.damage.iter().any(|damage| damage.what.contains("the journal ends before")));
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let keep = segments.get(1).unwrap().first;
    for segment in segments.iter().skip(1).rev().skip(1) {
        fs::remove_file(&segment.path).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.events, keep);
    assert!(!report.good());
    assert!(report.damage.iter().any(|damage| damage.where_.ends_with("latest")));
}

#[test]
fn a_damaged_store_is_found() {
    let dir = sample();
    let (mut changed, _, _) = crate::store::Store::open(&dir.path().join("store")).unwrap();
    let row = crate::store::Applied {
        seq: 9,
        stream: "s/one",
        version: 3,
        leaf: Digest::of(b"x"),
        bytes: b"other bytes",
    };
    changed.apply(&[row]).unwrap();
    drop(changed);
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.store, "damaged");
    let bytes = report.damage.iter().find(|damage| damage.what.contains("different bytes"));
    assert_eq!(bytes.unwrap().seq, Some(9));
    assert!(report.damage.iter().any(|damage| damage.what.contains("head of stream s/one")));
}

/// Keys are replaced; what was signed before and behind still verifies, and a checkpoint that was
/// kept elsewhere is held against today's log.
#[test]
fn rotations_and_outside_checkpoints() {
    let dir = sample();
    let notebook = Notebook::open(dir.path(), Arc::new(FixedClock::default())).unwrap();
    let first = notebook.keys().unwrap().newest().unwrap().to_owned();
    let before = notebook.checkpoint().unwrap();
    let second = notebook.rotate_key().unwrap();
    let after = notebook.checkpoint().unwrap();
    assert_ne!(first, second);
    assert!(open_note(&before.note, &first).is_ok() && open_note(&before.note, &second).is_err());
    assert!(open_note(&after.note, &first).is_err() && open_note(&after.note, &second).is_ok());
    notebook.rotate_key().unwrap();
    let keys = notebook.keys().unwrap();
    assert_eq!(keys.keys().len(), 3);
    notebook.close().unwrap();
    let kept = |signed: &SignedCheckpoint| ("kept".to_owned(), signed.note.clone());
    let outside = Outside { checkpoints: vec![kept(&before), kept(&after)], key: Some(first) };
    let report = verify_against(dir.path(), &outside).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.outside, Some(after.size));
    assert_eq!(report.verifier_key.as_deref(), keys.newest());
    // Another notebook's checkpoint, and another key than the log begins with.
    let other = sample();
    let foreign = Notebook::open(other.path(), Arc::new(FixedClock::default())).unwrap();
    let outside = Outside {
        checkpoints: vec![kept(&foreign.checkpoint().unwrap())],
        key: foreign.keys().unwrap().newest().map(str::to_owned),
    };
    let report = verify_against(dir.path(), &outside).unwrap();
    assert!(report.damage.iter().any(|damage| damage.what.contains("the log begins with")));
    assert!(report.damage.iter().any(|damage| damage.where_ == "kept"));
    assert_eq!(report.outside, None);
}

/// Between the new key's file, its event and its place, a rotation may end anywhere.
#[test]
fn a_rotation_that_was_cut_short_is_ended_at_the_next_open() {
    let dir = sample();
    let open = || Notebook::open(dir.path(), Arc::new(FixedClock::default())).unwrap();
    let signer = dir.path().join("keys/signer.key");
    let layout = Layout::new(dir.path());
    let old = crate::keys::Key::read(&signer).unwrap();
    let idle = crate::keys::make_next_key(&layout, &old, &crate::device::Disk).unwrap();
    // No event names the next key: somebody else may be about to.
    let notebook = open();
    assert!(idle.path.exists() && fs::read(&signer).unwrap() != fs::read(&idle.path).unwrap());
    // Its event is durable, its place was not taken.
    let before = fs::read(&signer).unwrap();
    notebook.rotate_key().unwrap();
    let next = layout.next_key("1");
    fs::rename(&signer, &next).unwrap();
    fs::write(&signer, before).unwrap();
    // Nothing is signed by a key that the log has replaced.
    let aside = dir.path().join("aside");
    fs::rename(&next, &aside).unwrap();
    let refused = notebook.checkpoint().unwrap_err();
    assert!(refused.to_string().contains("names a newer key"), "{refused}");
    fs::rename(&aside, &next).unwrap();
    drop(notebook);
    let notebook = open();
    assert!(!next.exists());
    notebook.checkpoint().unwrap();
    notebook.close().unwrap();
    assert!(verify(dir.path()).unwrap().good());
}

/// Many rotate and sign at once, in two processes as it were: every signature is by the key that
/// was valid, and the last key signs.
#[test]
fn rotations_and_checkpoints_side_by_side() {
    let dir = sample();
    let clock = || Arc::new(FixedClock::default());
    let holder = Notebook::open(dir.path(), clock()).unwrap();
    let attached = Notebook::attach(dir.path(), clock()).unwrap();
    assert!(attached.is_attached());
    let rotated = std::thread::scope(|scope| {
        let rotate =
            |notebook: Notebook| move || (0..8).filter(|_| notebook.rotate_key().is_ok()).count();
        let sign = |notebook: Notebook| {
            let failure = move |_| notebook.checkpoint().err().map(|error| error.to_string());
            move || (0..12).filter_map(failure).collect::<Vec<_>>()
        };
        let (a, b) = (scope.spawn(rotate(holder.clone())), scope.spawn(rotate(attached.clone())));
        let (c, d) = (scope.spawn(sign(holder.clone())), scope.spawn(sign(attached)));
        assert_eq!([c.join().unwrap(), d.join().unwrap()].concat(), Vec::<String>::new());
        a.join().unwrap() + b.join().unwrap()
    });
    assert!(rotated > 0);
    assert_eq!(holder.keys().unwrap().keys().len(), rotated + 1);
    holder.checkpoint().unwrap();
    let layout = Layout::new(dir.path());
    assert_eq!(crate::keys::next_keys(&layout), Vec::<std::path::PathBuf>::new());
    holder.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.good(), "{:?}", report.damage);
}

/// A folder that keeps checkpoints takes only what extends them.
#[test]
fn a_folder_of_checkpoints_is_a_witness() {
    let dir = sample();
    let kept = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    crate::notebook::tests::copy(dir.path(), copy.path());
    let open = |dir: &Path| Notebook::open(dir, Arc::new(FixedClock::default())).unwrap();
    let (one, two) = (open(dir.path()), open(copy.path()));
    one.append_one(event("mine", json!({}))).unwrap();
    let signed = one.checkpoint().unwrap();
    let file = one.send_checkpoint(&signed, kept.path()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), signed.note);
    // The copy went on otherwise.
    two.append_one(event("other", json!({}))).unwrap();
    two.append_one(event("more", json!({}))).unwrap();
    two.append_one(event("still more", json!({}))).unwrap();
    let forked = two.checkpoint().unwrap();
    let refused = two.send_checkpoint(&forked, kept.path()).unwrap_err();
    assert!(matches!(refused, CheckpointError::Forked { .. }), "{refused}");
    let signed = one.checkpoint().unwrap();
    one.send_checkpoint(&signed, kept.path()).unwrap();
    one.close().unwrap();
    assert!(verify(dir.path()).unwrap().good());
}
