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
    assert_eq!(sweep(&found).unwrap(), found.iter().map(|file| file.bytes).sum::<u64>());
    assert_eq!(list(Duration::ZERO), []);
    let there = [&weights, &shared, &optimiser, &unnamed].map(|b| blobs.path(&b.digest).exists());
    assert_eq!(there, [true, true, false, false]);
    notebook.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damage, report.gone), (vec![], 1));
}
