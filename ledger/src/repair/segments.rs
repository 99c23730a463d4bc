//! Reading what is sound of a journal, and writing what is not anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{RepairError, at};
use crate::durable::{create_dir, sync_dir, write_file};
use crate::journal::{
    Cursor, Mark, SEGMENT_BYTES, Segment, Step, Tail, segment_bytes, segment_name, segments,
};
use crate::layout::Layout;
use crate::reader::ReadError;

/// The sound events of a journal.
#[derive(Default)]
pub(super) struct Found {
    pub(super) events: BTreeMap<u64, Vec<u8>>,
    /// Segments, with the number behind the last event that was read of each.
    all: Vec<(Segment, u64)>,
    /// First events of the segments that have anything wrong with them.
    wrong: BTreeSet<u64>,
}

impl Found {
    /// Lists the events that cannot be read, of those before the last one or before `floor`.
    pub(super) fn missing(&self, floor: u64) -> Vec<u64> {
        let end = self.events.last_key_value().map_or(0, |(seq, _)| seq + 1).max(floor);
        (0..end).filter(|seq| !self.events.contains_key(seq)).collect()
    }

    /// Tells whether a segment has anything wrong with it.
    pub(super) fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// Marks the segment of an event as one to be written anew.
    pub(super) fn distrust(&mut self, seq: u64) {
        if let Some((segment, _)) = self.all.iter().rfind(|(segment, _)| segment.first <= seq) {
            self.wrong.insert(segment.first);
        }
    }
}

/// Reads every segment past its damage. `floor` events are known to have been durable: behind
/// them, the end of the last segment may be an unfinished write, which is left to opening.
pub(super) fn read_sound(layout: &Layout, floor: u64) -> Result<Found, RepairError> {
    let all = segments(&layout.journal())?;
    let mut found = Found::default();
    for segment in &all {
        let next = match Cursor::open(&segment.path, segment.first) {
            Ok(mut cursor) => {
                let last = all.last() == Some(segment);
                if !read_segment(&mut cursor, last.then_some(floor), &mut found)? {
                    found.wrong.insert(segment.first);
                }
                cursor.place().seq
            }
            Err(ReadError::Corrupt { .. }) => {
                found.wrong.insert(segment.first);
                segment.first
            }
            Err(error) => return Err(error.into()),
        };
        found.all.push((segment.clone(), next));
    }
    Ok(found)
}

/// Reads a segment. `false` where anything in it is wrong. `floor` is given for the last one.
fn read_segment(
    cursor: &mut Cursor,
    floor: Option<u64>,
    found: &mut Found,
) -> Result<bool, RepairError> {
    let mut whole = true;
    loop {
        let step = cursor.step()?;
        if let Step::Frame(frame) = step {
            found.events.insert(frame.mark.seq, frame.event);
            continue;
        }
        let tail = cursor.tail()?;
        let ends = match floor {
            None => matches!(step, Step::End) && tail == Tail::Clean,
            Some(floor) => {
                let dropped = !matches!(step, Step::Misplaced(_)) && tail != Tail::Damaged;
                // A write that was never acknowledged may lack its middle; opening drops it.
                if dropped && cursor.place().seq >= floor {
                    return Ok(whole);
                }
                false
            }
        };
        if ends {
            return Ok(whole);
        }
        whole = false;
        if !cursor.skip_damage()? {
            return Ok(whole);
        }
    }
}

/// Writes the damaged and missing segments anew. Cut short anywhere, every sound event is still
/// in some segment: new files are complete before any of them gets its name, and old ones are
/// in quarantine before they are replaced.
pub(super) fn rewrite(layout: &Layout, found: &Found) -> Result<(), RepairError> {
    let journal = layout.journal();
    let ranges = ranges(found);
    let mut ready = Vec::new();
    for (from, to) in ranges {
        let events: Vec<_> = found.events.range(from..to).collect();
        write_segments(&journal, &events, &mut ready)?;
    }
    let replaced: Vec<_> =
        found.all.iter().filter(|(segment, _)| found.wrong.contains(&segment.first)).collect();
    for (segment, _) in &replaced {
        keep(&journal, &segment.path)?;
    }
    for (first, path) in &ready {
        let name = journal.join(segment_name(*first));
        fs::rename(path, &name).map_err(at(&name))?;
    }
    sync_dir(&journal).map_err(at(&journal))?;
    for (segment, _) in &replaced {
        if ready.iter().all(|(first, _)| *first != segment.first) {
            fs::remove_file(&segment.path).map_err(at(&segment.path))?;
        }
    }
    sync_dir(&journal).map_err(at(&journal))
}

/// Between the ends of sound segments, what they do not hold forms new ones.
fn ranges(found: &Found) -> Vec<(u64, u64)> {
    let sound = found.all.iter().filter(|(segment, _)| !found.wrong.contains(&segment.first));
    let mut ranges = Vec::new();
    let mut next = 0;
    for (segment, end) in sound {
        if next < segment.first {
            ranges.push((next, segment.first));
        }
        next = *end;
    }
    ranges.push((next, u64::MAX));
    ranges
}

/// Writes events as segments under names that opening sweeps away, and notes each in `ready`
/// with its first event.
fn write_segments(
    journal: &Path,
    events: &[(&u64, &Vec<u8>)],
    ready: &mut Vec<(u64, PathBuf)>,
) -> Result<(), RepairError> {
    let mut rest = events;
    while let Some((first, _)) = rest.first() {
        let mut bytes = 0;
        let count = rest.iter().take_while(|(_, event)| {
            let fits = bytes < SEGMENT_BYTES;
            bytes += event.len() as u64;
            fits
        });
        let (now, later) = rest.split_at(count.count().max(1));
        // All of them had been durable, each is a batch by itself.
        let frames = now
            .iter()
            .map(|(seq, event)| (Mark { seq: **seq, since: 0, rest: 0 }, event.as_slice()));
        let (name, bytes) = segment_bytes(**first, frames).map_err(at(journal))?;
        let path = journal.join(name).with_extension("new");
        write_file(&path, &bytes, 0o644).map_err(at(&path))?;
        ready.push((**first, path));
        rest = later;
    }
    Ok(())
}

/// Puts a second name on a segment, in quarantine.
fn keep(journal: &Path, segment: &Path) -> Result<(), RepairError> {
    let quarantine = journal.join("quarantine");
    create_dir(&quarantine).map_err(at(&quarantine))?;
    let name = segment.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut n = 0;
    let mut aside = quarantine.join(format!("{name}.{n}"));
    while aside.exists() {
        n += 1;
        aside = quarantine.join(format!("{name}.{n}"));
    }
    fs::hard_link(segment, &aside).map_err(at(segment))?;
    sync_dir(&quarantine).map_err(at(&quarantine))
}
