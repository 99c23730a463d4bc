//! Signing keys: the file of the present one, and which was valid from which event on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use signed_note::StandardSigner;

use crate::base64::{base64, unbase64};
use crate::catalogue::{KeyRotated, LedgerCreated};
use crate::checkpoint::{CheckpointError, open_note};
use crate::durable::{sync_dir, write_file};
use crate::event::{Envelope, Facts};
use crate::id::Digest;
use crate::layout::Layout;

/// What a rotation's note says of the new key, in a line of its own.
pub(crate) const ROTATES_TO: &str = "rotates-to ";

/// A signing key as its file has it.
pub(crate) struct Key {
    pub(crate) path: PathBuf,
    /// Its name: the origin of the notebook.
    pub(crate) name: String,
    /// `PRIVATE+KEY+<name>+<id>+<base64 of algorithm byte and seed>`, as note tools write it.
    text: String,
    key: SigningKey,
}

impl Key {
    /// Makes a key named `name`, or, without one, after its own public half.
    fn make(path: &Path, name: Option<&str>) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Io { path: path.to_owned(), source };
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let key = SigningKey::from_bytes(&seed);
        let own = || format!("ledger/{}", Digest::of(key.verifying_key().as_bytes()).short());
        let name = name.map_or_else(own, str::to_owned);
        let verifier = signed_note::new_ed25519_verifier_key(&name, &key.verifying_key());
        let id = verifier.split('+').nth(1).unwrap_or_default();
        let mut secret = vec![1_u8];
        secret.extend_from_slice(&seed);
        let text = format!("PRIVATE+KEY+{name}+{id}+{}", base64(&secret));
        write_file(path, format!("{text}\n").as_bytes(), 0o600).map_err(failed)?;
        Ok(Self { path: path.to_owned(), name, text, key })
    }

    /// Reads a key file.
    pub(crate) fn read(path: &Path) -> Result<Self, CheckpointError> {
        let wrong = |what: &str| CheckpointError::Key { path: path.to_owned(), what: what.into() };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(wrong("there is no signing key: copy it from where the log was made"));
            }
            Err(source) => return Err(CheckpointError::Io { path: path.to_owned(), source }),
        };
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
        let key = SigningKey::from_bytes(&seed);
        Ok(Self { path: path.to_owned(), name: name.to_owned(), text: text.to_owned(), key })
    }

    /// Returns the verifier key, as in C2SP signed-note.
    pub(crate) fn verifier(&self) -> String {
        signed_note::new_ed25519_verifier_key(&self.name, &self.key.verifying_key())
    }

    /// Returns what signs notes.
    pub(crate) fn signer(&self) -> Result<StandardSigner, CheckpointError> {
        StandardSigner::new(&self.text).map_err(|error| CheckpointError::Key {
            path: self.path.clone(),
            what: error.to_string(),
        })
    }
}

/// Makes the notebook's signing key, or takes up the one that an interrupted creation left.
pub(crate) fn make_key(layout: &Layout) -> Result<Key, CheckpointError> {
    let path = layout.signing_key();
    if path.exists() { Key::read(&path) } else { Key::make(&path, None) }
}

/// Makes the key that comes after `old`, beside it.
pub(crate) fn make_next_key(layout: &Layout, old: &Key) -> Result<Key, CheckpointError> {
    Key::make(&layout.next_key(), Some(&old.name))
}

/// Puts the next key in the place of the present one, whose private half is then gone.
pub(crate) fn take_next_key(layout: &Layout) -> Result<(), CheckpointError> {
    let path = layout.next_key();
    fs::rename(&path, layout.signing_key())
        .and_then(|()| sync_dir(&layout.keys()))
        .map_err(|source| CheckpointError::Io { path, source })
}

/// Ends a rotation that was cut short: the next key is taken up where its event stands in the
/// log, and removed where it does not.
pub(crate) fn settle(layout: &Layout, valid: Option<&str>) -> Result<(), CheckpointError> {
    let path = layout.next_key();
    if !path.exists() {
        return Ok(());
    }
    if Key::read(&path).is_ok_and(|key| Some(key.verifier().as_str()) == valid) {
        return take_next_key(layout);
    }
    fs::remove_file(&path)
        .and_then(|()| sync_dir(&layout.keys()))
        .map_err(|source| CheckpointError::Io { path, source })
}

/// Which key was valid from which event on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHistory {
    keys: Vec<(u64, String)>,
}

impl KeyHistory {
    /// Takes up an event of the record itself. A rotation counts only when the key before it
    /// vouches for the new one.
    ///
    /// # Errors
    /// When the event is malformed, or a rotation is not signed by both keys.
    pub fn fold(&mut self, event: &Envelope) -> Result<(), CheckpointError> {
        let malformed = |error: crate::event::FactsError| CheckpointError::Malformed {
            what: error.to_string(),
        };
        match event.kind.as_str() {
            LedgerCreated::KIND if event.seq == 0 => {
                let created: LedgerCreated = event.facts().map_err(malformed)?;
                self.keys.push((0, created.verifier_key));
            }
            KeyRotated::KIND => {
                let rotated: KeyRotated = event.facts().map_err(malformed)?;
                let valid = self.newest().unwrap_or_default();
                if rotated.previous != valid {
                    let what = format!("the key before it is {valid}, not {}", rotated.previous);
                    return Err(CheckpointError::Malformed { what });
                }
                open_note(&rotated.note, valid)?;
                open_note(&rotated.note, &rotated.verifier_key)?;
                let line = format!("{ROTATES_TO}{}", rotated.verifier_key);
                if rotated.note.lines().nth(3) != Some(line.as_str()) {
                    let what = "its note does not name the new key".to_owned();
                    return Err(CheckpointError::Malformed { what });
                }
                self.keys.push((event.seq, rotated.verifier_key));
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the key that signs behind event `seq`.
    pub fn at(&self, seq: u64) -> Option<&str> {
        self.keys.iter().rfind(|(from, _)| *from < seq || seq == 0).map(|(_, key)| key.as_str())
    }

    /// Returns the present key.
    pub fn newest(&self) -> Option<&str> {
        self.keys.last().map(|(_, key)| key.as_str())
    }

    /// Lists the keys, each with the event from which on it is valid.
    pub fn keys(&self) -> &[(u64, String)] {
        &self.keys
    }
}
