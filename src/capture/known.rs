//! Which episodes the record knows already, in little memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ledger::Digest;
use ledger::Facts as _;
use ledger::catalogue::{DatasetImported, TraceIngested, TraceRevised};

use crate::error::AppError;
use crate::rows::View;

/// Stands for the number of an event that is not in the record yet.
const PENDING: u64 = u64::MAX;

/// The newest event of each external id of each source, with what it says.
///
/// Ids and contents are kept as eight bytes of their digests, so that a million rows take about
/// forty megabytes. Two of a million ids share their eight bytes once in 30 million records; then
/// a row would be recorded as the revision of another, and nothing would be lost.
#[derive(Default)]
pub(super) struct Known {
    by_id: BTreeMap<u64, (u64, u64)>,
    /// Files that each source was read from.
    files: BTreeMap<String, BTreeSet<PathBuf>>,
}

/// What the record knows of an episode that comes in.
pub(super) enum Seen {
    /// Nothing.
    New,
    /// The same.
    Same,
    /// Something else, in this event.
    Other(u64),
    /// Something else, which is on its way to the record.
    OtherPending,
}

impl Known {
    /// Reads what a record knows.
    pub(super) fn list(view: &View) -> Result<Self, AppError> {
        let mut known = Self::default();
        for event in view.events()? {
            let event = event?;
            if event.kind == DatasetImported::KIND {
                let facts: DatasetImported = event.facts()?;
                if let Some(path) = event.measured.get("path").and_then(|path| path.as_str()) {
                    known.put_file(&facts.source, Path::new(path));
                }
                continue;
            }
            let trace = match event.kind.as_str() {
                TraceIngested::KIND => event.facts::<TraceIngested>()?,
                TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
                _ => continue,
            };
            known.put(&trace.source, &trace.external_id, trace.content, Some(event.seq));
        }
        Ok(known)
    }

    /// Notes that a source was read from a file.
    pub(super) fn put_file(&mut self, source: &str, path: &Path) {
        self.files.entry(source.to_owned()).or_default().insert(real(path));
    }

    /// Returns another file that a source was read from, unless it was read from this one too.
    pub(super) fn other_file(&self, source: &str, path: &Path) -> Option<&Path> {
        let files = self.files.get(source)?;
        if files.contains(&real(path)) {
            return None;
        }
        files.first().map(PathBuf::as_path)
    }

    /// Says what is known of an episode.
    pub(super) fn see(&self, source: &str, external_id: &str, content: Digest) -> Seen {
        match self.by_id.get(&key(source, external_id)) {
            None => Seen::New,
            Some((_, known)) if *known == short(&content) => Seen::Same,
            Some((PENDING, _)) => Seen::OtherPending,
            Some((seq, _)) => Seen::Other(*seq),
        }
    }

    /// Notes an episode; without a number it is on its way.
    pub(super) fn put(&mut self, source: &str, id: &str, content: Digest, seq: Option<u64>) {
        self.by_id.insert(key(source, id), (seq.unwrap_or(PENDING), short(&content)));
    }
}

/// Names a file in one way, however its path was written.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn key(source: &str, external_id: &str) -> u64 {
    short(&Digest::of(format!("{source}\0{external_id}").as_bytes()))
}

fn short(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default())
}
