//! Proofs that stand alone: an event is in a signed log, and a log only extends an older one.
//!
//! Inclusion proofs are written as C2SP tlog-proof: a text that anybody can check offline who has
//! the event's bytes and the verifier key.

use std::fmt::Write as _;

use tlog_tiles::{Hash, check_record, check_tree, prove_record, prove_tree, record_hash};

use crate::base64::{base64, unbase64};
use crate::checkpoint::{CheckpointError, SignedCheckpoint, open_note};
use crate::id::Digest;
use crate::reader::{Head, ReadError, Reader};
use crate::tree::{Tiles, TreeError};

/// First line of a tlog-proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Hashes that a proof in a tree of 64-bit size can have at most.
const PATH_MAX: usize = 64;

/// Says why there is no proof, or why one proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// No checkpoint covers the event.
    #[error("no checkpoint covers event {seq}: sign one with `ledger checkpoint`")]
    NotCovered {
        /// Event asked for.
        seq: u64,
    },
    /// The stored tree cannot give it.
    #[error("the stored tree cannot prove it ({what}): open the notebook for writing to mend it")]
    Tree {
        /// What is wrong.
        what: String,
    },
    /// The text is no tlog-proof.
    #[error("not a tlog-proof: line {line}: {what}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The checkpoint cannot be trusted.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The event is not in the tree that was signed, or not with these bytes.
    #[error("event {index} with these bytes is not among the {size} events that were signed")]
    NotIncluded {
        /// Place that the proof names.
        index: u64,
        /// Events that the checkpoint covers.
        size: u64,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<TreeError> for ProofError {
    fn from(error: TreeError) -> Self {
        Self::Tree { what: error.to_string() }
    }
}

/// What a good proof shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Number of the event.
    pub index: u64,
    /// Events that the checkpoint covers.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

/// An inclusion proof with the checkpoint that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// Number of the event.
    pub index: u64,
    /// Data of the application; nothing vouches for it.
    pub extra: Option<Vec<u8>>,
    /// Hashes from the leaf's sibling up to below the root (RFC 6962).
    pub path: Vec<Digest>,
    /// The signed note.
    pub checkpoint: String,
}

impl LogProof {
    /// Reads a tlog-proof.
    ///
    /// # Errors
    /// When the text has another form; the checkpoint is looked at by [`LogProof::verify`] only.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let wrong = |line: usize, what| ProofError::Malformed { line, what };
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(wrong(1, "there is no empty line before a checkpoint"))?;
        let mut lines = (1..).zip(head.split('\n')).peekable();
        if lines.next().map(|(_, line)| line) != Some(HEADER) {
            return Err(wrong(1, "the first line is not that of a tlog-proof"));
        }
        let extra = lines.next_if(|(_, line)| line.starts_with("extra "));
        let extra = extra.map(|(n, line)| {
            let bytes = line.strip_prefix("extra ").and_then(unbase64);
            bytes.ok_or(wrong(n, "the extra data are not base64"))
        });
        let (n, index) = lines.next().ok_or(wrong(2, "there is no index"))?;
        let digits = index.strip_prefix("index ").ok_or(wrong(n, "there is no index"))?;
        let index: u64 = digits.parse().map_err(|_| wrong(n, "the index is no number"))?;
        if index.to_string() != digits {
            return Err(wrong(n, "the index has leading zeros or a sign"));
        }
        let mut path = Vec::new();
        for (n, line) in lines {
            let hash = unbase64(line).and_then(|hash| hash.try_into().ok());
            path.push(Digest::from_bytes(hash.ok_or(wrong(n, "a hash is not 32 bytes"))?));
            if path.len() > PATH_MAX {
                return Err(wrong(n, "there are more hashes than any tree needs"));
            }
        }
        let checkpoint = checkpoint.to_owned();
        Ok(Self { index, extra: extra.transpose()?, path, checkpoint })
    }

    /// Writes the tlog-proof.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            let _ = writeln!(text, "extra {}", base64(extra));
        }
        let _ = writeln!(text, "index {}", self.index);
        for hash in &self.path {
            let _ = writeln!(text, "{}", base64(hash.as_bytes()));
        }
        text + "\n" + &self.checkpoint
    }

    /// Checks that an event's stored bytes stand in the log that `verifier_key` signed.
    ///
    /// # Errors
    /// When the checkpoint is not signed by that key, or does not cover the event.
    pub fn verify(&self, event: &[u8], verifier_key: &str) -> Result<Proven, ProofError> {
        let signed = open_note(&self.checkpoint, verifier_key)?;
        self.leads(record_hash(event), &signed)
    }

    /// Checks that the path leads from a leaf to the root that was signed.
    pub(crate) fn leads(
        &self,
        leaf: Hash,
        signed: &SignedCheckpoint,
    ) -> Result<Proven, ProofError> {
        let (index, size) = (self.index, signed.size);
        let path = self.path.iter().map(|hash| Hash(*hash.as_bytes())).collect::<Vec<_>>();
        let root = Hash(*signed.root.as_bytes());
        if index >= size || check_record(&path, size, root, index, leaf).is_err() {
            return Err(ProofError::NotIncluded { index, size });
        }
        Ok(Proven { index, size, root: signed.root })
    }
}

/// A proof that a log of `new` events begins with the log of `old` events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The older head.
    pub old: Head,
    /// The newer head.
    pub new: Head,
    /// Hashes of the consistency proof (RFC 6962).
    pub path: Vec<Digest>,
}

impl Extension {
    /// Checks the proof against its two heads.
    pub fn holds(&self) -> bool {
        let hash = |digest: Digest| Hash(*digest.as_bytes());
        if self.old.size == 0 || self.old.size == self.new.size {
            let same = self.old.size == 0 || self.old.root == self.new.root;
            return self.path.is_empty() && same && self.old.size <= self.new.size;
        }
        let path = self.path.iter().map(|node| hash(*node)).collect::<Vec<_>>();
        let (old, new) = (self.old, self.new);
        check_tree(&path, new.size, hash(new.root), old.size, hash(old.root)).is_ok()
    }
}

/// The stored tree at a checkpoint.
#[derive(Debug)]
pub struct Prover {
    tiles: Tiles,
    size: u64,
}

impl Prover {
    /// Returns the hashes of an event's inclusion proof (RFC 6962). They are not checked here:
    /// that takes the event's bytes.
    ///
    /// # Errors
    /// When the checkpoint does not cover the event, or a tile cannot be read.
    pub fn path(&self, seq: u64) -> Result<Vec<Digest>, ProofError> {
        if seq >= self.size {
            return Err(ProofError::NotCovered { seq });
        }
        let path = prove_record(self.size, seq, &self.tiles)
            .map_err(|error| ProofError::Tree { what: error.to_string() })?;
        Ok(path.into_iter().map(|hash| Digest::from_bytes(hash.0)).collect())
    }
}

impl Reader {
    /// Proves that event `seq` is in the log that `signed` covers. The proof was checked.
    ///
    /// # Errors
    /// When the checkpoint does not cover the event, or the stored tree does not fit it.
    pub fn prove(&self, seq: u64, signed: &SignedCheckpoint) -> Result<LogProof, ProofError> {
        if seq >= signed.size {
            return Err(ProofError::NotCovered { seq });
        }
        let event = self.raw(seq)?.ok_or(ProofError::NotCovered { seq })?;
        let path = self.prover(signed)?.path(seq)?;
        let proof = LogProof { index: seq, extra: None, path, checkpoint: signed.note.clone() };
        proof.leads(record_hash(&event), signed)?;
        Ok(proof)
    }

    /// Takes up the stored tree to prove many events under one checkpoint.
    ///
    /// # Errors
    /// When the tree does not come to the checkpoint's root.
    pub fn prover(&self, signed: &SignedCheckpoint) -> Result<Prover, ProofError> {
        let tiles = self.tiles()?;
        if tiles.root_at(signed.size)? != signed.root {
            let what = "it does not come to the signed root".to_owned();
            return Err(ProofError::Tree { what });
        }
        Ok(Prover { tiles, size: signed.size })
    }

    /// Proves that the log of `new` events begins with that of `old` events, both as they are
    /// stored now.
    ///
    /// # Errors
    /// When the stored tree does not reach that far.
    pub fn prove_extension(&self, old: u64, new: u64) -> Result<Extension, ProofError> {
        let tiles = self.tiles()?;
        let head = |size| Ok::<_, TreeError>(Head { size, root: tiles.root_at(size)? });
        let (old, new) = (head(old)?, head(new)?);
        let path = if old.size == 0 || old.size >= new.size {
            Vec::new()
        } else {
            let unfit = |error: tlog_tiles::Error| ProofError::Tree { what: error.to_string() };
            prove_tree(new.size, old.size, &tiles).map_err(unfit)?
        };
        let path = path.into_iter().map(|hash| Digest::from_bytes(hash.0)).collect();
        let proof = Extension { old, new, path };
        if proof.holds() {
            Ok(proof)
        } else {
            Err(ProofError::Tree { what: "its roots do not fit together".to_owned() })
        }
    }

    pub(crate) fn tiles(&self) -> Result<Tiles, ProofError> {
        let dir = self.layout().tree();
        Tiles::open_read_only(&dir)
            .map_err(|error| ProofError::Tree { what: format!("{}: {error}", dir.display()) })
    }
}

#[cfg(test)]
mod tests;
