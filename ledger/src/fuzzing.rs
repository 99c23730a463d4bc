//! What fuzzers call, and the tests that read the kept corpus again.
//!
//! Each function takes any bytes. It must return: what it asserts holds for every input, and no
//! input makes the code below it panic or run without end. `fuzz/README.md` says how to run them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::catalogue::{FeedbackRecorded, LedgerCreated, TraceIngested};
use crate::checkpoint::{SignedCheckpoint, open_note};
use crate::codec::{self, outline};
use crate::event::EVENT_BYTES_MAX;
use crate::id::Digest;
use crate::journal::{
    Cursor, FRAME_HEADER, Parsed, SEGMENT_HEADER, SegmentHeader, Step, Tail, parse, push_frame,
    seal_frame,
};
use crate::proof::{Extension, LogProof};
use crate::reader::Head;
use crate::{KeyHistory, bodies_in};

/// Verifier key of the checkpoints in the corpus, so that signatures are looked at.
const KEY: &str = include_str!("../../fuzz/verifier.key");

/// A frame: four bytes of salt, then what may be one. What is read is what would be written.
pub fn frame(data: &[u8]) {
    let Some((salt, bytes)) = data.split_first_chunk::<4>() else { return };
    let salt = u32::from_le_bytes(*salt);
    read_one(salt, bytes);
    // Hardly any bytes have the right checksum by chance: so they are looked at sealed, too.
    let mut sealed = bytes.to_vec();
    if let Some(end) = frame_end(&sealed)
        && let Some(whole) = sealed.get_mut(..end)
    {
        seal_frame(salt, whole);
        assert!(matches!(read_one(salt, &sealed), Parsed::Frame(..)));
    }
}

fn read_one(salt: u32, bytes: &[u8]) -> Parsed<'_> {
    let parsed = parse(salt, bytes);
    if let Parsed::Frame(mark, event) = parsed {
        assert!(mark.synced() <= mark.seq);
        let mut again = Vec::new();
        push_frame(&mut again, mark, event);
        seal_frame(salt, &mut again);
        assert!(bytes.starts_with(&again));
    }
    parsed
}

/// Where the frame at the beginning of some bytes would end, if its length fits.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    let end = FRAME_HEADER + length;
    ((1..=EVENT_BYTES_MAX).contains(&length) && end <= bytes.len()).then_some(end)
}

/// A segment: a byte of choices, a small number of its first event, then its frames. Walked from
/// its beginning to its end, past damage.
pub fn segment(data: &[u8]) {
    let Some(([choices, first], body)) = data.split_first_chunk::<2>() else { return };
    let header = SegmentHeader::new(u32::from(*choices), u64::from(*first));
    let mut bytes = header.encode();
    bytes.extend_from_slice(body);
    mend(&mut bytes, header, choices & 1 != 0, choices & 2 != 0);
    let Ok(file) = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::empty()) else {
        return;
    };
    let file = File::from(file);
    if file.write_all_at(&bytes, 0).is_err() {
        return;
    }
    let Ok(mut cursor) = Cursor::over(file, Path::new("segment"), header.first) else {
        return;
    };
    let mut reached = 0;
    loop {
        let before = cursor.place();
        assert!(before.offset >= reached, "the walk went back");
        reached = before.offset;
        match cursor.step() {
            Ok(Step::Frame(frame)) => {
                let at = usize::try_from(frame.offset).unwrap_or(usize::MAX) + FRAME_HEADER;
                let stored = bytes.get(at..at + frame.event.len());
                assert_eq!(stored, Some(frame.event.as_slice()));
                assert_eq!(frame.mark.seq, before.seq);
                continue;
            }
            Ok(_) => assert_eq!(cursor.place(), before),
            Err(_) => return,
        }
        if let Ok(Tail::Torn { length }) = cursor.tail() {
            assert!(before.offset + length <= bytes.len() as u64);
        }
        if !matches!(cursor.skip_damage(), Ok(true)) {
            return;
        }
        assert!(cursor.place().offset > before.offset);
    }
}

/// Gives frames consecutive numbers and right checksums, so that the walk gets beyond the first.
fn mend(bytes: &mut [u8], header: SegmentHeader, number: bool, seal: bool) {
    let (mut at, mut seq) = (SEGMENT_HEADER, header.first);
    while let Some(end) = bytes.get(at..).and_then(frame_end) {
        let Some(frame) = bytes.get_mut(at..at + end) else { return };
        if number && let Some(place) = frame.get_mut(8..16) {
            place.copy_from_slice(&seq.to_le_bytes());
        }
        if seal {
            seal_frame(header.salt, frame);
        }
        (at, seq) = (at + end, seq + 1);
    }
}

/// Stored bytes of an event. What can be read can be written, and reads back as the same.
pub fn event(data: &[u8]) {
    let _ = outline(data);
    let Ok(event) = codec::decode(data) else { return };
    let _ = bodies_in(&event.facts);
    let _ = event.facts::<LedgerCreated>();
    let _ = event.facts::<TraceIngested>();
    let _ = event.facts::<FeedbackRecorded>();
    let _ = KeyHistory::default().fold(&event);
    let bytes = codec::encode(&event).unwrap_or_default();
    assert_eq!(codec::decode(&bytes).as_ref().ok(), Some(&event));
    let seen = outline(&bytes).map(|seen| (seen.seq, seen.version, seen.prev));
    assert_eq!(seen.ok(), Some((event.seq, event.version, event.prev)));
}

/// A proof or a checkpoint as text. What is read is written as the same text.
pub fn proof(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = KEY.trim_end();
    if let Ok(proof) = LogProof::parse(text) {
        assert_eq!(proof.to_text(), text);
        let _ = proof.verify(b"event", key);
    }
    let _ = open_note(text, key);
    let _ = open_note("no note\n\n", text);
}

/// The hashes of a proof: two numbers, two roots, then the path, under any leaf.
pub fn path(data: &[u8]) {
    let Some((old, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((new, rest)) = rest.split_first_chunk::<8>() else { return };
    let (old, new) = (u64::from_le_bytes(*old), u64::from_le_bytes(*new));
    let hashes = rest.as_chunks::<32>().0.iter().map(|hash| Digest::from_bytes(*hash));
    let hashes = hashes.collect::<Vec<_>>();
    let [old_root, new_root, path @ ..] = hashes.as_slice() else { return };
    let (size, root, path) = (new, *new_root, path.to_vec());
    let head = Head { size: old, root: *old_root };
    let extension = Extension { old: head, new: Head { size, root }, path: path.clone() };
    // Nothing that is longer is a beginning of what is shorter.
    assert!(!extension.holds() || old <= new);
    let signed = SignedCheckpoint { size, root, note: String::new() };
    let proof = LogProof { index: old, extra: None, path, checkpoint: String::new() };
    let leads = proof.leads(tlog_tiles::Hash(*old_root.as_bytes()), &signed);
    assert!(leads.is_err() || old < size);
}

#[cfg(test)]
mod tests;
