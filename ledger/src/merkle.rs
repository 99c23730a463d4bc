//! The RFC 6962 tree over all events. Leaves are the stored bytes of the events.

use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

use crate::id::Digest;

/// The right edge of the tree: all that is needed to add a leaf and to tell the root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, from the largest to the smallest.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes up a tree of `size` leaves whose peaks, from the largest on, are known.
    pub(crate) fn resume(size: u64, peaks: Vec<Hash>) -> Self {
        Self { size, peaks }
    }

    /// Returns how many leaves there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds the leaf hash of an event.
    pub(crate) fn push_leaf(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut ones = self.size;
        // Each trailing one bit of the size is a complete subtree that the leaf completes further.
        while ones & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(left, hash);
            ones >>= 1;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2_11::Sha256;
    use tlog_tiles::record_hash;

    use super::*;

    #[test]
    fn agrees_with_an_independent_implementation() {
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), Digest::of(b""));
        for n in 0..300_u64 {
            let leaf = vec![n as u8; n as usize];
            other.push(leaf.clone());
            frontier.push_leaf(record_hash(&leaf));
            assert_eq!(frontier.root().as_bytes().as_slice(), other.root().as_bytes().as_slice());
            assert_eq!(frontier.size(), n + 1);
        }
    }
}
