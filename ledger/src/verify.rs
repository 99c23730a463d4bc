//! Verification: re-hashes what is on disk and names everything that is not as it was written.
//!
//! What is trusted is the verifier key that the first event names (compare it with one that was
//! kept elsewhere). Of events that no signed checkpoint covers, only accidental damage can be
//! found.

mod journal;
mod segment;
mod store;

#[cfg(test)]
mod flips;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::blob::{BlobError, Blobs};
use crate::catalogue::{CheckpointSigned, KeyRotated, LedgerCreated};
use crate::checkpoint::{CheckpointError, SignedCheckpoint, open_by, open_note};
use crate::event::Facts;
use crate::id::Digest;
use crate::keys::KeyHistory;
use crate::layout::{Config, Lacks, Layout};
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
    /// Events that the largest good checkpoint on this disk covers.
    pub signed: u64,
    /// Events that the largest good checkpoint from elsewhere covers: behind them, whoever holds
    /// this disk and its key could have written anything, and only accidents show.
    pub outside: Option<u64>,
    /// RFC 6962 root over the events up to the first that is damaged.
    pub root: Digest,
    /// Key that is valid at the end of the log.
    pub verifier_key: Option<String>,
    /// How the store compares: `equal`, `behind by N`, `missing`, `skipped: ...` or `damaged`.
    pub store: String,
    /// Bodies that are gone and may be: their subject was forgotten, or they were released.
    pub gone: u64,
    /// Bodies that cannot be read here because this log was imported: they, or the keys of their
    /// subjects, stayed where it was made.
    pub elsewhere: u64,
    /// Bodies that are missing or damaged.
    pub bad_blobs: Vec<Digest>,
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

/// What was kept elsewhere, to hold the notebook against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Checkpoints: a name to tell each by, and the signed note.
    pub checkpoints: Vec<(String, String)>,
    /// Verifier key that the log must begin with.
    pub key: Option<String>,
}

/// Verifies the notebook in `dir` by what is in it. See [`verify_against`].
///
/// # Errors
/// As [`verify_against`].
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    verify_against(dir, &Outside::default())
}

/// Verifies the notebook in `dir`, and that it extends what was kept elsewhere. Works while a
/// process writes to it; the store is compared only when nobody holds the lock.
///
/// # Errors
/// When there is no notebook, or the file system refuses. Damage is no error: it is reported.
pub fn verify_against(dir: &Path, outside: &Outside) -> Result<VerifyReport, VerifyError> {
    let layout = Layout::new(dir);
    // The lock is taken first, so that the journal stands still while it is compared.
    let config = Config::read(&layout)?;
    let hold = store::hold(&layout);
    run(&layout, &config, outside, hold.as_ref().err().map(String::as_str))
}

/// Verifies a notebook whose lock the caller holds.
pub(crate) fn verify_held(layout: &Layout) -> Result<VerifyReport, VerifyError> {
    run(layout, &Config::read(layout)?, &Outside::default(), None)
}

/// `held` says why the store is left alone, where somebody else holds the notebook.
fn run(
    layout: &Layout,
    config: &Config,
    outside: &Outside,
    held: Option<&str>,
) -> Result<VerifyReport, VerifyError> {
    let mut report = VerifyReport {
        events: 0,
        segments: 0,
        blobs: 0,
        checkpoints: 0,
        signed: 0,
        outside: None,
        root: Digest::of(b""),
        verifier_key: None,
        store: String::new(),
        gone: 0,
        elsewhere: 0,
        bad_blobs: Vec::new(),
        damage: Vec::new(),
    };
    // Read before the journal is, so that it cannot cover more than is read.
    let latest = latest_checkpoint(layout)?;
    let scan = Scan::over(layout, held.is_some(), &mut report)?;
    report.root = scan.root();
    check_first(&scan, config, outside, &mut report);
    let keys = fold_keys(&scan, &mut report);
    report.verifier_key = keys.newest().map(str::to_owned);
    check_checkpoints(&scan, &keys, latest.as_ref(), &mut report);
    check_outside(&scan, &keys, outside, &mut report);
    check_blobs(layout.dir(), &scan, config.lacks, &mut report)?;
    report.store = match held {
        None => store::compare(layout, &scan, &mut report),
        Some(why) => format!("skipped: {why}"),
    };
    Ok(report)
}

/// Checks that the log begins as it should.
fn check_first(scan: &Scan, config: &Config, outside: &Outside, report: &mut VerifyReport) {
    let Some(first) = scan.own.first().filter(|first| first.seq == 0) else {
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
            if let Some(key) = outside.key.as_ref().filter(|key| **key != created.verifier_key) {
                let what =
                    format!("the log begins with the key {}, not {key}", created.verifier_key);
                report.wrong(Some(0), "journal", what);
            }
        }
        Err(error) => report.wrong(Some(0), "journal", error.to_string()),
    }
}

/// Collects the keys of the log; a rotation that the key before it does not vouch for is damage.
fn fold_keys(scan: &Scan, report: &mut VerifyReport) -> KeyHistory {
    let mut keys = KeyHistory::default();
    for event in &scan.own {
        if let Err(error) = keys.fold(event) {
            report.wrong(Some(event.seq), format!("event {}", event.seq), error.to_string());
        }
    }
    keys
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
fn check_checkpoints(
    scan: &Scan,
    keys: &KeyHistory,
    latest: Option<&(String, String)>,
    report: &mut VerifyReport,
) {
    for event in &scan.own {
        let (size, root, note) = match event.kind.as_str() {
            CheckpointSigned::KIND => match event.facts::<CheckpointSigned>() {
                Ok(facts) => (facts.size, facts.root, facts.note),
                Err(error) => {
                    report.wrong(Some(event.seq), "journal", error.to_string());
                    continue;
                }
            },
            KeyRotated::KIND => match event.facts::<KeyRotated>() {
                Ok(facts) => (facts.size, facts.root, facts.note),
                // Told where the keys were collected.
                Err(_) => continue,
            },
            _ => continue,
        };
        report.checkpoints += 1;
        let where_ = format!("event {}", event.seq);
        // By the key that was valid where it was signed: a rotation may have come in between.
        let opened = keys.at(size).map(|key| open_note(&note, key));
        let signed = held(scan, report, (Some(event.seq), &where_), opened);
        if signed.as_ref().is_some_and(|signed| (signed.size, signed.root) != (size, root)) {
            report.wrong(Some(event.seq), where_, "size and root differ from those in its note");
        }
        report.signed = report.signed.max(signed.map_or(0, |signed| signed.size));
    }
    if let Some((where_, note)) = latest {
        report.checkpoints += 1;
        // A notebook whose log cannot be read has no keys, which was told already.
        let opened = keys.newest().map(|_| open_by(note, keys));
        let signed = held(scan, report, (None, where_), opened);
        report.signed = report.signed.max(signed.map_or(0, |signed| signed.size));
    }
}

/// Checks that the log extends what was kept elsewhere.
fn check_outside(scan: &Scan, keys: &KeyHistory, outside: &Outside, report: &mut VerifyReport) {
    for (name, note) in &outside.checkpoints {
        let mut opened = open_by(note, keys);
        if let (Err(_), Some(key)) = (&opened, &outside.key) {
            opened = open_note(note, key);
        }
        let signed = held(scan, report, (None, name), Some(opened));
        if let Some(signed) = signed {
            report.outside = Some(report.outside.unwrap_or(0).max(signed.size));
        }
    }
}

/// Holds an opened note against the events. Returns it where signature and root are good.
fn held(
    scan: &Scan,
    report: &mut VerifyReport,
    (seq, where_): (Option<u64>, &str),
    opened: Option<Result<SignedCheckpoint, CheckpointError>>,
) -> Option<SignedCheckpoint> {
    let signed = match opened? {
        Ok(signed) => signed,
        Err(error) => {
            report.wrong(seq, where_, error.to_string());
            return None;
        }
    };
    let (size, root) = (signed.size, signed.root);
    match scan.root_at(size) {
        Some(found) if found == root => return Some(signed),
        Some(found) => {
            let what = format!(
                "the first {size} events have root {found}, signed was {root}: the log is not the \
                 one that was signed"
            );
            report.wrong(seq, where_, what);
        }
        None => {
            report.wrong(seq, where_, format!("{size} events were signed, not all can be read"));
        }
    }
    None
}

/// Checks every body that an event names.
fn check_blobs(
    dir: &Path,
    scan: &Scan,
    lacks: Option<Lacks>,
    report: &mut VerifyReport,
) -> Result<(), VerifyError> {
    let blobs = Blobs::open(dir);
    let mut keyless = BTreeSet::new();
    for (digest, named) in &scan.bodies.named {
        report.blobs += 1;
        let path = blobs.path(digest);
        let gone = scan.bodies.gone(digest);
        match blobs.check(digest) {
            Ok(()) => {
                let length = fs::metadata(&path)
                    .map_err(|source| VerifyError::Io { path: path.clone(), source })?
                    .len();
                if named.lengths.iter().any(|&said| said != length) {
                    let what = format!("has {length} bytes, events say {:?}", named.lengths);
                    report.wrong(Some(named.first), path.display().to_string(), what);
                }
            }
            Err(BlobError::Missing { .. }) if gone.is_some() => report.gone += 1,
            Err(BlobError::Missing { .. }) if lacks == Some(Lacks::Bodies) => {
                report.elsewhere += 1;
                continue;
            }
            Err(BlobError::Io { path, source }) => return Err(VerifyError::Io { path, source }),
            Err(error) => {
                report.bad_blobs.push(*digest);
                report.wrong(Some(named.first), path.display().to_string(), error.to_string());
            }
        }
        let (None, Some(subject)) = (gone, &named.subject) else { continue };
        if matches!(blobs.subjects().key(subject), Ok(Some(_))) {
            continue;
        }
        if lacks.is_some() {
            report.elsewhere += 1;
        } else if keyless.insert(subject.clone()) {
            // Told once for each subject.
            let what = format!("there is no key of subject {subject}, and no event erased it");
            report.wrong(Some(named.first), "keys/subjects", what);
        }
    }
    Ok(())
}
