//! The ordered store behind the journal: events, request ids, stream heads and tree nodes by key.
//!
//! It holds nothing that the journal does not hold, and is rebuilt from it when in doubt. All keys
//! stand in one tree, because a batch is atomic within one tree only:
//!
//! | key | value |
//! |---|---|
//! | `e` seq (u64, big endian) | stored bytes of the event |
//! | `i` request id | seq (u64, big endian) |
//! | `s` stream | version (u64, big endian), SHA-256 of the stored bytes of its last event |
//! | `h` place (u64, big endian) | node of the Merkle tree at that place in tlog order |
//! | `n` | events applied (u64, big endian) |
//! | `w` | events applied when the last completed flush began, and the root over them |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tlog_tiles::Hash;

use crate::id::Digest;
use crate::merkle::{Frontier, Node, peaks_of};

/// Entries per leaf: 1 KiB events make leaves of 64 KiB, which are read and written whole.
const LEAF_FANOUT: usize = 64;
/// Bytes of the store's cache.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Says why the store failed. It never costs an event: the journal has them all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store behind the journal failed: {0}")]
pub(crate) struct StoreError(String);

/// One event with all that is kept of it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) nodes: Vec<Node>,
}

/// The open store.
pub(crate) struct Store {
    db: Option<sled::Db<LEAF_FANOUT>>,
    applied: u64,
    flushed: u64,
}

/// Runs something in sled, whose assertions panic.
fn guarded<T>(work: impl FnOnce() -> std::io::Result<T>) -> Result<T, StoreError> {
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
    /// Opens the store and checks that it holds together. An error means that it should be set
    /// aside and rebuilt.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::connect(path)?;
        let short = |what: &str| Err(StoreError(what.to_owned()));
        let Some((flushed, root)) = store.watermark()? else {
            return short("it is empty");
        };
        let applied = store.get(&key(b'n', &[]))?.and_then(|value| number(&value));
        let Some(applied) = applied.filter(|&applied| applied >= flushed) else {
            return short("it is shorter than its last completed flush");
        };
        store.applied = applied;
        store.flushed = flushed;
        if store.frontier(flushed)?.root() != root {
            return short("its tree nodes do not add up to its root");
        }
        Ok(store)
    }

    /// Makes an empty store.
    pub(crate) fn create(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::connect(path)?;
        if store.watermark()?.is_some() {
            return Err(StoreError("a store exists already".to_owned()));
        }
        store.put(&key(b'n', &[]), &0_u64.to_be_bytes())?;
        store.flush_noted(&Frontier::default())?;
        Ok(store)
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let config =
            sled::Config::new().path(path).cache_capacity_bytes(CACHE_BYTES).flush_every_ms(None);
        let db = guarded(|| config.open::<LEAF_FANOUT>())?;
        Ok(Self { db: Some(db), applied: 0, flushed: 0 })
    }

    fn db(&self) -> Result<&sled::Db<LEAF_FANOUT>, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError("it is closed".to_owned()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        guarded(|| db.get(key)).map(|value| value.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let db = self.db()?;
        guarded(|| db.insert(key, value)).map(|_| ())
    }

    /// Returns how many events are in the store.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Returns how many events were in the store at its last completed flush.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed
    }

    fn watermark(&self) -> Result<Option<(u64, Digest)>, StoreError> {
        let value = self.get(&key(b'w', &[]))?;
        Ok(value.and_then(|value| Some((number(&value)?, digest(value.get(8..)?)?))))
    }

    /// Takes up the Merkle tree of the first `size` events.
    pub(crate) fn frontier(&self, size: u64) -> Result<Frontier, StoreError> {
        let mut peaks = Vec::new();
        for place in peaks_of(size) {
            let node = self.get(&key(b'h', &place.to_be_bytes()))?;
            let node = node.and_then(|node| <[u8; 32]>::try_from(node).ok());
            peaks.push(Hash(node.ok_or_else(|| StoreError("a tree node is missing".to_owned()))?));
        }
        Ok(Frontier::resume(size, peaks))
    }

    /// Returns the last version of a stream and the digest of its last event.
    pub(crate) fn stream(&self, stream: &str) -> Result<Option<(u64, Digest)>, StoreError> {
        let value = self.get(&key(b's', stream.as_bytes()))?;
        Ok(value.and_then(|value| Some((number(&value)?, digest(value.get(8..)?)?))))
    }

    /// Returns the event that was appended under a request id.
    pub(crate) fn seq_of(&self, id: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.get(&key(b'i', id.as_bytes()))?.and_then(|value| number(&value)))
    }

    /// Returns the stored bytes of an event.
    pub(crate) fn event(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&key(b'e', &seq.to_be_bytes()))
    }

    /// Adds events. Adding one again changes nothing.
    pub(crate) fn apply(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let Some(last) = rows.last() else { return Ok(()) };
        let mut batch = sled::Batch::default();
        for row in rows {
            let seq = row.seq.to_be_bytes();
            batch.insert(key(b'e', &seq), row.bytes.as_slice());
            batch.insert(key(b'i', row.id.as_bytes()), seq);
            let mut head = row.version.to_be_bytes().to_vec();
            head.extend_from_slice(row.digest.as_bytes());
            batch.insert(key(b's', row.stream.as_bytes()), head);
            for (place, node) in &row.nodes {
                batch.insert(key(b'h', &place.to_be_bytes()), node.0);
            }
        }
        let applied = last.seq + 1;
        batch.insert(key(b'n', &[]), applied.to_be_bytes());
        let db = self.db()?;
        guarded(|| db.apply_batch(batch))?;
        self.applied = applied;
        Ok(())
    }

    /// Makes everything applied durable, then notes how much that was. The note itself is durable
    /// from the next flush on, so it never says more than is true.
    pub(crate) fn flush(&mut self, frontier: &Frontier) -> Result<(), StoreError> {
        let db = self.db()?;
        guarded(|| db.flush())?;
        let mut mark = frontier.size().to_be_bytes().to_vec();
        mark.extend_from_slice(frontier.root().as_bytes());
        self.put(&key(b'w', &[]), &mark)?;
        self.flushed = frontier.size();
        Ok(())
    }

    /// Flushes twice, so that the note of the first flush is durable too.
    pub(crate) fn flush_noted(&mut self, frontier: &Frontier) -> Result<(), StoreError> {
        self.flush(frontier)?;
        let db = self.db()?;
        guarded(|| db.flush()).map(|_| ())
    }

    /// Calls `visit` with each event in order.
    pub(crate) fn visit_events(&self, mut visit: impl FnMut(u64, &[u8])) -> Result<(), StoreError> {
        let db = self.db()?;
        guarded(|| {
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
        // sled flushes when it is dropped, and may panic doing so.
        let db = self.db.take();
        let _ = guarded(move || {
            drop(db);
            Ok(())
        });
    }
}
