//! Recovery: bringing the journal and the copies behind it together.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use super::{Dropped, OpenError};
use crate::applier::{Applier, ApplyError, Copies};
use crate::clock::Clock;
use crate::durable::create_dir;
use crate::ids::{IdFile, IdTable};
use crate::journal::recover;
use crate::layout::{Layout, Lock, set_aside};
use crate::merkle::Frontier;
use crate::reader::{Reader, Shared};
use crate::store::{Store, Watermark};
use crate::tree::Tiles;
use crate::writer::{Options, State, Writer};

/// What opening found and mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Events in the log.
    pub events: u64,
    /// An unfinished write at the end of the journal, which was dropped.
    pub dropped: Option<Dropped>,
    /// The store, the tree or the table of request ids were rebuilt from the journal.
    pub rebuilt: Option<Rebuilt>,
    /// Events that the store had not made durable and was given again.
    pub reapplied: u64,
    /// Why other processes cannot write through this one.
    pub unreachable: Option<String>,
}

/// Why and how the copies behind the journal were rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was wrong.
    pub why: String,
    /// Where the old store was put; none where there was none, or it was sound.
    pub set_aside: Option<PathBuf>,
}

/// A notebook that is being brought together.
struct Recovery<'a> {
    layout: &'a Layout,
    options: &'a Options,
    /// Reads the journal as it stands.
    reader: Reader,
    table: IdTable,
    report: OpenReport,
}

/// Opens everything that appending needs.
pub(super) fn open(
    layout: &Layout,
    lock: Lock,
    clock: Arc<dyn Clock>,
    options: Options,
) -> Result<(Writer, OpenReport), OpenError> {
    let found = find_store(layout);
    let known = found.as_ref().map_or(0, |(_, _, applied)| *applied);
    let floor = known.max(layout.known_events());
    let device = Arc::clone(&options.device);
    let (journal, dropped) = recover(&layout.journal(), options.segment_bytes, floor, device)?;
    let mut recovery = Recovery {
        layout,
        options: &options,
        reader: Reader::over(layout.clone(), None),
        table: IdTable::default(),
        report: OpenReport { events: journal.next(), dropped, ..OpenReport::default() },
    };
    let (store, mark) = recovery.store(found)?;
    let mut copies = recovery.copies(store, mark)?;
    recovery.catch_up(&mut copies, mark)?;
    let Recovery { table, report, .. } = recovery;
    let shared = Arc::new(Shared::begin(copies.frontier.clone()));
    let reader = Reader::over(layout.clone(), Some(Arc::clone(&shared)));
    let store = copies.store.reader();
    let frames = reader.frames(copies.applied());
    let applier = Applier::start(copies, frames, Arc::clone(&shared))
        .map_err(|source| OpenError::Io { path: layout.dir().to_owned(), source })?;
    let io = |source| OpenError::Io { path: layout.journal(), source };
    let place = File::open(layout.journal()).map_err(io)?;
    let writer = Writer {
        clock,
        options,
        shared,
        applier,
        reader,
        place,
        state: Mutex::new(State::new(journal, store, table, lock)),
        turned: Condvar::new(),
    };
    Ok((writer, report))
}

fn failed(layout: &Layout, error: ApplyError) -> OpenError {
    match error {
        ApplyError::Read(error) => error.into(),
        ApplyError::Decode { seq, source } => {
            OpenError::Corrupt { path: layout.journal(), offset: 0, seq, what: source.to_string() }
        }
        error => OpenError::Store { path: layout.store(), reason: error.to_string() },
    }
}

/// Opens the store, or says why it cannot be used.
fn find_store(layout: &Layout) -> Result<(Store, Watermark, u64), String> {
    let path = layout.store();
    if !path.exists() {
        return Err("it is missing".to_owned());
    }
    Store::open(&path).map_err(|error| error.to_string())
}

impl Recovery<'_> {
    /// Takes the store up, or sets it aside and makes a new one.
    fn store(
        &mut self,
        found: Result<(Store, Watermark, u64), String>,
    ) -> Result<(Store, Option<Watermark>), OpenError> {
        let path = self.layout.store();
        let why = match found {
            Ok((store, mark, _)) => {
                agree(&store, mark, &self.reader)?;
                return Ok((store, Some(mark)));
            }
            Err(why) => why,
        };
        let set_aside =
            set_aside(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        // A notebook that was just made has no store to miss.
        if self.report.events > 0 || set_aside.is_some() {
            self.report.rebuilt = Some(Rebuilt { why, set_aside });
        }
        let store = Store::create(&path)
            .map_err(|error| OpenError::Store { path, reason: error.to_string() })?;
        Ok((store, None))
    }

    /// Takes up tree and request ids where they agree with the store's watermark, or begins all
    /// three from the first event again.
    fn copies(&mut self, store: Store, mark: Option<Watermark>) -> Result<Copies, OpenError> {
        let tree = self.layout.tree();
        let io = |source| OpenError::Io { path: tree.clone(), source };
        create_dir(&tree).map_err(io)?;
        let device = || Arc::clone(&self.options.copies);
        let mut tiles = Tiles::open(&tree).map_err(io)?.on(device());
        let flush_events = self.options.flush_events;
        if let Some(mark) = mark {
            let add = |seq, hash| self.table.add(hash, seq);
            let ids = IdFile::open(&self.layout.ids(), mark.size, add).map_err(io)?;
            let ids = ids.filter(|ids| ids.sum() == mark.ids);
            let frontier = tiles.frontier_at(mark.size).ok();
            let frontier = frontier.filter(|frontier| frontier.root() == mark.root);
            if let (Some(ids), Some(frontier)) = (ids, frontier) {
                tiles.truncate(mark.size).map_err(io)?;
                let (flushed, ids) = (mark.size, ids.on(device()));
                return Ok(Copies { store, tiles, ids, frontier, flushed, flush_events });
            }
            let why = "the tree or the request ids do not fit the store's watermark".to_owned();
            self.report.rebuilt.get_or_insert(Rebuilt { why, set_aside: None });
        }
        self.table = IdTable::default();
        tiles.truncate(0).map_err(io)?;
        let ids = IdFile::open(&self.layout.ids(), 0, |_, _| ()).map_err(io)?;
        let ids = ids.ok_or_else(|| io(io::Error::other("request ids cannot be written")))?;
        let (frontier, ids) = (Frontier::default(), ids.on(device()));
        Ok(Copies { store, tiles, ids, frontier, flushed: 0, flush_events })
    }

    /// Gives the copies every event since the last completed flush, also those that they seem to
    /// have.
    fn catch_up(&mut self, copies: &mut Copies, mark: Option<Watermark>) -> Result<(), OpenError> {
        let layout = self.layout;
        self.report.reapplied = self.report.events.saturating_sub(copies.applied());
        // Where the tree is built again though the store was sound, both must come to one root.
        let mut remembered = mark.filter(|mark| mark.size > copies.applied());
        let mut frames = self.reader.frames(copies.applied());
        let table = &mut self.table;
        loop {
            let taken = copies.catch_up(&mut frames, |seq, hash| table.add(hash, seq));
            if taken.map_err(|error| failed(layout, error))? == 0 {
                break;
            }
            if let Some(mark) = remembered.take_if(|mark| mark.size <= copies.applied())
                && copies.tiles.root_at(mark.size).ok() != Some(mark.root)
            {
                let what = "the events before it have another root than the store remembers";
                return Err(OpenError::Corrupt {
                    path: layout.journal(),
                    offset: 0,
                    seq: mark.size,
                    what: what.to_owned(),
                });
            }
        }
        if copies.flushed < copies.applied() {
            copies.flush().map_err(|error| failed(layout, error))?;
        }
        Ok(())
    }
}

/// Checks that journal and store hold the same event where the store was last flushed. Both have
/// passed their own checks, so if they differ, one was changed on purpose: neither is trusted.
fn agree(store: &Store, mark: Watermark, reader: &Reader) -> Result<(), OpenError> {
    let Some(last) = mark.size.checked_sub(1) else { return Ok(()) };
    let path = reader.dir().join("store");
    let kept = store
        .event(last)
        .map_err(|error| OpenError::Store { path: path.clone(), reason: error.to_string() })?;
    if kept == reader.raw(last)? {
        return Ok(());
    }
    let what = "journal and store hold different bytes for it".to_owned();
    Err(OpenError::Corrupt { path, offset: 0, seq: last, what })
}
