//! Signing: checkpoints, and the keys that sign them.

use std::path::{Path, PathBuf};

use super::{Notebook, RECORD};
use crate::catalogue::{CheckpointSent, CheckpointSigned, KeyRotated};
use crate::checkpoint::{self, CheckpointError, SignedCheckpoint};
use crate::durable::{create_dir, write_file_on};
use crate::event::NewEvent;
use crate::keys::{self, KeyHistory};

impl Notebook {
    /// Signs the present head, records that, and keeps the note in `checkpoints/latest`.
    ///
    /// # Errors
    /// When the key cannot be used or the event cannot be appended.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, CheckpointError> {
        let head = self.acknowledged().map_err(Box::new)?;
        let signed = checkpoint::sign(&self.inner.layout, head)?;
        let facts =
            CheckpointSigned { size: signed.size, root: signed.root, note: signed.note.clone() };
        let id = format!("checkpoint/{}", signed.size);
        let event = NewEvent::new("ledger", id, RECORD, &facts)
            .map_err(|error| CheckpointError::Malformed { what: error.to_string() })?;
        self.append_one(event).map_err(Box::new)?;
        let device = self.inner.device.as_ref();
        let path = self.inner.layout.latest_checkpoint();
        create_dir(&self.inner.layout.checkpoints())
            .and_then(|()| write_file_on(device, &path, signed.note.as_bytes(), 0o644))
            .map_err(|source| CheckpointError::Io { path, source })?;
        self.flush();
        Ok(signed)
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
    /// When a key cannot be read or written, or the event cannot be appended.
    pub fn rotate_key(&self) -> Result<String, CheckpointError> {
        let layout = &self.inner.layout;
        let present = checkpoint::own_key(layout)?;
        keys::settle(layout, self.keys()?.newest())?;
        let next = keys::make_next_key(layout, &present)?;
        let head = self.acknowledged().map_err(Box::new)?;
        let signed = checkpoint::sign_rotation(head, &present, &next)?;
        let facts = KeyRotated {
            verifier_key: next.verifier(),
            previous: present.verifier(),
            size: signed.size,
            root: signed.root,
            note: signed.note,
        };
        let id = format!("rotation/{}", facts.verifier_key);
        let event = NewEvent::new("ledger", id, RECORD, &facts)
            .map_err(|error| CheckpointError::Malformed { what: error.to_string() })?;
        self.append_one(event).map_err(Box::new)?;
        keys::take_next_key(layout)?;
        Ok(facts.verifier_key)
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
        let tiles = self.reader().tiles().ok();
        let extends = |size, root| {
            size == 0 || tiles.is_some_and(|tiles| tiles.root_at(size).ok() == Some(root))
        };
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
