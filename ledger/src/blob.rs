//! Bodies beside the log: files named by the SHA-256 of their bytes.
//!
//! A body that is named by an event is on disk before the event is: write the body first.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::device::{Device, Disk};
use crate::durable::{create_dir, temporary_in, write_new, write_synced};
use crate::event::BodyRef;
use crate::id::Digest;
use crate::layout::Layout;
use crate::subject::{CIPHER, SubjectError, SubjectKey, Subjects};

/// Bytes that are read at a time where a body is streamed.
const CHUNK: usize = 256 * 1024;

/// So many files are made durable by one sync of the whole file system, where it can be relied on.
/// That waits for what others have written there too, which is not worth it for fewer.
const MANY: usize = 16;

/// The bodies of a notebook.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
    subjects: Subjects,
    device: Arc<dyn Device>,
}

/// Says why a body cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such body.
    #[error("blob {digest} is missing: {} does not exist", path.display())]
    Missing {
        /// Body asked for.
        digest: Digest,
        /// Where it should be.
        path: PathBuf,
    },
    /// The bytes on disk are not those that were stored.
    #[error("blob {digest} is damaged: the bytes of {} hash to {found}", path.display())]
    Damaged {
        /// Body asked for.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// What its bytes hash to.
        found: Digest,
    },
    /// The subject was forgotten.
    #[error("blob {digest} is erased: the key of {subject} was destroyed")]
    Erased {
        /// Body asked for.
        digest: Digest,
        /// Pseudonym of the subject.
        subject: String,
    },
    /// The key of a subject cannot be read.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Attaches a path to an I/O error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> BlobError + use<'_> {
    move |source| BlobError::Io { path: path.to_owned(), source }
}

impl Blobs {
    /// Takes the bodies of the notebook in `dir`. Nothing is read or made yet.
    pub fn open(dir: &Path) -> Self {
        Self::on(dir, Arc::new(Disk))
    }

    pub(crate) fn on(dir: &Path, device: Arc<dyn Device>) -> Self {
        Self {
            dir: Layout::new(dir).blobs(),
            subjects: Subjects::on(dir, Arc::clone(&device)),
            device,
        }
    }

    /// Returns the file of a body, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let (shard, name) = text.split_at(2);
        self.dir.join(shard).join(name)
    }

    /// Stores a body. One that is there already is left as it is.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BodyRef, BlobError> {
        let mut stored = self.store_all(std::iter::once(bytes))?;
        stored.pop().ok_or_else(|| BlobError::Io {
            path: self.dir.clone(),
            source: io::Error::other("nothing was stored"),
        })
    }

    /// Stores a body of a subject: what is stored is encrypted, and named by its ciphertext.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put_for(&self, key: &SubjectKey, bytes: &[u8]) -> Result<BodyRef, BlobError> {
        let stored = self.put(&key.seal(bytes))?;
        let (cipher, subject) = (Some(CIPHER.to_owned()), Some(key.pseudonym().to_owned()));
        Ok(BodyRef { cipher, subject, ..stored })
    }

    /// Returns the subjects whose bodies these are.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Stores many bodies: 16 new ones or more with two syncs of the file system, fewer with one
    /// sync per file and directory.
    ///
    /// # Errors
    /// When the file system refuses; some of the bodies may be stored by then.
    pub fn put_many(&self, bodies: &[Vec<u8>]) -> Result<Vec<BodyRef>, BlobError> {
        self.store_all(bodies.iter().map(Vec::as_slice))
    }

    /// Stores the bytes of a file, in constant memory.
    ///
    /// # Errors
    /// When the file cannot be read or the file system refuses.
    pub fn put_file(&self, path: &Path) -> Result<BodyRef, BlobError> {
        let source = File::open(path).map_err(at(path))?;
        self.put_from(source, path)
    }

    /// Stores whatever a reader gives, in constant memory. `from` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be read or the file system refuses.
    pub fn put_from(&self, mut source: impl Read, from: &Path) -> Result<BodyRef, BlobError> {
        let mut batch = Batch::begin(self)?;
        let temporary = batch.temporary();
        let body = self.copy_hashed(&mut source, from, &temporary).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        batch.add(temporary, &body)?;
        batch.settle()?;
        Ok(body)
    }

    /// Reads a body, checks every byte of it, and decrypts one of a subject.
    ///
    /// # Errors
    /// When it is missing, damaged, erased or cannot be read.
    pub fn get(&self, body: &BodyRef) -> Result<Vec<u8>, BlobError> {
        let (Some(_), Some(subject)) = (&body.cipher, &body.subject) else {
            return self.stored(body);
        };
        let erased = || BlobError::Erased { digest: body.digest, subject: subject.clone() };
        let key = self.subjects.key(subject)?.ok_or_else(erased)?;
        key.open(&self.stored(body)?).ok_or_else(erased)
    }

    /// Reads the stored bytes of a body and checks them.
    fn stored(&self, body: &BodyRef) -> Result<Vec<u8>, BlobError> {
        let (path, mut file) = self.open_stored(&body.digest)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at(&path))?;
        let found = Digest::of(&bytes);
        if found == body.digest {
            Ok(bytes)
        } else {
            Err(BlobError::Damaged { digest: body.digest, path, found })
        }
    }

    /// Copies the stored bytes of a body, in constant memory, and says how many they were. The
    /// end tells whether they were right: what was written before an error is worth nothing.
    ///
    /// # Errors
    /// When it is missing or damaged, cannot be read, or the target cannot be written.
    pub fn copy_to(&self, digest: &Digest, target: &mut impl Write) -> Result<u64, BlobError> {
        let (path, mut file) = self.open_stored(digest)?;
        let size = file.metadata().map_err(at(&path))?.len();
        let (found, length) = hash_to(&mut file, target, chunk(size)).map_err(at(&path))?;
        if found == *digest {
            Ok(length)
        } else {
            Err(BlobError::Damaged { digest: *digest, path, found })
        }
    }

    fn open_stored(&self, digest: &Digest) -> Result<(PathBuf, File), BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::Missing { digest: *digest, path })
            }
            Err(source) => Err(BlobError::Io { path, source }),
        }
    }

    /// Checks every byte of a body, in constant memory.
    ///
    /// # Errors
    /// When it is missing, damaged or cannot be read.
    pub fn check(&self, digest: &Digest) -> Result<(), BlobError> {
        self.copy_to(digest, &mut io::sink()).map(drop)
    }

    /// Writes the bodies that are not there, syncs them, gives them their names, and syncs those.
    fn store_all<'a>(
        &self,
        bodies: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<BodyRef>, BlobError> {
        let mut batch = Batch::begin(self)?;
        let (mut stored, mut fresh, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for bytes in bodies {
            let body = BodyRef {
                digest: Digest::of(bytes),
                length: bytes.len() as u64,
                cipher: None,
                subject: None,
            };
            if seen.insert(body.digest) && !batch.has(&body) {
                fresh.push((body.digest, bytes));
            }
            stored.push(body);
        }
        batch.write(&fresh)?;
        batch.settle()?;
        Ok(stored)
    }

    /// Tells whether a body is there, every byte of it, and marks it as wanted: garbage is only
    /// what nobody asked for in a long time.
    fn holds(&self, body: &BodyRef) -> bool {
        let Ok(mut file) = File::open(self.path(&body.digest)) else { return false };
        file.metadata().is_ok_and(|meta| meta.len() == body.length)
            && hash_to(&mut file, &mut io::sink(), chunk(body.length))
                .is_ok_and(|(found, _)| found == body.digest)
            && file.set_modified(SystemTime::now()).is_ok()
    }

    /// Copies into a synced new file and names its content.
    fn copy_hashed(
        &self,
        source: &mut impl Read,
        from: &Path,
        to: &Path,
    ) -> Result<BodyRef, BlobError> {
        let file = OpenOptions::new().write(true).create_new(true).open(to).map_err(at(to))?;
        let mut target = Target { device: self.device.as_ref(), file: &file, offset: 0 };
        let (digest, length) = hash_to(source, &mut target, CHUNK).map_err(at(from))?;
        self.device.sync(&file).map_err(at(to))?;
        Ok(BodyRef { digest, length, cipher: None, subject: None })
    }

    /// Keeps garbage from being collected while bodies are stored, or the other way round.
    pub(crate) fn hold(&self, alone: bool) -> Result<File, BlobError> {
        create_dir(&self.dir).map_err(at(&self.dir))?;
        let dir = File::open(&self.dir).map_err(at(&self.dir))?;
        if alone { dir.lock() } else { dir.lock_shared() }.map_err(at(&self.dir))?;
        Ok(dir)
    }
}

/// Writes to a file through the device.
struct Target<'a> {
    device: &'a dyn Device,
    file: &'a File,
    offset: u64,
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.device.write(self.file, bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bodies that are being stored together. What did not get its name is removed at the end.
struct Batch<'a> {
    blobs: &'a Blobs,
    staging: PathBuf,
    /// Files that were begun, and the bodies that they will be.
    written: Vec<(PathBuf, Digest)>,
    /// Directories to be synced.
    touched: BTreeSet<PathBuf>,
    /// Locked, and opened before anything is written, so that a sync through it tells of all that
    /// could not be.
    hold: File,
}

impl<'a> Batch<'a> {
    fn begin(blobs: &'a Blobs) -> Result<Self, BlobError> {
        let hold = blobs.hold(false)?;
        let staging = blobs.dir.join("tmp");
        create_dir(&staging).map_err(at(&staging))?;
        let (written, touched) = (Vec::new(), BTreeSet::new());
        Ok(Self { blobs, staging, written, touched, hold })
    }

    fn temporary(&self) -> PathBuf {
        temporary_in(&self.staging)
    }

    /// Tells whether a body is there already.
    fn has(&mut self, body: &BodyRef) -> bool {
        let there = self.blobs.holds(body);
        if there {
            // Another writer may have renamed it a moment ago without a sync yet.
            let path = self.blobs.path(&body.digest);
            self.touched.extend(path.parent().map(Path::to_owned));
            self.touched.insert(self.blobs.dir.clone());
        }
        there
    }

    /// Writes bodies beside their places and syncs them.
    fn write(&mut self, fresh: &[(Digest, &[u8])]) -> Result<(), BlobError> {
        let device = self.blobs.device.as_ref();
        let at_once = self.syncs_at_once(fresh.len());
        for (digest, bytes) in fresh {
            let temporary = self.temporary();
            self.written.push((temporary.clone(), *digest));
            if at_once {
                write_new(device, &temporary, bytes, 0o644).map(drop)
            } else {
                write_synced(device, &temporary, bytes, 0o644)
            }
            .map_err(at(&temporary))?;
        }
        if at_once {
            device.sync_all(&self.hold).map_err(at(&self.staging))?;
        }
        Ok(())
    }

    /// Tells whether so many files or directories are synced together.
    fn syncs_at_once(&self, count: usize) -> bool {
        count >= MANY && self.blobs.device.syncs_all(&self.hold)
    }

    /// Takes up a synced file.
    fn add(&mut self, temporary: PathBuf, body: &BodyRef) -> Result<(), BlobError> {
        if self.has(body) {
            return fs::remove_file(&temporary).map_err(at(&temporary));
        }
        self.written.push((temporary, body.digest));
        Ok(())
    }

    /// Gives all files their names, and makes the names last.
    fn settle(mut self) -> Result<(), BlobError> {
        let (blobs, device) = (self.blobs, self.blobs.device.as_ref());
        for (temporary, digest) in &self.written {
            let path = blobs.path(digest);
            let shard = path.parent().unwrap_or(&blobs.dir);
            if !shard.is_dir() {
                fs::create_dir_all(shard).map_err(at(shard))?;
            }
            // Also where another process made it: it may not have synced the name yet.
            self.touched.insert(blobs.dir.clone());
            self.touched.insert(shard.to_owned());
            device.rename(temporary, &path).map_err(at(&path))?;
        }
        if self.syncs_at_once(self.touched.len()) {
            device.sync_all(&self.hold).map_err(at(&blobs.dir))?;
        } else {
            let mut there = self.touched.iter().filter(|dir| dir.is_dir());
            there.try_for_each(|dir| device.sync_dir(dir).map_err(at(dir)))?;
        }
        self.written.clear();
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for (temporary, _) in &self.written {
            // Those that got their name are not there any more.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Collects the bodies that the facts of an event name: every object that has exactly the fields
/// of a [`BodyRef`].
pub fn bodies_in(facts: &Value) -> Vec<BodyRef> {
    let mut found = Vec::new();
    let mut waiting = vec![facts];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Array(items) => waiting.extend(items.iter().rev()),
            Value::Object(fields) => match body_of(fields) {
                Some(body) => found.push(body),
                None => waiting.extend(fields.values().rev()),
            },
            _ => {}
        }
    }
    found
}

fn body_of(fields: &Map<String, Value>) -> Option<BodyRef> {
    let known = ["digest", "length", "cipher", "subject"];
    if fields.len() != known.len() || !known.iter().all(|name| fields.contains_key(*name)) {
        return None;
    }
    serde_json::from_value(Value::Object(fields.clone())).ok()
}

/// How much to read at a time from a file of `length` bytes: all of a small one, and its end.
fn chunk(length: u64) -> usize {
    usize::try_from(length).map_or(CHUNK, |length| length.saturating_add(1).min(CHUNK))
}

/// Reads to the end, `chunk` bytes at a time, writes what was read, and returns its digest and
/// length.
fn hash_to(
    source: &mut impl Read,
    target: &mut impl Write,
    chunk: usize,
) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; chunk];
    let mut length = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hasher.finalize().into()), length)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = buffer.get(..read).unwrap_or_default();
        hasher.update(part);
        target.write_all(part)?;
        length += read as u64;
    }
}

#[cfg(test)]
mod tests;
