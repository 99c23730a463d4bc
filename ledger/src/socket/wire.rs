//! Messages, and how they stand on the wire.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::event::NewEvent;
use crate::id::Digest;
use crate::notebook::{AppendError, Appended, Expected};

/// Version of the messages.
pub(super) const VERSION: u32 = 2;
/// Longest message: a large batch of large events.
const MESSAGE_MAX: u32 = 256 * 1024 * 1024;
/// Bytes that are made ready for a message before any of it has come.
const EAGER: usize = 1024 * 1024;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Hello { version: u32 },
    Append { expected: Vec<At>, events: Vec<NewEvent> },
    Version { stream: String },
    Find { ids: Vec<String> },
    Ready { bytes: u64 },
    Head,
    Flush,
}

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Hello { version: u32, process: u32 },
    Appended { events: Vec<Place> },
    Version { version: Option<u64> },
    Found { seqs: Vec<Option<u64>> },
    Head { size: u64, root: Digest },
    Done,
    Refused(Refusal),
}

/// A stream and the version that it should have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) stream: String,
    pub(super) version: Option<u64>,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) new: bool,
}

/// An [`AppendError`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    Conflict { stream: String, expected: Option<u64>, actual: Option<u64> },
    IdReused { id: String, seq: u64 },
    TooLarge { id: String, bytes: usize, max: usize },
    TooDeep { id: String, max: usize },
    Name { what: String, bytes: usize, max: usize },
    DiskLow { free: u64, needed: u64 },
    Poisoned { reason: String },
    Other { reason: String },
    Closed,
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { stream, expected, actual } => {
                Self::Conflict { stream, expected, actual }
            }
            AppendError::IdReused { id, seq } => Self::IdReused { id, seq },
            AppendError::TooLarge { id, bytes, max } => Self::TooLarge { id, bytes, max },
            AppendError::TooDeep { id, max } => Self::TooDeep { id, max },
            AppendError::Name { what, bytes, max } => {
                Self::Name { what: what.to_owned(), bytes, max }
            }
            AppendError::DiskLow { free, needed } => Self::DiskLow { free, needed },
            AppendError::Poisoned { reason } => Self::Poisoned { reason },
            AppendError::Store { reason } => Self::Other { reason },
            AppendError::Codec { id, source } => Self::Other { reason: format!("{id}: {source}") },
            AppendError::Closed => Self::Closed,
        }
    }
}

impl From<Refusal> for AppendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict { stream, expected, actual } => {
                Self::Conflict { stream, expected, actual }
            }
            Refusal::IdReused { id, seq } => Self::IdReused { id, seq },
            Refusal::TooLarge { id, bytes, max } => Self::TooLarge { id, bytes, max },
            Refusal::TooDeep { id, max } => Self::TooDeep { id, max },
            Refusal::Name { what, bytes, max } => {
                let known = ["id", "stream", "kind"].into_iter().find(|name| *name == what);
                Self::Name { what: known.unwrap_or("name"), bytes, max }
            }
            Refusal::DiskLow { free, needed } => Self::DiskLow { free, needed },
            Refusal::Poisoned { reason } => Self::Poisoned { reason },
            Refusal::Other { reason } => Self::Store { reason },
            Refusal::Closed => Self::Closed,
        }
    }
}

impl From<&Expected> for At {
    fn from(expected: &Expected) -> Self {
        Self { stream: expected.stream.clone(), version: expected.version }
    }
}

impl From<At> for Expected {
    fn from(at: At) -> Self {
        Self { stream: at.stream, version: at.version }
    }
}

impl From<Appended> for Place {
    fn from(appended: Appended) -> Self {
        Self { seq: appended.seq(), new: matches!(appended, Appended::New(_)) }
    }
}

impl From<Place> for Appended {
    fn from(place: Place) -> Self {
        if place.new { Self::New(place.seq) } else { Self::Duplicate(place.seq) }
    }
}

/// Encodes a message with its length.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MESSAGE_MAX);
    let length = length.ok_or_else(|| io::Error::other("the batch is too large for the socket"))?;
    if let Some(place) = bytes.get_mut(..4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(bytes)
}

/// Writes a message.
pub(super) fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads a message.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    // Memory is taken as bytes come, not because somebody announced them.
    let mut bytes = Vec::with_capacity((length as usize).min(EAGER));
    stream.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rmp_serde::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
