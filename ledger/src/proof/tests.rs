#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use serde_json::json;
use sha2_11::Sha256;
use tlog_tiles::{HashReader as _, Tile, TileHashReader, TileReader, stored_hash_index};

use super::*;
use crate::clock::FixedClock;
use crate::event::NewEvent;
use crate::notebook::Notebook;

fn notebook(dir: &Path, events: u64) -> Notebook {
    let notebook = Notebook::create(dir, Arc::new(FixedClock::default()), "tester").unwrap();
    let event = |n: u64| NewEvent {
        id: format!("id-{n}"),
        stream: "s/one".to_owned(),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "tester".to_owned(),
        cause: None,
        run: None,
        facts: json!({"n": n}),
        measured: json!({}),
    };
    notebook.append(&[], (0..events).map(event).collect()).unwrap();
    notebook
}

#[test]
fn events_are_proven_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = notebook(dir.path(), 700);
    let signed = notebook.checkpoint().unwrap();
    let key = notebook.keys().unwrap().newest().unwrap().to_owned();
    let reader = Reader::open(dir.path()).unwrap();
    for seq in [0, 1, 255, 256, 511, 512, 700] {
        let proof = reader.prove(seq, &signed).unwrap();
        let text = proof.to_text();
        let read = LogProof::parse(&text).unwrap();
        assert_eq!((read.to_text(), &read), (text, &proof));
        let event = reader.raw(seq).unwrap().unwrap();
        let proven = read.verify(&event, &key).unwrap();
        assert_eq!((proven.index, proven.size, proven.root), (seq, 701, signed.root));
        assert!(matches!(read.verify(b"other", &key), Err(ProofError::NotIncluded { .. })));
        let moved = LogProof { index: seq + 1, ..proof };
        assert!(matches!(moved.verify(&event, &key), Err(ProofError::NotIncluded { .. })));
        let other = "ledger/other+0a9e5fbe+AXTVvhDyFiDCIFzgVYvhMA6NqSFsUCqGhmCvGFRmnOkV";
        assert!(matches!(read.verify(&event, other), Err(ProofError::Checkpoint(_))));
    }
    assert!(matches!(reader.prove(701, &signed), Err(ProofError::NotCovered { seq: 701 })));
    let extension = reader.prove_extension(300, 701).unwrap();
    assert!(extension.holds());
    let mut forged = extension.clone();
    forged.old.root = Digest::of(b"x");
    assert!(!forged.holds());
    assert!(reader.prove_extension(0, 701).unwrap().holds());
    assert!(reader.prove_extension(701, 701).unwrap().holds());
    assert!(reader.prove_extension(5, 9999).is_err());
}

#[test]
fn malformed_proofs_name_their_line() {
    let good = format!("{HEADER}\nextra AAAA\nindex 5\n{}\n\nrest\n", base64(&[7; 32]));
    assert_eq!(LogProof::parse(&good).unwrap().extra.as_deref(), Some(&[0_u8, 0, 0][..]));
    for (text, line) in [
        (good.replace("\n\n", "\n"), 1),
        (good.replace("@v1", "@v2"), 1),
        (good.replace("AAAA", "AAA"), 2),
        (good.replace("index 5", "index 05"), 3),
        (good.replace("index 5", "index -5"), 3),
        (good.replace("index 5", "place 5"), 3),
        (good.replace("Bw", "B"), 4),
        (format!("{HEADER}\n\nrest"), 2),
    ] {
        match LogProof::parse(&text) {
            Err(ProofError::Malformed { line: found, .. }) => assert_eq!(found, line, "{text}"),
            other => unreachable!("{text}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_taken_for_a_proof_by_accident(
        head in "(c2sp.org/tlog-proof@v1\n)?(extra [A-Za-z=]*\n)?(index [0-9]{0,21}\n)?",
        tail in "([A-Za-z0-9+/=]{44}\n){0,3}\n?.{0,40}",
    ) {
        let text = head + &tail;
        if let Ok(proof) = LogProof::parse(&text) {
            prop_assert_eq!(proof.to_text(), text);
        }
    }
}

/// The exported files, read by the tile reader of another implementation.
struct Files<'a>(&'a Path);

impl TileReader for Files<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // That reader names the height in its paths too; the layout's files do not.
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| fs::read(path(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// Every leaf and every entry is authenticated against the signed checkpoint, by the tile reader
/// of one implementation, and all entries together by the tree of another.
fn audit(out: &Path, key: &str) -> u64 {
    let note = fs::read_to_string(out.join("checkpoint")).unwrap();
    let signed = open_note(&note, key).unwrap();
    let files = Files(out);
    let tree = TileHashReader::new(signed.size, Hash(*signed.root.as_bytes()), &files);
    let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut seq = 0;
    while seq < signed.size {
        let width = (signed.size - seq).min(256);
        let partial = if width == 256 { String::new() } else { format!(".p/{width}") };
        let bundle = format!("tile/entries/{:03}{partial}", seq / 256);
        let bundle = fs::read(out.join(bundle)).unwrap();
        let mut rest = bundle.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let (event, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            let proven = tree.read_hashes(&[stored_hash_index(0, seq)]).unwrap();
            assert_eq!(proven, [record_hash(event)]);
            assert_eq!(crate::codec::decode(event).unwrap().seq, seq);
            other.push(event.to_vec());
            (rest, seq) = (behind, seq + 1);
        }
    }
    assert_eq!(other.root().as_bytes().as_slice(), signed.root.as_bytes().as_slice());
    seq
}

#[test]
fn exported_tiles_are_read_by_another_implementation() {
    let dir = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    // More than 65,536, so that there is a full tile above others.
    let notebook = notebook(dir.path(), 66_000);
    let signed = notebook.checkpoint().unwrap();
    let key = notebook.keys().unwrap().newest().unwrap().to_owned();
    let reader = Reader::open(dir.path()).unwrap();
    let first = reader.export_tiles(out.path(), &signed).unwrap();
    assert_eq!((first.size, audit(out.path(), &key)), (66_001, 66_001));
    let again = notebook.checkpoint().unwrap();
    let second = reader.export_tiles(out.path(), &again).unwrap();
    assert!(second.files < first.files, "{second:?} {first:?}");
    assert_eq!(audit(out.path(), &key), 66_002);
    // The tiles of another log are left alone, and a wrong hash in the tree goes nowhere.
    let tile = out.path().join("tile/0/003");
    let sound = fs::read(&tile).unwrap();
    fs::write(&tile, vec![0; sound.len()]).unwrap();
    let refused = reader.export_tiles(out.path(), &again).unwrap_err();
    assert!(matches!(refused, crate::ExportError::Other { .. }), "{refused}");
    fs::write(&tile, sound).unwrap();
    notebook.close().unwrap();
    let level = dir.path().join("tree/1.tiles");
    let mut bytes = fs::read(&level).unwrap();
    bytes[40] ^= 1;
    fs::write(&level, bytes).unwrap();
    assert!(reader.export_tiles(out.path(), &again).is_err());
    let report = crate::verify(dir.path()).unwrap();
    assert!(report.damage.iter().any(|damage| damage.where_.ends_with("1.tiles")), "{report:?}");
    let clock = Arc::new(FixedClock::default());
    let repaired = crate::repair(dir.path(), None, clock).unwrap();
    assert!(repaired.done.store && repaired.after.good(), "{:?}", repaired.after.damage);
    assert_eq!(audit(out.path(), &key), 66_002);
    assert!(reader.export_tiles(out.path(), &again).is_ok());
}
