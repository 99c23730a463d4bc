//! Signing keys: the file of the present one, and which was valid from which event on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use signed_note::StandardSigner;

use crate::base64::{base64, unbase64};
use crate::catalogue::{KeyRotated, LedgerCreated};
use crate::checkpoint::{CheckpointError, open_note};
use crate::device::{Device, Disk};
use crate::durable::write_file_on;
use crate::event::{Envelope, Facts};
use crate::id::Digest;
use crate::layout::Layout;

/// How long another may take to put a key in its place.
const TURN: Duration = Duration::from_secs(10);
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
    /// Makes a key named `name`, or, without one, after its own public half. `path` tells where
    /// its file stands, by the key's id.
    fn make(
        path: impl FnOnce(&str) -> PathBuf,
        name: Option<&str>,
        device: &dyn Device,
    ) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Io { path: PathBuf::from("keys"), source };
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
        let key = Self { path: path(id), name, text, key };
        key.write(&key.path, device)?;
        Ok(key)
    }

    /// Writes the key into a file that only its owner can read.
    fn write(&self, path: &Path, device: &dyn Device) -> Result<(), CheckpointError> {
        write_file_on(device, path, format!("{}\n", self.text).as_bytes(), 0o600)
            .map_err(|source| CheckpointError::Io { path: path.to_owned(), source })
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
pub(crate) fn make_key(layout: &Layout, device: &dyn Device) -> Result<Key, CheckpointError> {
    let path = layout.signing_key();
    if path.exists() { Key::read(&path) } else { Key::make(|_| path, None, device) }
}

/// Makes the key that comes after `old`, beside it.
pub(crate) fn make_next_key(
    layout: &Layout,
    old: &Key,
    device: &dyn Device,
) -> Result<Key, CheckpointError> {
    Key::make(|id| layout.next_key(id), Some(&old.name), device)
}

/// The turn of one process, or thread, to put a key in its place. Held from before the log is asked
/// which key is valid until that key's file stands: whoever was slower would else put the key of an
/// earlier rotation over that of a later one, whose private half would be lost.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits for the turn, but not for ever: whoever has it may have been stopped.
    pub(crate) fn take(layout: &Layout) -> Result<Self, CheckpointError> {
        let path = layout.keys().join("rotation.lock");
        let failed = |source| CheckpointError::Io { path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        let until = Instant::now() + TURN;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Said aloud: a child process that was just forked may still share the open file.
        let _ = self.0.unlock();
    }
}

/// Puts the next key in the place of the present one, whose private half is then gone.
pub(crate) fn take_key(
    layout: &Layout,
    _turn: &Turn,
    next: &Key,
    device: &dyn Device,
) -> Result<(), CheckpointError> {
    // Written anew, not renamed: whatever became of its file meanwhile, the key must not be lost.
    next.write(&layout.signing_key(), device)?;
    drop_key(&next.path)
}

/// Removes the file of a key that did not become, or already is, the present one.
pub(crate) fn drop_key(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Ends a rotation that was cut short behind its event: the key that is valid is taken up. Keys
/// of rotations that may still be under way are left alone. Asks for a [`Turn`].
pub(crate) fn settle(
    layout: &Layout,
    turn: &Turn,
    valid: Option<&str>,
) -> Result<(), CheckpointError> {
    for path in next_keys(layout) {
        match Key::read(&path) {
            Ok(key) if Some(key.verifier().as_str()) == valid => {
                take_key(layout, turn, &key, &Disk)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Lists the keys of rotations that are under way or were cut short.
pub(crate) fn next_keys(layout: &Layout) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(layout.keys()) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_next = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("signer.key.next-")
    };
    paths.filter(is_next).collect()
}

/// Which key was valid from which event on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHistory {
    keys: Vec<(u64, String)>,
    /// Version of the record's own stream, as far as it was read.
    version: Option<u64>,
}

impl KeyHistory {
    /// Takes up an event of the record itself. A rotation counts only when the key before it
    /// vouches for the new one.
    ///
    /// # Errors
    /// When the event is malformed, or a rotation is not signed by both keys.
    pub fn fold(&mut self, event: &Envelope) -> Result<(), CheckpointError> {
        self.version = Some(event.version);
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

    /// Returns the key that signs checkpoints over the first `size` events.
    pub fn at(&self, size: u64) -> Option<&str> {
        self.keys.iter().rfind(|(from, _)| *from < size || *from == 0).map(|(_, key)| key.as_str())
    }

    /// Returns the version of the record's own stream, as of the last event that was taken up.
    pub(crate) fn version(&self) -> Option<u64> {
        self.version
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
