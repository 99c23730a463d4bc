//! Garbage: files that nothing needs, listed first and removed when somebody agrees.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::blob::BlobError;
use crate::bodies::{Bodies, Gone};
use crate::durable::sync_dir;
use crate::event::FactsError;
use crate::id::Digest;
use crate::layout::Config;
use crate::reader::{ReadError, Reader};

/// Says why garbage cannot be found or removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is malformed, so that nobody knows what it names.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The log has no events, so that everything would be garbage.
    #[error("{}: the log has no events, so nobody can tell what is garbage", dir.display())]
    NoEvents {
        /// Notebook.
        dir: PathBuf,
    },
    /// The directory of bodies cannot be held.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Why a file is garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A body that no event names.
    Unnamed,
    /// A body that `checkpoint.released` gave up.
    Released,
    /// A body whose subject was forgotten.
    Erased,
    /// A file that was being written when its writer ended.
    Unfinished,
    /// The end of a write that was dropped, or a segment that was replaced.
    Quarantined,
    /// A store that was rebuilt.
    SetAside,
}

impl Why {
    /// Says it in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unnamed => "no event names it",
            Self::Released => "its checkpoint was released",
            Self::Erased => "its subject was forgotten",
            Self::Unfinished => "it was never finished",
            Self::Quarantined => "it was replaced or dropped when the journal was mended",
            Self::SetAside => "the store was rebuilt",
        }
    }
}

/// A file or directory that nothing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Why it is garbage.
    pub why: Why,
}

/// Lists the garbage of a notebook. A file younger than `grace` may belong to somebody who is
/// about to name it, and is left out.
///
/// # Errors
/// When the log or a directory cannot be read.
pub fn garbage(reader: &Reader, grace: Duration) -> Result<Vec<Garbage>, GcError> {
    // Files first, then the log: what is named meanwhile is found named.
    let layout = reader.layout();
    // What a newer version names may have a form that is not seen here.
    Config::read(layout)?.writable(layout)?;
    let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut shards = Vec::new();
    let mut found = Vec::new();
    for (path, _) in entries(&layout.blobs())? {
        if path.file_name().is_some_and(|name| name == "tmp") {
            found.extend(old(&path, before, Why::Unfinished)?);
        } else {
            shards.extend(old(&path, before, Why::Unnamed)?);
        }
    }
    let mut bodies = Bodies::default();
    let mut events = 0_u64;
    for event in reader.events(0)? {
        bodies.fold(&event?)?;
        events += 1;
    }
    if events == 0 {
        return Err(GcError::NoEvents { dir: layout.dir().to_owned() });
    }
    for file in shards {
        let digest = digest_of(&file.path);
        let why = match digest.map(|digest| (bodies.gone(&digest), bodies.named.get(&digest))) {
            // What is no body's name is not ours to judge.
            None => continue,
            Some((Some(Gone::Erased(_)), _)) => Why::Erased,
            Some((Some(Gone::Released), _)) => Why::Released,
            Some((None, Some(_))) => continue,
            Some((None, None)) => Why::Unnamed,
        };
        found.push(Garbage { why, ..file });
    }
    found.extend(old(&layout.journal().join("quarantine"), before, Why::Quarantined)?);
    for (path, modified) in entries(layout.dir())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = name.starts_with("store.set-aside-") || name.starts_with("tree.set-aside-");
        if aside && modified <= before {
            found.push(Garbage { bytes: size(&path)?, path, why: Why::SetAside });
        }
    }
    found.sort_by(|a, b| (a.why, &a.path).cmp(&(b.why, &b.path)));
    Ok(found)
}

/// Removes garbage that was listed and still is garbage: since then somebody may have stored or
/// named it again. Returns the bytes that were freed.
///
/// # Errors
/// When the log cannot be read, or a file cannot be removed; those before it are gone.
pub fn sweep(reader: &Reader, listed: &[Garbage], grace: Duration) -> Result<u64, GcError> {
    // Whoever stores a body that is there marks it under this lock, and names it afterwards.
    let _alone = reader.blobs().hold(true)?;
    let still = garbage(reader, grace)?;
    let mut freed = 0;
    for file in listed.iter().filter(|file| still.contains(file)) {
        let removed = if file.path.is_dir() {
            fs::remove_dir_all(&file.path)
        } else {
            fs::remove_file(&file.path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(GcError::Io { path: file.path.clone(), source: error });
            }
            _ => freed += file.bytes,
        }
        if let Some(dir) = file.path.parent() {
            sync_dir(dir).map_err(|source| GcError::Io { path: dir.to_owned(), source })?;
        }
    }
    Ok(freed)
}

/// Lists a directory: paths, and when they were changed. One that is not there is empty.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, SystemTime)>, GcError> {
    let failed = |source| GcError::Io { path: dir.to_owned(), source };
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed)?;
        match entry.metadata().and_then(|meta| meta.modified()) {
            Ok(modified) => found.push((entry.path(), modified)),
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

/// Lists the files of a directory that were not changed since `before`.
fn old(dir: &Path, before: SystemTime, why: Why) -> Result<Vec<Garbage>, GcError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (path, modified) in entries(dir)? {
        if modified <= before && path.is_file() {
            found.push(Garbage { bytes: size(&path)?, path, why });
        }
    }
    Ok(found)
}

fn size(path: &Path) -> Result<u64, GcError> {
    let failed = |source| GcError::Io { path: path.to_owned(), source };
    if path.is_file() {
        return Ok(fs::metadata(path).map_err(failed)?.len());
    }
    entries(path)?.iter().map(|(path, _)| size(path)).sum()
}

/// Reads the digest off the path of a body: `ab/cdef...`.
fn digest_of(path: &Path) -> Option<Digest> {
    let (shard, name) = (path.parent()?.file_name()?, path.file_name()?);
    format!("{}{}", shard.to_str()?, name.to_str()?).parse().ok()
}

#[cfg(test)]
mod tests;
