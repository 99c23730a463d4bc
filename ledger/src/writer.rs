//! Group commit: callers stage their batches, one of them writes for all that wait.
//!
//! There is no writer thread to hand a batch to and back. A caller decides and encodes under a
//! lock, then waits until its group is durable. When nobody is writing, it writes the group
//! itself: one write, one sync, for everything that was staged meanwhile. The store is brought up
//! behind the journal by a thread of its own (see `applier`).

use std::collections::HashMap;
use std::fs::File;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tlog_tiles::{Hash, record_hash};

use crate::applier::{Applier, Note};
use crate::clock::Clock;
use crate::codec;
use crate::device::{Device, Disk};
use crate::durable::free_bytes;
use crate::event::{Envelope, NewEvent};
use crate::id::Digest;
use crate::ids::{IdTable, hash_of};
use crate::journal::{Journal, Mark, SEGMENT_BYTES, push_frame};
use crate::layout::Lock;
use crate::notebook::{AppendError, Appended, CloseError, Expected};
use crate::plan::{Known, Row, StreamHead, plan};
use crate::reader::{Reader, Shared};
use crate::store::StoreReader;

/// Streams whose heads are kept in memory.
const HEADS: usize = 65_536;

/// How a notebook is written. Tests use smaller numbers and a failing device.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Bytes of the first segment.
    pub(crate) segment_bytes: u64,
    /// Bytes that must stay free on the file system.
    pub(crate) reserve_bytes: u64,
    /// Events after which the store is flushed.
    pub(crate) flush_events: u64,
    /// Events that the store may be behind the journal before appending waits for it.
    pub(crate) lag_events: u64,
    /// What journal, bodies, keys and checkpoints are written to.
    pub(crate) device: Arc<dyn Device>,
    /// What tree and request ids are written to.
    pub(crate) copies: Arc<dyn Device>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 16 * 1024 * 1024,
            flush_events: 32_768,
            lag_events: 131_072,
            device: Arc::new(Disk),
            copies: Arc::new(Disk),
        }
    }
}

/// Everything that appending needs. Shared by all handles of the process.
pub(crate) struct Writer {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) applier: Applier,
    /// Reads what is durable.
    pub(crate) reader: Reader,
    /// The journal's directory, to ask its file system for free space.
    pub(crate) place: File,
    pub(crate) state: Mutex<State>,
    /// A group came to its end, well or badly.
    pub(crate) turned: Condvar,
}

/// What the lock protects.
pub(crate) struct State {
    /// `None` while a caller writes a group.
    pub(crate) journal: Option<Journal>,
    /// `None` once the notebook is closed.
    pub(crate) store: Option<StoreReader>,
    pub(crate) ids: IdTable,
    pub(crate) heads: HashMap<Arc<str>, Head>,
    /// Number of the next event, staged ones counted.
    pub(crate) next: u64,
    /// The group that is being staged, and its number.
    pub(crate) staged: Group,
    pub(crate) number: u64,
    /// Groups that are durable.
    pub(crate) durable: u64,
    pub(crate) poisoned: Option<String>,
    /// Nothing more is taken: the notebook is being closed.
    pub(crate) closing: bool,
    /// `None` once the notebook is closed.
    pub(crate) lock: Option<Lock>,
    /// The last group, emptied, kept for its memory.
    spare: Group,
}

/// Where a stream stands, and which event says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    head: StreamHead,
    seq: u64,
}

/// Batches that share one sync.
#[derive(Default)]
pub(crate) struct Group {
    frames: Vec<u8>,
    notes: Vec<Note>,
}

impl State {
    /// Begins behind the last event of `journal`.
    pub(crate) fn new(journal: Journal, store: StoreReader, ids: IdTable, lock: Lock) -> Self {
        Self {
            next: journal.next(),
            journal: Some(journal),
            store: Some(store),
            ids,
            heads: HashMap::new(),
            staged: Group::default(),
            number: 0,
            durable: 0,
            poisoned: None,
            closing: false,
            lock: Some(lock),
            spare: Group::default(),
        }
    }

    fn check(&self) -> Result<(), AppendError> {
        // First, because it says more: an event may stand in the log all the same.
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        if self.lock.is_none() { Err(AppendError::Closed) } else { Ok(()) }
    }

    /// Takes a planned batch into the group.
    fn stage(&mut self, rows: Vec<Row>) {
        let count = rows.len();
        let first = self.next - self.staged.notes.len() as u64;
        for (index, row) in rows.into_iter().enumerate() {
            let since = u32::try_from(row.seq - first).unwrap_or(u32::MAX);
            let rest = u32::try_from(count - 1 - index).unwrap_or(u32::MAX);
            push_frame(&mut self.staged.frames, Mark { seq: row.seq, since, rest }, &row.bytes);
            self.ids.add(row.hash, row.seq);
            let head = Head { head: (row.version, row.leaf), seq: row.seq };
            let stream = self.head(row.stream, head);
            let (leaf, id, version) = (Hash(*row.leaf.as_bytes()), row.hash, row.version);
            self.staged.notes.push(Note { leaf, id, stream, version });
            self.next += 1;
        }
    }

    /// Notes where a stream stands, and returns its name.
    fn head(&mut self, stream: String, head: Head) -> Arc<str> {
        if let Some((name, _)) = self.heads.get_key_value(stream.as_str()) {
            let name = Arc::clone(name);
            if let Some(place) = self.heads.get_mut(&name) {
                *place = head;
            }
            return name;
        }
        let name: Arc<str> = stream.into();
        self.heads.insert(Arc::clone(&name), head);
        name
    }
}

/// The log as a batch finds it.
struct Now<'a> {
    writer: &'a Writer,
    state: &'a State,
}

impl Known for Now<'_> {
    fn next(&self) -> u64 {
        self.state.next
    }

    fn stream(&self, stream: &str) -> Result<Option<StreamHead>, AppendError> {
        if let Some(found) = self.state.heads.get(stream) {
            return Ok(Some(found.head));
        }
        let lost = |reason: String| AppendError::Store { reason };
        let store = self.state.store.as_ref().ok_or(AppendError::Closed)?;
        let found = store.stream(stream).map_err(|error| lost(error.to_string()))?;
        let Some((seq, head)) = found else { return Ok(None) };
        // What the store says goes into the log for ever, so the journal is asked as well.
        let bytes = self.writer.reader.raw(seq).map_err(|error| lost(error.to_string()))?;
        let said = bytes.as_deref().and_then(|bytes| {
            let event = codec::outline(bytes).ok().filter(|event| event.stream == stream)?;
            Some((event.version, Digest::from_bytes(record_hash(bytes).0)))
        });
        if said == Some(head) {
            return Ok(Some(head));
        }
        Err(lost(format!("the store's head of stream {stream} is not that of the journal")))
    }

    fn under(&self, id: &str, hash: u64) -> Result<Option<Envelope>, AppendError> {
        for seq in self.state.ids.find(hash) {
            let event = self.writer.event(seq)?;
            if event.id == id {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

impl Writer {
    fn hold(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, save a clock or an encoder of somebody else's, and
        // those run before anything is changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an event that is durable.
    fn event(&self, seq: u64) -> Result<Envelope, AppendError> {
        let lost = |reason: String| AppendError::Store { reason };
        let bytes = self.reader.raw(seq).map_err(|error| lost(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| lost(format!("event {seq} is not in the journal")))?;
        codec::decode(&bytes).map_err(|source| AppendError::Codec { id: seq.to_string(), source })
    }

    /// Appends a batch and returns when it is durable.
    pub(crate) fn append(
        &self,
        expected: &[Expected],
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError> {
        self.applier.wait_for_room(self.options.lag_events);
        let mut state = self.hold();
        loop {
            state.check()?;
            if state.closing {
                return Err(AppendError::Closed);
            }
            // An id that stands in a group on its way can be looked at when that is durable.
            let known = self.shared.acknowledged();
            let waits = |event: &NewEvent| {
                known < state.next && state.ids.find(hash_of(&event.id)).any(|seq| seq >= known)
            };
            if !events.iter().any(waits) {
                break;
            }
            let last = if state.staged.notes.is_empty() { state.number - 1 } else { state.number };
            state = self.wait_for(state, last)?;
        }
        let now = Now { writer: self, state: &state };
        let staged = plan(&now, expected, events, || self.clock.now())?;
        if staged.rows.is_empty() {
            return Ok(staged.answers);
        }
        let bytes: u64 = staged.rows.iter().map(|row| row.bytes.len() as u64).sum();
        self.check_space(bytes + state.staged.frames.len() as u64)?;
        state.stage(staged.rows);
        let mine = state.number;
        drop(self.wait_for(state, mine)?);
        Ok(staged.answers)
    }

    /// Returns the last version of a stream, of durable events or such on their way.
    pub(crate) fn version(&self, stream: &str) -> Result<Option<u64>, AppendError> {
        let state = self.hold();
        state.check()?;
        let head = Now { writer: self, state: &state }.stream(stream)?;
        Ok(head.map(|(version, _)| version))
    }

    /// Finds the durable events with these request ids, in their order.
    pub(crate) fn find(&self, ids: &[String]) -> Result<Vec<Option<u64>>, AppendError> {
        let known = self.shared.acknowledged();
        let find = |id: &String| {
            // The lock is let go between two of them: others append meanwhile.
            let found: Vec<u64> = {
                let state = self.hold();
                state.check()?;
                state.ids.find(hash_of(id)).filter(|seq| *seq < known).collect()
            };
            for seq in found {
                if self.event(seq)?.id == *id {
                    return Ok(Some(seq));
                }
            }
            Ok(None)
        };
        ids.iter().map(find).collect()
    }

    /// Says whether events, and bodies of so many bytes before them, would be taken now.
    pub(crate) fn ready(&self, bytes: u64) -> Result<(), AppendError> {
        let state = self.hold();
        state.check()?;
        if state.closing {
            return Err(AppendError::Closed);
        }
        drop(state);
        self.check_space(bytes)
    }

    /// Waits until a group is durable, writing it if nobody else does.
    fn wait_for<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        group: u64,
    ) -> Result<MutexGuard<'a, State>, AppendError> {
        while state.durable <= group {
            state.check()?;
            state = match state.journal.take() {
                Some(journal) => self.lead(state, journal),
                None => self.turned.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Ok(state)
    }

    /// Writes the staged group, with the lock let go meanwhile.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut journal: Journal,
    ) -> MutexGuard<'a, State> {
        let spare = mem::take(&mut state.spare);
        let mut group = mem::replace(&mut state.staged, spare);
        state.number += 1;
        drop(state);
        let events = group.notes.len() as u64;
        let write = || journal.write(&mut group.frames, events);
        // Others wait for this group: they must hear of its end whatever it is.
        let written = match catch_unwind(AssertUnwindSafe(write)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the write panicked".to_owned()),
        };
        let mut state = self.hold();
        state.journal = Some(journal);
        match written {
            Ok(()) => {
                state.durable += 1;
                // Handed over first: what is acknowledged must be known to the applier.
                self.applier.note(&group.notes);
                self.shared.publish(group.notes.iter().map(|note| note.leaf));
                self.forget_heads(&mut state);
            }
            Err(reason) => drop(state.poisoned.get_or_insert(reason)),
        }
        group.frames.clear();
        group.notes.clear();
        state.spare = group;
        self.turned.notify_all();
        self.applier.wake();
        state
    }

    /// Keeps the table of heads small: what the store has can be asked there again.
    fn forget_heads(&self, state: &mut State) {
        if state.heads.len() > HEADS {
            let applied = self.applier.applied();
            state.heads.retain(|_, head| head.seq >= applied);
        }
    }

    /// Refuses to begin what the disk may have no room for.
    fn check_space(&self, bytes: u64) -> Result<(), AppendError> {
        let needed = bytes.saturating_add(self.options.reserve_bytes);
        // A file system that does not tell is not taken for a full one.
        match free_bytes(&self.place) {
            Ok(free) if free < needed => Err(AppendError::DiskLow { free, needed }),
            _ => Ok(()),
        }
    }

    /// Brings the store up to the journal and makes it durable.
    pub(crate) fn flush(&self) -> Result<(), CloseError> {
        self.applier.flush().map_err(|reason| CloseError::Store { reason })
    }

    /// Ends appending, flushes the store, and lets the lock go. A second call does nothing.
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        let mut state = self.hold();
        if state.lock.is_none() {
            return Err(CloseError::Closed);
        }
        state.closing = true;
        // Batches that were staged before are written by those who wait for them.
        while state.journal.is_none() || !state.staged.notes.is_empty() {
            if state.poisoned.is_some() {
                break;
            }
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let lock = state.lock.take();
        drop((state.journal.take(), state.store.take()));
        drop(state);
        self.turned.notify_all();
        let flushed = self.applier.end();
        // The lock falls last, so that whoever takes it finds everything in its place.
        drop(lock);
        flushed.map_err(|reason| CloseError::Store { reason })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure, and the journal has everything.
        let _ = self.close();
    }
}
