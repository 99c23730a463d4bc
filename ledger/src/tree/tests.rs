#![allow(clippy::unwrap_used)]

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2_11::Sha256;
use tlog_tiles::{check_record, check_tree, prove_record, prove_tree, record_hash};

use super::*;

fn leaf(n: u64) -> Vec<u8> {
    format!("event {n}").into_bytes()
}

/// Tiles over `size` events, appended in pieces of changing length.
fn tiles(dir: &Path, size: u64) -> Tiles {
    let mut tiles = Tiles::open(dir).unwrap();
    let mut at = 0;
    for piece in [1, 3, 255, 256, 257, 1000].iter().cycle() {
        let end = size.min(at + piece);
        let leaves: Vec<_> = (at..end).map(|n| record_hash(&leaf(n))).collect();
        tiles.append(&leaves).unwrap();
        at = end;
        if at == size {
            break;
        }
    }
    tiles
}

/// Every root and inclusion proof around the edges of tiles agrees with an implementation that
/// shares no code with ours.
#[test]
fn agrees_with_an_independent_implementation() {
    let dir = tempfile::tempdir().unwrap();
    let tiles = tiles(dir.path(), 600);
    let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for size in 1..=600_u64 {
        other.push(leaf(size - 1));
        let root = tiles.root_at(size).unwrap();
        assert_eq!(root.as_bytes().as_slice(), other.root().as_bytes().as_slice());
        for n in [0, size / 3, size / 2, size.saturating_sub(2), size - 1] {
            let proof = prove_record(size, n, &tiles).unwrap();
            let flat: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            assert_eq!(flat, other.prove_inclusion(n as usize).as_bytes());
            let hash = record_hash(&leaf(n));
            check_record(&proof, size, Hash(*root.as_bytes()), n, hash).unwrap();
        }
    }
}

/// Three levels of tiles, with proofs from old sizes.
#[test]
fn large_trees_have_right_proofs() {
    let dir = tempfile::tempdir().unwrap();
    let size = 66_000;
    let tiles = tiles(dir.path(), size);
    let mut frontier = Frontier::default();
    let mut roots = Vec::new();
    for n in 0..size {
        roots.push(frontier.root());
        frontier.push_leaf(record_hash(&leaf(n)));
    }
    roots.push(frontier.root());
    let root = Hash(*frontier.root().as_bytes());
    assert_eq!(tiles.root_at(size).unwrap(), frontier.root());
    for n in [0, 255, 256, 65_535, 65_536, 65_999, 31_415] {
        let proof = prove_record(size, n, &tiles).unwrap();
        check_record(&proof, size, root, n, record_hash(&leaf(n))).unwrap();
        assert!(check_record(&proof, size, root, n, record_hash(b"another")).is_err());
        if n > 0 {
            let old = Hash(*roots[n as usize].as_bytes());
            assert_eq!(tiles.root_at(n).unwrap(), roots[n as usize]);
            let proof = prove_tree(size, n, &tiles).unwrap();
            check_tree(&proof, size, root, n, old).unwrap();
        }
    }
}

#[test]
fn cut_trees_go_on_and_short_ones_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = tiles(dir.path(), 1000);
    let root = first.root_at(700).unwrap();
    first.truncate(700).unwrap();
    assert_eq!((first.size(), first.root_at(700).unwrap()), (700, root));
    assert!(matches!(first.root_at(701), Err(TreeError::Short { .. })));
    first.append(&(700..1000).map(|n| record_hash(&leaf(n))).collect::<Vec<_>>()).unwrap();
    first.sync().unwrap();
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(first.root_at(1000).unwrap(), tiles(whole.path(), 1000).root_at(1000).unwrap());
    let read = Tiles::open_read_only(dir.path()).unwrap();
    assert_eq!(read.root_at(1000).unwrap(), first.root_at(1000).unwrap());
    assert_eq!(read.root_at(0).unwrap(), Digest::of(b""));
    fs::write(dir.path().join("1.tiles"), b"").unwrap();
    let read = Tiles::open_read_only(dir.path()).unwrap();
    assert!(read.root_at(1000).unwrap_err().to_string().contains("1.tiles"));
    let mut seen = Vec::new();
    read.visit_leaves(3, |n, hash| seen.push((n, hash))).unwrap();
    assert_eq!(seen[2], (2, record_hash(&leaf(2))));
}

/// Prints what a proof costs: `cargo test --release -p ledger -- --ignored cost_of --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiles = Tiles::open(dir.path()).unwrap();
    let size = 1_000_000_u64;
    for at in (0..size).step_by(1000) {
        let leaves: Vec<_> = (at..at + 1000).map(|n| record_hash(&n.to_le_bytes())).collect();
        tiles.append(&leaves).unwrap();
    }
    let begun = std::time::Instant::now();
    let mut n = 7_u64;
    for _ in 0..10_000 {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        prove_record(size, (n >> 33) % size, &tiles).unwrap();
    }
    println!("{:.1} us a proof", begun.elapsed().as_secs_f64() * 100.0);
}
