//! Signing: checkpoints, and the keys that sign them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{AppendError, Expected, Notebook, RECORD};
use crate::catalogue::{CheckpointSent, CheckpointSigned, KeyRotated};
use crate::checkpoint::{self, CheckpointError, SignedCheckpoint};
use crate::durable::{create_dir, write_file_on};
use crate::event::NewEvent;
use crate::keys::{self, Key, KeyHistory};
use crate::reader::Head;

/// How long a rotation in another process may take to put its key in place.
const ROTATION: Duration = Duration::from_secs(2);
/// Tries to append a rotation while checkpoints come in between.
const TRIES_MAX: u32 = 16;

/// Says whether an event was refused before anything of it was written.
fn was_refused(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::Conflict { .. }
            | AppendError::IdReused { .. }
            | AppendError::TooLarge { .. }
            | AppendError::TooDeep { .. }
            | AppendError::Name { .. }
            | AppendError::DiskLow { .. }
    )
}

impl Notebook {
    /// Signs the present head, records that, and keeps the note in `checkpoints/latest`.
    ///
    /// # Errors
    /// When the key cannot be used or the event cannot be appended.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, CheckpointError> {
        let (head, key, _) = self.head_and_key()?;
        let signed = checkpoint::sign(&key, head)?;
        let facts =
            CheckpointSigned { size: signed.size, root: signed.root, note: signed.note.clone() };
        let id = format!("checkpoint/{}", signed.size);
        let event = NewEvent::new("ledger", id, RECORD, &facts)
            .map_err(|error| CheckpointError::Malformed { what: error.to_string() })?;
        self.append_one(event).map_err(Box::new)?;
        self.keep(&signed)?;
        self.flush();
        Ok(signed)
    }

    /// Returns the head, the key that is valid there, and what is known of keys. A rotation in
    /// another process may come in between, or have named the next key a moment before its file is
    /// in place; one that was cut short there is ended here.
    fn head_and_key(&self) -> Result<(Head, Key, KeyHistory), CheckpointError> {
        let until = Instant::now() + ROTATION;
        loop {
            let head = self.acknowledged().map_err(Box::new)?;
            let key = checkpoint::own_key(&self.inner.layout)?;
            let known = self.keys()?;
            let valid = [known.at(head.size), known.newest()];
            if valid.iter().flatten().all(|valid| *valid == key.verifier()) {
                return Ok((head, key, known));
            }
            let settled = self.settle_keys();
            if Instant::now() >= until {
                // Where the keys may not be written, another process may still have ended it.
                settled?;
                let what = "the log names a newer key: the rotation to it did not end here";
                return Err(CheckpointError::Key { path: key.path, what: what.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends rotations that were cut short: the key that the log names is put in its place.
    pub(super) fn settle_keys(&self) -> Result<(), CheckpointError> {
        let layout = &self.inner.layout;
        let turn = keys::Turn::take(layout)?;
        keys::settle(layout, &turn, self.keys()?.newest())
    }

    /// Puts a note into `checkpoints/latest`, unless a newer one is there.
    fn keep(&self, signed: &SignedCheckpoint) -> Result<(), CheckpointError> {
        let layout = &self.inner.layout;
        let path = layout.latest_checkpoint();
        if checkpoint::own_latest(layout).is_some_and(|newest| newest.size > signed.size) {
            return Ok(());
        }
        create_dir(&layout.checkpoints())
            .and_then(|()| {
                write_file_on(self.inner.device.as_ref(), &path, signed.note.as_bytes(), 0o644)
            })
            .map_err(|source| CheckpointError::Io { path, source })
    }

    /// Returns the keys that signed this log, as its events tell.
    ///
    /// # Errors
    /// When the journal cannot be read or a rotation is not signed as it should be.
    pub fn keys(&self) -> Result<KeyHistory, CheckpointError> {
        self.inner.reader.keys()
    }

    /// Replaces the signing key: the present one vouches for the next, and is then destroyed.
    /// Returns the new verifier key.
    ///
    /// # Errors
    /// When a key cannot be read or written, or the event cannot be appended: also where another
    /// rotation was faster.
    pub fn rotate_key(&self) -> Result<String, CheckpointError> {
        let mut found = self.head_and_key()?;
        let previous = found.1.verifier();
        let next = keys::make_next_key(&self.inner.layout, &found.1, self.inner.device.as_ref())?;
        let mut tries = 1;
        loop {
            let error = match self.append_rotation(&found, &next)? {
                Ok(signed) => return self.take_up(&next, &signed),
                Err(error) => error,
            };
            // A checkpoint may have come in between: then it is tried again.
            if tries < TRIES_MAX && matches!(error, AppendError::Conflict { .. }) {
                tries += 1;
                found = self.head_and_key()?;
                if found.1.verifier() == previous {
                    continue;
                }
            }
            // Otherwise the event may stand in the log all the same, and opening decides.
            if was_refused(&error) {
                keys::drop_key(&next.path)?;
            }
            return Err(Box::new(error).into());
        }
    }

    /// Appends the event of a rotation, or says why it was not.
    fn append_rotation(
        &self,
        (head, present, known): &(Head, Key, KeyHistory),
        next: &Key,
    ) -> Result<Result<SignedCheckpoint, AppendError>, CheckpointError> {
        let signed = checkpoint::sign_rotation(*head, present, next)?;
        let facts = KeyRotated {
            verifier_key: next.verifier(),
            previous: present.verifier(),
            size: signed.size,
            root: signed.root,
            note: signed.note.clone(),
        };
        let id = format!("rotation/{}", facts.verifier_key);
        let event = NewEvent::new("ledger", id, RECORD, &facts)
            .map_err(|error| CheckpointError::Malformed { what: error.to_string() })?;
        // As the log says where it also says which key is valid, and not as the writer says, which
        // counts events that are still on their way: whatever else comes to this stream after
        // those that were read, another rotation above all, makes this one fail.
        let expected = Expected { stream: "ledger".to_owned(), version: known.version() };
        Ok(self.append(&[expected], vec![event]).map(|_| signed))
    }

    /// Puts the key of a rotation that stands in the log in its place.
    fn take_up(&self, next: &Key, signed: &SignedCheckpoint) -> Result<String, CheckpointError> {
        let layout = &self.inner.layout;
        let turn = keys::Turn::take(layout)?;
        if self.keys()?.newest() == Some(next.verifier().as_str()) {
            keys::take_key(layout, &turn, next, self.inner.device.as_ref())?;
        } else {
            // Another rotation took this key up and went on from it.
            keys::drop_key(&next.path)?;
        }
        drop(turn);
        // Signed by both keys: the new one vouches for what the old one covered.
        self.keep(signed)?;
        Ok(next.verifier())
    }

    /// Puts a checkpoint into a folder that others keep, and records that.
    ///
    /// # Errors
    /// When the folder has seen a log that this one does not extend, or cannot be written.
    pub fn send_checkpoint(
        &self,
        signed: &SignedCheckpoint,
        dir: &Path,
    ) -> Result<PathBuf, CheckpointError> {
        let reader = self.reader();
        let extends = |size, root| Ok(size == 0 || reader.root_at(size)? == Some(root));
        let file = checkpoint::send_to_dir(dir, signed, extends)?;
        self.note_sent(signed, &dir.display().to_string())?;
        Ok(file)
    }

    /// Records that a checkpoint was put where others keep it.
    ///
    /// # Errors
    /// When the event cannot be appended.
    pub fn note_sent(&self, signed: &SignedCheckpoint, place: &str) -> Result<(), CheckpointError> {
        let (size, root) = (signed.size, signed.root);
        let facts = CheckpointSent { size, root, place: place.to_owned() };
        let id = format!("sent/{size}/{place}");
        let event = NewEvent::new("ledger", id, RECORD, &facts)
            .map_err(|error| CheckpointError::Malformed { what: error.to_string() })?;
        self.append_one(event).map_err(Box::new)?;
        Ok(())
    }
}
