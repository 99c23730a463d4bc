//! Deciding what a batch becomes: conflict, duplicate, or new events with their numbers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::codec;
use crate::event::{EVENT_BYTES_MAX, Envelope, NewEvent};
use crate::id::Digest;
use crate::notebook::{AppendError, Appended, Expected};
use crate::store::{Row, Store, StoreError};

/// Most bytes that a request id or a stream's name may have.
pub(crate) const NAME_BYTES_MAX: usize = 512;

/// Events that are not in the store yet.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    streams: BTreeMap<String, (u64, Digest)>,
    ids: BTreeMap<String, u64>,
    rows: Vec<Row>,
}

impl Overlay {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.streams.insert(row.stream.clone(), (row.version, row.digest));
        self.ids.insert(row.id.clone(), row.seq);
        self.rows.push(row);
    }

    fn event(&self, seq: u64) -> Option<&[u8]> {
        let first = self.rows.first()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        Some(self.rows.get(index)?.bytes.as_slice())
    }
}

/// The log as a batch finds it: what is in the store, and what came since.
pub(crate) struct View<'a> {
    pub(crate) store: &'a Store,
    pub(crate) pending: &'a Overlay,
    pub(crate) next: u64,
}

/// A batch that may be written.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) answers: Vec<Appended>,
    pub(crate) rows: Vec<Row>,
}

impl View<'_> {
    /// Returns the last version of a stream and the digest of its last event.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<(u64, Digest)>, StoreError> {
        match self.pending.streams.get(stream) {
            Some(&head) => Ok(Some(head)),
            None => self.store.stream(stream),
        }
    }

    fn seq_of(&self, id: &str) -> Result<Option<u64>, StoreError> {
        match self.pending.ids.get(id) {
            Some(&seq) => Ok(Some(seq)),
            None => self.store.seq_of(id),
        }
    }

    fn event(&self, seq: u64) -> Result<Envelope, AppendError> {
        let stored = match self.pending.event(seq) {
            Some(bytes) => Some(bytes.to_vec()),
            None => self.store.event(seq).map_err(failed)?,
        };
        let bytes = stored.ok_or_else(|| AppendError::Store {
            reason: format!("event {seq} is not in the store"),
        })?;
        codec::decode(&bytes).map_err(|source| AppendError::Codec { id: seq.to_string(), source })
    }

    /// Decides about a batch. Nothing is changed yet.
    pub(crate) fn plan(
        &self,
        expected: &[Expected],
        events: &[NewEvent],
        now: impl Fn() -> DateTime<Utc>,
    ) -> Result<Staged, AppendError> {
        let mut staged = Staged { answers: Vec::with_capacity(events.len()), rows: Vec::new() };
        let mut own = Overlay::default();
        let mut repeated = Vec::with_capacity(events.len());
        for event in events {
            check_names(event)?;
            repeated.push(match self.seq_of(&event.id).map_err(failed)? {
                Some(seq) => Some(self.repeated(event, seq, &self.event(seq)?)?),
                None => None,
            });
        }
        // A batch that is wholly there already was acknowledged, or should have been: the caller
        // who repeats it gets its numbers, not a conflict with itself.
        if repeated.iter().any(Option::is_none) {
            self.check_expected(expected)?;
        }
        for (event, repeated) in events.iter().zip(repeated) {
            if let Some(seq) = repeated {
                staged.answers.push(Appended::Duplicate(seq));
                continue;
            }
            if let Some(&seq) = own.ids.get(&event.id) {
                let bytes = own.event(seq).unwrap_or_default();
                let earlier = codec::decode(bytes)
                    .map_err(|source| AppendError::Codec { id: event.id.clone(), source })?;
                staged.answers.push(Appended::Duplicate(self.repeated(event, seq, &earlier)?));
                continue;
            }
            let seq = self.next + own.rows.len() as u64;
            let row = self.row(event, seq, now(), &own)?;
            own.add(row);
            staged.answers.push(Appended::New(seq));
        }
        staged.rows = own.rows;
        Ok(staged)
    }

    /// Checks that the streams stand where the caller thinks that they do.
    fn check_expected(&self, expected: &[Expected]) -> Result<(), AppendError> {
        for Expected { stream, version } in expected {
            let actual = self.stream(stream).map_err(failed)?.map(|(version, _)| version);
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

    /// Decides whether an id that is known already stands for the same event.
    fn repeated(&self, event: &NewEvent, seq: u64, earlier: &Envelope) -> Result<u64, AppendError> {
        let same = earlier.id == event.id
            && earlier.stream == event.stream
            && earlier.kind == event.kind
            && earlier.schema == event.schema
            && earlier.facts == event.facts;
        if same { Ok(seq) } else { Err(AppendError::IdReused { id: event.id.clone(), seq }) }
    }

    /// Gives an event its place and its bytes.
    fn row(
        &self,
        event: &NewEvent,
        seq: u64,
        at: DateTime<Utc>,
        own: &Overlay,
    ) -> Result<Row, AppendError> {
        let head = match own.streams.get(&event.stream) {
            Some(&head) => Some(head),
            None => self.stream(&event.stream).map_err(failed)?,
        };
        let version = head.map_or(0, |(version, _)| version + 1);
        let envelope = Envelope {
            seq,
            id: event.id.clone(),
            stream: event.stream.clone(),
            version,
            kind: event.kind.clone(),
            schema: event.schema,
            at,
            actor: event.actor.clone(),
            cause: event.cause,
            run: event.run.clone(),
            prev: head.map(|(_, digest)| digest),
            facts: event.facts.clone(),
            measured: event.measured.clone(),
        };
        let bytes = codec::encode(&envelope)
            .map_err(|source| AppendError::Codec { id: event.id.clone(), source })?;
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(AppendError::TooLarge {
                id: event.id.clone(),
                bytes: bytes.len(),
                max: EVENT_BYTES_MAX,
            });
        }
        let digest = Digest::of(&bytes);
        let (id, stream) = (envelope.id, envelope.stream);
        Ok(Row { seq, id, stream, version, digest, bytes, nodes: Vec::new() })
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

fn failed(error: StoreError) -> AppendError {
    AppendError::Store { reason: error.to_string() }
}
