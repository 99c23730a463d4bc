//! The segment journal: what an acknowledgement rests on.
//!
//! Segments are named by the number of their first event. A group of batches is written by one
//! write and made durable by one `fdatasync`; a group never spans segments, so that only the last
//! segment can have a torn tail. The README draws the bytes.

mod cursor;
mod frame;
mod recover;
mod write;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use cursor::{Cursor, Frame, Place, Step, Tail};
#[cfg(test)]
pub(crate) use frame::encode_frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use frame::{FRAME_HEADER, Parsed, SEGMENT_HEADER, SegmentHeader, parse, seal_frame};
pub(crate) use frame::{Mark, push_frame};
pub use recover::Dropped;
pub(crate) use recover::recover;
pub(crate) use write::{Journal, segment_bytes};

use crate::reader::ReadError;

/// Bytes that a new segment is given, unless its first batch needs more.
pub(crate) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Returns the name of the segment that begins with event `first`.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// A segment on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// Lists the segments of a journal in order. Other files are passed over.
pub(crate) fn segments(dir: &Path) -> Result<Vec<Segment>, ReadError> {
    let failed = |source: io::Error| ReadError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let first = name.strip_suffix(".seg").filter(|digits| digits.len() == 20);
        if let Some(first) = first.and_then(|digits| digits.parse().ok()) {
            found.push(Segment { first, path });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}
