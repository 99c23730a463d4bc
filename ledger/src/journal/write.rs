//! Writing the journal.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{SEGMENT_HEADER, SegmentHeader};
use super::segment_name;
use crate::durable::sync_dir;

/// The two calls that an acknowledgement rests on. Tests put a failing device in their place.
pub(crate) trait Device: Debug + Send + Sync {
    /// Writes all bytes at an offset.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written to a file durable.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The real device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk;

impl Device for Disk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }
}

/// The open end of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) file: File,
    pub(super) header: SegmentHeader,
    /// Where the next group is written.
    pub(super) offset: u64,
    /// Bytes that the segment was given.
    pub(super) size: u64,
    /// Number of the next event.
    pub(super) next: u64,
}

impl Journal {
    /// Returns the number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Returns what frames of the present segment are salted with.
    pub(crate) fn salt(&self) -> u32 {
        self.header.salt
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Tells whether `bytes` more fit into the present segment.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.offset.saturating_add(bytes) <= self.size
    }

    /// Makes room for `bytes`: begins a new segment, or enlarges one that is still empty.
    pub(crate) fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let needed = (SEGMENT_HEADER as u64).saturating_add(bytes).max(self.segment_bytes);
        if self.next == self.header.first {
            write_zeros(&self.file, self.size, needed)?;
            self.file.sync_all()?;
            self.size = needed;
            return Ok(());
        }
        *self = Self::begin(&self.dir, self.next, needed, self.segment_bytes)?;
        Ok(())
    }

    /// Makes a new segment. Under its final name it always has its header and its zeros.
    pub(super) fn begin(dir: &Path, first: u64, size: u64, segment_bytes: u64) -> io::Result<Self> {
        let mut salt = [0_u8; 4];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let header = SegmentHeader { salt: u32::from_le_bytes(salt), first };
        let path = dir.join(segment_name(first));
        let unfinished = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)?;
        file.write_all_at(&header.encode(), 0)?;
        write_zeros(&file, SEGMENT_HEADER as u64, size)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            segment_bytes,
            file,
            header,
            offset: SEGMENT_HEADER as u64,
            size,
            next: first,
        })
    }

    /// Writes a group of whole frames, `events` in all, and makes it durable.
    ///
    /// After an error nobody knows what is on disk: the journal must be opened again.
    pub(crate) fn write(
        &mut self,
        device: &dyn Device,
        group: &[u8],
        events: u64,
    ) -> io::Result<()> {
        device.write(&self.file, group, self.offset)?;
        device.sync(&self.file)?;
        self.offset += group.len() as u64;
        self.next += events;
        Ok(())
    }
}

/// Writes zeros from one offset to another, so that later writes change no metadata.
pub(super) fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0_u8; 256 * 1024];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    Ok(())
}
