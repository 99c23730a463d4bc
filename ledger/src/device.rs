//! The calls that durability rests on, in one place: tests put a failing device there.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is written to.
pub(crate) trait Device: Debug + Send + Sync {
    /// Writes all bytes at an offset.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written to a file durable, and its length.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Gives a file another name, in the place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Tells whether [`Device::sync_all`] can be relied on in the file system of `dir`.
    fn syncs_all(&self, dir: &File) -> bool;
    /// Makes all files and names of the file system of `dir` durable. It tells of every failure
    /// since `dir` was opened: open it before the first write.
    fn sync_all(&self, dir: &File) -> io::Result<()>;
}

/// The real device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk;

impl Device for Disk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn syncs_all(&self, dir: &File) -> bool {
        whole::is_reported(dir)
    }

    fn sync_all(&self, dir: &File) -> io::Result<()> {
        whole::sync(dir)
    }
}

/// One sync for a whole file system.
#[cfg(target_os = "linux")]
mod whole {
    use std::fs::{self, File};
    use std::io;
    use std::sync::OnceLock;

    /// Kernels before it do not tell when what a file system keeps beside its files could not be
    /// written; those before 5.8 are silent about the files too.
    const KERNEL: (u32, u32) = (5, 17);

    /// `f_type` of ext4, XFS, Btrfs and F2FS. There `syncfs` writes files, names and the device's
    /// cache, and tells of failures. Others do part of it: FUSE does not ask its server to sync,
    /// overlayfs keeps the failures of the file system below to itself.
    const KNOWN: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

    pub(super) fn is_reported(dir: &File) -> bool {
        static RECENT: OnceLock<bool> = OnceLock::new();
        let release = || fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        *RECENT.get_or_init(|| version(&release()).is_some_and(|version| version >= KERNEL))
            && rustix::fs::fstatfs(dir).is_ok_and(|stat| KNOWN.contains(&(stat.f_type as u64)))
    }

    pub(super) fn sync(dir: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(dir)?)
    }

    /// Reads the first two numbers of a kernel's release, such as `6.18.44-generic`.
    fn version(release: &str) -> Option<(u32, u32)> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    #[test]
    fn versions_of_kernels_are_read() {
        assert_eq!(version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert!(version("5.17-rc1") >= Some(KERNEL) && version("5.9.1") < Some(KERNEL));
        assert_eq!((version(""), version("unknown")), (None, None));
    }
}

#[cfg(not(target_os = "linux"))]
mod whole {
    use std::fs::File;
    use std::io;

    pub(super) fn is_reported(_dir: &File) -> bool {
        false
    }

    pub(super) fn sync(_dir: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
