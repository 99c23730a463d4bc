#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::FixedClock;
use crate::conformance::{check, event};
use crate::notebook::{AppendError, Appended, Notebook, OpenError};

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::default())
}

fn create(dir: &Path) -> Notebook {
    Notebook::create(dir, clock(), "tester").unwrap()
}

fn attach(dir: &Path) -> Notebook {
    Notebook::attach(dir, clock()).unwrap()
}

/// Whoever writes through the holder sees the same log as whoever holds it.
#[test]
fn an_attached_notebook_is_a_log() {
    let kept = std::cell::RefCell::new(Vec::new());
    check(&|clock| {
        let dir = tempfile::tempdir().unwrap();
        let holder = Notebook::create(dir.path(), clock, "tester").unwrap();
        let attached = attach(dir.path());
        assert!(attached.is_attached() && !holder.is_attached());
        kept.borrow_mut().push((dir, holder));
        Arc::new(attached)
    });
}

#[test]
fn a_holder_that_goes_away_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let holder = create(dir.path());
    let (one, two) = (attach(dir.path()), attach(dir.path()));
    assert_eq!(one.append_one(event("s", "a", 1)).unwrap(), Appended::New(1));
    holder.close().unwrap();
    // The first to notice takes the lock; the other goes on through it.
    assert_eq!(two.append_one(event("s", "b", 2)).unwrap(), Appended::New(2));
    assert_eq!(one.append_one(event("s", "c", 3)).unwrap(), Appended::New(3));
    assert_eq!(one.append_one(event("s", "b", 2)).unwrap(), Appended::Duplicate(2));
    one.checkpoint().unwrap();
    assert_eq!(two.version("s").unwrap(), Some(2));
    drop((one, two));
    assert!(!dir.path().join("socket").exists());
    let report = crate::verify(dir.path()).unwrap();
    assert_eq!((report.damage, report.events), (vec![], 5));
}

/// The address of a Unix socket has 108 bytes at most; a notebook may lie deeper.
#[test]
fn deep_directories_have_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a-rather-long-name/".repeat(12));
    let holder = create(&deep);
    assert_eq!(holder.opened().unreachable, None);
    let attached = attach(&deep);
    attached.append_one(event("s", "a", 1)).unwrap();
    assert_eq!(holder.version("s").unwrap(), Some(0));
    let mode = deep.join("socket").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn events_are_found_by_their_ids_wherever_one_asks() {
    let dir = tempfile::tempdir().unwrap();
    let holder = create(dir.path());
    let attached = attach(dir.path());
    attached.append(&[], vec![event("s", "a", 1), event("s", "b", 2)]).unwrap();
    let ids = ["b", "none", "a", "b"].map(str::to_owned);
    for notebook in [&holder, &attached] {
        assert_eq!(notebook.seqs_of(&ids).unwrap(), [Some(2), None, Some(1), Some(2)]);
        notebook.ready(1).unwrap();
        let refused = notebook.ready(u64::MAX).unwrap_err();
        assert!(matches!(refused, AppendError::DiskLow { .. }), "{refused}");
    }
    holder.close().unwrap();
}

/// What is no message ends its connection and nothing else.
#[test]
fn rubbish_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let holder = create(dir.path());
    let good = attach(dir.path());
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[4, 0, 0, 0, 1, 2, 3, 4], &[9]] {
        let mut stream = connect(&dir.path().join("socket")).unwrap();
        stream.write_all(rubbish).unwrap();
    }
    good.append_one(event("s", "a", 1)).unwrap();
    let refused = good.append(&[], vec![event("s", "a", 2)]).unwrap_err();
    assert!(matches!(refused, AppendError::IdReused { seq: 1, .. }), "{refused}");
    holder.close().unwrap();
}

#[test]
fn a_holder_that_does_not_listen_is_named() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).close().unwrap();
    let lock = crate::layout::Lock::take(&crate::layout::Layout::new(dir.path())).unwrap();
    let refused = Notebook::attach(dir.path(), clock()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { by: Some(_), .. }), "{refused}");
    drop(lock);
    attach(dir.path()).append_one(event("s", "a", 1)).unwrap();
}
