//! Verification: re-hashes what is on disk and names everything that is not as it was written.
//!
//! What is trusted is the verifier key that the first event names (compare it with one that was
//! kept elsewhere). Of events that no signed checkpoint covers, only accidental damage can be
//! found.

mod journal;
mod segment;
mod store;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::blob::{BlobError, Blobs};
use crate::catalogue::{CheckpointSigned, LedgerCreated};
use crate::checkpoint::open_note;
use crate::id::Digest;
use crate::layout::{Config, Layout};
use crate::reader::ReadError;

use self::journal::Scan;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub what: String,
    /// Which file or part.
    pub where_: String,
    /// Event that is concerned, where it is one.
    pub seq: Option<u64>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Events whose stored bytes are sound.
    pub events: u64,
    /// Segments of the journal.
    pub segments: u64,
    /// Bodies that events name.
    pub blobs: u64,
    /// Signed checkpoints: in events, and in `checkpoints/latest`.
    pub checkpoints: u64,
    /// Events that the largest good checkpoint covers. Behind them only accidental damage shows.
    pub signed: u64,
    /// RFC 6962 root over the events up to the first that is damaged.
    pub root: Digest,
    /// Key that the checkpoints were checked with.
    pub verifier_key: Option<String>,
    /// How the store compares: `equal`, `behind by N`, `missing`, `skipped: ...` or `damaged`.
    pub store: String,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Tells whether nothing is wrong.
    pub fn good(&self) -> bool {
        self.damage.is_empty()
    }

    fn wrong(&mut self, seq: Option<u64>, where_: impl Into<String>, what: impl Into<String>) {
        self.damage.push(Damage { what: what.into(), where_: where_.into(), seq });
    }
}

/// Says why a notebook cannot be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The notebook cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Verifies the notebook in `dir`. Works while a process writes to it; the store is compared only
/// when nobody holds the lock.
///
/// # Errors
/// When there is no notebook, or the file system refuses. Damage is no error: it is reported.
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout)?;
    let mut report = VerifyReport {
        events: 0,
        segments: 0,
        blobs: 0,
        checkpoints: 0,
        signed: 0,
        root: Digest::of(b""),
        verifier_key: None,
        store: String::new(),
        damage: Vec::new(),
    };
    // The lock is taken first, so that the journal stands still while it is compared.
    let hold = store::hold(&layout);
    // Read before the journal is, so that it cannot cover more than is read.
    let latest = latest_checkpoint(&layout)?;
    let scan = Scan::over(&layout, hold.is_err(), &mut report)?;
    report.root = scan.root();
    check_first(&scan, &config, &mut report);
    check_checkpoints(&scan, latest.as_ref(), &mut report);
    check_blobs(dir, &scan, &mut report)?;
    report.store = match hold {
        Ok(_lock) => store::compare(&layout, &scan, &mut report),
        Err(why) => format!("skipped: {why}"),
    };
    Ok(report)
}

/// Checks that the log begins as it should, and takes the verifier key from there.
fn check_first(scan: &Scan, config: &Config, report: &mut VerifyReport) {
    let Some(first) = &scan.first else {
        if report.events > 0 {
            report.wrong(Some(0), "journal", "the first event cannot be read");
        }
        return;
    };
    match first.facts::<LedgerCreated>() {
        Ok(created) => {
            if created.origin != config.origin {
                let what =
                    format!("names origin {}, the first event {}", config.origin, created.origin);
                report.wrong(None, "ledger.toml", what);
            }
            report.verifier_key = Some(created.verifier_key);
        }
        Err(error) => report.wrong(Some(0), "journal", error.to_string()),
    }
}

/// Reads `checkpoints/latest`: its path and its note.
fn latest_checkpoint(layout: &Layout) -> Result<Option<(String, String)>, VerifyError> {
    let path = layout.latest_checkpoint();
    match fs::read(&path) {
        Ok(note) => {
            let note = String::from_utf8_lossy(&note).into_owned();
            Ok(Some((path.display().to_string(), note)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(VerifyError::Io { path, source }),
    }
}

/// Checks every signed checkpoint against its key and against the events.
fn check_checkpoints(scan: &Scan, latest: Option<&(String, String)>, report: &mut VerifyReport) {
    for (seq, facts) in &scan.checkpoints {
        let where_ = format!("event {seq}");
        let signed = check_note(scan, report, Some(*seq), &where_, &facts.note);
        let same = |found: &CheckpointSigned| (found.size, found.root) == (facts.size, facts.root);
        if signed.as_ref().is_some_and(|signed| !same(signed)) {
            report.wrong(Some(*seq), where_, "size and root differ from those in its note");
        }
    }
    if let Some((where_, note)) = latest {
        check_note(scan, report, None, where_, note);
    }
}

/// Checks one note. Returns what it says where its signature is good.
fn check_note(
    scan: &Scan,
    report: &mut VerifyReport,
    seq: Option<u64>,
    where_: &str,
    note: &str,
) -> Option<CheckpointSigned> {
    report.checkpoints += 1;
    let key = report.verifier_key.clone()?;
    let signed = match open_note(note, &key) {
        Ok(signed) => signed,
        Err(error) => {
            report.wrong(seq, where_, error.to_string());
            return None;
        }
    };
    match scan.root_at(signed.size) {
        Some(root) if root == signed.root => report.signed = report.signed.max(signed.size),
        Some(root) => {
            let what = format!(
                "the first {} events have root {root}, signed was {}",
                signed.size, signed.root
            );
            report.wrong(seq, where_, what);
        }
        None => {
            let what = format!("{} events were signed, not all can be read", signed.size);
            report.wrong(seq, where_, what);
        }
    }
    Some(CheckpointSigned { size: signed.size, root: signed.root, note: note.to_owned() })
}

/// Checks every body that an event names.
fn check_blobs(dir: &Path, scan: &Scan, report: &mut VerifyReport) -> Result<(), VerifyError> {
    let blobs = Blobs::open(dir);
    for (digest, (seq, lengths)) in &scan.bodies {
        report.blobs += 1;
        let path = blobs.path(digest);
        match blobs.check(digest) {
            Ok(()) => {
                let length = fs::metadata(&path)
                    .map_err(|source| VerifyError::Io { path: path.clone(), source })?
                    .len();
                if lengths.iter().any(|&said| said != length) {
                    let what = format!("has {length} bytes, events say {lengths:?}");
                    report.wrong(Some(*seq), path.display().to_string(), what);
                }
            }
            Err(BlobError::Io { path, source }) => return Err(VerifyError::Io { path, source }),
            Err(error) => {
                report.wrong(Some(*seq), path.display().to_string(), error.to_string());
            }
        }
    }
    Ok(())
}
