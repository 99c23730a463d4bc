//! The kept corpus is read again by every run of the tests; `UPDATE_GOLDEN=1` writes its seeds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::clock::FixedClock;
use crate::conformance::event as sample;
use crate::notebook::Notebook;

/// What takes the inputs of a target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("frame", super::frame),
    ("segment", super::segment),
    ("event", super::event),
    ("proof", super::proof),
    ("path", super::path),
];

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Writes what the fuzzer begins with: inputs of the form that the program itself writes.
fn write_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = Notebook::create(dir.path(), Arc::new(FixedClock::default()), "tester").unwrap();
    for n in 0..12 {
        let mut one = sample(&format!("s/{}", n % 2), &format!("id-{n}"), n);
        one.facts = json!({ "n": n, "x": [0.5, null, true, "\u{e9}"], "digest": "00" });
        notebook.append_one(one).unwrap();
    }
    let next = notebook.rotate_key().unwrap();
    let signed = notebook.checkpoint().unwrap();
    let reader = notebook.reader();
    fs::write(fuzz().join("verifier.key"), format!("{next}\n")).unwrap();
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = fuzz().join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
    };
    let head = reader.head().unwrap();
    let mut frames = Vec::new();
    for seq in 0..head.size {
        let bytes = reader.raw(seq).unwrap().unwrap();
        let mark = crate::journal::Mark { seq, since: 0, rest: 0 };
        let mut frame = vec![0; 4];
        push_frame(&mut frame, mark, &bytes);
        frames.extend_from_slice(&frame[4..]);
        if [0, 3, head.size - 2].contains(&seq) {
            put("frame", &seq.to_string(), &frame);
            put("event", &seq.to_string(), &bytes);
        }
        if let Ok(proof) = reader.prove(seq, &signed) {
            let mut path = [seq.to_le_bytes(), signed.size.to_le_bytes()].concat();
            path.extend_from_slice(&tlog_tiles::record_hash(&bytes).0);
            path.extend_from_slice(signed.root.as_bytes());
            proof.path.iter().for_each(|hash| path.extend_from_slice(hash.as_bytes()));
            put("path", &seq.to_string(), &path);
            put("proof", &seq.to_string(), proof.to_text().as_bytes());
        }
    }
    frames.truncate(4000);
    for choices in [0, 1, 3] {
        put("segment", &choices.to_string(), &[&[choices, 0], frames.as_slice()].concat());
    }
    put("proof", "note", signed.note.as_bytes());
    put("proof", "key", next.as_bytes());
    let extension = reader.prove_extension(5, head.size).unwrap();
    let mut path = [5_u64.to_le_bytes(), head.size.to_le_bytes()].concat();
    path.extend_from_slice(extension.old.root.as_bytes());
    path.extend_from_slice(extension.new.root.as_bytes());
    extension.path.iter().for_each(|hash| path.extend_from_slice(hash.as_bytes()));
    put("path", "extension", &path);
}

#[test]
fn the_kept_corpus_harms_nobody() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write_seeds();
    }
    for (name, target) in TARGETS {
        let folder = fuzz().join("corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{name} has no corpus"));
        let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 3, "{name}");
        for input in inputs {
            target(&input);
            (0..input.len().min(300)).for_each(|cut| target(&input[..cut]));
        }
    }
}
