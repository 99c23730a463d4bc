//! The ordered store behind the journal: events by number, and where each stream stands.
//!
//! It holds nothing that the journal does not hold, and is rebuilt from it when in doubt. All keys
//! stand in one tree, because a batch is atomic within one tree only:
//!
//! | key | value |
//! |---|---|
//! | `e` seq (u64, big endian) | stored bytes of the event |
//! | `s` stream | of its last event: number, version (u64, big endian), leaf hash |
//! | `n` | events applied (u64, big endian) |
//! | `w` | the watermark: see [`Watermark`] |

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::id::Digest;
use crate::plan::StreamHead;

/// Entries per leaf: 1 KiB events make leaves of 64 KiB, which are read and written whole.
const LEAF_FANOUT: usize = 64;
/// How long the store's own lock may be shared by a process that was just forked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long opening the store anew may take.
const RENEWAL: Duration = Duration::from_secs(30);
/// Flushes until nothing is left to write.
const FLUSHES_MAX: u32 = 16;
/// Bytes of the store's cache.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Bytes after which the database is opened anew: see [`Store::flush`]. Few where assertions are
/// checked, so that every test of the notebook goes through it again and again.
const RENEW_BYTES: u64 = if cfg!(debug_assertions) { 256 * 1024 } else { 32 * 1024 * 1024 };
/// Bytes that an entry takes in memory beside its key's text and its value.
const ENTRY_BYTES: u64 = 64;

/// Says why the store failed. It never costs an event: the journal has them all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store behind the journal failed: {0}")]
pub(crate) struct StoreError(String);

impl StoreError {
    /// There is no store.
    pub(crate) fn missing() -> Self {
        Self("it is missing".to_owned())
    }

    fn closed() -> Self {
        Self("it is closed".to_owned())
    }

    fn is_locked(&self) -> bool {
        self.0.contains(&io::Error::from(rustix::io::Errno::WOULDBLOCK).to_string())
    }
}

/// One event with all that the store keeps of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied<'a> {
    pub(crate) seq: u64,
    pub(crate) stream: &'a str,
    pub(crate) version: u64,
    pub(crate) leaf: Digest,
    pub(crate) bytes: &'a [u8],
}

impl Applied<'_> {
    /// What the store keeps of it as the last event of its stream.
    fn head(&self) -> Vec<u8> {
        let mut head = self.seq.to_be_bytes().to_vec();
        head.extend_from_slice(&self.version.to_be_bytes());
        head.extend_from_slice(self.leaf.as_bytes());
        head
    }
}

/// What was durable when the last completed flush began: 44 bytes, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// Events.
    pub(crate) size: u64,
    /// RFC 6962 root over them.
    pub(crate) root: Digest,
    /// CRC-32C of their part of the file of request ids.
    pub(crate) ids: u32,
}

impl Watermark {
    fn encode(self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&self.ids.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 44] = bytes.try_into().ok()?;
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (root, ids) = rest.split_first_chunk::<32>()?;
        Some(Self {
            size: u64::from_be_bytes(*size),
            root: Digest::from_bytes(*root),
            ids: u32::from_be_bytes(ids.try_into().ok()?),
        })
    }
}

/// A handle of the open database. Each thread has its own: sled's is not shared, but cloned.
#[derive(Clone)]
struct Handle {
    /// `None` only while it is dropped.
    db: Option<sled::Db<LEAF_FANOUT>>,
    /// Something failed, and nothing more is asked of it: after a failed flush sled waits for ever
    /// for the flush to end, also when it is dropped.
    failed: Arc<AtomicBool>,
}

/// The handle that a reader shares with whoever opens the store anew.
#[derive(Default)]
struct Lent {
    place: Mutex<Place>,
    changed: Condvar,
}

/// What stands in the reader's place.
#[derive(Default)]
enum Place {
    /// The store is gone, has failed, or was never lent.
    #[default]
    Empty,
    /// It is being opened anew.
    Away,
    Here(Box<Handle>),
}

impl Lent {
    /// Takes the lock. Nothing panics while it is held: see [`guarded`].
    fn hold(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the handle that stands there; whoever asks waits from now on.
    fn take(&self) -> Option<Box<Handle>> {
        match mem::replace(&mut *self.hold(), Place::Away) {
            Place::Here(handle) => Some(handle),
            Place::Empty | Place::Away => None,
        }
    }

    fn put(&self, place: Place) {
        *self.hold() = place;
        self.changed.notify_all();
    }
}

/// The open store.
pub(crate) struct Store {
    path: PathBuf,
    /// `None` only after the database could not be opened anew.
    handle: Option<Handle>,
    lent: Arc<Lent>,
    /// Bytes that were applied since the database was opened.
    taken: u64,
}

/// Asks the store from another thread, across its being opened anew.
pub(crate) struct StoreReader {
    lent: Arc<Lent>,
}

/// Runs something in sled, whose assertions panic.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StoreError(format!("panicked: {}", text.unwrap_or("without a message"))))
        }
    }
}

fn key(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?))
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// Drops handles of the database on a thread of its own: where sled does not come back from that,
/// it is left to itself.
fn dropped_in_time(handles: Vec<Option<Handle>>) -> Result<(), StoreError> {
    let (done, is_done) = std::sync::mpsc::channel();
    let dropper = std::thread::Builder::new().name("ledger-store-drop".to_owned());
    let dropper = dropper.spawn(move || {
        drop(handles);
        let _ = done.send(());
    });
    dropper.map_err(|error| StoreError(error.to_string()))?;
    let stuck = |_| StoreError("it could not be closed".to_owned());
    is_done.recv_timeout(RENEWAL).map_err(stuck)
}

/// Says whether the last opening of the database ended before it had made its first log. sled
/// 1.0.0-alpha.124 would then take the snapshot that it finds for an old one as well, and remove
/// it: later openings would lack most of what is there.
fn was_cut_short(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path.join("metadata")) else { return false };
    let (mut log, mut snapshot) = (None, None);
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let id = |prefix: &str| u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok();
        log = log.max(id("log_"));
        snapshot = snapshot.max(id("snapshot_"));
    }
    snapshot.is_some() && log <= snapshot
}

impl Handle {
    fn open(path: &Path) -> Result<Self, StoreError> {
        if was_cut_short(path) {
            return Err(StoreError("its last opening was cut short".to_owned()));
        }
        let config =
            sled::Config::new().path(path).cache_capacity_bytes(CACHE_BYTES).flush_every_ms(None);
        let until = Instant::now() + PATIENCE;
        loop {
            match guarded(|| config.open::<LEAF_FANOUT>()) {
                Ok(db) => return Ok(Self { db: Some(db), failed: Arc::default() }),
                // Nobody else opens it while we hold the notebook's lock; but a process that was
                // just forked shares its open files for a moment.
                Err(error) if error.is_locked() && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Does something with the open database.
    fn with<T>(
        &self,
        work: impl FnOnce(&sled::Db<LEAF_FANOUT>) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let db = self.db.as_ref().ok_or_else(StoreError::closed)?;
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError("it failed before".to_owned()));
        }
        guarded(|| work(db)).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    /// Returns the number of a stream's last event, and where the stream stands.
    fn stream(&self, stream: &str) -> Result<Option<(u64, StreamHead)>, StoreError> {
        let Some(value) = self.get(&key(b's', stream.as_bytes()))? else { return Ok(None) };
        let head = || {
            let (seq, rest) = value.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*seq), (number(rest)?, digest(rest.get(8..)?)?)))
        };
        let wrong = || StoreError(format!("the head of stream {stream} has another form"));
        head().ok_or_else(wrong).map(Some)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // sled flushes when a handle is dropped, and may panic doing so.
        let db = self.db.take();
        if self.failed.load(Ordering::Acquire) {
            // Its memory and files are given back when the process ends.
            mem::forget(db);
            return;
        }
        let _ = guarded(move || {
            drop(db);
            Ok(())
        });
    }
}

impl StoreReader {
    /// Returns the number of a stream's last event, and where the stream stands. Waits while the
    /// store is opened anew, but not for ever.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<(u64, StreamHead)>, StoreError> {
        let until = Instant::now() + RENEWAL;
        let mut place = self.lent.hold();
        loop {
            match &*place {
                Place::Here(handle) => return handle.stream(stream),
                Place::Empty => return Err(StoreError::closed()),
                Place::Away => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError("it is still being opened anew".to_owned()));
            }
            let waited = self.lent.changed.wait_timeout(place, left);
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Store {
    /// Opens the store and returns its watermark and how many events it holds. An error means
    /// that it should be set aside and rebuilt.
    pub(crate) fn open(path: &Path) -> Result<(Self, Watermark, u64), StoreError> {
        let store = Self::connect(path)?;
        let short = |what: &str| Err(StoreError(what.to_owned()));
        let Some(mark) = store.watermark()? else {
            return short("it is empty");
        };
        let applied = store.get(&key(b'n', &[]))?.and_then(|value| number(&value));
        let Some(applied) = applied.filter(|&applied| applied >= mark.size) else {
            return short("it is shorter than its last completed flush");
        };
        Ok((store, mark, applied))
    }

    /// Makes an empty store.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(path)?;
        if store.watermark()?.is_some() {
            return Err(StoreError("a store exists already".to_owned()));
        }
        store.with(|db| db.insert(key(b'n', &[]), 0_u64.to_be_bytes()).map(drop))?;
        let mark = Watermark { size: 0, root: Digest::of(b""), ids: 0 };
        store.flush_noted(mark)?;
        Ok(store)
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let handle = Some(Handle::open(path)?);
        Ok(Self { path: path.to_owned(), handle, lent: Arc::default(), taken: 0 })
    }

    /// Lends a handle to another thread.
    pub(crate) fn reader(&self) -> StoreReader {
        let handle = self.handle.clone().map(Box::new);
        self.lent.put(handle.map_or(Place::Empty, Place::Here));
        StoreReader { lent: Arc::clone(&self.lent) }
    }

    /// Does something with the open database.
    fn with<T>(
        &self,
        work: impl FnOnce(&sled::Db<LEAF_FANOUT>) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.handle.as_ref().ok_or_else(StoreError::closed)?.with(work)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.handle.as_ref().ok_or_else(StoreError::closed)?.get(key)
    }

    fn watermark(&self) -> Result<Option<Watermark>, StoreError> {
        Ok(self.get(&key(b'w', &[]))?.and_then(|value| Watermark::decode(&value)))
    }

    /// Returns the number of a stream's last event, and where the stream stands.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<(u64, StreamHead)>, StoreError> {
        self.handle.as_ref().ok_or_else(StoreError::closed)?.stream(stream)
    }

    /// Returns the stored bytes of an event.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&key(b'e', &seq.to_be_bytes()))
    }

    /// Adds events, in order. Adding one again changes nothing.
    pub(crate) fn apply(&mut self, rows: &[Applied<'_>]) -> Result<(), StoreError> {
        let Some(last) = rows.last() else { return Ok(()) };
        let mut batch = sled::Batch::default();
        let mut heads = BTreeMap::new();
        for row in rows {
            batch.insert(key(b'e', &row.seq.to_be_bytes()), row.bytes);
            heads.insert(row.stream, row);
            self.taken += row.bytes.len() as u64 + ENTRY_BYTES;
        }
        for (stream, row) in heads {
            batch.insert(key(b's', stream.as_bytes()), row.head());
            self.taken += stream.len() as u64 + ENTRY_BYTES;
        }
        batch.insert(key(b'n', &[]), (last.seq + 1).to_be_bytes());
        self.with(|db| db.apply_batch(batch))
    }

    /// Tells whether it holds so much in memory that it should be flushed.
    pub(crate) fn is_full(&self) -> bool {
        self.taken >= RENEW_BYTES
    }

    /// Makes everything applied durable, then notes how much that was. The note itself is durable
    /// from the next flush on, so it never says more than is true. A full store is opened anew.
    pub(crate) fn flush(&mut self, mark: Watermark) -> Result<(), StoreError> {
        if !self.is_full() {
            return self.flush_once(mark);
        }
        self.flush_noted(mark)?;
        self.settle()?;
        self.renew(mark)
    }

    fn flush_once(&self, mark: Watermark) -> Result<(), StoreError> {
        self.with(|db| {
            db.flush()?;
            db.insert(key(b'w', &[]), mark.encode()).map(drop)
        })
    }

    /// Flushes twice, so that the note of the first flush is durable too.
    pub(crate) fn flush_noted(&self, mark: Watermark) -> Result<(), StoreError> {
        self.flush_once(mark)?;
        self.with(|db| db.flush().map(drop))
    }

    /// Flushes until nothing is left to write, also of what sled moves to save space: a flush that
    /// fails while the database is dropped is told to nobody, and the next would wait for ever.
    fn settle(&self) -> Result<(), StoreError> {
        let (mut idle, mut rounds) = (0, 0);
        while idle < 2 && rounds < FLUSHES_MAX {
            let written = self.with(|db| Ok(db.flush()?.objects_flushed))?;
            idle = if written == 0 { idle + 1 } else { 0 };
            rounds += 1;
        }
        Ok(())
    }

    /// Opens the database anew, to give its memory back: sled 1.0.0-alpha.124 never lets go of a
    /// leaf that was written since the database was opened, whatever its cache may hold. All that
    /// was applied must be durable, and `mark` what was noted of it. Whoever asks through a reader
    /// waits. Where anything is wrong the store has failed.
    fn renew(&mut self, mark: Watermark) -> Result<(), StoreError> {
        // sled has the whole system synced when it opens: most of it is done before anybody waits.
        rustix::fs::sync();
        let lent = self.lent.take().map(|handle| *handle);
        let was_lent = lent.is_some();
        let old = self.handle.take();
        let renewed = dropped_in_time(vec![lent, old]).and_then(|()| self.same_as_before(mark));
        match renewed {
            Ok(handle) => {
                let place =
                    if was_lent { Place::Here(Box::new(handle.clone())) } else { Place::Empty };
                self.handle = Some(handle);
                self.taken = 0;
                self.lent.put(place);
                Ok(())
            }
            Err(error) => {
                self.lent.put(Place::Empty);
                Err(error)
            }
        }
    }

    /// Opens the database and checks that it is the one that was closed. One whose folder was
    /// moved away would be empty, and tell of streams that there are that there are none.
    fn same_as_before(&self, mark: Watermark) -> Result<Handle, StoreError> {
        let handle = Handle::open(&self.path)?;
        let noted = handle.get(&key(b'w', &[]))?.and_then(|value| Watermark::decode(&value));
        let applied = handle.get(&key(b'n', &[]))?.and_then(|value| number(&value));
        let first = handle.get(&key(b'e', &0_u64.to_be_bytes()))?;
        if noted == Some(mark) && applied == Some(mark.size) && first.is_some() {
            return Ok(handle);
        }
        handle.failed.store(true, Ordering::Release);
        Err(StoreError("what was opened anew is not what was closed".to_owned()))
    }

    /// Calls `visit` with each event in order.
    pub(crate) fn visit_events(&self, mut visit: impl FnMut(u64, &[u8])) -> Result<(), StoreError> {
        self.with(|db| {
            for entry in db.scan_prefix(b"e") {
                let (key, value) = entry?;
                let seq = key.get(1..).and_then(number).unwrap_or(u64::MAX);
                visit(seq, &value);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
