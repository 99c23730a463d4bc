//! Which event stands under a request id: eight bytes of hash per event, in a file and in memory.
//!
//! A request id is looked up at every append, and nearly always is not there. An ordered store
//! answers that slowly (each id falls on another leaf), so the ids have a table of their own: the
//! first eight bytes of the SHA-256 of each event's id, at byte `8 * seq` of the file, little
//! endian, and the same in memory by hash. A hash only proposes events; the stored bytes decide.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::device::{Device, Disk};
use crate::id::Digest;

/// Bytes that an event takes in the file.
const WIDTH: u64 = 8;
/// Bytes that are read at a time.
const CHUNK: u64 = 1024 * 1024;

/// Returns the hash by which an id is found.
pub(crate) fn hash_of(id: &str) -> u64 {
    let digest = Digest::of(id.as_bytes());
    let first = digest.as_bytes().first_chunk::<8>();
    u64::from_le_bytes(first.copied().unwrap_or_default())
}

/// Passes a hash through: its bits are as good as random already.
#[derive(Default)]
pub(crate) struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Events by the hash of their request id.
#[derive(Default)]
pub(crate) struct IdTable {
    first: HashMap<u64, u64, BuildHasherDefault<Passed>>,
    /// Further events whose ids have the hash of another.
    more: Vec<(u64, u64)>,
}

impl IdTable {
    /// Notes an event.
    pub(crate) fn add(&mut self, hash: u64, seq: u64) {
        match self.first.entry(hash) {
            Entry::Vacant(place) => drop(place.insert(seq)),
            Entry::Occupied(_) => self.more.push((hash, seq)),
        }
    }

    /// Returns the events that may have the id of that hash.
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u64> {
        let first = self.first.get(&hash).copied();
        // The list of the others is empty unless somebody made two ids with one hash on purpose.
        let found = if first.is_some() { self.more.as_slice() } else { &[] };
        let more = found.iter().filter(move |(other, _)| *other == hash).map(|(_, seq)| *seq);
        first.into_iter().chain(more)
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct IdFile {
    file: File,
    device: Arc<dyn Device>,
    size: u64,
    /// CRC-32C of everything up to `size`.
    sum: u32,
}

impl IdFile {
    /// Opens the file, making it where there is none, and cuts it to `size` events; hands each
    /// hash to `visit`. `None` where it holds fewer.
    pub(crate) fn open(
        path: &Path,
        size: u64,
        visit: impl FnMut(u64, u64),
    ) -> io::Result<Option<Self>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let opened = Self::take(file, size, visit)?;
        if let Some(opened) = &opened {
            opened.file.set_len(size * WIDTH)?;
        }
        Ok(opened)
    }

    /// Reads the file's first `size` events without changing it.
    pub(crate) fn read(
        path: &Path,
        size: u64,
        visit: impl FnMut(u64, u64),
    ) -> io::Result<Option<Self>> {
        Self::take(File::open(path)?, size, visit)
    }

    fn take(file: File, size: u64, mut visit: impl FnMut(u64, u64)) -> io::Result<Option<Self>> {
        let wanted = size * WIDTH;
        if file.metadata()?.len() < wanted {
            return Ok(None);
        }
        let mut opened = Self { file, device: Arc::new(Disk), size: 0, sum: 0 };
        let mut buffer = vec![0_u8; usize::try_from(CHUNK.min(wanted)).unwrap_or_default()];
        let mut at = 0;
        while at < wanted {
            let length = usize::try_from((wanted - at).min(CHUNK)).unwrap_or_default();
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            opened.file.read_exact_at(chunk, at)?;
            opened.sum = crc32c::crc32c_append(opened.sum, chunk);
            for (seq, hash) in (at / WIDTH..).zip(chunk.as_chunks::<8>().0) {
                visit(seq, u64::from_le_bytes(*hash));
            }
            at += length as u64;
        }
        opened.size = size;
        Ok(Some(opened))
    }

    /// Writes to a device from here on.
    pub(crate) fn on(self, device: Arc<dyn Device>) -> Self {
        Self { device, ..self }
    }

    /// Adds events. Nothing is synced.
    pub(crate) fn append(&mut self, hashes: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.device.write(&self.file, &bytes, self.size * WIDTH)?;
        self.size += hashes.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        Ok(())
    }

    /// Makes everything added durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.device.sync(&self.file)
    }

    /// Returns the checksum over all events.
    pub(crate) fn sum(&self) -> u32 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_added_is_found_again_and_the_file_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let hashes: Vec<u64> = (0..300_000).map(|n| hash_of(&format!("id-{n}"))).collect();
        let mut file = IdFile::open(&path, 0, |_, _| ()).unwrap().unwrap();
        file.append(&hashes[..100]).unwrap();
        file.append(&hashes[100..]).unwrap();
        file.sync().unwrap();
        let mut table = IdTable::default();
        let again = IdFile::open(&path, 250_000, |seq, hash| table.add(hash, seq)).unwrap();
        let bytes: Vec<u8> = hashes[..250_000].iter().flat_map(|hash| hash.to_le_bytes()).collect();
        assert_eq!(again.unwrap().sum(), crc32c::crc32c(&bytes));
        assert_eq!(table.find(hash_of("id-7")).collect::<Vec<_>>(), [7]);
        assert_eq!(table.find(hash_of("id-249999")).collect::<Vec<_>>(), [249_999]);
        assert_eq!(table.find(hash_of("id-250000")).count(), 0);
        assert_eq!(path.metadata().unwrap().len(), 2_000_000);
        // SHA-256 of "id-0" begins with these bytes.
        let first = *Digest::of(b"id-0").as_bytes().first_chunk::<8>().unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..8], first);
        assert!(IdFile::open(&path, 250_001, |_, _| ()).unwrap().is_none());
    }

    #[test]
    fn events_with_one_hash_are_all_proposed() {
        let mut table = IdTable::default();
        for seq in [3, 5, 9] {
            table.add(42, seq);
        }
        table.add(43, 4);
        assert_eq!(table.find(42).collect::<Vec<_>>(), [3, 5, 9]);
        assert_eq!(table.find(43).collect::<Vec<_>>(), [4]);
        assert_eq!(table.find(44).count(), 0);
    }
}
