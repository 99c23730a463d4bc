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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::id::Digest;
use crate::plan::StreamHead;

/// Entries per leaf: 1 KiB events make leaves of 64 KiB, which are read and written whole.
const LEAF_FANOUT: usize = 64;
/// How long the store's own lock may be shared by a process that was just forked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the store's cache.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Says why the store failed. It never costs an event: the journal has them all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store behind the journal failed: {0}")]
pub(crate) struct StoreError(String);

impl StoreError {
    /// There is no store.
    pub(crate) fn missing() -> Self {
        Self("it is missing".to_owned())
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

/// The open store. Each thread has its own handle: sled's is not shared, but cloned.
#[derive(Clone)]
pub(crate) struct Store {
    /// `None` only while it is dropped.
    db: Option<sled::Db<LEAF_FANOUT>>,
    /// Something failed, and nothing more is asked of it: after a failed flush sled waits for ever
    /// for the flush to end, also when it is dropped.
    failed: Arc<AtomicBool>,
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
        let db = self.db.as_ref().ok_or_else(|| StoreError("it is closed".to_owned()))?;
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError("it failed before".to_owned()));
        }
        guarded(|| work(db)).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn watermark(&self) -> Result<Option<Watermark>, StoreError> {
        Ok(self.get(&key(b'w', &[]))?.and_then(|value| Watermark::decode(&value)))
    }

    /// Returns the number of a stream's last event, and where the stream stands.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<(u64, StreamHead)>, StoreError> {
        let Some(value) = self.get(&key(b's', stream.as_bytes()))? else { return Ok(None) };
        let head = || {
            let (seq, rest) = value.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*seq), (number(rest)?, digest(rest.get(8..)?)?)))
        };
        let wrong = || StoreError(format!("the head of stream {stream} has another form"));
        head().ok_or_else(wrong).map(Some)
    }

    /// Returns the stored bytes of an event.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&key(b'e', &seq.to_be_bytes()))
    }

    /// Adds events, in order. Adding one again changes nothing.
    pub(crate) fn apply(&self, rows: &[Applied<'_>]) -> Result<(), StoreError> {
        let Some(last) = rows.last() else { return Ok(()) };
        let mut batch = sled::Batch::default();
        let mut heads = BTreeMap::new();
        for row in rows {
            batch.insert(key(b'e', &row.seq.to_be_bytes()), row.bytes);
            heads.insert(row.stream, row);
        }
        for (stream, row) in heads {
            batch.insert(key(b's', stream.as_bytes()), row.head());
        }
        batch.insert(key(b'n', &[]), (last.seq + 1).to_be_bytes());
        self.with(|db| db.apply_batch(batch))
    }

    /// Makes everything applied durable, then notes how much that was. The note itself is durable
    /// from the next flush on, so it never says more than is true.
    pub(crate) fn flush(&self, mark: Watermark) -> Result<(), StoreError> {
        self.with(|db| {
            db.flush()?;
            db.insert(key(b'w', &[]), mark.encode()).map(drop)
        })
    }

    /// Flushes twice, so that the note of the first flush is durable too.
    pub(crate) fn flush_noted(&self, mark: Watermark) -> Result<(), StoreError> {
        self.flush(mark)?;
        self.with(|db| db.flush().map(drop))
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

impl Drop for Store {
    fn drop(&mut self) {
        // sled flushes when its last handle is dropped, and may panic doing so.
        let db = self.db.take();
        if self.failed.load(Ordering::Acquire) {
            // Its memory and files are given back when the process ends.
            std::mem::forget(db);
            return;
        }
        let _ = guarded(move || {
            drop(db);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Keys and values as every later version must read them, or rebuild.
    #[test]
    fn the_stored_forms_are_as_documented() {
        let row =
            Applied { seq: 258, stream: "s", version: 3, leaf: Digest::of(b"x"), bytes: b"e" };
        let mark = Watermark { size: 258, root: Digest::of(b"r"), ids: 0x0102_0304 };
        let head = format!("00000000000001020000000000000003{}", Digest::of(b"x"));
        assert_eq!(hex(&row.head()), head);
        let noted = format!("0000000000000102{}01020304", Digest::of(b"r"));
        assert_eq!(hex(&mark.encode()), noted);
        assert_eq!(Watermark::decode(&mark.encode()), Some(mark));
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store")).unwrap();
        store.apply(&[row]).unwrap();
        assert_eq!(store.get(b"e\0\0\0\0\0\0\x01\x02").unwrap().unwrap(), b"e");
        assert_eq!(hex(&store.get(b"ss").unwrap().unwrap()), head);
        assert_eq!(hex(&store.get(b"n").unwrap().unwrap()), "0000000000000103");
        assert_eq!(store.stream("s").unwrap(), Some((258, (3, Digest::of(b"x")))));
    }
}
