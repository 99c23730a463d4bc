//! Comparing the store with the journal.

use tlog_tiles::record_hash;

use super::VerifyReport;
use super::journal::Scan;
use crate::ids::IdFile;
use crate::layout::{Layout, Lock, LockError};
use crate::store::{Store, StoreError, Watermark};
use crate::tree::Tiles;

/// Takes the notebook's lock, or says why the store is left alone.
pub(super) fn hold(layout: &Layout) -> Result<Lock, String> {
    Lock::take(layout).map_err(|error| match error {
        LockError::Held(Some(pid)) => format!("held by process {pid}"),
        LockError::Held(None) => "held".to_owned(),
        LockError::Io(error) => format!("no lock: {error}"),
    })
}

/// Compares everything in the store, the tree and the request ids, and says how it came out.
pub(super) fn compare(layout: &Layout, scan: &Scan, report: &mut VerifyReport) -> String {
    let path = layout.store();
    if !path.exists() {
        // It is rebuilt from the journal at the next open, so nothing is lost.
        return "missing".to_owned();
    }
    let before = report.damage.len();
    let where_ = path.display().to_string();
    let outcome = Store::open(&path).and_then(|(store, mark, applied)| {
        compare_events(&store, (scan, applied), &where_, report)?;
        compare_heads(&store, (scan, applied), &where_, report)?;
        compare_tree(layout, scan, mark, report);
        compare_ids(layout, scan, mark, report);
        Ok(applied)
    });
    match outcome {
        Err(error) => {
            let what = format!("{error}; it is rebuilt when the notebook is opened");
            report.wrong(None, where_, what);
            "damaged".to_owned()
        }
        Ok(_) if report.damage.len() > before => "damaged".to_owned(),
        Ok(applied) if applied < scan.end() => format!("behind by {}", scan.end() - applied),
        Ok(_) => "equal".to_owned(),
    }
}

/// Compares the stored bytes of every event.
fn compare_events(
    store: &Store,
    (scan, applied): (&Scan, u64),
    where_: &str,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    if applied > scan.end() {
        let what = format!("the store has {applied} events, the journal ends before");
        report.wrong(Some(scan.end()), where_, what);
    }
    let mut expected = 0;
    store.visit_events(|seq, bytes| {
        if seq >= applied {
            return;
        }
        if seq != expected {
            report.wrong(Some(expected), where_, "the store lacks it");
        }
        expected = seq + 1;
        if scan.leaf(seq).is_some_and(|leaf| leaf != record_hash(bytes)) {
            report.wrong(Some(seq), where_, "journal and store hold different bytes for it");
        }
    })?;
    if expected < applied {
        report.wrong(Some(expected), where_, "the store lacks it");
    }
    Ok(())
}

/// Compares where streams stand.
fn compare_heads(
    store: &Store,
    (scan, applied): (&Scan, u64),
    where_: &str,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    if applied != scan.end() {
        return Ok(());
    }
    for (stream, head) in &scan.streams {
        if store.stream(stream)?.map(|(_, head)| head) != Some(*head) {
            report.wrong(None, where_, format!("the head of stream {stream} is another"));
        }
    }
    Ok(())
}

/// Compares every leaf in the tiles, and their root at the watermark.
fn compare_tree(layout: &Layout, scan: &Scan, mark: Watermark, report: &mut VerifyReport) {
    let where_ = layout.tree().display().to_string();
    let rebuilt = "it is rebuilt when the notebook is opened";
    if let Some(root) = scan.root_at(mark.size)
        && root != mark.root
    {
        let what = format!("the store's root over {} events is another", mark.size);
        report.wrong(None, layout.store().display().to_string(), what);
    }
    let tiles = match Tiles::open_read_only(&layout.tree()) {
        Ok(tiles) => tiles,
        Err(error) => return report.wrong(None, where_, format!("{error}; {rebuilt}")),
    };
    if tiles.root_at(mark.size).ok() != Some(mark.root) {
        let what = format!("it does not come to the root over {} events; {rebuilt}", mark.size);
        report.wrong(None, &where_, what);
    }
    if tiles.size() > scan.end() {
        let what = format!("it has {} events, the journal ends before", tiles.size());
        report.wrong(Some(scan.end()), &where_, what);
    }
    match tiles.wrong_hash() {
        Ok(None) => {}
        Ok(Some((path, n))) => {
            let what = format!("hash {n} is not that over its tile: `ledger repair` rebuilds it");
            report.wrong(None, path.display().to_string(), what);
        }
        Err(error) => report.wrong(None, &where_, format!("{error}; {rebuilt}")),
    }
    let held = tiles.size().min(scan.end());
    let outcome = tiles.visit_leaves(held, |seq, leaf| {
        if scan.leaf(seq).is_some_and(|sound| sound != leaf) {
            report.wrong(Some(seq), &where_, "the tree has another hash for it");
        }
    });
    if let Err(error) = outcome {
        report.wrong(None, where_, format!("{error}; {rebuilt}"));
    }
}

/// Compares the hashes of the request ids.
fn compare_ids(layout: &Layout, scan: &Scan, mark: Watermark, report: &mut VerifyReport) {
    let where_ = layout.ids().display().to_string();
    let rebuilt = "it is rebuilt when the notebook is opened";
    let mut other = None;
    let read = IdFile::read(&layout.ids(), mark.size, |seq, hash| {
        if scan.leaf(seq).is_some() && scan.ids.get(&hash) != Some(&seq) {
            other.get_or_insert(seq);
        }
    });
    match read {
        Ok(Some(file)) if file.sum() == mark.ids => {}
        Ok(_) => report.wrong(other, &where_, format!("it does not fit the store; {rebuilt}")),
        Err(error) => report.wrong(None, where_, format!("{error}; {rebuilt}")),
    }
}
