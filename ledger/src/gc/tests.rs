#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::blob::BlobError;
use crate::catalogue::{CheckpointReleased, CheckpointSaved};
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::event::{BodyRef, NewEvent};
use crate::forget::ForgetError;
use crate::notebook::Notebook;
use crate::verify::verify;

fn create(dir: &Path) -> Notebook {
    Notebook::create(dir, Arc::new(FixedClock::default()), "tester").unwrap()
}

fn name(notebook: &Notebook, id: &str, body: &BodyRef) {
    let mut event = event("trace/x", id, 1);
    event.facts = json!({ "body": body });
    notebook.append_one(event).unwrap();
}

/// Every file below a directory that holds `text`.
fn holding(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, _) in entries(dir).unwrap() {
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).is_ok_and(|b| b.windows(text.len()).any(|w| w == text)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_forgotten_subject_leaves_no_text_and_the_log_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let secret = b"the quick brown fox of Ann";
    let (ann, bea) = {
        let subjects = notebook.blobs().subjects();
        (subjects.key_of("ann@example.org").unwrap(), subjects.key_of("bea").unwrap())
    };
    let hers = notebook.blobs().put_for(&ann, secret).unwrap();
    let other = notebook.blobs().put_for(&bea, b"the lazy dog of Bea").unwrap();
    name(&notebook, "one", &hers);
    name(&notebook, "two", &other);
    assert_eq!(notebook.blobs().get(&hers).unwrap(), secret);
    assert_eq!(notebook.blobs().put_for(&ann, secret).unwrap(), hers);
    notebook.flush();
    assert!(verify(dir.path()).unwrap().good());
    assert_eq!(holding(dir.path(), secret), Vec::<PathBuf>::new());
    assert_eq!(holding(dir.path(), b"ann@example.org"), Vec::<PathBuf>::new());

    let unknown = notebook.forget("nobody", "tester").unwrap_err();
    assert!(matches!(unknown, ForgetError::Unknown { .. }), "{unknown}");
    let held = notebook.forget("ann@example.org", "tester").unwrap();
    assert_eq!((held.bodies, held.events.as_slice(), held.erased), (1, &[1][..], Some(3)));
    assert!(!notebook.blobs().path(&hers.digest).exists());
    assert!(matches!(notebook.blobs().get(&hers), Err(BlobError::Erased { .. })));
    assert_eq!(notebook.blobs().get(&other).unwrap(), b"the lazy dog of Bea");
    // Once more is no event.
    assert_eq!(notebook.forget("ann@example.org", "tester").unwrap(), held);
    notebook.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damage, report.gone, report.events), (vec![], 1, 4));

    // The subject comes back with another key, and is forgotten again.
    let notebook = Notebook::open(dir.path(), Arc::new(FixedClock::default())).unwrap();
    let key = notebook.blobs().subjects().key_of("ann@example.org").unwrap();
    let again = notebook.blobs().put_for(&key, b"here again").unwrap();
    name(&notebook, "three", &again);
    assert_eq!(notebook.blobs().get(&again).unwrap(), b"here again");
    assert!(matches!(notebook.blobs().get(&hers), Err(BlobError::Erased { .. })));
    assert!(notebook.forget("ann@example.org", "tester").unwrap().erased > held.erased);
    notebook.close().unwrap();
    assert!(verify(dir.path()).unwrap().good());
}

/// Cut short behind each of its steps, it is finished by asking again; a key that is simply lost
/// is damage.
#[test]
fn forgetting_may_be_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let key = notebook.blobs().subjects().key_of("ann").unwrap();
    let body = notebook.blobs().put_for(&key, b"text").unwrap();
    name(&notebook, "one", &body);
    notebook.blobs().subjects().destroy(key.pseudonym()).unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.damage[0].what.contains("no event erased it"), "{:?}", report.damage);
    notebook.forget("ann", "tester").unwrap();
    assert!(verify(dir.path()).unwrap().good());
    // The file came back from a copy: it can be read by nobody, and is garbage.
    fs::write(notebook.blobs().path(&body.digest), key.seal(b"text")).unwrap();
    assert!(verify(dir.path()).unwrap().good());
    let found = garbage(&notebook.reader(), Duration::ZERO).unwrap();
    assert_eq!(found.iter().map(|file| file.why).collect::<Vec<_>>(), [Why::Erased]);
    notebook.forget("ann", "tester").unwrap();
    assert_eq!(garbage(&notebook.reader(), Duration::ZERO).unwrap(), []);
}

#[test]
fn garbage_is_what_no_event_needs() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let blobs = notebook.blobs();
    let weights = blobs.put(b"weights").unwrap();
    let optimiser = blobs.put(b"optimiser").unwrap();
    let shared = blobs.put(b"shared").unwrap();
    let unnamed = blobs.put(b"unnamed").unwrap();
    let saved = |step, weights: &BodyRef, optimiser: &BodyRef| CheckpointSaved {
        step,
        epoch: 1,
        weights: weights.clone(),
        optimiser: Some(optimiser.clone()),
        dev_loss: None,
    };
    let run =
        |facts: CheckpointSaved, id: &str| NewEvent::new("run/r", id, "tester", &facts).unwrap();
    notebook.append_one(run(saved(1, &weights, &optimiser), "a")).unwrap();
    notebook.append_one(run(saved(2, &weights, &shared), "b")).unwrap();
    name(&notebook, "keeps", &shared);
    fs::write(dir.path().join("blobs/tmp/left"), b"unfinished").unwrap();
    fs::create_dir(dir.path().join("store.set-aside-0")).unwrap();
    fs::write(dir.path().join("store.set-aside-0/heap"), b"old").unwrap();
    let list = |grace| garbage(&notebook.reader(), grace).unwrap();
    assert_eq!(list(Duration::from_secs(3600)), [], "all of it is young");
    let whys: Vec<_> = list(Duration::ZERO).iter().map(|file| file.why).collect();
    assert_eq!(whys, [Why::Unnamed, Why::Unfinished, Why::SetAside]);
    let released = CheckpointReleased {
        run: "r".to_owned(),
        step: 1,
        bodies: vec![optimiser.clone(), shared.clone()],
        why: "finished".to_owned(),
    };
    let event = NewEvent::new("run/r", "release", "tester", &released).unwrap();
    notebook.append_one(event).unwrap();
    let found = list(Duration::ZERO);
    let whys: Vec<_> = found.iter().map(|file| file.why).collect();
    assert_eq!(whys, [Why::Unnamed, Why::Released, Why::Unfinished, Why::SetAside]);
    // Between listing and agreeing somebody stores one again, and names another.
    let wanted = blobs.put(b"wanted").unwrap();
    let listed = list(Duration::ZERO);
    assert_eq!(listed.len(), found.len() + 1);
    name(&notebook, "wanted", &wanted);
    let sweep = |grace| sweep(&notebook.reader(), &listed, grace).unwrap();
    assert_eq!(sweep(Duration::from_secs(3600)), 0, "all of it was stored a moment ago");
    assert_eq!(sweep(Duration::ZERO), found.iter().map(|file| file.bytes).sum::<u64>());
    assert_eq!(list(Duration::ZERO), []);
    let bodies = [&weights, &shared, &wanted, &optimiser, &unnamed];
    let there = bodies.map(|body| blobs.path(&body.digest).exists());
    assert_eq!(there, [true, true, true, false, false]);
    notebook.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damage, report.gone), (vec![], 1));
}

/// A resume point that was given up and then saved again is needed again.
#[test]
fn a_checkpoint_that_was_saved_again_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let weights = notebook.blobs().put(b"weights").unwrap();
    let saved = CheckpointSaved {
        step: 1,
        epoch: 1,
        weights: weights.clone(),
        optimiser: None,
        dev_loss: None,
    };
    let bodies = vec![weights];
    let released =
        CheckpointReleased { run: "r".to_owned(), step: 1, bodies, why: "finished".to_owned() };
    let append = |id: &str, run: &str, facts: &CheckpointSaved| {
        let event = NewEvent::new(format!("run/{run}"), id, "tester", facts).unwrap();
        notebook.append_one(event).unwrap();
    };
    append("a", "r", &saved);
    let event = NewEvent::new("run/r", "release", "tester", &released).unwrap();
    notebook.append_one(event).unwrap();
    let list = || garbage(&notebook.reader(), Duration::ZERO).unwrap();
    assert_eq!(list().len(), 1);
    append("b", "again", &saved);
    assert_eq!(list(), []);
}

/// Where the journal is not there, or ends too soon, nothing is taken for garbage.
#[test]
fn a_log_that_cannot_be_read_makes_no_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = create(dir.path());
    let body = notebook.blobs().put(b"text").unwrap();
    name(&notebook, "one", &body);
    notebook.checkpoint().unwrap();
    notebook.close().unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let (journal, aside) = (dir.path().join("journal"), dir.path().join("aside"));
    fs::rename(&journal, &aside).unwrap();
    assert!(garbage(&reader, Duration::ZERO).is_err());
    fs::create_dir(&journal).unwrap();
    assert!(garbage(&reader, Duration::ZERO).is_err());
    fs::remove_dir(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    assert_eq!(garbage(&reader, Duration::ZERO).unwrap(), []);
    // The last event is damaged: it looks like an unfinished write, but is known to be more.
    let segment = journal.join("00000000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    assert!(matches!(garbage(&reader, Duration::ZERO), Err(GcError::Read(_))));
    assert!(reader.events(0).unwrap().any(|event| event.is_err()));
    assert!(reader.head().is_err());
}
