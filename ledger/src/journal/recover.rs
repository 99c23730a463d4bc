//! Opening the journal for writing: finding its end, and dropping what was never acknowledged.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::SEGMENT_FORMAT;
use super::write::write_zeros;
use super::{Cursor, Journal, Segment, Step, Tail, segments};
use crate::device::Device;
use crate::durable::{create_dir, write_file_on};
use crate::reader::ReadError;

/// A tail that was dropped at open. No event in it had been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Number that the first dropped event would have had.
    pub seq: u64,
    /// Bytes that were dropped.
    pub bytes: u64,
    /// Where they were copied to.
    pub quarantined: PathBuf,
}

/// Opens the journal in `dir`, making it where there is none.
///
/// `floor` is how many events are known from elsewhere to have been durable: a journal that ends
/// before it has lost acknowledged events, and is never cut.
pub(crate) fn recover(
    dir: &Path,
    segment_bytes: u64,
    floor: u64,
    device: Arc<dyn Device>,
) -> Result<(Journal, Option<Dropped>), ReadError> {
    let failed = |source: io::Error| ReadError::Io { path: dir.to_owned(), source };
    remove_unfinished(dir).map_err(failed)?;
    let all = segments(dir)?;
    let Some(last) = all.last() else {
        if floor > 0 {
            return Err(lost(dir, 0, 0, "the journal is empty, but events are known to exist"));
        }
        let journal = Journal::begin(dir, 0, segment_bytes, device).map_err(failed)?;
        return Ok((journal, None));
    };
    if all.first().is_some_and(|first| first.first != 0) {
        return Err(lost(dir, 0, 0, "the first segment is missing"));
    }
    open_last(last, segment_bytes, floor, device)
}

/// Removes segments that never got their name.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn lost(path: &Path, offset: u64, seq: u64, what: &'static str) -> ReadError {
    ReadError::Corrupt { path: path.to_owned(), offset, seq, what }
}

/// Opens a segment of a format that is written here.
fn open_to_write(segment: &Segment) -> Result<Cursor, ReadError> {
    let cursor = Cursor::open(&segment.path, segment.first)?;
    let found = cursor.header().format;
    if found > SEGMENT_FORMAT {
        let path = segment.path.clone();
        return Err(ReadError::Newer { path, found, known: SEGMENT_FORMAT });
    }
    Ok(cursor)
}

/// Finds the end of the last segment.
fn open_last(
    last: &Segment,
    segment_bytes: u64,
    floor: u64,
    device: Arc<dyn Device>,
) -> Result<(Journal, Option<Dropped>), ReadError> {
    let failed = |source: io::Error| ReadError::Io { path: last.path.clone(), source };
    let dir = last.path.parent().unwrap_or(Path::new("."));
    let mut cursor = open_to_write(last)?;
    // Whoever named this segment may have ended before its name was durable.
    device.sync_dir(dir).map_err(failed)?;
    let mut end = cursor.place();
    // Places of the batches of the newest group, so that they can be written again below.
    let mut newest_group = (end.offset, end.seq);
    let stopped = loop {
        let before = cursor.place();
        match cursor.step()? {
            Step::Frame(frame) => {
                if frame.mark.since == 0 {
                    newest_group = (before.offset, before.seq);
                }
                if frame.mark.rest == 0 {
                    end = cursor.place();
                }
            }
            Step::Misplaced(what) => return Err(cursor.corrupt(before, what)),
            Step::Invalid(what) => break what,
            Step::End => break "nothing stands here, but more had been acknowledged",
        }
    };
    if cursor.tail()? == Tail::Damaged || end.seq < floor {
        return Err(cursor.corrupt(cursor.place(), stopped));
    }
    cursor.go_to(end);
    let header = cursor.header();
    let file = OpenOptions::new().read(true).write(true).open(&last.path).map_err(failed)?;
    let dropped = match cursor.tail()? {
        Tail::Clean => None,
        _ => Some(quarantine(dir, &cursor, device.as_ref())?),
    };
    let size = file.metadata().map_err(failed)?.len().max(end.offset).max(segment_bytes);
    if newest_group.0 < end.offset {
        // A group whose sync failed may stand in the page cache only, and look sound from there.
        // Writing the same bytes again makes the sync below mean what it says.
        rewrite(device.as_ref(), &file, newest_group.0, end.offset).map_err(failed)?;
    }
    let old = file.metadata().map_err(failed)?.len();
    if dropped.is_some() {
        write_zeros(device.as_ref(), &file, end.offset, size).map_err(failed)?;
    } else if old < size {
        write_zeros(device.as_ref(), &file, old, size).map_err(failed)?;
    }
    device.sync(&file).map_err(failed)?;
    let journal = Journal {
        dir: dir.to_owned(),
        device,
        segment_bytes,
        file,
        header,
        offset: end.offset,
        size,
        next: end.seq,
        groups: (0, 0),
        spare: None,
    };
    Ok((journal, dropped))
}

/// Writes the bytes of a range over themselves.
fn rewrite(device: &dyn Device, file: &fs::File, from: u64, to: u64) -> io::Result<()> {
    let length = usize::try_from(to - from).map_err(io::Error::other)?;
    let mut bytes = vec![0_u8; length];
    file.read_exact_at(&mut bytes, from)?;
    device.write(file, &bytes, from)
}

/// Copies everything behind the cursor's place into `quarantine/`.
fn quarantine(dir: &Path, cursor: &Cursor, device: &dyn Device) -> Result<Dropped, ReadError> {
    let mut bytes = cursor.remainder()?;
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(length);
    let seq = cursor.place().seq;
    let folder = dir.join("quarantine");
    let mut n = 0_u32;
    let mut path = folder.join(format!("{seq:020}-{n}.bin"));
    while path.exists() {
        n += 1;
        path = folder.join(format!("{seq:020}-{n}.bin"));
    }
    create_dir(&folder)
        .and_then(|()| write_file_on(device, &path, &bytes, 0o600))
        .map_err(|source| ReadError::Io { path: path.clone(), source })?;
    Ok(Dropped { seq, bytes: length as u64, quarantined: path })
}
