//! Comparing the store with the journal.

use super::VerifyReport;
use super::journal::Scan;
use crate::id::Digest;
use crate::layout::{Layout, Lock, LockError};
use crate::store::{Store, StoreError};

/// Takes the notebook's lock, or says why the store is left alone.
pub(super) fn hold(layout: &Layout) -> Result<Lock, String> {
    Lock::take(layout).map_err(|error| match error {
        LockError::Held(Some(pid)) => format!("held by process {pid}"),
        LockError::Held(None) => "held".to_owned(),
        LockError::Io(error) => format!("no lock: {error}"),
    })
}

/// Compares everything in the store, and says how it came out.
pub(super) fn compare(layout: &Layout, scan: &Scan, report: &mut VerifyReport) -> String {
    let path = layout.store();
    if !path.exists() {
        // It is rebuilt from the journal at the next open, so nothing is lost.
        return "missing".to_owned();
    }
    let before = report.damage.len();
    let where_ = path.display().to_string();
    let outcome = Store::open(&path).and_then(|store| {
        compare_events(&store, scan, &where_, report)?;
        compare_index(&store, scan, &where_, report)?;
        Ok(store.applied())
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
    scan: &Scan,
    where_: &str,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let applied = store.applied();
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
        if scan.events.get(&seq).is_some_and(|digest| *digest != Digest::of(bytes)) {
            report.wrong(Some(seq), where_, "journal and store hold different bytes for it");
        }
    })?;
    if expected < applied {
        report.wrong(Some(expected), where_, "the store lacks it");
    }
    Ok(())
}

/// Compares tree, request ids and stream heads.
fn compare_index(
    store: &Store,
    scan: &Scan,
    where_: &str,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let applied = store.applied();
    if applied <= scan.sound() {
        let root = store.frontier(applied)?.root();
        if scan.root_at(applied) != Some(root) {
            report.wrong(None, where_, format!("its tree over {applied} events is another"));
        }
    }
    for (id, &seq) in scan.ids.iter().filter(|(_, seq)| **seq < applied) {
        if store.seq_of(id)? != Some(seq) {
            report.wrong(Some(seq), where_, format!("it is not found under its id {id:?}"));
        }
    }
    if applied == scan.end() {
        for (stream, head) in &scan.streams {
            if store.stream(stream)? != Some(*head) {
                report.wrong(None, where_, format!("the head of stream {stream} is another"));
            }
        }
    }
    Ok(())
}
