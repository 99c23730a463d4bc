//! Repair: restores one copy from the other, and never from nothing.
//!
//! Two copies hold the events: the journal and the store behind it. Which of them is right where
//! they differ is not a matter of taste: what was noted of the log when it was whole (the store's
//! watermark, the newest signed checkpoint) tells. Repair keeps the journal, with its holes filled
//! from the store, if that comes to the noted roots; else the store's events, if those do; else it
//! refuses. Store, tree and request ids are rebuilt from the journal. Bodies can come from another
//! copy of the notebook. Whatever is replaced is kept: segments in `journal/quarantine/`, a store
//! and a tree under `set-aside` names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog_tiles::record_hash;

use crate::blob::Blobs;
use crate::catalogue::{CheckpointSigned, KeyRotated, LedgerRepaired};
use crate::checkpoint::{SignedCheckpoint, open_by};
use crate::clock::Clock;
use crate::codec;
use crate::durable::{create_dir, write_file};
use crate::event::{Facts as _, NewEvent};
use crate::keys::KeyHistory;
use crate::layout::{Config, Layout, Lock, LockError, set_aside};
use crate::merkle::Frontier;
use crate::notebook::{AppendError, Notebook, OpenError};
use crate::reader::{Head, ReadError, Reader};
use crate::store::{Store, StoreError};
use crate::tree::Tiles;
use crate::verify::{VerifyError, VerifyReport, verify_held};

mod segments;

use segments::{Found, read_sound, rewrite};

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
    /// Neither copy is the log that was noted when it was whole.
    #[error(
        "journal and store differ from event {seq} on, and neither comes to the root that was \
         noted over {size} events: one was changed on purpose; nothing was touched, hold both \
         against a checkpoint that was kept elsewhere"
    )]
    Contradiction {
        /// First event that the two hold with different bytes.
        seq: u64,
        /// Events that the noted root covers.
        size: u64,
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
/// Cut short anywhere, it can be asked again.
///
/// # Errors
/// When another process holds the notebook, events are damaged in both copies, or the copies
/// contradict each other and nothing tells which is right.
pub fn repair(
    dir: &Path,
    other: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Result<RepairReport, RepairError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout)?;
    config.writable(&layout)?;
    let lock = Lock::take(&layout).map_err(|error| match error {
        LockError::Held(_) => RepairError::Locked { dir: dir.to_owned() },
        LockError::Io(source) => RepairError::Io { path: layout.lock(), source },
    })?;
    let mut done = LedgerRepaired::default();
    repair_journal(&layout, &mut done)?;
    let before = verify_held(&layout)?;
    if before.store == "damaged" {
        // The journal is what was noted, so what differs from it is wrong.
        for path in [layout.store(), layout.tree()] {
            set_aside(&path).map_err(at(&path))?;
        }
        done.store = true;
    }
    repair_bodies(dir, other, &before, &mut done)?;
    repair_checkpoint(&layout, &mut done)?;
    if done == LedgerRepaired::default() {
        return Ok(RepairReport { done, after: before });
    }
    let notebook = Notebook::open_repaired(layout.clone(), config, lock, clock)?;
    let head = notebook.acknowledged()?;
    let id = format!("repair/{}/{}", head.size, head.root);
    let event = NewEvent::new("ledger", id, "ledger", &done)
        .map_err(|error| AppendError::Store { reason: error.to_string() })?;
    notebook.append_one(event)?;
    // A failure to flush is mended when the notebook is opened the next time.
    let _ = notebook.close();
    Ok(RepairReport { done, after: crate::verify(dir)? })
}

/// The copy behind the journal, and what was noted of the log.
struct Witness {
    /// The store, how many events it has; or why it cannot be used.
    store: Result<(Store, u64), StoreError>,
    tiles: Option<Tiles>,
    /// Heads that the log once had, as the store and the newest checkpoint tell.
    noted: Vec<Head>,
    /// Events that had been durable by what stands beside the journal.
    floor: u64,
}

impl Witness {
    fn call(layout: &Layout) -> Self {
        let mut noted = Vec::new();
        let mut floor = layout.known_events();
        // Opening makes a store where there is none, which is nothing to compare with.
        let store = if layout.store().exists() {
            Store::open(&layout.store()).map(|(store, mark, applied)| {
                noted.push(Head { size: mark.size, root: mark.root });
                floor = floor.max(applied);
                (store, applied)
            })
        } else {
            Err(StoreError::missing())
        };
        Self { store, tiles: Tiles::open_read_only(&layout.tree()).ok(), noted, floor }
    }

    /// Takes the newest checkpoint up, if a key of the log signed it.
    fn hear_checkpoint(&mut self, layout: &Layout, found: &Found) {
        let mut keys = KeyHistory::default();
        for bytes in found.events.values() {
            if codec::outline(bytes).is_ok_and(|event| event.stream == "ledger")
                && let Ok(event) = codec::decode(bytes)
            {
                // What nobody vouches for changes nothing.
                let _ = keys.fold(&event);
            }
        }
        let note = fs::read_to_string(layout.latest_checkpoint()).unwrap_or_default();
        if let Ok(signed) = open_by(&note, &keys) {
            self.noted.push(Head { size: signed.size, root: signed.root });
        }
    }

    /// Returns an event as the store has it.
    fn event(&self, seq: u64) -> Result<Vec<u8>, RepairError> {
        let lost = |what: String| RepairError::NoCopy { seq, what };
        let (store, _) = self.store.as_ref().map_err(|error| lost(error.to_string()))?;
        let event = store.event(seq).map_err(|error| lost(error.to_string()))?;
        event.ok_or_else(|| lost("it is not there either".to_owned()))
    }

    /// Tells whether the tree has this event's leaf.
    fn in_tree(&self, seq: u64, event: &[u8]) -> bool {
        let tiles = self.tiles.as_ref().filter(|tiles| seq < tiles.size());
        let leaf = tiles.and_then(|tiles| tiles.hashes(0, seq, 1).ok()?.pop());
        leaf == Some(record_hash(event))
    }

    /// Returns the first noted head that a log does not come to.
    fn objection(&self, events: &BTreeMap<u64, Vec<u8>>) -> Option<Head> {
        let mut noted = self.noted.clone();
        noted.sort_by_key(|head| head.size);
        let mut tree = Frontier::default();
        let mut leaves = events.values();
        noted.into_iter().find(|head| {
            let wanted = usize::try_from(head.size - tree.size()).unwrap_or(usize::MAX);
            leaves.by_ref().take(wanted).for_each(|event| tree.push_leaf(record_hash(event)));
            tree.size() != head.size || tree.root() != head.root
        })
    }
}

/// Makes the journal the log that was noted, if either copy is.
fn repair_journal(layout: &Layout, done: &mut LedgerRepaired) -> Result<(), RepairError> {
    let mut witness = Witness::call(layout);
    let mut found = read_sound(layout, witness.floor)?;
    witness.hear_checkpoint(layout, &found);
    let missing = found.missing(witness.floor);
    if missing.is_empty() && witness.store.is_err() {
        // There is nothing to compare with, and nothing to restore.
        return Ok(());
    }
    for &seq in &missing {
        let event = witness.event(seq)?;
        let noted = witness.noted.iter().any(|head| seq < head.size);
        if !noted && !witness.in_tree(seq, &event) {
            let what = "nothing vouches for its copy there".to_owned();
            return Err(RepairError::NoCopy { seq, what });
        }
        found.events.insert(seq, event);
    }
    let Some(objection) = witness.objection(&found.events) else {
        // Also where everything can be read: a repair that was cut short leaves old segments.
        if found.is_wrong() || !missing.is_empty() {
            drop(witness);
            rewrite(layout, &found)?;
            done.journal = runs(&missing);
        }
        return Ok(());
    };
    let changed = take_from_store(&witness, &mut found, objection)?;
    drop(witness);
    rewrite(layout, &found)?;
    let mut all = [missing, changed].concat();
    all.sort_unstable();
    done.journal = runs(&all);
    Ok(())
}

/// Replaces events of the journal that the store has with other bytes, if that is then the log
/// that was noted. Returns their numbers.
fn take_from_store(
    witness: &Witness,
    found: &mut Found,
    objection: Head,
) -> Result<Vec<u64>, RepairError> {
    let applied = witness.store.as_ref().map_or(0, |(_, applied)| *applied);
    let mut changed = Vec::new();
    for seq in 0..applied {
        let theirs = witness.event(seq)?;
        if found.events.get(&seq) != Some(&theirs) {
            found.events.insert(seq, theirs);
            changed.push(seq);
        }
    }
    if witness.objection(&found.events).is_some() {
        let seq = changed.first().copied().unwrap_or(objection.size);
        return Err(RepairError::Contradiction { seq, size: objection.size });
    }
    changed.iter().for_each(|seq| found.distrust(*seq));
    Ok(changed)
}

/// Restores `checkpoints/latest` from the log, where it is damaged or missing.
fn repair_checkpoint(layout: &Layout, done: &mut LedgerRepaired) -> Result<(), RepairError> {
    let reader = Reader::over(layout.clone(), None);
    let path = layout.latest_checkpoint();
    let Ok(keys) = reader.keys() else { return Ok(()) };
    let note = fs::read_to_string(&path).unwrap_or_default();
    if open_by(&note, &keys).is_ok() {
        return Ok(());
    }
    let mut newest: Option<SignedCheckpoint> = None;
    for event in reader.events(0)? {
        let event = event?;
        let note = match event.kind.as_str() {
            CheckpointSigned::KIND => event.facts::<CheckpointSigned>().map(|facts| facts.note),
            KeyRotated::KIND => event.facts::<KeyRotated>().map(|facts| facts.note),
            _ => continue,
        };
        // What is malformed is told by verification.
        let signed = note.ok().and_then(|note| open_by(&note, &keys).ok());
        let size = newest.as_ref().map_or(0, |signed| signed.size);
        newest = signed.filter(|signed| signed.size >= size).or(newest);
    }
    if let Some(signed) = newest {
        let parts = layout.checkpoints();
        create_dir(&parts)
            .and_then(|()| write_file(&path, signed.note.as_bytes(), 0o644))
            .map_err(at(&path))?;
        done.checkpoint = true;
    }
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
        let file = File::open(&path).map_err(at(&path))?;
        // What it hashes to while it is copied is what counts.
        let stored = own.put_from(file, &path).map_err(|error| RepairError::Io {
            path: path.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        if stored.digest == *digest {
            done.bodies.push(*digest);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
