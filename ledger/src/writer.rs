//! The one thread that writes: takes all batches that wait, and answers after one sync.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::clock::Clock;
use crate::durable::free_bytes;
use crate::event::NewEvent;
use crate::journal::{Device, FRAME_HEADER, Journal, Mark, SEGMENT_BYTES, encode_frame};
use crate::layout::Lock;
use crate::merkle::Frontier;
use crate::notebook::{AppendError, Appended, CloseError, Expected};
use crate::plan::{Overlay, Staged, View};
use crate::reader::Shared;
use crate::store::{Row, Store};

/// Most batches that share one sync.
const GROUP_BATCHES: usize = 4096;

/// How a notebook is written. Tests use smaller numbers and a failing device.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Bytes of a new segment.
    pub(crate) segment_bytes: u64,
    /// Bytes that must stay free on the file system.
    pub(crate) reserve_bytes: u64,
    /// Events after which the store is flushed.
    pub(crate) flush_events: u64,
    /// Bytes of events after which the store is flushed.
    pub(crate) flush_bytes: u64,
    /// What the journal is written to.
    pub(crate) device: Arc<dyn Device>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 16 * 1024 * 1024,
            flush_events: 8192,
            flush_bytes: 16 * 1024 * 1024,
            device: Arc::new(crate::journal::Disk),
        }
    }
}

/// What callers ask of the writer.
pub(crate) enum Command {
    Append {
        expected: Vec<Expected>,
        events: Vec<NewEvent>,
        reply: SyncSender<Result<Vec<Appended>, AppendError>>,
    },
    Version {
        stream: String,
        reply: SyncSender<Result<Option<u64>, AppendError>>,
    },
    Flush {
        reply: SyncSender<Result<(), CloseError>>,
    },
    Close {
        reply: SyncSender<Result<(), CloseError>>,
    },
}

type Answer = (SyncSender<Result<Vec<Appended>, AppendError>>, Vec<Appended>);

/// Batches that will share one sync.
#[derive(Default)]
struct Group {
    frames: Vec<u8>,
    rows: Vec<Row>,
    answers: Vec<Answer>,
}

/// Everything that the writer thread owns.
pub(crate) struct Writer {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) frontier: Frontier,
    pub(crate) shared: Arc<Shared>,
    /// Held until the thread ends: fields fall in this order, so the store falls before it.
    pub(crate) _lock: Lock,
    /// Events of the present group, and all events since the store stopped.
    pub(crate) pending: Overlay,
    pub(crate) poisoned: Option<String>,
    /// Why the store takes no more events until it is reopened.
    pub(crate) stopped: Option<String>,
    pub(crate) unflushed_bytes: u64,
}

impl Writer {
    /// Serves callers until one closes the notebook or all are gone.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            let mut group = Group::default();
            let mut next = Some(command);
            let mut batches = 0;
            while let Some(command) = next {
                if let Command::Close { reply } = command {
                    self.commit(&mut group);
                    let closed = self.flush();
                    // The lock and the store are let go before the caller hears of it.
                    drop(self);
                    let _ = reply.send(closed);
                    return;
                }
                self.serve(command, &mut group);
                batches += 1;
                let room = batches < GROUP_BATCHES && group.frames.len() < SEGMENT_BYTES as usize;
                next = if room { commands.try_recv().ok() } else { None };
            }
            self.commit(&mut group);
        }
        // Nobody is left to hear about a failure, and the journal has everything.
        let _ = self.flush();
    }

    fn serve(&mut self, command: Command, group: &mut Group) {
        // A caller who no longer waits for the answer is no reason to stop.
        match command {
            Command::Append { expected, events, reply } => {
                match self.take(&expected, &events, group) {
                    Ok(answers) => group.answers.push((reply, answers)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Version { stream, reply } => {
                self.commit(group);
                let version = self.view(0).stream(&stream).map(|head| head.map(|(v, _)| v));
                let version =
                    version.map_err(|error| AppendError::Store { reason: error.to_string() });
                let _ = reply.send(version);
            }
            Command::Flush { reply } | Command::Close { reply } => {
                self.commit(group);
                let _ = reply.send(self.flush());
            }
        }
    }

    fn view(&self, staged: u64) -> View<'_> {
        View { store: &self.store, pending: &self.pending, next: self.journal.next() + staged }
    }

    /// Takes a batch into the group, or says why not.
    fn take(
        &mut self,
        expected: &[Expected],
        events: &[NewEvent],
        group: &mut Group,
    ) -> Result<Vec<Appended>, AppendError> {
        self.check_poison()?;
        let staged = self.plan(expected, events, group)?;
        if staged.rows.is_empty() {
            return Ok(staged.answers);
        }
        let bytes: u64 =
            staged.rows.iter().map(|row| (FRAME_HEADER + row.bytes.len()) as u64).sum();
        self.check_space(bytes + group.frames.len() as u64)?;
        if !self.journal.fits(group.frames.len() as u64 + bytes) {
            self.commit(group);
            self.check_poison()?;
            if !self.journal.fits(bytes)
                && let Err(error) = self.journal.make_room(bytes)
            {
                self.poison(&format!("no new segment could be made: {error}"));
                self.check_poison()?;
            }
        }
        let count = staged.rows.len();
        for (index, row) in staged.rows.into_iter().enumerate() {
            let since = u32::try_from(row.seq - self.journal.next()).unwrap_or(u32::MAX);
            let rest = u32::try_from(count - 1 - index).unwrap_or(u32::MAX);
            let mark = Mark { seq: row.seq, since, rest };
            encode_frame(&mut group.frames, self.journal.salt(), mark, &row.bytes);
            self.pending.add(row.clone());
            group.rows.push(row);
        }
        Ok(staged.answers)
    }

    fn plan(
        &self,
        expected: &[Expected],
        events: &[NewEvent],
        group: &Group,
    ) -> Result<Staged, AppendError> {
        self.view(group.rows.len() as u64).plan(expected, events, || self.clock.now())
    }

    fn check_poison(&self) -> Result<(), AppendError> {
        match &self.poisoned {
            Some(reason) => Err(AppendError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses to begin what the disk may have no room for.
    fn check_space(&self, bytes: u64) -> Result<(), AppendError> {
        let needed = bytes.saturating_add(self.options.reserve_bytes);
        // A file system that does not tell is not taken for a full one.
        match free_bytes(self.journal.file()) {
            Ok(free) if free < needed => Err(AppendError::DiskLow { free, needed }),
            _ => Ok(()),
        }
    }

    fn poison(&mut self, reason: &str) {
        self.poisoned.get_or_insert_with(|| reason.to_owned());
    }

    /// Writes and syncs the group, answers its callers, and passes its events to the store.
    fn commit(&mut self, group: &mut Group) {
        let Group { frames, rows, answers } = mem::take(group);
        if !rows.is_empty() && self.poisoned.is_none() {
            let device = Arc::clone(&self.options.device);
            let events = rows.len() as u64;
            if let Err(error) = self.journal.write(device.as_ref(), &frames, events) {
                self.poison(&error.to_string());
            }
        }
        if let Some(reason) = &self.poisoned {
            for (reply, _) in answers {
                let _ = reply.send(Err(AppendError::Poisoned { reason: reason.clone() }));
            }
            return;
        }
        let nodes: Vec<_> = rows.iter().map(|row| self.frontier.push(&row.bytes)).collect();
        self.shared.publish(&self.frontier);
        for (reply, answer) in answers {
            let _ = reply.send(Ok(answer));
        }
        if !rows.is_empty() {
            self.pass_on(rows, nodes);
        }
    }

    /// Passes events to the store. A store that fails takes no more of them; the journal goes on,
    /// and what the store lacks is kept in memory for lookups.
    fn pass_on(&mut self, mut rows: Vec<Row>, nodes: Vec<Vec<crate::merkle::Node>>) {
        if self.stopped.is_some() {
            return;
        }
        for (row, nodes) in rows.iter_mut().zip(nodes) {
            self.unflushed_bytes += row.bytes.len() as u64;
            row.nodes = nodes;
        }
        match self.store.apply(&rows) {
            Ok(()) => self.pending.clear(),
            Err(error) => self.stopped = Some(error.to_string()),
        }
        let due = self.store.applied() - self.store.flushed() >= self.options.flush_events
            || self.unflushed_bytes >= self.options.flush_bytes;
        if due && self.stopped.is_none() {
            self.unflushed_bytes = 0;
            if let Err(error) = self.store.flush(&self.frontier) {
                self.stopped = Some(error.to_string());
            }
        }
    }

    fn flush(&mut self) -> Result<(), CloseError> {
        if let Some(reason) = &self.stopped {
            return Err(CloseError::Store { reason: reason.clone() });
        }
        if self.store.flushed() == self.frontier.size() && self.unflushed_bytes == 0 {
            return Ok(());
        }
        self.unflushed_bytes = 0;
        self.store.flush_noted(&self.frontier).map_err(|error| {
            let reason = error.to_string();
            self.stopped = Some(reason.clone());
            CloseError::Store { reason }
        })
    }
}
