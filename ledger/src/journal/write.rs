//! Writing the journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::{FallocateFlags, fallocate};

use super::frame::{FRAME_HEADER, Mark, SEGMENT_HEADER, SegmentHeader, push_frame, seal_frame};
use super::segment_name;
use crate::device::Device;

/// How much larger than the first a segment may become.
const GROWTH: u64 = 4;
/// Mean bytes of a group from which on the next segment is not filled with zeros: zeros make the
/// sync of a small group cheap, but beside large groups they only take half of the disk's rate.
const LARGE_GROUP: u64 = 32 * 1024;

/// The open end of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) dir: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) segment_bytes: u64,
    pub(super) file: File,
    pub(super) header: SegmentHeader,
    /// Where the next group is written.
    pub(super) offset: u64,
    /// Bytes that the segment was given.
    pub(super) size: u64,
    /// Number of the next event.
    pub(super) next: u64,
    /// Groups in this segment since it was begun or opened, and their bytes.
    pub(super) groups: (u64, u64),
    /// The file of the next segment, made while this one fills.
    pub(super) spare: Option<JoinHandle<io::Result<Spare>>>,
}

/// A synced file that reads as zeros and will be a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Spare {
    /// Makes the file under a name that opening sweeps away. `written` says whether its zeros
    /// are written, or its space is only set aside where the file system can do that.
    fn make(dir: &Path, size: u64, written: bool, device: &dyn Device) -> io::Result<Self> {
        let path = dir.join("spare.new");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        if written || fallocate(&file, FallocateFlags::empty(), 0, size).is_err() {
            write_zeros(device, &file, 0, size)?;
        }
        device.sync(&file)?;
        Ok(Self { file, path, size })
    }
}

impl Journal {
    /// Returns the number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Makes a new segment. Under its final name it always has its header and its zeros.
    pub(super) fn begin(
        dir: &Path,
        first: u64,
        segment_bytes: u64,
        device: Arc<dyn Device>,
    ) -> io::Result<Self> {
        let spare = Spare::make(dir, segment_bytes, true, device.as_ref())?;
        Self::begin_in(spare, first, segment_bytes, device)
    }

    fn begin_in(
        spare: Spare,
        first: u64,
        segment_bytes: u64,
        device: Arc<dyn Device>,
    ) -> io::Result<Self> {
        let mut salt = [0_u8; 4];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let header = SegmentHeader::new(u32::from_le_bytes(salt), first);
        let Spare { file, path, size } = spare;
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        device.write(&file, &header.encode(), 0)?;
        device.sync(&file)?;
        device.rename(&path, &dir.join(segment_name(first)))?;
        device.sync_dir(&dir)?;
        Ok(Self {
            dir,
            device,
            segment_bytes,
            file,
            header,
            offset: SEGMENT_HEADER as u64,
            size,
            next: first,
            groups: (0, 0),
            spare: None,
        })
    }

    /// Writes a group of whole frames, `events` in all, and makes it durable. A group never spans
    /// segments: one that is too long for the rest of a segment makes the segment longer, or
    /// begins the next one where little is left.
    ///
    /// After an error nobody knows what is on disk: the journal must be opened again.
    pub(crate) fn write(&mut self, group: &mut [u8], events: u64) -> io::Result<()> {
        let room = self.size.saturating_sub(self.offset);
        if (group.len() as u64) > room && room < self.size / 4 {
            self.roll()?;
        }
        seal(self.header.salt, group);
        self.device.write(&self.file, group, self.offset)?;
        self.device.sync(&self.file)?;
        self.offset += group.len() as u64;
        self.next += events;
        self.groups = (self.groups.0 + 1, self.groups.1 + group.len() as u64);
        if self.spare.is_none() && self.offset > self.size / 2 {
            self.prepare();
        }
        Ok(())
    }

    /// Begins the next segment.
    fn roll(&mut self) -> io::Result<()> {
        let spare = match self.spare.take().map(JoinHandle::join) {
            Some(Ok(Ok(spare))) => spare,
            // What went wrong in the background is tried again here, where it can be told.
            _ => {
                let (size, written) = (self.next_size(), self.writes_zeros());
                Spare::make(&self.dir, size, written, self.device.as_ref())?
            }
        };
        let device = Arc::clone(&self.device);
        *self = Self::begin_in(spare, self.next, self.segment_bytes, device)?;
        Ok(())
    }

    /// A long journal gets longer segments, so that rolling stays rare and a short one small.
    fn next_size(&self) -> u64 {
        self.size.saturating_mul(2).clamp(self.segment_bytes, self.segment_bytes * GROWTH)
    }

    fn writes_zeros(&self) -> bool {
        self.groups.1 < self.groups.0.saturating_mul(LARGE_GROUP)
    }

    /// Has the next segment made in the background.
    fn prepare(&mut self) {
        let (dir, size, written) = (self.dir.clone(), self.next_size(), self.writes_zeros());
        let device = Arc::clone(&self.device);
        let work = move || Spare::make(&dir, size, written, device.as_ref());
        let thread = std::thread::Builder::new().name("ledger-segment".to_owned());
        // Without a thread the segment is made when it is needed.
        self.spare = thread.spawn(work).ok();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(Ok(Ok(spare))) = self.spare.take().map(JoinHandle::join) {
            // Only a courtesy: opening sweeps it away too.
            let _ = fs::remove_file(spare.path);
        }
    }
}

/// Returns name and bytes of a segment that holds just these frames.
pub(crate) fn segment_bytes<'a>(
    first: u64,
    frames: impl Iterator<Item = (Mark, &'a [u8])>,
) -> io::Result<(String, Vec<u8>)> {
    let mut salt = [0_u8; 4];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
    let header = SegmentHeader::new(u32::from_le_bytes(salt), first);
    let mut group = Vec::new();
    frames.for_each(|(mark, event)| push_frame(&mut group, mark, event));
    seal(header.salt, &mut group);
    let mut bytes = header.encode();
    bytes.append(&mut group);
    Ok((segment_name(first), bytes))
}

/// Sets the checksums of a group's frames.
fn seal(salt: u32, group: &mut [u8]) {
    let mut rest = group;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = FRAME_HEADER + u32::from_le_bytes(*length) as usize;
        let Some((frame, behind)) = rest.split_at_mut_checked(length) else { return };
        seal_frame(salt, frame);
        rest = behind;
    }
}

/// Writes zeros from one offset to another, so that later writes change no metadata.
pub(super) fn write_zeros(device: &dyn Device, file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0_u8; 256 * 1024];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        device.write(file, zeros.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    Ok(())
}
