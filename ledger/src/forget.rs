//! Forgetting a subject: the key is destroyed, the log says so, what it encrypted is removed.
//!
//! The order makes it safe to be cut short anywhere and asked for again: without the key nothing
//! can be read; the event tells why; the files are only refuse by then.

use std::fs;
use std::io;

use crate::blob::bodies_in;
use crate::bodies::{Bodies, Gone};
use crate::catalogue::BodyErased;
use crate::durable::sync_dir;
use crate::event::{BodyRef, FactsError, NewEvent};
use crate::notebook::{AppendError, Notebook};
use crate::reader::{ReadError, Reader};
use crate::subject::SubjectError;

/// Says why a subject cannot be forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The log has nothing of the subject.
    #[error("nothing in this record is of subject {name:?}")]
    Unknown {
        /// Name that was asked for.
        name: String,
    },
    /// The key cannot be destroyed.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is malformed.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The event cannot be appended. The key is destroyed; ask again.
    #[error("the key was destroyed, but that was not recorded ({0}): ask again")]
    Append(#[from] AppendError),
    /// A file cannot be removed. Nothing in it can be read any more; ask again.
    #[error("what was encrypted could not be removed ({0}): ask again")]
    Io(#[from] io::Error),
}

/// What the log has of a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Names that the log has for the subject.
    pub subjects: Vec<String>,
    /// Events that name bodies of the subject.
    pub events: Vec<u64>,
    /// Bodies of the subject.
    pub bodies: u64,
    /// The last event that erased any, where all of them are erased.
    pub erased: Option<u64>,
}

impl Reader {
    /// Finds what the log has of a subject.
    ///
    /// # Errors
    /// When the name is empty, the log has nothing of that subject, or cannot be read.
    pub fn holdings(&self, name: &str) -> Result<Holdings, ForgetError> {
        let known = self.blobs().subjects().pseudonyms(name)?;
        let mut holdings = Holdings::default();
        let mut bodies = Bodies::default();
        for event in self.events(0)? {
            let event = event?;
            bodies.fold(&event)?;
            if bodies_in(&event.facts).iter().any(|body| is_of(body, &known)) {
                holdings.events.push(event.seq);
            }
        }
        if holdings.events.is_empty() {
            return Err(ForgetError::Unknown { name: name.to_owned() });
        }
        let mut all_erased = true;
        for (digest, named) in &bodies.named {
            let Some(subject) = named.subject.as_ref().filter(|s| known.contains(s)) else {
                continue;
            };
            holdings.bodies += 1;
            if !holdings.subjects.contains(subject) {
                holdings.subjects.push(subject.clone());
            }
            match bodies.gone(digest) {
                Some(Gone::Erased(seq)) => holdings.erased = holdings.erased.max(Some(seq)),
                _ => all_erased = false,
            }
        }
        holdings.subjects.sort();
        holdings.erased = holdings.erased.filter(|_| all_erased);
        Ok(holdings)
    }
}

fn is_of(body: &BodyRef, subjects: &[String]) -> bool {
    body.subject.as_ref().is_some_and(|subject| subjects.contains(subject))
}

impl Notebook {
    /// Forgets a subject. Asked again, it finishes what was cut short, or does nothing.
    ///
    /// # Errors
    /// When the log has nothing of the subject, or a step fails; then ask again.
    pub fn forget(&self, name: &str, actor: &str) -> Result<Holdings, ForgetError> {
        let reader = self.reader();
        let mut holdings = reader.holdings(name)?;
        for subject in &holdings.subjects {
            self.blobs().subjects().destroy(subject)?;
        }
        if holdings.erased.is_none() {
            for subject in &holdings.subjects {
                holdings.erased = Some(self.note_erased(subject, &holdings, actor)?);
            }
        }
        for &seq in &holdings.events {
            let Some(event) = reader.get(seq)? else { continue };
            for body in bodies_in(&event.facts) {
                if is_of(&body, &holdings.subjects) {
                    self.remove(&body)?;
                }
            }
        }
        Ok(holdings)
    }

    /// Appends that a subject was erased, and returns the event.
    fn note_erased(
        &self,
        subject: &str,
        holdings: &Holdings,
        actor: &str,
    ) -> Result<u64, ForgetError> {
        let facts = BodyErased {
            subject: subject.to_owned(),
            bodies: holdings.bodies,
            events: holdings.events.len() as u64,
        };
        let last = holdings.events.last().copied().unwrap_or_default();
        let id = format!("erased/{subject}/{last}");
        let event = NewEvent::new("trace/erasure", id, actor, &facts)
            .map_err(|error| AppendError::Store { reason: error.to_string() })?;
        Ok(self.append_one(event)?.seq())
    }

    fn remove(&self, body: &BodyRef) -> Result<(), ForgetError> {
        let path = self.blobs().path(&body.digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(path.parent().map_or(Ok(()), sync_dir)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
