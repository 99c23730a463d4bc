//! Walking through the frames of one segment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{
    FRAME_HEADER, HeaderError, Mark, Parsed, SEGMENT_FORMAT, SEGMENT_HEADER, SegmentHeader, parse,
};
use crate::event::EVENT_BYTES_MAX;
use crate::reader::ReadError;

/// Bytes that are read ahead.
const CHUNK: usize = 256 * 1024;

/// An event's frame as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Byte of the segment at which the frame begins.
    pub(crate) offset: u64,
    pub(crate) mark: Mark,
    pub(crate) event: Vec<u8>,
}

/// What the next step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next event.
    Frame(Frame),
    /// Nothing was written here.
    End,
    /// Something that is no frame: an unfinished write, or damage.
    Invalid(&'static str),
    /// A whole frame that does not belong here: damage, whatever follows.
    Misplaced(&'static str),
}

/// What lies behind the last frame that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros only.
    Clean,
    /// Bytes of a write that was never synced, up to the last one that is not zero.
    Torn {
        /// How many.
        length: u64,
    },
    /// A frame that was written after what is missing here had been synced.
    Damaged,
}

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) seq: u64,
    rest: Option<u32>,
}

/// Reads one segment from a place on.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    place: Place,
    /// Bytes of the file from `place.offset - used` on, up to `filled`.
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
    /// Where nothing but zeros was found behind the last frame.
    clean: Option<u64>,
}

impl Cursor {
    /// Opens the segment that should begin with event `first`.
    pub(crate) fn open(path: &Path, first: u64) -> Result<Self, ReadError> {
        let failed = |source: io::Error| ReadError::Io { path: path.to_owned(), source };
        Self::over(File::open(path).map_err(failed)?, path, first)
    }

    /// Takes up a file that is open already; `path` is what errors call it.
    pub(crate) fn over(file: File, path: &Path, first: u64) -> Result<Self, ReadError> {
        let failed = |source: io::Error| ReadError::Io { path: path.to_owned(), source };
        let head = read_up_to(&file, 0, SEGMENT_HEADER).map_err(failed)?;
        let damaged =
            |what| ReadError::Corrupt { path: path.to_owned(), offset: 0, seq: first, what };
        let header = SegmentHeader::decode(&head).map_err(|error| match error {
            HeaderError::Damaged(what) => damaged(what),
            HeaderError::Newer(found) => {
                ReadError::Newer { path: path.to_owned(), found, known: SEGMENT_FORMAT }
            }
        })?;
        if header.first != first {
            return Err(damaged("the header names another first event than the file's name"));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            header,
            place: Place { offset: SEGMENT_HEADER as u64, seq: first, rest: Some(0) },
            buffer: Vec::new(),
            used: 0,
            filled: 0,
            clean: None,
        })
    }

    pub(crate) fn header(&self) -> SegmentHeader {
        self.header
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Goes to a place that was reached before; what stands there is read anew.
    pub(crate) fn go_to(&mut self, place: Place) {
        self.place = place;
        (self.used, self.filled) = (0, 0);
    }

    /// Goes to event `seq`, which is known to begin at `offset`.
    pub(crate) fn go_to_event(&mut self, seq: u64, offset: u64) {
        self.go_to(Place { offset, seq, rest: None });
    }

    /// Names what is wrong at a place.
    pub(crate) fn corrupt(&self, place: Place, what: &'static str) -> ReadError {
        let Place { offset, seq, .. } = place;
        ReadError::Corrupt { path: self.path.clone(), offset, seq, what }
    }

    /// Reads the next frame and goes behind it. Any other answer leaves the place as it is.
    pub(crate) fn step(&mut self) -> Result<Step, ReadError> {
        self.fill(FRAME_HEADER + EVENT_BYTES_MAX)?;
        let bytes = self.buffer.get(self.used..self.filled).unwrap_or_default();
        let (mark, event) = match parse(self.header.salt, bytes) {
            Parsed::Frame(mark, event) => (mark, event),
            Parsed::End => return Ok(Step::End),
            Parsed::Short => return Ok(Step::Invalid("the file ends inside it")),
            Parsed::Invalid(what) => return Ok(Step::Invalid(what)),
        };
        if let Some(what) = self.misplaced(mark) {
            return Ok(Step::Misplaced(what));
        }
        let frame = Frame { offset: self.place.offset, mark, event: event.to_vec() };
        let length = FRAME_HEADER + frame.event.len();
        self.used += length;
        self.place = Place {
            offset: self.place.offset + length as u64,
            seq: mark.seq + 1,
            rest: Some(mark.rest),
        };
        Ok(Step::Frame(frame))
    }

    /// Says why a whole frame cannot stand here.
    fn misplaced(&self, mark: Mark) -> Option<&'static str> {
        if mark.seq != self.place.seq || mark.seq == u64::MAX {
            return Some("a frame of another event stands here");
        }
        if mark.synced() < self.header.first || u64::from(mark.since) > mark.seq {
            return Some("its group would begin in another segment");
        }
        match self.place.rest {
            Some(rest) if rest > 0 && mark.rest != rest - 1 => {
                Some("it does not go on with the batch before it")
            }
            _ => None,
        }
    }

    /// Judges what lies from the present place to the end of the file.
    ///
    /// A group is written at once and synced once. Of a group that was never synced, any page may
    /// have reached the disk without the ones before it; so a whole frame behind a hole proves
    /// damage only if it was written after the missing event had been synced.
    pub(crate) fn tail(&mut self) -> Result<Tail, ReadError> {
        // Whoever follows the log comes here again and again at the same place: that nothing lies
        // farther behind was seen the first time, and writes begin at the place itself.
        let far = if self.clean == Some(self.place.offset) { CHUNK as u64 } else { u64::MAX };
        if self.is_zero(far)? {
            self.clean = Some(self.place.offset);
            return Ok(Tail::Clean);
        }
        let bytes = self.remainder()?;
        let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else {
            return Ok(Tail::Clean);
        };
        let damaged = (0..=last).any(|at| {
            let candidate = bytes.get(at..).unwrap_or_default();
            matches!(parse(self.header.salt, candidate),
                Parsed::Frame(mark, _) if mark.synced() > self.place.seq)
        });
        Ok(if damaged { Tail::Damaged } else { Tail::Torn { length: last as u64 + 1 } })
    }

    /// Tells whether there are only zeros from here to the end of the file, or for `far` bytes.
    fn is_zero(&self, far: u64) -> Result<bool, ReadError> {
        let failed = |source: io::Error| ReadError::Io { path: self.path.clone(), source };
        let mut chunk = vec![0_u8; CHUNK];
        let mut at = 0;
        while at < far {
            let read = read_into(&self.file, self.place.offset + at, &mut chunk).map_err(failed)?;
            if chunk.get(..read).unwrap_or_default().iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            if read < chunk.len() {
                break;
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// Returns the bytes from the present place to the end of the file.
    pub(crate) fn remainder(&self) -> Result<Vec<u8>, ReadError> {
        let failed = |source: io::Error| ReadError::Io { path: self.path.clone(), source };
        let size = self.file.metadata().map_err(failed)?.len();
        let length = size.saturating_sub(self.place.offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        read_up_to(&self.file, self.place.offset, length).map_err(failed)
    }

    /// Goes on to the next whole frame with a higher number, past damage. For verification only.
    pub(crate) fn skip_damage(&mut self) -> Result<bool, ReadError> {
        let bytes = self.remainder()?;
        for at in 1..bytes.len() {
            let candidate = bytes.get(at..).unwrap_or_default();
            if let Parsed::Frame(mark, _) = parse(self.header.salt, candidate)
                && mark.seq >= self.place.seq
            {
                self.go_to_event(mark.seq, self.place.offset + at as u64);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes at least `want` bytes available, or all up to the end of the file.
    fn fill(&mut self, want: usize) -> Result<(), ReadError> {
        if self.filled - self.used >= want {
            return Ok(());
        }
        self.buffer.resize(CHUNK.max(2 * want), 0);
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        let from = self.place.offset + self.filled as u64;
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        self.filled += read_into(&self.file, from, room)
            .map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        Ok(())
    }
}

/// Reads `length` bytes at `offset`, or fewer where the file ends.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    let read = read_into(file, offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Fills `place` from `offset` on, or less of it where the file ends. Returns how much.
fn read_into(file: &File, offset: u64, place: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = place.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
