//! Writing files so that they survive a power cut.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::{Device, Disk};

/// Makes names of temporary files unique within the process.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Returns a name for a temporary file in `dir` that no other writer uses.
pub(crate) fn temporary_in(dir: &Path) -> PathBuf {
    let count = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".{}-{count}.tmp", std::process::id()))
}

/// Writes the entries of a directory to disk, so that a rename in it lasts.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory, with its parents, and makes the entry of each new one last.
///
/// # Errors
/// When one cannot be made or its parent cannot be synced.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(parent),
    }
}

/// Writes a whole file: temporary file, fsync, rename, fsync of the directory. Whatever happens,
/// `path` holds the old bytes or the new ones.
///
/// # Errors
/// When any step fails; the temporary file is removed where that is still possible.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_file_on(&Disk, path, bytes, mode)
}

/// [`write_file`] on a device.
pub(crate) fn write_file_on(
    device: &dyn Device,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = temporary_in(dir);
    let written = write_synced(device, &temporary, bytes, mode)
        .and_then(|()| device.rename(&temporary, path))
        .and_then(|()| device.sync_dir(dir));
    if written.is_err() {
        // The first failure is the one to tell; a stray temporary file harms nobody.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes and syncs a new file.
pub(crate) fn write_synced(
    device: &dyn Device,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    let file = write_new(device, path, bytes, mode)?;
    device.sync(&file)
}

/// Writes a new file, and syncs nothing.
pub(crate) fn write_new(
    device: &dyn Device,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    device.write(&file, bytes, 0)?;
    Ok(file)
}

/// Returns how many bytes an ordinary user may still write to the file system of `file`.
pub(crate) fn free_bytes(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn makes_nested_directories_and_refuses_files() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b/c");
        create_dir(&nested).unwrap();
        create_dir(&nested).unwrap();
        assert!(nested.is_dir());
        fs::write(dir.path().join("file"), b"x").unwrap();
        assert!(create_dir(&dir.path().join("file/below")).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_file(&path, b"old", 0o644).unwrap();
        write_file(&path, b"new bytes", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new bytes");
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_file(&dir.path().join("taken"), b"x", 0o644).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
