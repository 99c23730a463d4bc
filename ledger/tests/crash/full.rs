//! A store whose disk is full: the journal, on another disk, goes on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ledger::{NewEvent, Notebook, SystemClock, verify};
use serde_json::json;

use super::skipped;
use super::writer::noise;

/// A small file system, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(at);
        let output = mount.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(Self(at));
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // What still holds it lets go with its process.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// An event that the store can hardly make smaller, so that it grows as the journal does.
fn event(n: u64) -> NewEvent {
    NewEvent {
        id: format!("event/{n}"),
        stream: format!("stream/{}", n % 7),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "writer".to_owned(),
        cause: None,
        run: None,
        facts: json!({ "n": n, "text": noise(n, 120) }),
        measured: json!({}),
    }
}

#[test]
fn a_store_that_runs_out_of_space_stops_alone() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "writer").unwrap();
    notebook.close().unwrap();
    let small = match Small::mount(disk.path()) {
        Ok(small) => small,
        Err(why) => return skipped("a store on a full disk needs root and tmpfs", &why),
    };
    let store = dir.path().join("store");
    let moved = Command::new("cp").arg("-r").arg(&store).arg(disk.path()).status();
    assert!(moved.unwrap().success());
    std::fs::remove_dir_all(&store).unwrap();
    std::os::unix::fs::symlink(disk.path().join("store"), &store).unwrap();
    let open = || Notebook::open(dir.path(), Arc::new(SystemClock));
    let notebook = open().unwrap();
    assert_eq!(notebook.opened().rebuilt, None);
    let mut n = 0;
    for _ in 0..60 {
        notebook.append(&[], (n..n + 100).map(event).collect()).unwrap();
        n += 100;
    }
    // A checkpoint flushes the store, which cannot be; it is signed all the same.
    assert_eq!(notebook.checkpoint().unwrap().size, n + 1);
    notebook.append_one(event(n)).unwrap();
    assert!(notebook.close().is_err(), "that the store is behind is told");
    // The one on the full disk is set aside, and another made where there is room.
    let notebook = open().unwrap();
    drop(small);
    assert_eq!(notebook.reader().head().unwrap().size, n + 3);
    assert!(notebook.opened().rebuilt.is_some());
    notebook.close().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.damage, report.store.as_str()), (vec![], "equal"));
}
