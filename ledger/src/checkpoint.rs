//! Signed checkpoints: C2SP signed notes over size and root of the log, with an Ed25519 key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::Hash;

use crate::durable::write_file;
use crate::id::Digest;
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

/// A key's public side.
#[derive(Clone, Debug)]
pub(crate) struct KeyNames {
    pub(crate) origin: String,
}

/// Makes the notebook's signing key, or takes up the one that an interrupted creation left.
pub(crate) fn make_key(layout: &Layout) -> Result<KeyNames, CheckpointError> {
    let path = layout.signing_key();
    if !path.exists() {
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|error| CheckpointError::Io {
            path: path.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        let key = SigningKey::from_bytes(&seed);
        let origin = origin_of(&key);
        let verifier = signed_note::new_ed25519_verifier_key(&origin, &key.verifying_key());
        // "PRIVATE+KEY+<name>+<id>+<base64 of algorithm byte and seed>", as note tools write it.
        let id = verifier.split('+').nth(1).unwrap_or_default();
        let mut secret = vec![1_u8];
        secret.extend_from_slice(&seed);
        let text = format!("PRIVATE+KEY+{origin}+{id}+{}\n", base64(&secret));
        write_file(&path, text.as_bytes(), 0o600)
            .map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
    }
    let key = read_key(&path)?;
    Ok(KeyNames { origin: key.0 })
}

/// Names a key: "ledger/" and the first 12 digits of the SHA-256 of its public half.
fn origin_of(key: &SigningKey) -> String {
    format!("ledger/{}", Digest::of(key.verifying_key().as_bytes()).short())
}

/// Reads the key file: name, text for the signer, and seed.
fn read_key(path: &Path) -> Result<(String, String, SigningKey), CheckpointError> {
    let wrong = |what: &str| CheckpointError::Key { path: path.to_owned(), what: what.to_owned() };
    let text = fs::read_to_string(path)
        .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    let text = text.trim();
    let mut parts = text.splitn(5, '+');
    let (name, secret) = match (parts.next(), parts.next(), parts.next(), parts.nth(1)) {
        (Some("PRIVATE"), Some("KEY"), Some(name), Some(secret)) => (name, secret),
        _ => return Err(wrong("not a note signing key")),
    };
    let secret = unbase64(secret).ok_or_else(|| wrong("the key is not base64"))?;
    let seed: [u8; 32] = match secret.split_first() {
        Some((1, seed)) => seed.try_into().map_err(|_| wrong("the key has not 32 bytes"))?,
        _ => return Err(wrong("not an Ed25519 key")),
    };
    Ok((name.to_owned(), text.to_owned(), SigningKey::from_bytes(&seed)))
}

/// Returns the verifier key that belongs to the notebook's signing key.
pub(crate) fn verifier_key(layout: &Layout) -> Result<String, CheckpointError> {
    let (name, _, key) = read_key(&layout.signing_key())?;
    Ok(signed_note::new_ed25519_verifier_key(&name, &key.verifying_key()))
}

/// Signs a head.
pub(crate) fn sign(layout: &Layout, head: Head) -> Result<SignedCheckpoint, CheckpointError> {
    let path = layout.signing_key();
    let wrong = |what: String| CheckpointError::Key { path: path.clone(), what };
    let (name, text, _) = read_key(&path)?;
    let origin = Config::read(layout)?.origin;
    if name != origin {
        return Err(wrong(format!("the key is named {name}, the notebook {origin}")));
    }
    let signer = StandardSigner::new(&text).map_err(|error| wrong(error.to_string()))?;
    let body = tlog_tiles::Checkpoint::new(&origin, head.size, Hash(*head.root.as_bytes()), "")
        .map_err(|error| malformed(&error))?;
    let mut note = Note::new(&body.to_bytes(), &[]).map_err(|error| malformed(&error))?;
    note.add_sigs(&[&signer]).map_err(|error| malformed(&error))?;
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

/// Returns size and root that the newest checkpoint on this disk claims, if there is one. The
/// signature is not looked at: too high a claim only makes opening more careful.
pub(crate) fn latest(layout: &Layout) -> Option<(u64, Digest)> {
    let text = fs::read_to_string(layout.latest_checkpoint()).ok()?;
    let mut lines = text.lines().skip(1);
    let size = lines.next()?.parse().ok()?;
    let root: [u8; 32] = unbase64(lines.next()?)?.try_into().ok()?;
    Some((size, Digest::from_bytes(root)))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes as standard base64; used for key files only.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = 0_u32;
        for index in 0..3 {
            word = word << 8 | u32::from(chunk.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            let digit = (word >> (18 - 6 * index) & 63) as usize;
            let digit = ALPHABET.get(digit).copied().unwrap_or(b'A');
            text.push(if index > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// Decodes standard base64.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let digits = text.trim_end_matches('=');
    let (mut word, mut bits) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|&known| known == digit)?;
        word = word << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}
