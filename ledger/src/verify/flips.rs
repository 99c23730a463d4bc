//! Every byte of every file is changed in turn: found and located, or harmless and mended.
//!
//! By default every file is sampled; `LEDGER_FLIPS=all` takes every byte.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::notebook::Notebook;
use crate::notebook::tests::copy;
use crate::reader::Reader;
use crate::writer::Options;

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::default())
}

/// A small notebook: bodies, a subject, a rotation, checkpoints.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let with = Options { segment_bytes: 1024, reserve_bytes: 0, ..Options::default() };
    let notebook = Notebook::create_with(dir.path(), clock(), "tester", with).unwrap();
    let ann = notebook.blobs().subjects().key_of("ann").unwrap();
    for n in 0..8 {
        let body = match n % 3 {
            0 => notebook.blobs().put_for(&ann, format!("words {n}").as_bytes()).unwrap(),
            _ => notebook.blobs().put(format!("body {n}").as_bytes()).unwrap(),
        };
        let mut event = event(&format!("s/{}", n % 2), &format!("id-{n}"), n);
        event.facts = json!({ "n": n, "body": body });
        notebook.append_one(event).unwrap();
    }
    notebook.checkpoint().unwrap();
    notebook.rotate_key().unwrap();
    notebook.checkpoint().unwrap();
    notebook.close().unwrap();
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All stored bytes, in order.
fn events(dir: &Path) -> Vec<Vec<u8>> {
    let reader = Reader::open(dir).unwrap();
    (0..).map_while(|seq| reader.raw(seq).unwrap()).collect()
}

/// Which bytes of a file are taken.
fn places(length: usize, sample: usize) -> Vec<usize> {
    if std::env::var("LEDGER_FLIPS").is_ok_and(|text| text == "all") {
        return (0..length).collect();
    }
    if length == 0 {
        return Vec::new();
    }
    // An odd stride meets every bit of a byte, and the file's ends are always taken.
    let stride = (length / sample).max(1) | 1;
    let mut places: Vec<usize> = (0..length).step_by(stride).collect();
    places.extend([length.saturating_sub(1), length / 2]);
    places
}

/// Changes one byte and says what verification found.
fn flipped(file: &Path, at: usize, dir: &Path) -> Result<VerifyReport, VerifyError> {
    let bytes = fs::read(file).unwrap();
    let mut damaged = bytes.clone();
    damaged[at] ^= 1 << (at % 8);
    fs::write(file, damaged).unwrap();
    let report = verify(dir);
    fs::write(file, bytes).unwrap();
    report
}

#[test]
fn bodies_keys_and_settings() {
    let dir = sample();
    for part in ["blobs", "checkpoints", "keys", "ledger.toml"] {
        let path = dir.path().join(part);
        let all = if path.is_dir() { files(&path) } else { vec![path] };
        for file in all {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let length = fs::metadata(&file).unwrap().len() as usize;
            for at in places(length, 60) {
                let outcome = flipped(&file, at, dir.path());
                let found = outcome.as_ref().map_or(true, |report| !report.good());
                // Verification needs no private key; signing refuses a wrong one.
                let private = part == "keys" && !name.starts_with("s-");
                // A key that is another one opens nothing: that shows on reading.
                let subject = part == "keys" && name.starts_with("s-");
                // Which older readers may read it says nothing to this one.
                let older = name == "ledger.toml" && {
                    let text = fs::read_to_string(&file).unwrap();
                    let line = text.find("readable_from").unwrap();
                    (line..text.find("origin").unwrap()).contains(&at)
                };
                let harmless = private || subject || older;
                assert!(found || harmless, "byte {at} of {}", file.display());
                if part == "blobs" {
                    let report = outcome.unwrap();
                    let located = report.damage.iter().any(|d| d.where_ == file.to_string_lossy());
                    assert!(located, "byte {at} of {}", file.display());
                }
            }
        }
    }
    assert!(verify(dir.path()).unwrap().good());
}

/// Store, tree and ids: what is wrong is found, or makes no difference; opening gives right
/// answers and leaves the copies equal, or says what is wrong and `repair` mends it.
#[test]
fn store_tree_and_ids() {
    let sound = sample();
    let right = events(sound.path());
    let mut seen = (0, 0, 0);
    for part in ["store", "tree"] {
        for file in files(&sound.path().join(part)) {
            let length = fs::metadata(&file).unwrap().len() as usize;
            for at in places(length, 12) {
                let dir = tempfile::tempdir().unwrap();
                copy(sound.path(), dir.path());
                let target = dir.path().join(file.strip_prefix(sound.path()).unwrap());
                let mut bytes = fs::read(&target).unwrap();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&target, bytes).unwrap();
                let what = format!("byte {at} of {}", file.display());
                let opened = catch_unwind(AssertUnwindSafe(|| Notebook::open(dir.path(), clock())))
                    .unwrap_or_else(|_| panic!("{what}: opening panicked"));
                match opened {
                    Ok(notebook) => {
                        let known = notebook.version("s/0").unwrap();
                        assert_eq!(known, Some(3), "{what}");
                        let again = notebook.append_one(event_again()).unwrap();
                        assert!(matches!(again, crate::Appended::Duplicate(_)), "{what}");
                        seen.0 += usize::from(notebook.opened().rebuilt.is_some());
                        notebook.close().unwrap();
                    }
                    Err(_) => seen.1 += 1,
                }
                if !verify(dir.path()).unwrap().good() {
                    let report = crate::repair(dir.path(), None, clock()).unwrap();
                    assert!(report.after.good(), "{what}: {:?}", report.after.damage);
                    seen.2 += 1;
                }
                assert_eq!(events(dir.path())[..right.len()], right, "{what}");
            }
        }
    }
    println!("{} rebuilt at open, {} refused, {} repaired", seen.0, seen.1, seen.2);
    assert!(seen.0 > 0);
}

/// Event `id-1` of the sample, as it was appended.
fn event_again() -> crate::NewEvent {
    let body =
        crate::BodyRef { digest: Digest::of(b"body 1"), length: 6, cipher: None, subject: None };
    let mut event = event("s/1", "id-1", 1);
    event.facts = json!({ "n": 1, "body": body });
    event
}
