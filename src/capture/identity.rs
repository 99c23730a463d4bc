//! How the record names an episode: in plain where nobody is concerned, by commitments under a
//! subject's key where somebody is, so that nothing of the text is left when the key is gone.

use datasets::Episode;
use ledger::{BlobError, Blobs, BodyRef, Digest, SubjectKey};

use crate::error::AppError;
use crate::lab::body_ref;

/// Names of an episode in the record.
pub struct Identity {
    /// Id in its source, or a commitment to it.
    pub external_id: String,
    /// Digest of its content, or a commitment to it.
    pub content: Digest,
    /// Key of its subject.
    pub key: Option<SubjectKey>,
}

impl Identity {
    /// Names an episode with the digest of its content; a subject that is not known yet is given a
    /// key.
    ///
    /// # Errors
    /// When the key cannot be read or made.
    pub fn make(episode: &Episode, content: Digest, blobs: &Blobs) -> Result<Self, AppError> {
        let key = match &episode.subject {
            Some(name) => Some(blobs.subjects().key_of(name).map_err(BlobError::from)?),
            None => None,
        };
        Ok(Self::under(episode, content, key))
    }

    /// Names an episode as it was named, or `None` where its subject has no key (any more).
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn known(
        episode: &Episode,
        content: Digest,
        blobs: &Blobs,
    ) -> Result<Option<Self>, AppError> {
        let Some(name) = &episode.subject else {
            return Ok(Some(Self::under(episode, content, None)));
        };
        let subjects = blobs.subjects();
        let names = subjects.pseudonyms(name).map_err(BlobError::from)?;
        let key = match names.last() {
            Some(pseudonym) => subjects.key(pseudonym).map_err(BlobError::from)?,
            None => None,
        };
        Ok(key.map(|key| Self::under(episode, content, Some(key))))
    }

    fn under(episode: &Episode, content: Digest, key: Option<SubjectKey>) -> Self {
        let id = &episode.source.external_id;
        match key {
            None => Self { external_id: id.clone(), content, key: None },
            Some(key) => Self {
                external_id: key
                    .commit("external id", &[episode.source.name.as_bytes(), id.as_bytes()])
                    .to_string(),
                content: key.commit("content", &[content.as_bytes()]),
                key: Some(key),
            },
        }
    }

    /// Returns the bytes of a body as they are stored.
    pub fn stored(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.key.as_ref().map_or(bytes.clone(), |key| key.seal(&bytes))
    }

    /// Makes the reference to stored bytes.
    pub fn body(&self, stored: &[u8]) -> BodyRef {
        let subject = self.key.as_ref().map(|key| key.pseudonym().to_owned());
        let cipher = self.key.as_ref().map(|_| ledger::subject::CIPHER.to_owned());
        BodyRef { cipher, subject, ..body_ref(stored) }
    }
}
