//! Finding the files to ingest.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use datasets::ingest::{self, Format};

use crate::error::{AppError, Kind};

/// Bytes that are looked at to tell the format.
const HEAD: u64 = 64 * 1024;
/// Ends of the names of data files in folders.
const ENDS: [&str; 3] = ["jsonl", "json", "ndjson"];

/// A file that may be read.
pub(super) struct Found {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub length: u64,
    /// It was named itself; else it lies in a folder that was.
    pub is_named: bool,
}

/// Lists the files behind paths: a file as it is, a folder's data files by name, at any depth.
///
/// # Errors
/// When a path is not there or a folder cannot be read.
pub(super) fn found(paths: &[PathBuf]) -> Result<Vec<Found>, AppError> {
    let mut files = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(AppError::file(path))?;
        if meta.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(Found { path: path.clone(), length: meta.len(), is_named: true });
        }
    }
    Ok(files)
}

fn walk(dir: &Path, files: &mut Vec<Found>) -> Result<(), AppError> {
    let entries = fs::read_dir(dir).map_err(AppError::file(dir))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(AppError::file(dir))?.path());
    }
    paths.sort();
    for path in paths {
        let meta = fs::metadata(&path).map_err(AppError::file(&path))?;
        if meta.is_dir() {
            walk(&path, files)?;
        } else if is_data(&path) {
            files.push(Found { path, length: meta.len(), is_named: false });
        }
    }
    Ok(())
}

/// Tells data files by the end of their names, packed or not.
fn is_data(path: &Path) -> bool {
    let end = |path: &Path| path.extension().is_some_and(|end| ENDS.iter().any(|e| end == *e));
    end(path) || (path.extension().is_some_and(|e| e == "gz") && end(&path.with_extension("")))
}

/// Reads the first bytes of a file, unpacked.
///
/// # Errors
/// When it cannot be read.
pub(super) fn head(path: &Path) -> Result<Vec<u8>, AppError> {
    let file = File::open(path).map_err(AppError::file(path))?;
    ingest::head(BufReader::new(file), HEAD).map_err(|error| unpacked(path, error))
}

/// A packed file that cannot be unpacked is bad input, not a bad disk.
fn unpacked(path: &Path, error: io::Error) -> AppError {
    if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
        return AppError::said(Kind::Input, format!("{}: {error}", path.display()));
    }
    AppError::file(path)(error)
}

/// Tells the format of a file by its first bytes.
///
/// # Errors
/// When it cannot be read.
pub(super) fn format_of(path: &Path) -> Result<Option<Format>, AppError> {
    Ok(ingest::detect(path, &head(path)?))
}
