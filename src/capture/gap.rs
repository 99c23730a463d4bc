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
/// Most characters of a reason that are kept.
const REASON_MAX: usize = 1000;
/// Folder in the notebook.
const FOLDER: &str = "gaps";

/// Calls that were answered, or spans that came, and are not in the record.
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
}

/// Counts what one server loses.
pub struct Gap {
    file: Option<File>,
    lost: Mutex<Lost>,
}

impl Gap {
    /// Takes a file of the notebook that no other server has. What stands in it from a server that
    /// ended is taken over. Where there can be no file, losses are counted in memory only.
    pub fn open(notebook: &Path, source: &str) -> Self {
        let none = Lost { source: source.to_owned(), ..Lost::default() };
        match open(&notebook.join(FOLDER)) {
            Ok((file, lost)) => {
                let lost = lost.filter(|lost| lost.calls > 0).unwrap_or(none);
                Self { file: Some(file), lost: Mutex::new(lost) }
            }
            Err(error) => {
                eprintln!("what cannot be recorded is counted in memory only: {error}");
                Self { file: None, lost: Mutex::new(none) }
            }
        }
    }

    /// Counts what was lost; says whether it is the first since the record was told.
    pub fn lose(&self, calls: u64, reason: &str) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let now = chrono::Utc::now().timestamp_micros();
        let is_first = lost.calls == 0;
        if is_first {
            lost.since_us = now;
        }
        lost.calls += calls;
        lost.until_us = now;
        lost.reason = reason.chars().take(REASON_MAX).collect();
        self.write(&lost);
        is_first
    }

    /// Tells the record what was lost, where it was not told yet. Asked again after a failure, it
    /// tells the same event.
    ///
    /// # Errors
    /// When the record does not take it; it stays counted.
    pub fn settle(&self, lab: &Lab<'_>) -> Result<(), AppError> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.calls == 0 {
            return Ok(());
        }
        let Lost { source, calls, reason, since_us, until_us } = lost.clone();
        let id = format!("lost/{source}/{since_us}/{calls}");
        let facts = CaptureLost { source: source.clone(), calls, reason };
        let measured = serde_json::json!({ "since_us": since_us, "until_us": until_us });
        let place = Place::default().measured(measured);
        lab.record(&format!("trace/{source}"), &id, &facts, place)?;
        *lost = Lost { source, ..Lost::default() };
        self.write(&lost);
        Ok(())
    }

    fn write(&self, lost: &Lost) {
        let Some(file) = &self.file else { return };
        let mut bytes = serde_json::to_vec(lost).unwrap_or_default();
        bytes.resize(LENGTH, b' ');
        // Nobody can be told of a failure here: the count in memory is what is left.
        let _ = file.write_all_at(&bytes, 0).and_then(|()| file.sync_data());
    }
}

fn open(folder: &Path) -> io::Result<(File, Option<Lost>)> {
    fs::create_dir_all(folder)?;
    for number in 0..FILES {
        let path = path(folder, number);
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options?;
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

fn read(mut file: &File) -> Option<Lost> {
    let mut text = String::new();
    io::Read::take(&mut file, LENGTH as u64).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.trim()).ok()
}

/// Lists what servers of a notebook lost and the record was not told yet.
///
/// # Errors
/// When the files cannot be read.
pub fn untold(notebook: &Path) -> io::Result<Vec<Lost>> {
    let mut all = Vec::new();
    for number in 0..FILES {
        match File::open(path(&notebook.join(FOLDER), number)) {
            Ok(file) => all.extend(read(&file).filter(|lost| lost.calls > 0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}
