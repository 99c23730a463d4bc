//! Signed checkpoints: C2SP signed notes over size and root of the log, with an Ed25519 key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use signed_note::{Note, Signer, StandardVerifier, VerifierList};
use tlog_tiles::Hash;

use crate::base64::unbase64;
use crate::durable::{create_dir, write_file};
use crate::id::Digest;
use crate::keys::{Key, KeyHistory, ROTATES_TO};
use crate::layout::{Config, Layout};
use crate::notebook::AppendError;
use crate::reader::{Head, ReadError};

/// Says why a checkpoint cannot be signed or trusted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The signing key cannot be read.
    #[error("{}: {what}", path.display())]
    Key {
        /// Key file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The note cannot be read.
    #[error("not a checkpoint: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// The signature is not by that key.
    #[error("the checkpoint is not signed by {key}: {what}")]
    Signature {
        /// Verifier key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The folder has seen a log that this one does not extend.
    #[error(
        "{} covers {size} events that this log of {sent} does not extend: one of the two was \
         rewritten or cut; keep both and verify them", path.display()
    )]
    Forked {
        /// The checkpoint in the folder.
        path: PathBuf,
        /// Events that it covers.
        size: u64,
        /// Events that the sent one covers.
        sent: u64,
    },
    /// The event could not be appended.
    #[error("the checkpoint could not be recorded: {0}")]
    Append(#[from] Box<AppendError>),
    /// `ledger.toml` cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Size and root of the log, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// Events that it covers.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
    /// The C2SP signed note.
    pub note: String,
}

/// Signs a head.
pub(crate) fn sign(key: &Key, head: Head) -> Result<SignedCheckpoint, CheckpointError> {
    signed(&key.name, head, "", &[&key.signer()?])
}

/// Signs a head with the present and the next key; an extension line names the next one, so that
/// the present one vouches for it.
pub(crate) fn sign_rotation(
    head: Head,
    present: &Key,
    next: &Key,
) -> Result<SignedCheckpoint, CheckpointError> {
    let line = format!("{ROTATES_TO}{}\n", next.verifier());
    signed(&present.name, head, &line, &[&present.signer()?, &next.signer()?])
}

/// Reads the notebook's key and checks that it bears the notebook's name.
pub(crate) fn own_key(layout: &Layout) -> Result<Key, CheckpointError> {
    let key = Key::read(&layout.signing_key())?;
    let origin = Config::read(layout)?.origin;
    if key.name == origin {
        return Ok(key);
    }
    let what = format!("the key is named {}, the notebook {origin}", key.name);
    Err(CheckpointError::Key { path: key.path, what })
}

fn signed(
    origin: &str,
    head: Head,
    extension: &str,
    signers: &[&dyn Signer],
) -> Result<SignedCheckpoint, CheckpointError> {
    let root = Hash(*head.root.as_bytes());
    let body = tlog_tiles::Checkpoint::new(origin, head.size, root, extension)
        .map_err(|error| malformed(&error))?;
    let mut note = Note::new(&body.to_bytes(), &[]).map_err(|error| malformed(&error))?;
    note.add_sigs(signers).map_err(|error| malformed(&error))?;
    let note = String::from_utf8(note.to_bytes()).map_err(|error| malformed(&error))?;
    Ok(SignedCheckpoint { size: head.size, root: head.root, note })
}

fn malformed(what: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::Malformed { what: what.to_string() }
}

/// Checks the signature of a note against a verifier key, and reads what it says.
///
/// # Errors
/// When the note is malformed, or not signed by that key.
pub fn open_note(note: &str, verifier_key: &str) -> Result<SignedCheckpoint, CheckpointError> {
    let unsigned = |what: String| CheckpointError::Signature { key: verifier_key.to_owned(), what };
    let verifier =
        StandardVerifier::new(verifier_key).map_err(|error| unsigned(error.to_string()))?;
    let parsed = Note::from_bytes(note.as_bytes()).map_err(|error| malformed(&error))?;
    parsed
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .map_err(|error| unsigned(error.to_string()))?;
    let body =
        tlog_tiles::Checkpoint::from_bytes(parsed.text()).map_err(|error| malformed(&error))?;
    if verifier_key.split('+').next() != Some(body.origin()) {
        return Err(unsigned(format!("its origin is {}", body.origin())));
    }
    let root = Digest::from_bytes(body.hash().0);
    Ok(SignedCheckpoint { size: body.size(), root, note: note.to_owned() })
}

/// Opens a note that a key of a log signed while it was valid.
///
/// # Errors
/// When it is malformed, or signed by none of them, or by one that had been replaced.
pub fn open_by(note: &str, keys: &KeyHistory) -> Result<SignedCheckpoint, CheckpointError> {
    let mut outcome = Err(CheckpointError::Malformed { what: "the log names no key".to_owned() });
    for (_, key) in keys.keys().iter().rev() {
        outcome = open_note(note, key);
        let Ok(signed) = &outcome else { continue };
        if keys.at(signed.size) == Some(key) {
            break;
        }
        let what = format!("another key was valid at {} events", signed.size);
        outcome = Err(CheckpointError::Signature { key: key.clone(), what });
    }
    outcome
}

/// Returns the newest checkpoint on this disk, if this notebook's own key signed it: a damaged
/// one claims nothing.
pub(crate) fn own_latest(layout: &Layout) -> Option<SignedCheckpoint> {
    let note = fs::read_to_string(layout.latest_checkpoint()).ok()?;
    let key = Key::read(&layout.signing_key()).ok()?;
    open_note(&note, &key.verifier()).ok()
}

/// Writes a checkpoint into a folder that others keep: `<folder>/<origin>/<size>.checkpoint`, and
/// `checkpoint` for the newest. Returns the file.
///
/// The folder acts as a witness does: it takes only what extends its newest checkpoint. `extends`
/// tells whether today's log still has that root at that size, or that it cannot be told.
///
/// # Errors
/// When the folder holds a checkpoint that this log does not extend, or cannot be written.
pub fn send_to_dir(
    dir: &Path,
    signed: &SignedCheckpoint,
    extends: impl FnOnce(u64, Digest) -> Result<bool, ReadError>,
) -> Result<PathBuf, CheckpointError> {
    let origin = signed.note.lines().next().unwrap_or_default();
    let folder = dir.join(origin.replace('/', "-"));
    let newest = folder.join("checkpoint");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    create_dir(&folder).map_err(io(&folder))?;
    match fs::read_to_string(&newest) {
        Ok(text) => {
            let (size, root) = parse_head(&text).ok_or_else(|| malformed(&newest.display()))?;
            if size > signed.size || !extends(size, root)? {
                return Err(CheckpointError::Forked { path: newest, size, sent: signed.size });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(CheckpointError::Io { path: newest, source }),
    }
    let file = folder.join(format!("{}.checkpoint", signed.size));
    write_file(&file, signed.note.as_bytes(), 0o644).map_err(io(&file))?;
    write_file(&newest, signed.note.as_bytes(), 0o644).map_err(io(&newest))?;
    Ok(file)
}

/// Reads size and root off a note without looking at its signature.
fn parse_head(note: &str) -> Option<(u64, Digest)> {
    let mut lines = note.lines().skip(1);
    let size = lines.next()?.parse().ok()?;
    let root: [u8; 32] = unbase64(lines.next()?)?.try_into().ok()?;
    Some((size, Digest::from_bytes(root)))
}
