//! What could not be recorded, kept where a full disk or a broken log cannot lose it.
//!
//! The record itself is what fails then. So each server has a file of fixed length in the notebook,
//! made while there was room, in which it counts what was lost. Writing over bytes that are there
//! needs no room. As soon as the record takes events again it is told, and the count starts anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ledger::catalogue::CaptureLost;
use serde::{Deserialize, Serialize};

use crate::error::AppError;
use crate::lab::{Lab, Place};

/// Length of a file, in bytes: one page, which is written whole.
const LENGTH: usize = 4096;
/// Most servers of one notebook at once.
const FILES: usize = 64;
/// Most bytes of a reason that are kept.
const REASON_MAX: usize = 200;
/// Most entries of a file; more are added up.
const ENTRIES_MAX: usize = 8;
/// Folder in the notebook.
const FOLDER: &str = "gaps";

/// Calls that were answered, and that are not known to be in the record: at most so many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Source that they would have belonged to.
    pub source: String,
    /// How many.
    pub calls: u64,
    /// Why, as the last of them met it.
    pub reason: String,
    /// When the first of them was lost, in microseconds since 1970.
    pub since_us: i64,
    /// When the last of them was.
    pub until_us: i64,
    /// The record was told once, and may know it though it said no: nothing is added to it.
    pub is_closed: bool,
}

/// Counts what one server loses.
pub struct Gap {
    folder: PathBuf,
    file: Option<File>,
    lost: Mutex<Vec<Lost>>,
}

impl Gap {
    /// Takes a file of the notebook that no other server has. What stands in it from a server that
    /// ended is taken over. Where there can be no file, losses are counted in memory only.
    pub fn open(notebook: &Path) -> Self {
        let folder = notebook.join(FOLDER);
        match open(&folder) {
            Ok((file, lost)) => Self { folder, file: Some(file), lost: Mutex::new(lost) },
            Err(error) => {
                eprintln!("what cannot be recorded is counted in memory only: {error}");
                Self { folder, file: None, lost: Mutex::default() }
            }
        }
    }

    /// Counts what was lost; says whether it is the first since the record was told.
    pub fn lose(&self, source: &str, calls: u64, reason: &str) -> bool {
        let mut all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let now = chrono::Utc::now().timestamp_micros();
        let is_open = |lost: &Lost| lost.source == source && !lost.is_closed;
        let is_first = !all.iter().any(is_open);
        if is_first && all.len() < ENTRIES_MAX {
            let source = source.to_owned();
            all.push(Lost { source, since_us: now, ..Lost::default() });
        }
        let place = all.iter().position(is_open).unwrap_or(ENTRIES_MAX - 1);
        if let Some(lost) = all.get_mut(place) {
            lost.calls += calls;
            lost.until_us = now;
            lost.reason = short(reason);
        }
        self.write(&all);
        is_first
    }

    /// Tells the record what this server lost, and servers that ended, where it was not told yet.
    ///
    /// # Errors
    /// When the record does not take it; it stays counted, and is told again.
    pub fn settle(&self, lab: &Lab<'_>) -> Result<(), AppError> {
        lab.notebook.ready(0)?;
        let mut all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(lost) = all.first_mut() {
            // It may be in the log though telling it failed: then it must be the same again.
            lost.is_closed = true;
            let told = tell(lab, lost);
            if told.is_ok() {
                all.remove(0);
            }
            self.write(&all);
            told?;
        }
        drop(all);
        self.settle_others(lab)
    }

    /// Tells what stands in files of servers that ended.
    fn settle_others(&self, lab: &Lab<'_>) -> Result<(), AppError> {
        for number in 0..FILES {
            let options =
                OpenOptions::new().read(true).write(true).open(path(&self.folder, number));
            let Ok(file) = options else { break };
            if file.try_lock().is_err() {
                continue;
            }
            let all = read(&file);
            all.iter().try_for_each(|lost| tell(lab, lost))?;
            if !all.is_empty() {
                write(&file, &[]);
            }
        }
        Ok(())
    }

    fn write(&self, all: &[Lost]) {
        if let Some(file) = &self.file {
            write(file, all);
        }
    }
}

fn tell(lab: &Lab<'_>, lost: &Lost) -> Result<(), AppError> {
    let Lost { source, calls, reason, since_us, until_us, .. } = lost.clone();
    let id = format!("lost/{source}/{since_us}/{calls}");
    let facts = CaptureLost { source: source.clone(), calls, reason };
    let measured = serde_json::json!({ "since_us": since_us, "until_us": until_us });
    let place = Place::default().measured(measured);
    lab.record(&format!("trace/{source}"), &id, &facts, place)?;
    Ok(())
}

/// Keeps the beginning of a reason, on one line, in so many bytes whatever it holds.
fn short(reason: &str) -> String {
    let (mut kept, mut bytes) = (String::new(), 0);
    for c in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        // JSON writes two bytes for these.
        bytes += if matches!(c, '"' | '\\') { 2 } else { c.len_utf8() };
        if bytes > REASON_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

fn write(file: &File, all: &[Lost]) {
    let mut bytes = serde_json::to_vec(all).unwrap_or_default();
    bytes.resize(LENGTH, b' ');
    // Nobody can be told of a failure here: the count in memory is what is left.
    let _ = file.write_all_at(&bytes, 0).and_then(|()| file.sync_data());
}

fn open(folder: &Path) -> io::Result<(File, Vec<Lost>)> {
    fs::create_dir_all(folder)?;
    for number in 0..FILES {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path(folder, number))?;
        if file.try_lock().is_err() {
            continue;
        }
        let lost = read(&file);
        if file.metadata()?.len() != LENGTH as u64 {
            // Holes take no room until they are written, so they are written now.
            file.write_all_at(&[b' '; LENGTH], 0)?;
            file.set_len(LENGTH as u64)?;
            file.sync_all()?;
        }
        return Ok((file, lost));
    }
    Err(io::Error::other(format!("{FILES} servers have this notebook open")))
}

fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("gap-{number}.json"))
}

fn read(file: &File) -> Vec<Lost> {
    let mut text = String::new();
    let mut start = io::Read::take(file, LENGTH as u64);
    match start.read_to_string(&mut text) {
        Ok(_) => serde_json::from_str(text.trim()).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Lists what servers of a notebook lost and the record was not told yet.
///
/// # Errors
/// When the files cannot be read.
pub fn untold(notebook: &Path) -> io::Result<Vec<Lost>> {
    let mut all = Vec::new();
    for number in 0..FILES {
        match File::open(path(&notebook.join(FOLDER), number)) {
            Ok(file) => all.extend(read(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use ledger::{Facts as _, Notebook, SystemClock};

    use super::*;
    use crate::lab::Talk;

    fn told(notebook: &Notebook) -> Vec<CaptureLost> {
        let events = notebook.reader().events(0).unwrap().map(|event| event.unwrap());
        let lost = events.filter(|event| event.kind == CaptureLost::KIND);
        lost.map(|event| event.facts().unwrap()).collect()
    }

    #[test]
    fn losses_are_told_once_whoever_tells_them() {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "ada").unwrap();
        let lab = Lab { notebook: &notebook, actor: "ada", talk: Talk { quiet: true } };
        let (gap, other) = (Gap::open(dir.path()), Gap::open(dir.path()));
        assert!(gap.lose("gateway", 2, "full\u{1b}[2J"));
        assert!(!gap.lose("gateway", 3, &"é".repeat(5_000)));
        assert!(gap.lose("serve", 1, "full"));
        assert!(other.lose("gateway", 7, "failed"));
        let seen = untold(dir.path()).unwrap();
        assert_eq!(seen.iter().map(|lost| lost.calls).collect::<Vec<_>>(), [5, 1, 7]);
        assert!(seen.iter().all(|lost| lost.reason.len() <= REASON_MAX));
        // A server that runs tells its own; one that ended is told by whoever is there.
        gap.settle(&lab).unwrap();
        assert_eq!(told(&notebook).len(), 2);
        drop(other);
        gap.settle(&lab).unwrap();
        gap.settle(&lab).unwrap();
        assert_eq!(told(&notebook).iter().map(|lost| lost.calls).sum::<u64>(), 13);
        assert!(untold(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_was_told_though_telling_failed_is_not_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "ada").unwrap();
        let lab = Lab { notebook: &notebook, actor: "ada", talk: Talk { quiet: true } };
        let gap = Gap::open(dir.path());
        gap.lose("gateway", 2, "full");
        // The event came into the log, and nobody heard of it.
        let closed = Lost { is_closed: true, ..untold(dir.path()).unwrap().remove(0) };
        tell(&lab, &closed).unwrap();
        gap.lost.lock().unwrap()[0].is_closed = true;
        assert!(gap.lose("gateway", 9, "failed"));
        gap.settle(&lab).unwrap();
        assert_eq!(told(&notebook).iter().map(|lost| lost.calls).collect::<Vec<_>>(), [2, 9]);
    }

    #[test]
    fn many_sources_still_fit() {
        let dir = tempfile::tempdir().unwrap();
        let gap = Gap::open(dir.path());
        for source in 0..20 {
            gap.lose(&format!("source-{source}"), 1, &"\"".repeat(500));
        }
        let seen = untold(dir.path()).unwrap();
        assert_eq!(seen.iter().map(|lost| lost.calls).sum::<u64>(), 20);
    }
}
