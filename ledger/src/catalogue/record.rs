//! Stream `ledger`: the record's own life.

use serde::{Deserialize, Serialize};

use super::facts;
use crate::id::Digest;

/// The notebook was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCreated {
    /// Origin line of its checkpoints.
    pub origin: String,
    /// Verifier key of its checkpoints, as in C2SP signed-note.
    pub verifier_key: String,
    /// Version of the notebook's layout.
    pub layout: u32,
}

/// A checkpoint over all events before this one was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSigned {
    /// Events that it covers.
    pub size: u64,
    /// Merkle root over them (RFC 6962).
    pub root: Digest,
    /// The signed note.
    pub note: String,
}

/// The signing key was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotated {
    /// Verifier key that is valid behind this event.
    pub verifier_key: String,
    /// Verifier key that was valid up to here.
    pub previous: String,
    /// Events before this one.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
    /// Checkpoint over them, signed by both keys, that names the new one.
    pub note: String,
}

/// A checkpoint was put where others keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSent {
    /// Events that it covers.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
    /// Folder or address.
    pub place: String,
}

/// Damaged copies were restored from sound ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRepaired {
    /// Events that were restored in the journal from the store, as runs: first and last.
    pub journal: Vec<(u64, u64)>,
    /// Store, tree and request ids were rebuilt from the journal.
    pub store: bool,
    /// Bodies that were taken from another copy of the notebook.
    pub bodies: Vec<Digest>,
    /// `checkpoints/latest` was restored from the log.
    pub checkpoint: bool,
}

facts! {
    LedgerRepaired = "ledger.repaired" / 1,
    KeyRotated = "key.rotated" / 1,
    CheckpointSent = "checkpoint.sent" / 1,
    LedgerCreated = "ledger.created" / 1,
    CheckpointSigned = "checkpoint.signed" / 1,
}
