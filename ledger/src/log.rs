//! What any log of events can do, wherever it stands.
//!
//! The conformance suite (`conformance`) says what each of these means; an implementation that
//! passes it can take the place of the others.

use std::fmt;

use crate::event::{Envelope, NewEvent};
use crate::notebook::{AppendError, Appended, Expected, Notebook};
use crate::reader::{Head, ReadError};
use crate::subscribe::Subscription;

/// Events in order.
pub type EventIter<'a> = Box<dyn Iterator<Item = Result<Envelope, ReadError>> + 'a>;

/// What an acknowledged append has survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the events end with the process.
    Process,
    /// The end of the process, of the system, and a power cut: the events were written to the
    /// local device and `fdatasync` had returned.
    Device,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "acknowledged events end with the process",
            Self::Device => "acknowledged events are on the local device (fdatasync returned)",
        })
    }
}

/// An append-only log of events.
pub trait Log: Send + Sync {
    /// Appends a batch: all of it or nothing. Returns when it is as durable as
    /// [`Log::durability`] says.
    ///
    /// # Errors
    /// When a stream is not where `expected` says, an id stands for another event, an event has
    /// no place here, or the log cannot be written.
    fn append(
        &self,
        expected: &[Expected],
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError>;

    /// Returns the last version of a stream, or `None` where it does not exist.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn version(&self, stream: &str) -> Result<Option<u64>, AppendError>;

    /// Iterates over the events from number `from` up to the present end.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn read(&self, from: u64) -> Result<EventIter<'_>, ReadError>;

    /// Follows the log from number `from` on, beyond its present end.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn subscribe(&self, from: u64) -> Result<Subscription, ReadError>;

    /// Returns size and root.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn head(&self) -> Result<Head, ReadError>;

    /// Says what an acknowledgement means.
    fn durability(&self) -> Durability;
}

impl Log for Notebook {
    fn append(
        &self,
        expected: &[Expected],
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError> {
        Self::append(self, expected, events)
    }

    fn version(&self, stream: &str) -> Result<Option<u64>, AppendError> {
        Self::version(self, stream)
    }

    fn read(&self, from: u64) -> Result<EventIter<'_>, ReadError> {
        Ok(Box::new(self.reader().events(from)?))
    }

    fn subscribe(&self, from: u64) -> Result<Subscription, ReadError> {
        self.reader().subscribe(from)
    }

    fn head(&self) -> Result<Head, ReadError> {
        // Asked of who writes: a reader looks at files, which may be ahead of acknowledgements.
        self.acknowledged().map_err(|error| ReadError::Holder { reason: error.to_string() })
    }

    fn durability(&self) -> Durability {
        Durability::Device
    }
}
