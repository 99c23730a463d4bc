//! Finding the files to ingest.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::AppError;

/// Bytes that are looked at to tell the format.
const HEAD: u64 = 64 * 1024;

/// Lists the files behind paths: a file as it is, a folder's data files by name, at any depth.
///
/// # Errors
/// When a path is not there or a folder cannot be read.
pub fn found(paths: &[PathBuf]) -> Result<Vec<PathBuf>, AppError> {
    let mut files = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(AppError::file(path))?;
        if meta.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), AppError> {
    let entries = fs::read_dir(dir).map_err(AppError::file(dir))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(AppError::file(dir))?.path());
    }
    paths.sort();
    for path in paths {
        let data = path.extension().is_some_and(|e| e == "jsonl" || e == "json" || e == "ndjson");
        if path.is_dir() {
            walk(&path, files)?;
        } else if data {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the first bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub fn head(path: &Path) -> Result<Vec<u8>, AppError> {
    let file = fs::File::open(path).map_err(AppError::file(path))?;
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).map_err(AppError::file(path))?;
    Ok(head)
}
