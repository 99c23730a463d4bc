//! Repair: restores one copy from the other, and never from nothing.
//!
//! Events that cannot be read in the journal are taken from the store, and only if the log that
//! comes of it has the root that the store noted when it was whole. Store, tree and request ids
//! are rebuilt from the journal. Bodies can come from another copy of the notebook. What was
//! damaged is kept in `journal/quarantine/`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog_tiles::record_hash;

use crate::blob::Blobs;
use crate::catalogue::LedgerRepaired;
use crate::clock::Clock;
use crate::durable::{create_dir, sync_dir, write_file};
use crate::event::NewEvent;
use crate::id::Digest;
use crate::journal::{Cursor, Mark, SEGMENT_BYTES, Segment, Step, segment_bytes, segments};
use crate::layout::{Config, Layout, Lock, LockError};
use crate::merkle::Frontier;
use crate::notebook::{AppendError, Notebook, OpenError};
use crate::reader::ReadError;
use crate::store::Store;
use crate::verify::{VerifyError, VerifyReport, verify};

/// Says why nothing could be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Another process holds the notebook.
    #[error("{} is held by another process: end it first", dir.display())]
    Locked {
        /// Directory.
        dir: PathBuf,
    },
    /// The journal is damaged where there is no other copy.
    #[error("event {seq} cannot be read in the journal, and the store cannot replace it: {what}")]
    NoCopy {
        /// First event that is lost.
        seq: u64,
        /// Why.
        what: String,
    },
    /// The notebook cannot be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The notebook cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The notebook cannot be opened after the repair.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was done cannot be recorded.
    #[error("the repair was done but not recorded: {0}")]
    Append(#[from] AppendError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What was repaired, and what still is wrong.
#[derive(Clone, Debug)]
pub struct RepairReport {
    /// What was done; also the facts of its event. Nothing was done where all of it is empty.
    pub done: LedgerRepaired,
    /// The verification afterwards.
    pub after: VerifyReport,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RepairError + use<'_> {
    move |source| RepairError::Io { path: path.to_owned(), source }
}

/// Repairs the notebook in `dir`. `other` is another copy of it, from which bodies may be taken.
///
/// # Errors
/// When another process holds the notebook, or events are damaged in both copies.
pub fn repair(
    dir: &Path,
    other: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Result<RepairReport, RepairError> {
    let layout = Layout::new(dir);
    Config::read(&layout)?.writable(&layout)?;
    let mut done = LedgerRepaired::default();
    {
        let _lock = Lock::take(&layout).map_err(|error| match error {
            LockError::Held(_) => RepairError::Locked { dir: dir.to_owned() },
            LockError::Io(source) => RepairError::Io { path: layout.lock(), source },
        })?;
        repair_journal(&layout, &mut done)?;
    }
    let before = verify(dir)?;
    if before.store == "damaged" {
        set_aside(&layout, &mut done)?;
    }
    repair_bodies(dir, other, &before, &mut done)?;
    if done != LedgerRepaired::default() {
        let notebook = Notebook::open(dir, clock)?;
        let head = notebook.acknowledged()?;
        let id = format!("repair/{}/{}", head.size, head.root);
        let event = NewEvent::new("ledger", id, "ledger", &done)
            .map_err(|error| AppendError::Store { reason: error.to_string() })?;
        notebook.append_one(event)?;
        // A failure to flush is mended when the notebook is opened the next time.
        let _ = notebook.close();
    }
    Ok(RepairReport { done, after: verify(dir)? })
}

/// The sound events of the journal, and which segments have anything wrong with them.
#[derive(Default)]
struct Found {
    events: BTreeMap<u64, Vec<u8>>,
    wrong: Vec<Segment>,
}

fn read_sound(layout: &Layout) -> Result<(Found, Vec<Segment>), RepairError> {
    let all = segments(&layout.journal())?;
    let mut found = Found::default();
    for segment in &all {
        let mut cursor = match Cursor::open(&segment.path, segment.first) {
            Ok(cursor) => cursor,
            Err(ReadError::Corrupt { .. }) => {
                found.wrong.push(segment.clone());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let last = all.last() == Some(segment);
        let mut whole = true;
        loop {
            match cursor.step()? {
                Step::Frame(frame) => {
                    found.events.insert(frame.mark.seq, frame.event);
                }
                Step::End if last || cursor.tail()? == crate::journal::Tail::Clean => break,
                _ => {
                    whole = false;
                    if !cursor.skip_damage()? {
                        break;
                    }
                }
            }
        }
        if !whole {
            found.wrong.push(segment.clone());
        }
    }
    Ok((found, all))
}

/// Restores events that the journal cannot give from the store.
fn repair_journal(layout: &Layout, done: &mut LedgerRepaired) -> Result<(), RepairError> {
    let (mut found, all) = read_sound(layout)?;
    // The copy is needed only where something is missing; a store that is bad itself is rebuilt.
    let store = Store::open(&layout.store());
    let known = store.as_ref().map_or(0, |(_, mark, _)| mark.size);
    let end = found.events.last_key_value().map_or(0, |(seq, _)| seq + 1).max(known);
    let missing: Vec<u64> = (0..end).filter(|seq| !found.events.contains_key(seq)).collect();
    let Some(&first) = missing.first() else { return Ok(()) };
    let lost = |seq: u64, what: String| RepairError::NoCopy { seq, what };
    let (store, mark, _) = store.map_err(|error| lost(first, error.to_string()))?;
    for &seq in &missing {
        if seq >= mark.size {
            return Err(lost(seq, "it was not whole there when it was last flushed".to_owned()));
        }
        let event = store.event(seq).map_err(|error| lost(seq, error.to_string()))?;
        let event = event.ok_or_else(|| lost(seq, "it is not there either".to_owned()))?;
        found.events.insert(seq, event);
    }
    drop(store);
    let mut tree = Frontier::default();
    for (_, event) in found.events.range(..mark.size) {
        tree.push_leaf(record_hash(event));
    }
    if tree.root() != mark.root {
        let what = "with its copy the log has another root than it had when it was whole";
        return Err(lost(first, what.to_owned()));
    }
    rewrite(layout, &found, &all)?;
    done.journal = runs(&missing);
    Ok(())
}

/// Puts numbers in order together as runs: first and last.
fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// Writes the damaged and missing segments anew.
fn rewrite(layout: &Layout, found: &Found, all: &[Segment]) -> Result<(), RepairError> {
    let journal = layout.journal();
    let sound = |segment: &&Segment| !found.wrong.contains(segment);
    let mut starts: Vec<u64> = all.iter().filter(sound).map(|segment| segment.first).collect();
    starts.push(u64::MAX);
    // Between the ends of sound segments, what they do not hold forms new ones.
    let mut next = 0;
    for (index, &start) in starts.iter().enumerate() {
        let range: Vec<_> = found.events.range(next..start.max(next)).collect();
        if !range.is_empty() {
            write_segments(&journal, &range, &found.wrong)?;
        }
        if start == u64::MAX {
            break;
        }
        let following = starts.get(index + 1).copied().unwrap_or(u64::MAX);
        next = held_by(all, start, following)?;
    }
    Ok(())
}

/// Returns the number behind the last event of a sound segment.
fn held_by(all: &[Segment], first: u64, before: u64) -> Result<u64, RepairError> {
    let mut next = first;
    if let Some(segment) = all.iter().find(|segment| segment.first == first) {
        let mut cursor = Cursor::open(&segment.path, first)?;
        while let Step::Frame(frame) = cursor.step()? {
            next = frame.mark.seq + 1;
        }
    }
    Ok(next.min(before))
}

/// Writes events as segments, and puts damaged ones that they replace into quarantine.
fn write_segments(
    journal: &Path,
    events: &[(&u64, &Vec<u8>)],
    wrong: &[Segment],
) -> Result<(), RepairError> {
    let quarantine = journal.join("quarantine");
    create_dir(&quarantine).map_err(at(&quarantine))?;
    let (low, high) = match (events.first(), events.last()) {
        (Some((low, _)), Some((high, _))) => (**low, **high),
        _ => return Ok(()),
    };
    for segment in wrong.iter().filter(|segment| (low..=high).contains(&segment.first)) {
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut n = 0;
        let mut aside = quarantine.join(format!("{name}.{n}"));
        while aside.exists() {
            n += 1;
            aside = quarantine.join(format!("{name}.{n}"));
        }
        fs::rename(&segment.path, &aside).map_err(at(&segment.path))?;
    }
    sync_dir(journal).map_err(at(journal))?;
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
        let path = journal.join(name);
        write_file(&path, &bytes, 0o644).map_err(at(&path))?;
        rest = later;
    }
    Ok(())
}

/// Puts a store that is sound by itself but not equal to the journal out of the way.
fn set_aside(layout: &Layout, done: &mut LedgerRepaired) -> Result<(), RepairError> {
    let path = layout.store();
    let mut n = 0_u32;
    let mut aside = path.with_extension(format!("set-aside-{n}"));
    while aside.exists() {
        n += 1;
        aside = path.with_extension(format!("set-aside-{n}"));
    }
    if path.exists() {
        fs::rename(&path, &aside).map_err(at(&path))?;
    }
    let tree = layout.tree();
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(at(&tree))?;
    }
    sync_dir(layout.dir()).map_err(at(layout.dir()))?;
    done.store = true;
    Ok(())
}

/// Takes damaged and missing bodies from another copy of the notebook.
fn repair_bodies(
    dir: &Path,
    other: Option<&Path>,
    before: &VerifyReport,
    done: &mut LedgerRepaired,
) -> Result<(), RepairError> {
    let Some(other) = other else { return Ok(()) };
    let (own, theirs) = (Blobs::open(dir), Blobs::open(other));
    for digest in &before.bad_blobs {
        if theirs.check(digest).is_err() {
            continue;
        }
        let path = theirs.path(digest);
        let bytes = fs::read(&path).map_err(at(&path))?;
        // Read again, so it is checked again.
        if Digest::of(&bytes) == *digest {
            let to = own.path(digest);
            let shard = to.parent().unwrap_or(dir).to_owned();
            create_dir(&shard).map_err(at(&shard))?;
            write_file(&to, &bytes, 0o644).map_err(at(&to))?;
            done.bodies.push(*digest);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
