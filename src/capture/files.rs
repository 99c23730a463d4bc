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

/// What lies behind paths.
#[derive(Default)]
pub(super) struct Walk {
    /// Files to read: a file as it is, a folder's data files by name, at any depth.
    pub(super) files: Vec<Found>,
    /// What was passed over in folders, with the reason.
    pub(super) skipped: Vec<String>,
}

/// Lists the files behind paths. What is odd in a folder is passed over and told.
///
/// # Errors
/// When a path that was named is not there, or is neither file nor folder.
pub(super) fn found(paths: &[PathBuf]) -> Result<Walk, AppError> {
    let mut walk = Walk::default();
    for path in paths {
        let meta = fs::metadata(path).map_err(AppError::file(path))?;
        if meta.is_dir() {
            fs::read_dir(path).map_err(AppError::file(path))?;
            walk.folder(path);
        } else if meta.is_file() {
            let (path, length) = (path.clone(), meta.len());
            walk.files.push(Found { path, length, is_named: true });
        } else {
            let what = format!("{} is neither a file nor a folder", path.display());
            return Err(AppError::hinted(Kind::Input, what, "write what it gives into a file"));
        }
    }
    Ok(walk)
}

impl Walk {
    fn folder(&mut self, dir: &Path) {
        let entries = fs::read_dir(dir).and_then(|entries| {
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()
        });
        match entries {
            Ok(mut paths) => {
                paths.sort();
                paths.into_iter().for_each(|path| self.entry(path));
            }
            Err(error) => self.skip(dir, &error.to_string()),
        }
    }

    fn entry(&mut self, path: PathBuf) {
        let link = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => return self.skip(&path, &error.to_string()),
        };
        if meta.is_dir() {
            // A link may lead back to where it stands.
            if link { self.skip(&path, "a link to a folder") } else { self.folder(&path) }
        } else if !meta.is_file() {
            self.skip(&path, "neither a file nor a folder");
        } else if is_data(&path) {
            self.files.push(Found { path, length: meta.len(), is_named: false });
        } else if !is_text_beside(&path) {
            self.skip(&path, "no data file by its name (.jsonl, .json, .ndjson, also with .gz)");
        }
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.skipped.push(format!("{}: {why}", path.display()));
    }
}

/// Tells data files by the end of their names, packed or not.
fn is_data(path: &Path) -> bool {
    let ends =
        |path: &Path, end: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(end));
    let is_plain = |path: &Path| ENDS.iter().any(|end| ends(path, end));
    is_plain(path) || (ends(path, "gz") && is_plain(&path.with_extension("")))
}

/// Tells what people put beside data: nobody expects it to be read.
fn is_text_beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    ["README", "LICEN", "SOURCE.TOML", "CHANGELOG"].iter().any(|start| name.starts_with(start))
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
