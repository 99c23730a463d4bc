//! The bytes of a segment header and of a frame.

use crate::event::EVENT_BYTES_MAX;

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Bytes of a frame before the event.
pub(crate) const FRAME_HEADER: usize = 24;
/// Version of the segment format that this code writes.
pub(crate) const SEGMENT_FORMAT: u32 = 1;
/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"LEDGERJ\n";

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Mixed into the checksum of every frame, so that bytes that look like a frame (in another
    /// segment, or inside an event) are none here.
    pub(crate) salt: u32,
    /// Number of the first event.
    pub(crate) first: u64,
    /// Version of the format. One that is newer than ours may be read, not written to.
    pub(crate) format: u32,
}

/// Says why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged(&'static str),
    Newer(u32),
}

impl SegmentHeader {
    /// Makes the header of a segment that is written here.
    pub(crate) fn new(salt: u32, first: u64) -> Self {
        Self { salt, first, format: SEGMENT_FORMAT }
    }

    /// Encodes the header.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Decodes the header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let body = bytes.get(..28).ok_or(HeaderError::Damaged("the header is cut short"))?;
        if !body.starts_with(&MAGIC) {
            return Err(HeaderError::Damaged("this is no journal segment"));
        }
        if le32(bytes, 28) != Some(crc32c::crc32c(body)) {
            return Err(HeaderError::Damaged("the header's checksum is wrong"));
        }
        match (le32(bytes, 8), le32(bytes, 12), le64(bytes, 16)) {
            (Some(SEGMENT_FORMAT), Some(salt), Some(first)) => Ok(Self::new(salt, first)),
            // A newer format that says that readers of ours can read it.
            (Some(format), Some(salt), Some(first))
                if format > SEGMENT_FORMAT
                    && le32(bytes, 24)
                        .is_some_and(|oldest| (1..=SEGMENT_FORMAT).contains(&oldest)) =>
            {
                Ok(Self { salt, first, format })
            }
            (Some(format), ..) if format > SEGMENT_FORMAT => Err(HeaderError::Newer(format)),
            _ => Err(HeaderError::Damaged("the header names no known format")),
        }
    }
}

/// What a frame says beside its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Number of the event.
    pub(crate) seq: u64,
    /// Events of the same group before this one: everything before them had been synced when
    /// this frame was written.
    pub(crate) since: u32,
    /// Events of the same batch after this one: 0 ends the batch.
    pub(crate) rest: u32,
}

impl Mark {
    /// Returns how many events had been synced when this frame was written.
    pub(crate) fn synced(self) -> u64 {
        self.seq.saturating_sub(u64::from(self.since))
    }
}

/// Adds a frame to `out`, sealed for the segment with that salt.
#[cfg(test)]
pub(crate) fn encode_frame(out: &mut Vec<u8>, salt: u32, mark: Mark, event: &[u8]) {
    let start = out.len();
    push_frame(out, mark, event);
    seal_frame(salt, out.get_mut(start..).unwrap_or_default());
}

/// Adds a frame to `out` whose checksum is still to be set: which segment it will stand in is
/// known only when its group is written.
pub(crate) fn push_frame(out: &mut Vec<u8>, mark: Mark, event: &[u8]) {
    // The writer refuses longer events long before they come here.
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    out.reserve(FRAME_HEADER + event.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&mark.seq.to_le_bytes());
    out.extend_from_slice(&mark.since.to_le_bytes());
    out.extend_from_slice(&mark.rest.to_le_bytes());
    out.extend_from_slice(event);
}

/// Sets the checksum of a whole frame.
pub(crate) fn seal_frame(salt: u32, frame: &mut [u8]) {
    let sum = checksum(salt, frame);
    if let Some(place) = frame.get_mut(4..8) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

/// The checksum of a whole frame, its own field left out.
fn checksum(salt: u32, frame: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&salt.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, frame.get(..4).unwrap_or_default());
    crc32c::crc32c_append(sum, frame.get(8..).unwrap_or_default())
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A length of zero: nothing was written here.
    End,
    /// A frame whose checksum is right.
    Frame(Mark, &'a [u8]),
    /// A frame may stand here, but the bytes end before it does.
    Short,
    /// No frame stands here.
    Invalid(&'static str),
}

/// Reads what stands at the beginning of `bytes`.
pub(crate) fn parse(salt: u32, bytes: &[u8]) -> Parsed<'_> {
    let Some(length) = le32(bytes, 0) else {
        return if bytes.iter().all(|&byte| byte == 0) { Parsed::End } else { Parsed::Short };
    };
    if length == 0 {
        return Parsed::End;
    }
    let length = length as usize;
    if length > EVENT_BYTES_MAX {
        return Parsed::Invalid("its length is beyond what an event may have");
    }
    let Some(frame) = bytes.get(..FRAME_HEADER + length) else {
        return Parsed::Short;
    };
    if le32(frame, 4) != Some(checksum(salt, frame)) {
        return Parsed::Invalid("its checksum is wrong");
    }
    match (le64(frame, 8), le32(frame, 16), le32(frame, 20), frame.get(FRAME_HEADER..)) {
        (Some(seq), Some(since), Some(rest), Some(event)) => {
            Parsed::Frame(Mark { seq, since, rest }, event)
        }
        _ => Parsed::Invalid("its header is cut short"),
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}
