//! A log that lives in memory: for tests, and as the plainest reading of what a log is.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tlog_tiles::Hash;

use crate::clock::Clock;
use crate::codec;
use crate::event::{Envelope, NewEvent};
use crate::log::{Durability, EventIter, Log};
use crate::merkle::Frontier;
use crate::notebook::{AppendError, Appended, Expected};
use crate::plan::{Known, StreamHead, plan};
use crate::reader::{Head, ReadError};
use crate::subscribe::Subscription;

/// A log in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
    grown: Condvar,
}

#[derive(Default)]
struct Held {
    events: Vec<Vec<u8>>,
    ids: HashMap<String, usize>,
    streams: HashMap<String, StreamHead>,
    tree: Frontier,
}

impl Known for Held {
    fn next(&self) -> u64 {
        self.events.len() as u64
    }

    fn stream(&self, stream: &str) -> Result<Option<StreamHead>, AppendError> {
        Ok(self.streams.get(stream).copied())
    }

    fn under(&self, id: &str, _hash: u64) -> Result<Option<Envelope>, AppendError> {
        let bytes = self.ids.get(id).and_then(|&seq| self.events.get(seq));
        let event = bytes.map(|bytes| codec::decode(bytes)).transpose();
        event.map_err(|source| AppendError::Codec { id: id.to_owned(), source })
    }
}

impl MemoryLog {
    /// Makes an empty log.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner { clock, held: Mutex::default(), grown: Condvar::new() };
        Self { inner: Arc::new(inner) }
    }

    fn hold(&self) -> MutexGuard<'_, Held> {
        // A batch is planned before anything is changed, so a panic leaves nothing half done.
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an event, or `None` when there is none of that number yet.
    ///
    /// # Errors
    /// Never; the bytes were encoded here.
    pub fn get(&self, seq: u64) -> Result<Option<Envelope>, ReadError> {
        let held = self.hold();
        let bytes = usize::try_from(seq).ok().and_then(|seq| held.events.get(seq));
        let event = bytes.map(|bytes| codec::decode(bytes)).transpose();
        event.map_err(|source| ReadError::Decode { seq, source })
    }

    pub(crate) fn wait_beyond(&self, seq: u64, timeout: Duration) {
        let held = self.hold();
        let waits = |held: &mut Held| held.events.len() as u64 <= seq;
        drop(self.inner.grown.wait_timeout_while(held, timeout, waits));
    }
}

impl Log for MemoryLog {
    fn append(
        &self,
        expected: &[Expected],
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError> {
        let mut held = self.hold();
        let staged = plan(&*held, expected, events, || self.inner.clock.now())?;
        for row in staged.rows {
            let place = held.events.len();
            held.ids.insert(row.id, place);
            held.streams.insert(row.stream, (row.version, row.leaf));
            held.tree.push_leaf(Hash(*row.leaf.as_bytes()));
            held.events.push(row.bytes);
        }
        self.inner.grown.notify_all();
        Ok(staged.answers)
    }

    fn version(&self, stream: &str) -> Result<Option<u64>, AppendError> {
        Ok(self.hold().streams.get(stream).map(|(version, _)| *version))
    }

    fn read(&self, from: u64) -> Result<EventIter<'_>, ReadError> {
        Ok(Box::new((from..).map_while(|seq| self.get(seq).transpose())))
    }

    fn subscribe(&self, from: u64) -> Result<Subscription, ReadError> {
        Ok(Subscription::memory(self.clone(), from))
    }

    fn head(&self) -> Result<Head, ReadError> {
        let held = self.hold();
        Ok(Head { size: held.tree.size(), root: held.tree.root() })
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_log() {
        crate::conformance::check(&|clock| Arc::new(MemoryLog::new(clock)));
    }
}
