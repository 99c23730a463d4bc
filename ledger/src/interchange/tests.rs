#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::checkpoint::CheckpointError;
use crate::clock::FixedClock;
use crate::conformance::event;
use crate::notebook::Notebook;
use crate::verify::verify;

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::default())
}

/// Writes a notebook out and in again, and returns both heads.
fn round(facts: Vec<Value>) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let notebook = Notebook::create(&dir.path().join("from"), clock(), "tester").unwrap();
    for (n, facts) in facts.into_iter().enumerate() {
        let mut event = event(&format!("s/{}", n % 3), &format!("id-{n}"), 0);
        event.facts = facts;
        notebook.append_one(event).unwrap();
    }
    // As long as two parts and a bit, so that parts are put together again.
    let long: Vec<u8> = (0..2 * PART + 5).map(|n| (n % 251) as u8).collect();
    let body = [&b"a body"[..], b"", &long].map(|bytes| notebook.blobs().put(bytes).unwrap());
    let key = notebook.blobs().subjects().key_of("ann").unwrap();
    let sealed = notebook.blobs().put_for(&key, b"secret words").unwrap();
    let mut named = event("s/bodies", "bodies", 0);
    named.facts = json!({ "plain": body, "sealed": sealed });
    notebook.append_one(named).unwrap();
    notebook.checkpoint().unwrap();
    let mut lines = Vec::new();
    let head = notebook.reader().export(&mut lines, true).unwrap();
    let to = dir.path().join("to");
    assert_eq!(import(lines.as_slice(), &to).unwrap(), head);
    (dir, to, lines)
}

#[test]
fn out_and_in_again_is_the_same_log() {
    let facts = vec![
        json!({ "max": u64::MAX, "min": i64::MIN, "zero": -0.0, "large": 1e308, "tiny": 5e-324 }),
        json!({ "third": 1.0 / 3.0, "whole": 1.0, "text": "\u{0}\"\\/\n\u{1F600}\u{2028}" }),
        json!([null, true, [], {}, "", 0.1]),
    ];
    let (dir, to, lines) = round(facts);
    assert!(!lines.windows(6).any(|window| window == b"secret"));
    let notebook = Notebook::open(&to, clock()).unwrap();
    let (from, there) = (Reader::open(&dir.path().join("from")).unwrap(), notebook.reader());
    for seq in 0..there.head().unwrap().size {
        assert_eq!(from.raw(seq).unwrap(), there.raw(seq).unwrap());
    }
    // The log goes on; only the key is where it was.
    notebook.append_one(event("s/0", "more", 1)).unwrap();
    let refused = notebook.checkpoint().unwrap_err();
    assert!(matches!(refused, CheckpointError::Key { .. }), "{refused}");
    notebook.close().unwrap();
    let report = verify(&to).unwrap();
    // The subject's key never leaves, which is no damage here, but told.
    assert_eq!((&report.damage, report.blobs, report.elsewhere), (&vec![], 4, 1));
    fs::remove_file(Blobs::open(&to).path(&Digest::of(b"a body"))).unwrap();
    assert!(!verify(&to).unwrap().good(), "a body that came with it must be there");
    let again = dir.path().join("to");
    assert!(matches!(import(lines.as_slice(), &again), Err(InterchangeError::Exists { .. })));
}

/// The lines as every later version must read them.
#[test]
fn the_lines_are_as_documented() {
    let root = Digest::from_bytes([1; 32]);
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        origin: "ledger/x".to_owned(),
        size: 2,
        root,
        bodies: true,
    };
    let part = BodyLine { body: root, at: 786_432, base64: base64(b"text") };
    let text = [serde_json::to_string(&header).unwrap(), serde_json::to_string(&part).unwrap()];
    let ones = "01".repeat(32);
    let named = r#"{"format":"ledger-export","version":1,"origin":"ledger/x","size":2,"root":"#;
    let wanted = [
        format!(r#"{named}"{ones}","bodies":true}}"#),
        format!(r#"{{"body":"{ones}","at":786432,"base64":"dGV4dA=="}}"#),
    ];
    assert_eq!(text, wanted);
}

#[test]
fn without_bodies_they_are_elsewhere() {
    let (dir, _, _) = round(vec![json!({ "n": 1 })]);
    let mut lines = Vec::new();
    Reader::open(&dir.path().join("from")).unwrap().export(&mut lines, false).unwrap();
    let bare = dir.path().join("bare");
    import(lines.as_slice(), &bare).unwrap();
    let report = verify(&bare).unwrap();
    assert_eq!((&report.damage, report.blobs, report.elsewhere), (&vec![], 4, 4));
    let endless = [lines.as_slice(), &vec![b' '; LINE_MAX as usize]].concat();
    let refused = import(endless.as_slice(), &dir.path().join("endless")).unwrap_err();
    assert!(refused.to_string().contains("longer than"), "{refused}");
}

#[test]
fn a_changed_line_is_named_and_nothing_is_left_behind() {
    let (dir, _, lines) = round(vec![json!({ "n": 1 }), json!({ "n": 2 })]);
    let text = String::from_utf8(lines).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let target = dir.path().join("target");
    let fails = |lines: Vec<String>| match import(lines.join("\n").as_bytes(), &target) {
        Err(InterchangeError::Line { line, .. }) => line,
        other => unreachable!("{other:?}"),
    };
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let with = |at: usize, old: &str, new: &str| {
        let mut lines = own(&all);
        assert!(lines[at].contains(old), "{}", lines[at]);
        lines[at] = lines[at].replacen(old, new, 1);
        lines
    };
    assert_eq!(fails(with(2, "\"n\":1", "\"n\":9")), 3);
    assert_eq!(fails(with(2, "\"actor\"", "\"actress\"")), 3);
    assert_eq!(fails(with(0, "ledger-export", "something")), 1);
    assert_eq!(fails(with(0, "\"version\":1", "\"version\":2")), 1);
    assert_eq!(fails(with(0, "\"size\":", "\"size\":1")), all.len() as u64);
    assert_eq!(fails(own(&[&all[..2], &all[3..]].concat())), 3);
    assert_eq!(fails(own(&all[..all.len() - 1])), all.len() as u64 - 1);
    assert_eq!(fails(vec![String::new()]), 1);
    let body = all.iter().position(|line| line.starts_with("{\"body\"")).unwrap();
    // That the bytes are others shows when the next line is no part of the body.
    assert_eq!(fails(with(body, "\"base64\":\"", "\"base64\":\"AAAA")), body as u64 + 2);
    assert_eq!(fails(with(body, "\"at\":0", "\"at\":1")), body as u64 + 1);
    let part = all
        .iter()
        .rposition(|line| line.starts_with("{\"body\"") && !line.contains("\"at\":0"))
        .unwrap();
    assert_eq!(fails(own(&[&all[..part - 1], &all[part..]].concat())), part as u64);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_facts_come_back_in_the_same_bytes(facts in prop::collection::vec(values(), 1..6)) {
        let (_dir, _, _) = round(facts);
    }
}
