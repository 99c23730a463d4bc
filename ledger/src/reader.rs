//! Reading a notebook. Never takes the lock, never writes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tlog_tiles::{Hash, record_hash};

use crate::blob::Blobs;
use crate::checkpoint::{self, CheckpointError, SignedCheckpoint};
use crate::codec::{self, CodecError};
use crate::event::Envelope;
use crate::id::Digest;
use crate::journal::{Cursor, Frame, Place, Segment, Step, Tail, segments};
use crate::keys::KeyHistory;
use crate::layout::{Config, Layout};
use crate::merkle::Frontier;
use crate::tree::Tiles;

/// Says why a notebook cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory holds no notebook.
    #[error("{} is no notebook: it has no ledger.toml", dir.display())]
    NotANotebook {
        /// Directory.
        dir: PathBuf,
    },
    /// `ledger.toml` cannot be used.
    #[error("{}: {what}", path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Line and reason.
        what: String,
    },
    /// A newer version wrote this.
    #[error("{} has format {found}, newer than {known}: upgrade ledger", path.display())]
    Newer {
        /// File.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// Bytes that had been durable are not what was written.
    #[error("{}: event {seq} at byte {offset} is damaged: {what}", path.display())]
    Corrupt {
        /// Segment.
        path: PathBuf,
        /// Byte at which the frame should begin.
        offset: u64,
        /// Event that should stand there.
        seq: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The stored bytes of an event are no envelope.
    #[error("event {seq} cannot be decoded")]
    Decode {
        /// Event.
        seq: u64,
        /// What is wrong.
        source: CodecError,
    },
    /// The process that holds the notebook cannot be asked.
    #[error("{reason}")]
    Holder {
        /// What went wrong.
        reason: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Size and Merkle root of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Events in the log.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
}

/// What a writer in this process has acknowledged, for its readers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    acknowledged: AtomicU64,
    frontier: Mutex<Frontier>,
    grown: Condvar,
}

impl Shared {
    /// Begins with a log that is durable already.
    pub(crate) fn begin(frontier: Frontier) -> Self {
        let acknowledged = AtomicU64::new(frontier.size());
        Self { acknowledged, frontier: Mutex::new(frontier), grown: Condvar::new() }
    }

    /// Takes up events that are now durable.
    pub(crate) fn publish(&self, leaves: impl Iterator<Item = Hash>) {
        let mut held = locked(&self.frontier);
        leaves.for_each(|leaf| held.push_leaf(leaf));
        self.acknowledged.store(held.size(), Ordering::Release);
        self.grown.notify_all();
    }

    /// Waits until event `seq` is acknowledged, at most `timeout`.
    pub(crate) fn wait_beyond(&self, seq: u64, timeout: Duration) {
        let held = locked(&self.frontier);
        let waits = |frontier: &mut Frontier| frontier.size() <= seq;
        drop(self.grown.wait_timeout_while(held, timeout, waits));
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub(crate) fn head(&self) -> Head {
        let frontier = locked(&self.frontier);
        Head { size: frontier.size(), root: frontier.root() }
    }
}

/// Takes a mutex; the data behind it are caches that a panic cannot leave half right.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a notebook, whoever is writing to it meanwhile.
#[derive(Clone, Debug)]
pub struct Reader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    blobs: Blobs,
    /// Present in the process that writes: nothing beyond what it acknowledged is shown.
    shared: Option<Arc<Shared>>,
    offsets: Offsets,
    /// Grown on demand where there is no writer to ask.
    frontier: Mutex<Frontier>,
    /// The keys as the events before a number tell.
    keys: Mutex<(u64, KeyHistory)>,
}

/// Events of a segment from one whose place is remembered to the next.
const STRIDE: u64 = 64;

/// Where every [`STRIDE`]th event begins, by the first event of the segment, as far as it was
/// walked through.
type Offsets = Arc<Mutex<BTreeMap<u64, Vec<u64>>>>;

impl Reader {
    /// Opens the notebook in `dir`.
    ///
    /// # Errors
    /// When there is no notebook, or one of a newer layout.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let layout = Layout::new(dir);
        Config::read(&layout)?;
        Ok(Self::over(layout, None))
    }

    pub(crate) fn over(layout: Layout, shared: Option<Arc<Shared>>) -> Self {
        let blobs = Blobs::open(layout.dir());
        let inner = Inner {
            layout,
            blobs,
            shared,
            offsets: Offsets::default(),
            frontier: Mutex::default(),
            keys: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns size and root of the log.
    ///
    /// # Errors
    /// When the journal cannot be read or is damaged.
    pub fn head(&self) -> Result<Head, ReadError> {
        if let Some(shared) = &self.inner.shared {
            return Ok(shared.head());
        }
        let mut frontier = locked(&self.inner.frontier);
        if frontier.size() == 0 {
            *frontier = self.stored_frontier()?;
        }
        let mut events = self.frames(frontier.size());
        while let Some(frame) = events.next_frame()? {
            frontier.push_leaf(record_hash(&frame.event));
        }
        Ok(Head { size: frontier.size(), root: frontier.root() })
    }

    /// Takes the tree from its tiles, as far as they can be believed: their last leaf must be
    /// that of the journal, and the newest checkpoint must lie in them. Else the tree is empty.
    fn stored_frontier(&self) -> Result<Frontier, ReadError> {
        let (layout, none) = (&self.inner.layout, Frontier::default());
        let Ok(tiles) = Tiles::open_read_only(&layout.tree()) else { return Ok(none) };
        let Some(last) = tiles.size().checked_sub(1) else { return Ok(none) };
        let Ok(frontier) = tiles.frontier_at(last) else { return Ok(none) };
        let Some(event) = self.raw(last)? else { return Ok(none) };
        let (mut tree, leaf) = (frontier, record_hash(&event));
        tree.push_leaf(leaf);
        if tiles.root_at(tiles.size()).ok() != Some(tree.root()) {
            return Ok(none);
        }
        match checkpoint::own_latest(layout) {
            Some(signed) if signed.size <= tiles.size() => {
                Ok(if tiles.root_at(signed.size).ok() == Some(signed.root) { tree } else { none })
            }
            _ => Ok(tree),
        }
    }

    /// Iterates over the events from number `from` on, up to the present end of the log. An
    /// unfinished write at the very end is the end. Asked again after `None`, the iterator goes
    /// on with what was appended meanwhile.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn events(&self, from: u64) -> Result<Events, ReadError> {
        segments(&self.inner.layout.journal())?;
        Ok(Events { frames: self.frames(from), failed: false })
    }

    /// Returns an event, or `None` when there is none of that number yet.
    ///
    /// # Errors
    /// When the journal cannot be read or is damaged.
    pub fn get(&self, seq: u64) -> Result<Option<Envelope>, ReadError> {
        self.raw(seq)?.map(|bytes| decode(seq, &bytes)).transpose()
    }

    /// Returns the stored bytes of an event, or `None` when there is none of that number yet.
    ///
    /// # Errors
    /// When the journal cannot be read or is damaged.
    pub fn raw(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let frame = self.frames(seq).next_frame()?;
        Ok(frame.map(|frame| frame.event))
    }

    /// Returns the keys that signed this log, as its events tell.
    ///
    /// # Errors
    /// When the journal cannot be read, or its first event names no key.
    pub fn keys(&self) -> Result<KeyHistory, CheckpointError> {
        let mut known = locked(&self.inner.keys);
        let (next, history) = &mut *known;
        let mut frames = self.frames(*next);
        while let Some(frame) = frames.next_frame()? {
            let seq = frame.mark.seq;
            let outline = codec::outline(&frame.event);
            if outline.is_ok_and(|event| event.stream == "ledger") {
                match history.fold(&decode(seq, &frame.event)?) {
                    Err(error) if seq == 0 => return Err(error),
                    // A rotation that nobody vouches for changes nothing; `verify` tells of it.
                    _ => {}
                }
            }
            *next = seq + 1;
        }
        Ok(history.clone())
    }

    /// Returns the root over the first `size` events, from the stored tree or from the journal;
    /// `None` where the log is shorter.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn root_at(&self, size: u64) -> Result<Option<Digest>, ReadError> {
        let tiles = Tiles::open_read_only(&self.inner.layout.tree()).ok();
        if let Some(root) = tiles.and_then(|tiles| tiles.root_at(size).ok()) {
            return Ok(Some(root));
        }
        let mut tree = Frontier::default();
        let mut frames = self.frames(0);
        while tree.size() < size {
            let Some(frame) = frames.next_frame()? else { return Ok(None) };
            tree.push_leaf(record_hash(&frame.event));
        }
        Ok(Some(tree.root()))
    }

    /// Returns the newest checkpoint on this disk, with its signature checked.
    ///
    /// # Errors
    /// When it cannot be read, or is not signed by a key of this log.
    pub fn latest_checkpoint(&self) -> Result<Option<SignedCheckpoint>, CheckpointError> {
        let path = self.inner.layout.latest_checkpoint();
        let note = match std::fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::Io { path, source }),
        };
        checkpoint::open_by(&note, &self.keys()?).map(Some)
    }

    /// Returns the bodies beside the log.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Returns the notebook's directory.
    pub fn dir(&self) -> &Path {
        self.inner.layout.dir()
    }

    /// Returns what the writer in this process shares, where there is one.
    pub(crate) fn writer(&self) -> Option<Arc<Shared>> {
        self.inner.shared.clone()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn frames(&self, from: u64) -> Frames {
        Frames {
            layout: self.inner.layout.clone(),
            from,
            cursor: None,
            ready: VecDeque::new(),
            offsets: Arc::clone(&self.inner.offsets),
            shared: self.inner.shared.clone(),
        }
    }
}

fn decode(seq: u64, bytes: &[u8]) -> Result<Envelope, ReadError> {
    codec::decode(bytes).map_err(|source| ReadError::Decode { seq, source })
}

/// Iterates over events in order.
#[derive(Debug)]
pub struct Events {
    frames: Frames,
    failed: bool,
}

impl Iterator for Events {
    type Item = Result<Envelope, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.frames.next_frame().transpose()?;
        let event = next.and_then(|frame| decode(frame.mark.seq, &frame.event));
        self.failed = event.is_err();
        Some(event)
    }
}

/// Walks through the frames of all segments, whole batches at a time.
#[derive(Debug)]
pub(crate) struct Frames {
    layout: Layout,
    from: u64,
    cursor: Option<(u64, Cursor)>,
    ready: VecDeque<Frame>,
    offsets: Offsets,
    shared: Option<Arc<Shared>>,
}

/// Why a batch could not be read, and where.
struct Stop {
    what: &'static str,
    misplaced: bool,
    place: Place,
}

impl Frames {
    /// Returns the next frame, or `None` at the present end of the log.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            while let Some(frame) = self.ready.pop_front() {
                if frame.mark.seq < self.from {
                    continue;
                }
                let unknown =
                    self.shared.as_ref().is_some_and(|s| frame.mark.seq >= s.acknowledged());
                if unknown {
                    self.ready.push_front(frame);
                    return Ok(None);
                }
                return Ok(Some(frame));
            }
            if !self.is_current() && (self.advance()? || self.goes_on()?) {
                continue;
            }
            return Ok(None);
        }
    }

    /// Asked where the journal seems to end: `true` where it went on after all. An end before
    /// what is known to have been durable is damage, however clean it looks.
    fn goes_on(&mut self) -> Result<bool, ReadError> {
        // Taken first, so that what it counts can be read by now.
        let known = match &self.shared {
            Some(shared) => shared.acknowledged(),
            None => self.layout.known_events(),
        };
        let next = self.cursor.as_ref().map_or(0, |(_, cursor)| cursor.place().seq);
        if next.max(self.from) >= known {
            return Ok(false);
        }
        if self.advance()? {
            return Ok(true);
        }
        let what = "the journal ends before it, though it is known to have been there";
        Err(match &self.cursor {
            Some((_, cursor)) => cursor.corrupt(cursor.place(), what),
            None => ReadError::Corrupt { path: self.layout.journal(), offset: 0, seq: 0, what },
        })
    }

    /// Tells whether the writer in this process has acknowledged nothing beyond this place.
    fn is_current(&self) -> bool {
        let next = self.cursor.as_ref().map_or(0, |(_, cursor)| cursor.place().seq).max(self.from);
        self.shared.as_ref().is_some_and(|shared| next >= shared.acknowledged())
    }

    /// Reads one more batch, or enters the next segment. `false` at the end of the log.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let Some((first, mut cursor)) = self.cursor.take() else {
            return self.enter();
        };
        let outcome = self.advance_in(first, &mut cursor);
        // Entering another segment has put a new cursor in place.
        if self.cursor.is_none() {
            self.cursor = Some((first, cursor));
        }
        outcome
    }

    fn advance_in(&mut self, first: u64, cursor: &mut Cursor) -> Result<bool, ReadError> {
        if self.read_batch(first, cursor)?.is_ok() {
            return Ok(true);
        }
        // What was read ahead may be older than what stands there now.
        let Err(stop) = self.read_batch(first, cursor)? else {
            return Ok(true);
        };
        if stop.misplaced {
            return Err(cursor.corrupt(stop.place, stop.what));
        }
        let next =
            segments(&self.layout.journal())?.into_iter().find(|segment| segment.first > first);
        let Some(next) = next else {
            return self.at_tail(first, cursor);
        };
        // The writer may have filled this segment and begun the next one since we looked.
        let Err(stop) = self.read_batch(first, cursor)? else {
            return Ok(true);
        };
        if cursor.place().seq != next.first || stop.place != cursor.place() {
            return Err(cursor.corrupt(stop.place, stop.what));
        }
        self.cursor = Some((next.first, Cursor::open(&next.path, next.first)?));
        Ok(true)
    }

    /// Decides whether the log ends here or is damaged.
    fn at_tail(&mut self, first: u64, cursor: &mut Cursor) -> Result<bool, ReadError> {
        if cursor.tail()? != Tail::Damaged {
            return Ok(false);
        }
        // What a later frame proves to have been synced can be read by now, or never.
        match self.read_batch(first, cursor)? {
            Ok(()) => Ok(true),
            Err(stop) => Err(cursor.corrupt(stop.place, stop.what)),
        }
    }

    /// Reads a whole batch into `ready`, or leaves the cursor where the batch begins.
    fn read_batch(
        &mut self,
        first: u64,
        cursor: &mut Cursor,
    ) -> Result<Result<(), Stop>, ReadError> {
        let start = cursor.place();
        loop {
            let (what, misplaced) = match cursor.step()? {
                Step::Frame(frame) => {
                    let ends = frame.mark.rest == 0;
                    self.note(first, &frame);
                    self.ready.push_back(frame);
                    if !ends {
                        continue;
                    }
                    return Ok(Ok(()));
                }
                Step::End => ("nothing is written here", false),
                Step::Invalid(what) => (what, false),
                Step::Misplaced(what) => (what, true),
            };
            let place = cursor.place();
            // What stands of the batch is read again with the rest of it.
            self.ready.clear();
            cursor.go_to(start);
            return Ok(Err(Stop { what, misplaced, place }));
        }
    }

    /// Remembers where events begin.
    fn note(&self, first: u64, frame: &Frame) {
        if (frame.mark.seq - first).is_multiple_of(STRIDE) {
            let mut offsets = locked(&self.offsets);
            let known = offsets.entry(first).or_default();
            if frame.mark.seq == first + STRIDE * known.len() as u64 {
                known.push(frame.offset);
            }
        }
    }

    /// Enters the segment that holds event `from`, as near to it as is known.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let all = segments(&self.layout.journal())?;
        if let Some(Segment { first, path }) = all.first().filter(|s| s.first > 0) {
            let (path, what) = (path.clone(), "the segment before this one is missing");
            return Err(ReadError::Corrupt { path, offset: 0, seq: first - 1, what });
        }
        let Some(Segment { first, path }) = all.into_iter().rfind(|s| s.first <= self.from) else {
            return Ok(false);
        };
        let mut cursor = Cursor::open(&path, first)?;
        let nearest = {
            let offsets = locked(&self.offsets);
            let known = offsets.get(&first).map(Vec::as_slice).unwrap_or_default();
            let wanted = usize::try_from((self.from - first) / STRIDE).unwrap_or(usize::MAX);
            let index = wanted.min(known.len().saturating_sub(1));
            known.get(index).map(|&offset| (first + STRIDE * index as u64, offset))
        };
        if let Some((seq, offset)) = nearest {
            cursor.go_to_event(seq, offset);
        }
        self.cursor = Some((first, cursor));
        Ok(true)
    }
}
