//! Bodies beside the log: files named by the SHA-256 of their bytes.
//!
//! A body that is named by an event is on disk before the event is: write the body first.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::device::{Device, Disk};
use crate::durable::{create_dir, temporary_in, write_synced};
use crate::event::BodyRef;
use crate::id::Digest;
use crate::layout::Layout;
use crate::subject::{CIPHER, SubjectError, SubjectKey, Subjects};

/// Bytes that are read at a time where a body is streamed.
const CHUNK: usize = 256 * 1024;

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
        Self { dir: Layout::new(dir).blobs(), subjects: Subjects::open(dir), device }
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

    /// Stores many bodies, with one sync per directory.
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
        let mut source = File::open(path).map_err(at(path))?;
        let staging = self.staging()?;
        let temporary = temporary_in(&staging);
        let copied = copy_hashed(&mut source, path, &temporary);
        let body = match copied {
            Ok(body) => body,
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        };
        let mut touched = BTreeSet::new();
        if self.holds(&body) {
            fs::remove_file(&temporary).map_err(at(&temporary))?;
            touched.extend(self.path(&body.digest).parent().map(Path::to_owned));
        } else {
            self.settle(&temporary, &body.digest, &mut touched)?;
        }
        self.sync_all(&touched)?;
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
        let path = self.path(&body.digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest: body.digest, path });
            }
            Err(source) => return Err(BlobError::Io { path, source }),
        };
        let found = Digest::of(&bytes);
        if found == body.digest {
            Ok(bytes)
        } else {
            Err(BlobError::Damaged { digest: body.digest, path, found })
        }
    }

    /// Reads the stored bytes of a body, or `None` where it is gone.
    pub(crate) fn raw(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let plain = BodyRef { digest: *digest, length: 0, cipher: None, subject: None };
        match self.stored(&plain) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BlobError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks every byte of a body, in constant memory.
    ///
    /// # Errors
    /// When it is missing, damaged or cannot be read.
    pub fn check(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { digest: *digest, path });
            }
            Err(source) => return Err(BlobError::Io { path, source }),
        };
        let (found, _) = hash_to(&mut file, &mut io::sink()).map_err(at(&path))?;
        if found == *digest {
            Ok(())
        } else {
            Err(BlobError::Damaged { digest: *digest, path, found })
        }
    }

    /// Writes all bodies and syncs each, renames them, and syncs each directory once.
    fn store_all<'a>(
        &self,
        bodies: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<BodyRef>, BlobError> {
        let staging = self.staging()?;
        let (mut stored, mut written) = (Vec::new(), Vec::new());
        let (mut touched, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for bytes in bodies {
            let body = BodyRef {
                digest: Digest::of(bytes),
                length: bytes.len() as u64,
                cipher: None,
                subject: None,
            };
            if seen.insert(body.digest) && !self.holds(&body) {
                let temporary = temporary_in(&staging);
                write_synced(self.device.as_ref(), &temporary, bytes, 0o644)
                    .map_err(at(&temporary))?;
                written.push((temporary, body.digest));
            } else {
                // Another writer may have renamed it a moment ago without a sync yet.
                touched.extend(self.path(&body.digest).parent().map(Path::to_owned));
            }
            stored.push(body);
        }
        for (temporary, digest) in &written {
            self.settle(temporary, digest, &mut touched)?;
        }
        self.sync_all(&touched)?;
        Ok(stored)
    }

    /// Syncs directories.
    fn sync_all(&self, dirs: &BTreeSet<PathBuf>) -> Result<(), BlobError> {
        let mut there = dirs.iter().filter(|dir| dir.is_dir());
        there.try_for_each(|dir| self.device.sync_dir(dir).map_err(at(dir)))
    }

    /// Tells whether a body of that name and length is there.
    fn holds(&self, body: &BodyRef) -> bool {
        fs::metadata(self.path(&body.digest)).is_ok_and(|meta| meta.len() == body.length)
    }

    /// Returns the directory of files that are not yet bodies.
    fn staging(&self) -> Result<PathBuf, BlobError> {
        let staging = self.dir.join("tmp");
        create_dir(&staging).map_err(at(&staging))?;
        Ok(staging)
    }

    /// Gives a synced temporary file its name, and notes the directories to be synced.
    fn settle(
        &self,
        temporary: &Path,
        digest: &Digest,
        touched: &mut BTreeSet<PathBuf>,
    ) -> Result<(), BlobError> {
        let path = self.path(digest);
        let shard = path.parent().unwrap_or(&self.dir);
        if !shard.is_dir() {
            fs::create_dir_all(shard).map_err(at(shard))?;
            touched.insert(self.dir.clone());
        }
        touched.insert(shard.to_owned());
        self.device.rename(temporary, &path).map_err(at(&path))
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

/// Copies a file into a synced new one and names its content.
fn copy_hashed(source: &mut File, from: &Path, to: &Path) -> Result<BodyRef, BlobError> {
    let mut target = OpenOptions::new().write(true).create_new(true).open(to).map_err(at(to))?;
    let (digest, length) = hash_to(source, &mut target).map_err(at(from))?;
    target.sync_all().map_err(at(to))?;
    Ok(BodyRef { digest, length, cipher: None, subject: None })
}

/// Reads to the end, writes what was read, and returns its digest and length.
fn hash_to(source: &mut File, target: &mut impl Write) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; CHUNK];
    let mut length = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hasher.finalize().into()), length)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        hasher.update(chunk);
        target.write_all(chunk)?;
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn stores_reads_and_repeats() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path());
        let body = blobs.put(b"some text").unwrap();
        assert_eq!(body.digest, Digest::of(b"some text"));
        assert_eq!(blobs.get(&body).unwrap(), b"some text");
        let written = fs::metadata(blobs.path(&body.digest)).unwrap().modified().unwrap();
        assert_eq!(blobs.put(b"some text").unwrap(), body);
        let now = fs::metadata(blobs.path(&body.digest)).unwrap().modified().unwrap();
        assert_eq!(written, now, "a body that is there is not written again");
    }

    #[test]
    fn many_files_and_streams_agree() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path());
        let large = vec![7_u8; CHUNK + 3];
        let bodies = vec![b"a".to_vec(), b"b".to_vec(), b"a".to_vec(), Vec::new(), large.clone()];
        let stored = blobs.put_many(&bodies).unwrap();
        assert_eq!(stored.len(), 5);
        assert_eq!(stored.first(), stored.get(2));
        for (body, bytes) in stored.iter().zip(&bodies) {
            assert_eq!(&blobs.get(body).unwrap(), bytes);
        }
        let file = dir.path().join("input");
        fs::write(&file, &large).unwrap();
        assert_eq!(Some(&blobs.put_file(&file).unwrap()), stored.last());
        fs::write(&file, b"new").unwrap();
        let fresh = blobs.put_file(&file).unwrap();
        assert_eq!(blobs.get(&fresh).unwrap(), b"new");
        let staging = fs::read_dir(dir.path().join("blobs/tmp")).unwrap();
        assert_eq!(staging.count(), 0, "nothing is left behind");
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path());
        let body = blobs.put(b"0123456789").unwrap();
        let path = blobs.path(&body.digest);
        for index in 0..10 {
            let mut bytes = b"0123456789".to_vec();
            bytes[index] ^= 1;
            fs::write(&path, &bytes).unwrap();
            match blobs.get(&body) {
                Err(BlobError::Damaged { found, .. }) => assert_eq!(found, Digest::of(&bytes)),
                other => panic!("byte {index}: {other:?}"),
            }
            assert!(matches!(blobs.check(&body.digest), Err(BlobError::Damaged { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(blobs.get(&body), Err(BlobError::Missing { .. })));
        assert!(matches!(blobs.check(&body.digest), Err(BlobError::Missing { .. })));
    }

    #[test]
    fn a_cut_body_is_mended_by_storing_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path());
        let body = blobs.put(b"0123456789").unwrap();
        fs::write(blobs.path(&body.digest), b"01234").unwrap();
        blobs.put(b"0123456789").unwrap();
        assert_eq!(blobs.get(&body).unwrap(), b"0123456789");
    }

    #[test]
    fn finds_the_bodies_that_facts_name() {
        let body = BodyRef { digest: Digest::of(b"x"), length: 1, cipher: None, subject: None };
        let facts = json!({
            "a": body, "b": [{"c": body}, 3], "d": {"digest": body.digest, "length": 1},
        });
        assert_eq!(bodies_in(&facts), vec![body.clone(), body]);
    }
}
