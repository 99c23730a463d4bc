//! Bringing store, tree and request ids up behind the journal.
//!
//! They follow the journal as a reader would, some milliseconds behind it, and hold nothing that
//! it does not hold. Appending waits only when they are very far behind, or when it needs the head
//! of a stream while the store is opened anew. When one of them fails, all stop where they are
//! until the notebook is opened again; the journal goes on.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tlog_tiles::{Hash, record_hash};

use crate::codec::{self, CodecError};
use crate::id::Digest;
use crate::ids::{IdFile, hash_of};
use crate::journal::Frame;
use crate::merkle::Frontier;
use crate::reader::{Frames, ReadError, Shared};
use crate::store::{Applied, Store, StoreError, Watermark};
use crate::tree::{Tiles, TreeError};

/// Events that are applied at a time.
const BATCH: usize = 512;
/// Events that may gather before they are applied in any case.
const GATHERED: u64 = 65_536;
/// How long nothing may come before what has gathered is applied.
const GATHER: Duration = Duration::from_millis(20);

/// Says why the copies behind the journal stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the tree: {0}")]
    Tree(#[from] TreeError),
    #[error("the tree or the request ids: {0}")]
    Io(#[from] io::Error),
    #[error("event {seq} was acknowledged, but the journal ends before it")]
    Short { seq: u64 },
    #[error("event {seq}: {source}")]
    Decode { seq: u64, source: CodecError },
}

/// Store, tree and request ids: everything behind the journal.
pub(crate) struct Copies {
    pub(crate) store: Store,
    pub(crate) tiles: Tiles,
    pub(crate) ids: IdFile,
    pub(crate) frontier: Frontier,
    /// Events at the last completed flush.
    pub(crate) flushed: u64,
    pub(crate) flush_events: u64,
}

/// What a copy needs to know of an event beside its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) leaf: Hash,
    /// Hash of the request id.
    pub(crate) id: u64,
    pub(crate) stream: Arc<str>,
    pub(crate) version: u64,
}

impl Note {
    /// Takes the note from an event's stored bytes.
    fn of(frame: &Frame) -> Result<Self, ApplyError> {
        let event = codec::outline(&frame.event)
            .map_err(|source| ApplyError::Decode { seq: frame.mark.seq, source })?;
        Ok(Self {
            leaf: record_hash(&frame.event),
            id: hash_of(event.id),
            stream: event.stream.into(),
            version: event.version,
        })
    }
}

impl Copies {
    /// Returns how many events they hold.
    pub(crate) fn applied(&self) -> u64 {
        self.frontier.size()
    }

    /// Takes up the next frames, at most [`BATCH`], as they stand in the journal; `seen` is told
    /// of each with the hash of its id. Returns how many there were.
    pub(crate) fn catch_up(
        &mut self,
        frames: &mut Frames,
        mut seen: impl FnMut(u64, u64),
    ) -> Result<usize, ApplyError> {
        let batch = read_batch(frames, BATCH)?;
        let notes = batch.iter().map(Note::of).collect::<Result<Vec<_>, _>>()?;
        for (frame, note) in batch.iter().zip(&notes) {
            seen(frame.mark.seq, note.id);
        }
        self.apply(&batch, &notes)?;
        Ok(batch.len())
    }

    /// Takes up events with what is known of them, and flushes where that is due.
    fn apply(&mut self, batch: &[Frame], notes: &[Note]) -> Result<(), ApplyError> {
        let rows: Vec<_> = batch
            .iter()
            .zip(notes)
            .map(|(frame, note)| Applied {
                seq: frame.mark.seq,
                stream: &note.stream,
                version: note.version,
                leaf: Digest::from_bytes(note.leaf.0),
                bytes: &frame.event,
            })
            .collect();
        let leaves: Vec<Hash> = notes.iter().map(|note| note.leaf).collect();
        self.tiles.append(&leaves)?;
        self.ids.append(&notes.iter().map(|note| note.id).collect::<Vec<_>>())?;
        self.store.apply(&rows)?;
        leaves.into_iter().for_each(|leaf| self.frontier.push_leaf(leaf));
        if self.applied() - self.flushed >= self.flush_events || self.store.is_full() {
            self.sync()?;
            self.store.flush(self.mark())?;
            self.flushed = self.applied();
        }
        Ok(())
    }

    fn mark(&self) -> Watermark {
        Watermark { size: self.applied(), root: self.frontier.root(), ids: self.ids.sum() }
    }

    fn sync(&self) -> Result<(), ApplyError> {
        self.tiles.sync()?;
        Ok(self.ids.sync()?)
    }

    /// Makes everything durable, and the note of how much that is.
    pub(crate) fn flush(&mut self) -> Result<(), ApplyError> {
        self.sync()?;
        self.store.flush_noted(self.mark())?;
        self.flushed = self.applied();
        Ok(())
    }
}

/// The thread that brings the copies up, and how far it is.
pub(crate) struct Applier {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and its callers share.
struct Desk {
    shared: Arc<Shared>,
    applied: AtomicU64,
    asleep: AtomicBool,
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    /// Of the events that were acknowledged and not applied yet, in order.
    notes: VecDeque<Note>,
    /// Flushes that were asked for, and those that were made.
    asked: u64,
    made: u64,
    end: bool,
    ended: bool,
    /// Why nothing more is applied.
    stopped: Option<String>,
}

impl Desk {
    fn hold(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a flush or the end was asked for.
    fn is_ordered(&self) -> bool {
        let orders = self.hold();
        orders.end || orders.asked > orders.made
    }

    /// Lets a burst of appends pass by before it is applied: on a small machine both would take
    /// turns. Ends when nothing more came for a while, when much has gathered, or when ordered.
    fn gather(&self) {
        let mut before = self.lag();
        while before < GATHERED {
            let orders = self.hold();
            if orders.end || orders.asked > orders.made {
                return;
            }
            drop(self.changed.wait_timeout(orders, GATHER));
            let lag = self.lag();
            if lag == before {
                return;
            }
            before = lag;
        }
    }

    fn lag(&self) -> u64 {
        self.shared.acknowledged().saturating_sub(self.applied.load(Ordering::Acquire))
    }
}

impl Applier {
    /// Starts the thread over copies that are up to date with the journal.
    pub(crate) fn start(copies: Copies, frames: Frames, shared: Arc<Shared>) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            shared,
            applied: AtomicU64::new(copies.applied()),
            asleep: AtomicBool::new(false),
            orders: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("ledger-store".to_owned());
        let work = Arc::clone(&desk);
        let thread = thread.spawn(move || run(&work, copies, frames))?;
        Ok(Self { desk, thread: Mutex::new(Some(thread)) })
    }

    /// Returns how many events were applied.
    pub(crate) fn applied(&self) -> u64 {
        self.desk.applied.load(Ordering::Acquire)
    }

    /// Hands over what is known of events that are durable now.
    pub(crate) fn note(&self, notes: &[Note]) {
        let mut orders = self.desk.hold();
        // Where nothing is applied any more, nothing is kept for it.
        if orders.stopped.is_none() {
            orders.notes.extend(notes.iter().cloned());
        }
    }

    /// Tells the thread that there is something to do, if it sleeps.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `follow`: either we see the flag or it sees what was appended.
        fence(Ordering::SeqCst);
        if self.desk.asleep.load(Ordering::Acquire) {
            let _held = self.desk.hold();
            self.desk.changed.notify_all();
        }
    }

    /// Waits while the copies are more than `most` events behind.
    pub(crate) fn wait_for_room(&self, most: u64) {
        if self.desk.lag() <= most {
            return;
        }
        let mut orders = self.desk.hold();
        while self.desk.lag() > most && orders.stopped.is_none() && !orders.ended {
            orders = self.desk.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Brings everything up and makes it durable, or says why that cannot be.
    pub(crate) fn flush(&self) -> Result<(), String> {
        let mut orders = self.desk.hold();
        orders.asked += 1;
        let mine = orders.asked;
        self.desk.changed.notify_all();
        loop {
            if let Some(reason) = &orders.stopped {
                return Err(reason.clone());
            }
            if orders.made >= mine || orders.ended {
                return Ok(());
            }
            orders = self.desk.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Flushes and ends the thread.
    pub(crate) fn end(&self) -> Result<(), String> {
        self.desk.hold().end = true;
        self.desk.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has told so on stderr; the journal has everything.
            let _ = thread.join();
        }
        self.desk.hold().stopped.clone().map_or(Ok(()), Err)
    }
}

/// Reads the next `most` events, or fewer where the log ends.
fn read_batch(frames: &mut Frames, most: usize) -> Result<Vec<Frame>, ApplyError> {
    let mut batch = Vec::with_capacity(most);
    while batch.len() < most {
        let Some(frame) = frames.next_frame()? else { break };
        batch.push(frame);
    }
    Ok(batch)
}

/// Applies what was acknowledged until it is told to end, or something fails.
fn run(desk: &Desk, mut copies: Copies, mut frames: Frames) {
    let outcome = follow(desk, &mut copies, &mut frames);
    // Files are let go before anybody hears that this is over.
    drop((copies, frames));
    let mut orders = desk.hold();
    if let Err(error) = outcome {
        orders.stopped = Some(error.to_string());
        orders.notes = VecDeque::new();
    }
    orders.ended = true;
    desk.changed.notify_all();
}

fn follow(desk: &Desk, copies: &mut Copies, frames: &mut Frames) -> Result<(), ApplyError> {
    loop {
        while desk.lag() > 0 {
            let notes: Vec<Note> = {
                let mut orders = desk.hold();
                // Notes come before the acknowledgement, so there may be more of them.
                let count = usize::try_from(desk.lag()).unwrap_or(BATCH).min(BATCH);
                let count = count.min(orders.notes.len());
                orders.notes.drain(..count).collect()
            };
            let batch = read_batch(frames, notes.len())?;
            if batch.len() < notes.len() {
                return Err(ApplyError::Short { seq: copies.applied() + batch.len() as u64 });
            }
            copies.apply(&batch, &notes)?;
            desk.applied.store(copies.applied(), Ordering::Release);
            // Whoever waits for room looks again; taken under the lock, so that none misses it.
            let _held = desk.hold();
            desk.changed.notify_all();
        }
        let (asked, end) = {
            let mut orders = desk.hold();
            if orders.asked == orders.made && !orders.end && desk.lag() == 0 {
                desk.asleep.store(true, Ordering::Release);
                fence(Ordering::SeqCst);
                // Looked at again: an append may have passed by before the flag stood.
                if desk.lag() == 0 {
                    orders = desk.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
                }
                desk.asleep.store(false, Ordering::Release);
            }
            (orders.asked, orders.end)
        };
        if !desk.is_ordered() {
            desk.gather();
            continue;
        }
        if desk.lag() > 0 {
            continue;
        }
        if copies.flushed < copies.applied() {
            copies.flush()?;
        }
        let mut orders = desk.hold();
        orders.made = asked;
        desk.changed.notify_all();
        if end {
            return Ok(());
        }
    }
}
