//! The RFC 6962 tree over all events. Leaves are the stored bytes of the events.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash, record_hash, stored_hash_index, sub_tree_index};

use crate::id::Digest;

/// The right edge of the tree: all that is needed to add a leaf and to tell the root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, from the largest to the smallest.
    peaks: Vec<Hash>,
}

/// A node of the tree with its place in the dense order of tlog.
pub(crate) type Node = (u64, Hash);

impl Frontier {
    /// Takes up a tree of `size` leaves whose peaks (the nodes at `peaks_of(size)`) are known.
    pub(crate) fn resume(size: u64, peaks: Vec<Hash>) -> Self {
        Self { size, peaks }
    }

    /// Returns how many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds an event and returns the nodes that are now complete, the leaf first.
    pub(crate) fn push(&mut self, event: &[u8]) -> Vec<Node> {
        let mut nodes = Vec::new();
        self.push_hash(record_hash(event), |node| nodes.push(node));
        nodes
    }

    /// Adds the leaf hash of an event.
    pub(crate) fn push_leaf(&mut self, leaf: Hash) {
        self.push_hash(leaf, |_| ());
    }

    fn push_hash(&mut self, leaf: Hash, mut complete: impl FnMut(Node)) {
        let (n, mut hash) = (self.size, leaf);
        complete((stored_hash_index(0, n), hash));
        let mut level = 0_u8;
        // Each trailing one bit of n is a complete subtree that the new leaf completes further.
        while (n >> level) & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(left, hash);
            level += 1;
            complete((stored_hash_index(level, n >> level), hash));
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Returns the root.
    pub(crate) fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(&smallest) = peaks.next() else {
            return Digest::from_bytes(EMPTY_HASH.0);
        };
        Digest::from_bytes(peaks.fold(smallest, |right, &left| node_hash(left, right)).0)
    }
}

/// Returns the places of the peaks of a tree of `size` leaves.
pub(crate) fn peaks_of(size: u64) -> Vec<u64> {
    sub_tree_index(0, size, Vec::new())
}

/// All nodes of a tree in the dense order of tlog: 64 bytes per event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes(Vec<Hash>);

impl Nodes {
    /// Adds what [`Frontier::push`] returned.
    pub(crate) fn extend(&mut self, nodes: &[Node]) {
        self.0.extend(nodes.iter().map(|(_, hash)| hash));
    }

    /// Returns the node at a place.
    pub(crate) fn get(&self, place: u64) -> Option<Hash> {
        self.0.get(usize::try_from(place).ok()?).copied()
    }

    /// Returns the root over the first `size` events, if they are all here.
    pub(crate) fn root_at(&self, size: u64) -> Option<Digest> {
        let peaks = peaks_of(size).into_iter().map(|place| self.get(place));
        Some(Frontier::resume(size, peaks.collect::<Option<_>>()?).root())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2_11::Sha256;
    use tlog_tiles::{HashReader, check_record, prove_record};

    use super::*;

    impl HashReader for Nodes {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
            let found = indexes.iter().map(|&index| self.get(index));
            found.collect::<Option<_>>().ok_or(tlog_tiles::Error::IndexesNotInTree)
        }
    }

    /// Every root and every inclusion proof up to 70 leaves agrees with an implementation that
    /// shares no code with ours.
    #[test]
    fn agrees_with_an_independent_implementation() {
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let (mut frontier, mut nodes) = (Frontier::default(), Nodes::default());
        for n in 0..70_u64 {
            let leaf = vec![n as u8; n as usize];
            other.push(leaf.clone());
            nodes.extend(&frontier.push(&leaf));
            let root = frontier.root();
            assert_eq!(root.as_bytes().as_slice(), other.root().as_bytes().as_slice());
            assert_eq!(nodes.root_at(n + 1), Some(root));
            for leaf in 0..=n {
                let proof = prove_record(n + 1, leaf, &nodes).unwrap();
                let flat: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
                let theirs = other.prove_inclusion(leaf as usize);
                assert_eq!(flat, theirs.as_bytes());
                let hash = record_hash(other.get(leaf as usize).unwrap());
                check_record(&proof, n + 1, Hash(*root.as_bytes()), leaf, hash).unwrap();
            }
        }
    }

    #[test]
    fn the_empty_tree_has_the_hash_of_nothing() {
        assert_eq!(Frontier::default().root(), Digest::of(b""));
        assert_eq!(Nodes::default().root_at(0), Some(Digest::of(b"")));
        assert_eq!(Nodes::default().root_at(1), None);
    }

    #[test]
    fn resumes_from_its_peaks() {
        let (mut frontier, mut nodes) = (Frontier::default(), Nodes::default());
        for n in 0..100_u8 {
            let peaks = peaks_of(u64::from(n)).into_iter().map(|at| nodes.get(at).unwrap());
            let mut resumed = Frontier::resume(u64::from(n), peaks.collect());
            resumed.push(&[n]);
            nodes.extend(&frontier.push(&[n]));
            assert_eq!(resumed.root(), frontier.root());
        }
    }
}
