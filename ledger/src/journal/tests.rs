#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;

use super::frame::FRAME_HEADER;
use super::frame::{Parsed, SEGMENT_HEADER, SegmentHeader, parse};
use super::*;
use crate::device::Disk;
use crate::reader::{Frames, Reader};

/// Batches of events; each inner list is one batch.
type Group = Vec<Vec<Vec<u8>>>;

/// Writes groups as the writer does.
fn write(journal: &mut Journal, groups: &[Group]) {
    for group in groups {
        let mut bytes = Vec::new();
        let mut events = 0;
        for batch in group {
            for (index, event) in batch.iter().enumerate() {
                let mark = Mark {
                    seq: journal.next() + events,
                    since: events as u32,
                    rest: (batch.len() - 1 - index) as u32,
                };
                push_frame(&mut bytes, mark, event);
                events += 1;
            }
        }
        journal.write(&mut bytes, events).unwrap();
    }
}

fn event(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A journal in a notebook directory, with two groups: batches of 1 and 2, then of 2 and 3.
fn sample() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fs::create_dir(&path).unwrap();
    let (mut journal, _) = recover(&path, 1024, 0, Arc::new(Disk)).unwrap();
    let first = vec![vec![event("a0")], vec![event("a1"), event("a2")]];
    let second = vec![vec![event("b3"), event("b4")], vec![event("b5"), event("b6"), event("b7")]];
    write(&mut journal, &[first, second]);
    (dir, path)
}

fn frames(dir: &Path) -> Frames {
    Reader::over(crate::layout::Layout::new(dir), None).frames(0)
}

fn read_all(dir: &Path) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut frames = frames(dir);
    let mut events = Vec::new();
    while let Some(frame) = frames.next_frame()? {
        assert_eq!(frame.mark.seq, events.len() as u64);
        events.push(frame.event);
    }
    Ok(events)
}

/// Where each frame begins, and where the last ends.
fn offsets(dir: &Path) -> Vec<usize> {
    let mut frames = frames(dir);
    let mut found = Vec::new();
    let mut end = 0;
    while let Some(frame) = frames.next_frame().unwrap() {
        found.push(frame.offset as usize);
        end = frame.offset as usize + FRAME_HEADER + frame.event.len();
    }
    found.push(end);
    found
}

#[test]
fn the_bytes_of_a_segment_are_as_documented() {
    let header = SegmentHeader::new(0x0403_0201, 7).encode();
    let expected = [
        b"LEDGERJ\n".as_slice(),
        &[1, 0, 0, 0],
        &[1, 2, 3, 4],
        &[7, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],
    ]
    .concat();
    assert_eq!(header.get(..28), Some(expected.as_slice()));
    assert_eq!(header.get(28..), Some(crc32c::crc32c(&expected).to_le_bytes().as_slice()));
    assert_eq!(header.len(), SEGMENT_HEADER);

    let mut frame = Vec::new();
    encode_frame(&mut frame, 0x0403_0201, Mark { seq: 9, since: 2, rest: 1 }, b"xyz");
    let summed =
        [&[3, 0, 0, 0][..], &[9, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0], &[1, 0, 0, 0], b"xyz"]
            .concat();
    let sum = crc32c::crc32c(&[&[1, 2, 3, 4], summed.as_slice()].concat());
    let expected = [&summed[..4], &sum.to_le_bytes(), &summed[4..]].concat();
    assert_eq!(frame, expected);
}

/// Whatever byte the file of a crashed writer ends at, a prefix of whole batches is left.
#[test]
fn a_cut_leaves_whole_batches() {
    let (dir, path) = sample();
    let all = read_all(dir.path()).unwrap();
    let places = offsets(dir.path());
    let segment = path.join(segment_name(0));
    let bytes = fs::read(&segment).unwrap();
    for cut in places[1]..=places[8] {
        fs::write(&segment, &bytes[..cut]).unwrap();
        let whole = [8, 5, 3, 1].into_iter().find(|&n| places[n] <= cut).unwrap();
        let seen = read_all(dir.path()).unwrap();
        assert_eq!(seen, all[..whole], "a reader, cut at {cut}");
        let (mut journal, dropped) = recover(&path, 1024, 0, Arc::new(Disk)).unwrap();
        assert_eq!(journal.next(), whole as u64, "the writer, cut at {cut}");
        let has_tail = bytes[places[whole]..cut].iter().any(|&byte| byte != 0);
        assert_eq!(dropped.is_some(), has_tail, "cut at {cut}");
        if let Some(dropped) = dropped {
            let kept = fs::read(&dropped.quarantined).unwrap();
            assert!(bytes[places[whole]..cut].starts_with(&kept));
            assert_eq!(dropped.seq, whole as u64);
        }
        write(&mut journal, &[vec![vec![event("new")]]]);
        assert_eq!(read_all(dir.path()).unwrap().last(), Some(&event("new")));
        assert_eq!(fs::metadata(&segment).unwrap().len(), 1024);
    }
}

/// Of a group that was not synced, any part may be missing, also before parts that are there.
#[test]
fn holes_in_the_unsynced_group_are_a_torn_tail() {
    let (dir, path) = sample();
    let all = read_all(dir.path()).unwrap();
    let places = offsets(dir.path());
    let segment = path.join(segment_name(0));
    let bytes = fs::read(&segment).unwrap();
    for from in places[3]..places[8] {
        for length in [1, 16, 40] {
            let mut torn = bytes.clone();
            let to = (from + length).min(places[8]);
            torn[from..to].fill(0);
            if torn == bytes {
                continue;
            }
            fs::write(&segment, &torn).unwrap();
            // Batches are whole up to the one that the hole begins in.
            let whole = if from < places[5] { 3 } else { 5 };
            let (journal, dropped) = recover(&path, 1024, 0, Arc::new(Disk)).unwrap();
            assert_eq!(journal.next(), whole, "hole from {from} to {to}");
            assert!(dropped.is_some());
            assert_eq!(read_all(dir.path()).unwrap(), all[..whole as usize]);
        }
    }
}

/// Every flipped byte of what was followed by a later group is corruption, and is named.
#[test]
fn damage_before_a_later_group_is_never_cut() {
    let (dir, path) = sample();
    let places = offsets(dir.path());
    let segment = path.join(segment_name(0));
    let bytes = fs::read(&segment).unwrap();
    for at in SEGMENT_HEADER..places[3] {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            fs::write(&segment, &damaged).unwrap();
            let expected = (0..3).rfind(|&n| places[n] <= at).unwrap() as u64;
            for outcome in [
                recover(&path, 1024, 0, Arc::new(Disk)).map(|_| ()),
                read_all(dir.path()).map(|_| ()),
            ] {
                match outcome {
                    Err(ReadError::Corrupt { seq, .. }) => assert_eq!(seq, expected),
                    other => panic!("byte {at} ^ {change:#x}: {other:?}"),
                }
            }
            assert_eq!(fs::read(&segment).unwrap(), damaged, "nothing was changed");
        }
    }
    for at in 0..SEGMENT_HEADER {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&segment, &damaged).unwrap();
        assert!(recover(&path, 1024, 0, Arc::new(Disk)).is_err(), "byte {at} of the header");
    }
}

/// What is known from elsewhere to have been durable is never taken for a torn tail.
#[test]
fn a_tail_below_the_floor_is_corruption() {
    let (dir, path) = sample();
    let places = offsets(dir.path());
    let segment = path.join(segment_name(0));
    let bytes = fs::read(&segment).unwrap();
    assert_eq!(recover(&path, 1024, 8, Arc::new(Disk)).unwrap().0.next(), 8);
    let mut damaged = bytes.clone();
    damaged[places[7] + FRAME_HEADER] ^= 1;
    for changed in [damaged, bytes[..places[7]].to_vec(), bytes[..places[7] + 3].to_vec()] {
        fs::write(&segment, &changed).unwrap();
        match recover(&path, 1024, 8, Arc::new(Disk)) {
            Err(ReadError::Corrupt { seq: 7, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&segment).unwrap(), changed, "nothing was changed");
        assert_eq!(recover(&path, 1024, 5, Arc::new(Disk)).unwrap().0.next(), 5);
        fs::write(&segment, &bytes).unwrap();
    }
}

/// Whole frames in the wrong place (a frame of another event, or of another segment) are damage.
#[test]
fn misplaced_frames_are_damage() {
    let (dir, path) = sample();
    let places = offsets(dir.path());
    let segment = path.join(segment_name(0));
    let bytes = fs::read(&segment).unwrap();
    // Frames 1 and 2 are equally long.
    let mut swapped = bytes.clone();
    swapped[places[1]..places[2]].copy_from_slice(&bytes[places[2]..places[3]]);
    swapped[places[2]..places[3]].copy_from_slice(&bytes[places[1]..places[2]]);
    fs::write(&segment, &swapped).unwrap();
    assert!(matches!(read_all(dir.path()), Err(ReadError::Corrupt { seq: 1, .. })));
    assert!(matches!(
        recover(&path, 1024, 0, Arc::new(Disk)),
        Err(ReadError::Corrupt { seq: 1, .. })
    ));

    let salt = SegmentHeader::decode(&bytes).unwrap().salt;
    let mut foreign = Vec::new();
    encode_frame(&mut foreign, salt ^ 1, Mark { seq: 0, since: 0, rest: 0 }, b"a0");
    assert!(matches!(parse(salt, &foreign), Parsed::Invalid(_)));
}

#[test]
fn groups_roll_into_new_segments_and_never_span_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fs::create_dir(&path).unwrap();
    let (mut journal, _) = recover(&path, 256, 0, Arc::new(Disk)).unwrap();
    let mut expected = Vec::new();
    for n in 0..40_usize {
        let batch: Vec<_> = (0..=n % 3).map(|i| vec![b'x'; 10 + 7 * i + n]).collect();
        expected.extend(batch.iter().cloned());
        write(&mut journal, &[vec![batch]]);
    }
    // Larger than any segment: its segment grows.
    let large = vec![vec![1_u8; 600], vec![2_u8; 600]];
    expected.extend(large.iter().cloned());
    write(&mut journal, &[vec![large]]);
    let all = segments(&path).unwrap();
    assert!(all.len() > 4, "{}", all.len());
    assert_eq!(read_all(dir.path()).unwrap(), expected);
    let reader = Reader::over(crate::layout::Layout::new(dir.path()), None);
    for (seq, event) in expected.iter().enumerate().rev() {
        assert_eq!(reader.raw(seq as u64).unwrap().as_ref(), Some(event));
    }
    assert_eq!(reader.raw(expected.len() as u64).unwrap(), None);
    drop(journal);
    let (journal, dropped) = recover(&path, 256, expected.len() as u64, Arc::new(Disk)).unwrap();
    assert_eq!((journal.next(), dropped), (expected.len() as u64, None));

    // A segment in the middle that ends early is damage, however it came about.
    let middle = &all[all.len() / 2];
    let bytes = fs::read(&middle.path).unwrap();
    fs::write(&middle.path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(read_all(dir.path()), Err(ReadError::Corrupt { .. })));
    fs::remove_file(&middle.path).unwrap();
    assert!(matches!(read_all(dir.path()), Err(ReadError::Corrupt { .. })));
    fs::remove_file(&all[0].path).unwrap();
    assert!(matches!(
        recover(&path, 256, 0, Arc::new(Disk)),
        Err(ReadError::Corrupt { seq: 0, .. })
    ));
}

#[test]
fn an_unfinished_segment_is_no_segment() {
    let (dir, path) = sample();
    let stray = path.join("00000000000000000008.new");
    fs::write(&stray, b"half a head").unwrap();
    assert_eq!(read_all(dir.path()).unwrap().len(), 8);
    assert_eq!(recover(&path, 1024, 8, Arc::new(Disk)).unwrap().0.next(), 8);
    assert!(!stray.exists());
}

#[test]
fn a_newer_segment_format_is_named() {
    let (dir, path) = sample();
    let segment = path.join(segment_name(0));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 2;
    let mut write = |oldest| {
        bytes[24] = oldest;
        let sum = crc32c::crc32c(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&sum);
        fs::write(&segment, &bytes).unwrap();
    };
    write(2);
    assert!(matches!(read_all(dir.path()), Err(ReadError::Newer { found: 2, known: 1, .. })));
    // One that says that readers of format 1 can read it.
    write(1);
    assert_eq!(read_all(dir.path()).unwrap().len(), 8);
}

/// A reader that waits at the end goes on when more is written, across segments too.
#[test]
fn a_reader_follows_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fs::create_dir(&path).unwrap();
    let (mut journal, _) = recover(&path, 200, 0, Arc::new(Disk)).unwrap();
    let mut frames = frames(dir.path());
    for n in 0..30_u8 {
        assert_eq!(frames.next_frame().unwrap(), None);
        write(&mut journal, &[vec![vec![vec![n; 20]], vec![vec![n; 5], vec![n; 6]]]]);
        for length in [20, 5, 6] {
            assert_eq!(frames.next_frame().unwrap().unwrap().event, vec![n; length]);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_can_be_parsed(salt: u32, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Random bytes pass the checksum once in four billion cases; a panic is what is sought.
        let _ = parse(salt, &bytes);
        let _ = SegmentHeader::decode(&bytes);
    }

    #[test]
    fn a_frame_reads_back(
        salt: u32, seq: u64, since: u32, rest: u32,
        event in proptest::collection::vec(any::<u8>(), 1..300),
        flip in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let mark = Mark { seq, since, rest };
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, salt, mark, &event);
        prop_assert_eq!(parse(salt, &bytes), Parsed::Frame(mark, &event));
        let at = flip.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(!matches!(parse(salt, &bytes), Parsed::Frame(..)));
    }
}
