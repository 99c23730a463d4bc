//! Deciding what a batch becomes: conflict, duplicate, or new events with their numbers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tlog_tiles::record_hash;

use crate::codec;
use crate::event::{EVENT_BYTES_MAX, Envelope, NewEvent};
use crate::id::Digest;
use crate::ids::hash_of;
use crate::notebook::{AppendError, Appended, Expected};

/// Most bytes that a request id or a stream's name may have.
pub(crate) const NAME_BYTES_MAX: usize = 512;
/// Most levels of facts and measurements: as many as JSON readers take.
const DEPTH_MAX: usize = 100;

/// Where a stream stands: its last version, and the leaf hash of that event.
pub(crate) type StreamHead = (u64, Digest);

/// The log as a batch finds it, events included that were taken but are not durable yet.
pub(crate) trait Known {
    /// Returns the number of the next event.
    fn next(&self) -> u64;
    /// Returns where a stream stands, or `None` where it does not exist.
    fn stream(&self, stream: &str) -> Result<Option<StreamHead>, AppendError>;
    /// Returns the event that was appended under a request id of that hash.
    fn under(&self, id: &str, hash: u64) -> Result<Option<Envelope>, AppendError>;
}

/// An event that has its place and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) id: String,
    /// Hash of the id.
    pub(crate) hash: u64,
    pub(crate) stream: String,
    pub(crate) version: u64,
    /// RFC 6962 leaf hash of the bytes.
    pub(crate) leaf: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// A batch that may be written.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) answers: Vec<Appended>,
    pub(crate) rows: Vec<Row>,
}

/// Events of the batch itself, so that its later events see its earlier ones.
#[derive(Default)]
struct Own {
    streams: HashMap<String, StreamHead>,
    /// Place in the batch by request id.
    ids: HashMap<String, usize>,
}

/// Decides about a batch. Nothing is changed yet.
pub(crate) fn plan(
    known: &impl Known,
    expected: &[Expected],
    events: Vec<NewEvent>,
    now: impl Fn() -> DateTime<Utc>,
) -> Result<Staged, AppendError> {
    let mut repeated = Vec::with_capacity(events.len());
    for event in &events {
        check_names(event)?;
        let hash = hash_of(&event.id);
        let earlier = known.under(&event.id, hash)?;
        let earlier = earlier.map(|earlier| same(event, &earlier)).transpose()?;
        repeated.push((hash, earlier));
    }
    // A batch that is wholly there already was acknowledged, or should have been: the caller
    // who repeats it gets its numbers, not a conflict with itself.
    if repeated.iter().any(|(_, earlier)| earlier.is_none()) {
        check_expected(known, expected)?;
    }
    let mut staged = Staged::default();
    let mut own = Own::default();
    for (event, (hash, repeated)) in events.into_iter().zip(repeated) {
        if let Some(seq) = repeated {
            staged.answers.push(Appended::Duplicate(seq));
            continue;
        }
        if let Some(row) = own.ids.get(&event.id).and_then(|&index| staged.rows.get(index)) {
            let earlier = codec::decode(&row.bytes)
                .map_err(|source| AppendError::Codec { id: event.id.clone(), source })?;
            staged.answers.push(Appended::Duplicate(same(&event, &earlier)?));
            continue;
        }
        let seq = known.next() + staged.rows.len() as u64;
        let head = match own.streams.get(&event.stream) {
            Some(&head) => Some(head),
            None => known.stream(&event.stream)?,
        };
        let row = place(event, (seq, hash), head, now())?;
        own.streams.insert(row.stream.clone(), (row.version, row.leaf));
        own.ids.insert(row.id.clone(), staged.rows.len());
        staged.rows.push(row);
        staged.answers.push(Appended::New(seq));
    }
    Ok(staged)
}

/// Checks that the streams stand where the caller thinks that they do.
fn check_expected(known: &impl Known, expected: &[Expected]) -> Result<(), AppendError> {
    for Expected { stream, version } in expected {
        let actual = known.stream(stream)?.map(|(version, _)| version);
        if actual != *version {
            return Err(AppendError::Conflict {
                stream: stream.clone(),
                expected: *version,
                actual,
            });
        }
    }
    Ok(())
}

/// Checks that an id that is known already stands for the same event, and returns its number.
fn same(event: &NewEvent, earlier: &Envelope) -> Result<u64, AppendError> {
    let same = earlier.stream == event.stream
        && earlier.kind == event.kind
        && earlier.schema == event.schema
        && earlier.facts == event.facts;
    let seq = earlier.seq;
    if same { Ok(seq) } else { Err(AppendError::IdReused { id: event.id.clone(), seq }) }
}

/// Gives an event its place and its bytes.
fn place(
    event: NewEvent,
    (seq, hash): (u64, u64),
    head: Option<StreamHead>,
    at: DateTime<Utc>,
) -> Result<Row, AppendError> {
    let version = head.map_or(0, |(version, _)| version + 1);
    if is_deep(&event.facts, DEPTH_MAX) || is_deep(&event.measured, DEPTH_MAX) {
        return Err(AppendError::TooDeep { id: event.id, max: DEPTH_MAX });
    }
    let envelope = Envelope {
        seq,
        id: event.id,
        stream: event.stream,
        version,
        kind: event.kind,
        schema: event.schema,
        at,
        actor: event.actor,
        cause: event.cause,
        run: event.run,
        prev: head.map(|(_, digest)| digest),
        facts: event.facts,
        measured: event.measured,
    };
    let encoded = codec::encode(&envelope);
    let Envelope { id, stream, .. } = envelope;
    let bytes = match encoded {
        Ok(bytes) => bytes,
        Err(source) => return Err(AppendError::Codec { id, source }),
    };
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(AppendError::TooLarge { id, bytes: bytes.len(), max: EVENT_BYTES_MAX });
    }
    let leaf = Digest::from_bytes(record_hash(&bytes).0);
    Ok(Row { seq, id, hash, stream, version, leaf, bytes })
}

/// Tells whether a value has more than `most` levels. Decoders stop at a depth, so that such an
/// event could be written and never read.
fn is_deep(value: &Value, most: usize) -> bool {
    let below = |value: &Value| most == 0 || is_deep(value, most - 1);
    match value {
        Value::Array(items) => items.iter().any(below),
        Value::Object(fields) => fields.values().any(below),
        _ => false,
    }
}

fn check_names(event: &NewEvent) -> Result<(), AppendError> {
    let named = [("id", &event.id), ("stream", &event.stream), ("kind", &event.kind)];
    for (what, name) in named {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(AppendError::Name { what, bytes: name.len(), max: NAME_BYTES_MAX });
        }
    }
    Ok(())
}
