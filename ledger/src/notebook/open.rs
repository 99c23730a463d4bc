//! Recovery: bringing journal and store together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Dropped, OpenError};
use crate::checkpoint;
use crate::clock::Clock;
use crate::codec;
use crate::durable::sync_dir;
use crate::id::Digest;
use crate::journal::recover;
use crate::layout::{Layout, Lock};
use crate::merkle::Frontier;
use crate::plan::Overlay;
use crate::reader::{Reader, Shared};
use crate::store::{Row, Store, StoreError};
use crate::writer::{Options, Writer};

/// Rows that are applied to the store at a time.
const BATCH: usize = 512;

/// What opening found and mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Events in the log.
    pub events: u64,
    /// An unfinished write at the end of the journal, which was dropped.
    pub dropped: Option<Dropped>,
    /// The store was rebuilt from the journal.
    pub rebuilt: Option<Rebuilt>,
    /// Events that the store had not made durable and was given again.
    pub reapplied: u64,
}

/// Why and how the store was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was wrong with it.
    pub why: String,
    /// Where the old one was put; none where there was none.
    pub set_aside: Option<PathBuf>,
}

/// Opens everything that the writer owns.
pub(super) fn open(
    layout: &Layout,
    lock: Lock,
    clock: Arc<dyn Clock>,
    options: Options,
) -> Result<(Writer, OpenReport), OpenError> {
    let found = find_store(layout);
    let known = found.as_ref().map_or(0, Store::applied);
    // A checkpoint is signed after the events that it covers were durable.
    let signed = checkpoint::latest_size(layout).unwrap_or(0);
    let floor = known.max(signed);
    let (journal, dropped) = recover(&layout.journal(), options.segment_bytes, floor)?;
    let mut report = OpenReport { events: journal.next(), dropped, ..OpenReport::default() };
    let reader = Reader::over(layout.clone(), None);
    let mut store = match found {
        Ok(store) => {
            agree(&store, &reader)?;
            report.reapplied = journal.next().saturating_sub(store.flushed());
            store
        }
        Err(why) => {
            let set_aside = set_aside(&layout.store())
                .map_err(|source| OpenError::Io { path: layout.store(), source })?;
            // A notebook that was just made has no store to miss.
            if journal.next() > 0 || set_aside.is_some() {
                report.rebuilt = Some(Rebuilt { why: why.to_string(), set_aside });
            }
            Store::create(&layout.store()).map_err(|error| failed(layout, &error))?
        }
    };
    let frontier = catch_up(&mut store, &reader, &options, layout)?;
    let shared = Arc::new(Shared::default());
    shared.publish(&frontier);
    let writer = Writer {
        clock,
        options,
        journal,
        store,
        frontier,
        shared,
        _lock: lock,
        pending: Overlay::default(),
        poisoned: None,
        stopped: None,
        unflushed_bytes: 0,
    };
    Ok((writer, report))
}

fn failed(layout: &Layout, error: &StoreError) -> OpenError {
    OpenError::Store { path: layout.store(), reason: error.to_string() }
}

/// Opens the store, or says why it cannot be used.
fn find_store(layout: &Layout) -> Result<Store, String> {
    let path = layout.store();
    if !path.exists() {
        return Err("it is missing".to_owned());
    }
    Store::open(&path).map_err(|error| error.to_string())
}

/// Moves a store out of the way.
fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut n = 0_u32;
    let mut aside = path.with_extension(format!("set-aside-{n}"));
    while aside.exists() {
        n += 1;
        aside = path.with_extension(format!("set-aside-{n}"));
    }
    fs::rename(path, &aside)?;
    if let Some(parent) = path.parent() {
        sync_dir(parent)?;
    }
    Ok(Some(aside))
}

/// Checks that journal and store hold the same event where the store was last flushed. Both have
/// passed their own checks, so if they differ, one was changed on purpose: neither is trusted.
fn agree(store: &Store, reader: &Reader) -> Result<(), OpenError> {
    let Some(last) = store.flushed().checked_sub(1) else { return Ok(()) };
    let path = reader.dir().join("store");
    let kept = store
        .event(last)
        .map_err(|error| OpenError::Store { path: path.clone(), reason: error.to_string() })?;
    if kept == reader.raw(last)? {
        return Ok(());
    }
    Err(OpenError::Corrupt {
        path,
        offset: 0,
        seq: last,
        what: "journal and store hold different bytes for it".to_owned(),
    })
}

/// Gives the store every event since its last completed flush, also those that it seems to have.
fn catch_up(
    store: &mut Store,
    reader: &Reader,
    options: &Options,
    layout: &Layout,
) -> Result<Frontier, OpenError> {
    let from = store.flushed();
    let mut frontier = store.frontier(from).map_err(|error| failed(layout, &error))?;
    let mut frames = reader.frames(from);
    let mut rows = Vec::with_capacity(BATCH);
    while let Some(frame) = frames.next_frame()? {
        let seq = frame.mark.seq;
        let event = codec::decode(&frame.event).map_err(|error| OpenError::Corrupt {
            path: layout.journal(),
            offset: frame.offset,
            seq,
            what: error.to_string(),
        })?;
        let nodes = frontier.push(&frame.event);
        rows.push(Row {
            seq,
            id: event.id,
            stream: event.stream,
            version: event.version,
            digest: Digest::of(&frame.event),
            bytes: frame.event,
            nodes,
        });
        if rows.len() == BATCH {
            store.apply(&rows).map_err(|error| failed(layout, &error))?;
            rows.clear();
            if store.applied() - store.flushed() >= options.flush_events {
                store.flush(&frontier).map_err(|error| failed(layout, &error))?;
            }
        }
    }
    store.apply(&rows).map_err(|error| failed(layout, &error))?;
    if store.flushed() < frontier.size() {
        store.flush_noted(&frontier).map_err(|error| failed(layout, &error))?;
    }
    Ok(frontier)
}
