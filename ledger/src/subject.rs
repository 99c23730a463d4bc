//! Subjects: people (or whoever else may ask to be forgotten) whose bodies are encrypted.
//!
//! A subject's name never reaches the log: the log has a pseudonym, an HMAC of the name under a
//! secret of the notebook. Each subject has a key of its own; from it come, by HMAC with separate
//! labels, the key that encrypts, the one that nonces are made with, and the one that commitments
//! are made with. Destroying the key makes all of them meaningless.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::device::{Device, Disk};
use crate::durable::{create_dir, temporary_in, write_file_on};
use crate::id::Digest;
use crate::layout::Layout;

/// Name of the cipher in references to bodies.
pub const CIPHER: &str = "xchacha20-poly1305";
/// First byte of an encrypted body.
const FORMAT: u8 = 1;
/// Bytes of a nonce.
const NONCE: usize = 24;
/// What a key file begins with.
const KEY_HEADER: &str = "ledger-subject-key-1 ";

/// Says why a subject's key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// The name is empty.
    #[error("a subject must have a name")]
    NoName,
    /// The secret that names are hidden with is gone, though there are keys of subjects.
    #[error(
        "{} is missing, though this notebook has subjects: restore it from a copy; without it \
         nobody can tell whose bodies are whose", path.display()
    )]
    NoSecret {
        /// File.
        path: PathBuf,
    },
    /// The file is no key.
    #[error("{}: not a key of a subject", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The keys of a notebook's subjects. Nothing is kept in memory: another process may forget.
#[derive(Clone, Debug)]
pub struct Subjects {
    layout: Layout,
    device: Arc<dyn Device>,
}

/// A subject's key.
pub struct SubjectKey {
    pseudonym: String,
    key: [u8; 32],
}

impl Drop for SubjectKey {
    fn drop(&mut self) {
        self.key.fill(0);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SubjectError + use<'_> {
    move |source| SubjectError::Io { path: path.to_owned(), source }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so there is no such error.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        // With its length before it, so that no two lists of parts are one text.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Subjects {
    /// Takes the subjects of the notebook in `dir`. Nothing is read or made yet.
    pub fn open(dir: &Path) -> Self {
        Self::on(dir, Arc::new(Disk))
    }

    pub(crate) fn on(dir: &Path, device: Arc<dyn Device>) -> Self {
        Self { layout: Layout::new(dir), device }
    }

    /// Returns the names that the log has for a subject: one for each time that the subject was
    /// forgotten, and the present one last. None where the notebook has no subjects at all.
    ///
    /// # Errors
    /// When the name is empty, or the notebook's secret cannot be read.
    pub fn pseudonyms(&self, name: &str) -> Result<Vec<String>, SubjectError> {
        let name = name.trim();
        if name.is_empty() {
            return Err(SubjectError::NoName);
        }
        let Some(secret) = self.secret()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for time in 0_u64.. {
            let pseudonym = pseudonym(&secret, name, time);
            let forgotten = self.tombstone(&pseudonym).is_some_and(|path| path.exists());
            found.push(pseudonym);
            if !forgotten {
                break;
            }
        }
        Ok(found)
    }

    /// Reads the notebook's secret; none where there are no subjects either. One that was lost
    /// is not replaced: with another secret everybody would get another name.
    fn secret(&self) -> Result<Option<[u8; 32]>, SubjectError> {
        let path = self.layout.pseudonym_key();
        if let Some(secret) = read_key(&path)? {
            return Ok(Some(secret));
        }
        let keys = self.layout.subject_keys();
        let any = match fs::read_dir(&keys) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(&keys)(error)),
        };
        if any { Err(SubjectError::NoSecret { path }) } else { Ok(None) }
    }

    /// Reads the notebook's secret, making it where there was never one.
    fn secret_or_new(&self) -> Result<[u8; 32], SubjectError> {
        match self.secret()? {
            Some(secret) => Ok(secret),
            None => make_key(&self.layout.pseudonym_key(), self.device.as_ref()),
        }
    }

    /// Returns a commitment to `parts` that means nothing without the notebook's secret: for what
    /// may be of a person, but nobody knows of whom.
    ///
    /// # Errors
    /// When the notebook's secret cannot be read or made.
    pub fn commit_unowned(&self, label: &str, parts: &[&[u8]]) -> Result<Digest, SubjectError> {
        let secret = self.secret_or_new()?;
        Ok(commitment(&hmac(&secret, &[b"commit"]), label, parts))
    }

    /// Marks a pseudonym as one whose key was destroyed: the name gets another one.
    fn tombstone(&self, pseudonym: &str) -> Option<PathBuf> {
        self.path(pseudonym).map(|path| path.with_extension("forgotten"))
    }

    fn path(&self, pseudonym: &str) -> Option<PathBuf> {
        let digits = pseudonym.strip_prefix("s-")?;
        // A name out of an event must not lead anywhere else.
        let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| self.layout.subject_keys().join(format!("{pseudonym}.key")))
    }

    /// Returns the key of a pseudonym, if it was not destroyed.
    ///
    /// # Errors
    /// When the file cannot be read or is no key.
    pub fn key(&self, pseudonym: &str) -> Result<Option<SubjectKey>, SubjectError> {
        let Some(path) = self.path(pseudonym) else { return Ok(None) };
        let key = read_key(&path)?;
        Ok(key.map(|key| SubjectKey { pseudonym: pseudonym.to_owned(), key }))
    }

    /// Returns the key of a subject, making one where there is none.
    ///
    /// # Errors
    /// When the name is empty, or a key cannot be read or made.
    pub fn key_of(&self, name: &str) -> Result<SubjectKey, SubjectError> {
        self.secret_or_new()?;
        let pseudonym = self.pseudonyms(name)?.pop().ok_or(SubjectError::NoName)?;
        if let Some(key) = self.key(&pseudonym)? {
            return Ok(key);
        }
        let path = self.path(&pseudonym).ok_or(SubjectError::NoName)?;
        let key = make_key(&path, self.device.as_ref())?;
        Ok(SubjectKey { pseudonym, key })
    }

    /// Destroys a key: its bytes are overwritten, its file removed. `false` where there was none.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn destroy(&self, pseudonym: &str) -> Result<bool, SubjectError> {
        let paths = self.path(pseudonym).zip(self.tombstone(pseudonym));
        let Some((path, tombstone)) = paths else { return Ok(false) };
        if !path.exists() {
            return Ok(false);
        }
        // From here on the name leads to another pseudonym, whatever becomes of the rest.
        let device = self.device.as_ref();
        write_file_on(device, &tombstone, b"", 0o600).map_err(at(&tombstone))?;
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(SubjectError::Io { path, source }),
        };
        let length = file.metadata().map_err(at(&path))?.len();
        let blank = vec![0; usize::try_from(length).unwrap_or_default()];
        device.write(&file, &blank, 0).and_then(|()| device.sync(&file)).map_err(at(&path))?;
        fs::remove_file(&path).map_err(at(&path))?;
        device.sync_dir(&self.layout.subject_keys()).map_err(at(&path))?;
        Ok(true)
    }
}

/// The name that the log has for a subject that was forgotten `time` times before.
fn pseudonym(secret: &[u8; 32], name: &str, time: u64) -> String {
    let parts: [&[u8]; 3] = [b"pseudonym", name.as_bytes(), &time.to_le_bytes()];
    let digest = Digest::from_bytes(hmac(secret, &parts));
    format!("s-{}", &digest.to_string()[..32])
}

fn commitment(key: &[u8; 32], label: &str, parts: &[&[u8]]) -> Digest {
    let mut all = vec![label.as_bytes()];
    all.extend_from_slice(parts);
    Digest::from_bytes(hmac(key, &all))
}

fn read_key(path: &Path) -> Result<Option<[u8; 32]>, SubjectError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SubjectError::Io { path: path.to_owned(), source }),
    };
    // Overwritten but not yet removed: it is destroyed.
    if text.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let key = std::str::from_utf8(&text).ok().and_then(|text| text.strip_prefix(KEY_HEADER));
    let key = key.and_then(|digits| digits.trim().parse::<Digest>().ok());
    let key = key.ok_or_else(|| SubjectError::Malformed { path: path.to_owned() })?;
    Ok(Some(*key.as_bytes()))
}

/// Makes a key; where two do so at once, both get the one that is first in its place.
fn make_key(path: &Path, device: &dyn Device) -> Result<[u8; 32], SubjectError> {
    let mut key = [0; 32];
    let failed = |error: getrandom::Error| at(path)(io::Error::other(error.to_string()));
    getrandom::fill(&mut key).map_err(failed)?;
    if let Some(dir) = path.parent() {
        create_dir(dir).map_err(at(dir))?;
    }
    let text = format!("{KEY_HEADER}{}\n", Digest::from_bytes(key));
    let made = temporary_in(path.parent().unwrap_or(Path::new(".")));
    write_file_on(device, &made, text.as_bytes(), 0o600).map_err(at(&made))?;
    // A link fails where the name is taken, which a rename does not.
    let linked = fs::hard_link(&made, path);
    let removed = fs::remove_file(&made);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(path)(error)),
        _ => removed.map_err(at(&made))?,
    }
    if let Some(dir) = path.parent() {
        device.sync_dir(dir).map_err(at(dir))?;
    }
    read_key(path)?.ok_or_else(|| SubjectError::Malformed { path: path.to_owned() })
}

impl SubjectKey {
    /// Returns the name that the log has for the subject.
    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// Returns a commitment to `parts` that means nothing without the key.
    pub fn commit(&self, label: &str, parts: &[&[u8]]) -> Digest {
        commitment(&hmac(&self.key, &[b"commit"]), label, parts)
    }

    fn aad(&self) -> Vec<u8> {
        let mut aad = vec![FORMAT];
        aad.extend_from_slice(self.pseudonym.as_bytes());
        aad
    }

    /// Encrypts a text: format byte, nonce, ciphertext with tag. The nonce is made from the text,
    /// so that the same text of the same subject gives the same bytes: that two bodies of one
    /// subject are equal can be seen, nothing else.
    pub fn seal(&self, text: &[u8]) -> Vec<u8> {
        let nonce = hmac(&hmac(&self.key, &[b"nonce"]), &[text]);
        let nonce = nonce.get(..NONCE).unwrap_or_default();
        let cipher = XChaCha20Poly1305::new(&hmac(&self.key, &[b"encrypt"]).into());
        let payload = Payload { msg: text, aad: &self.aad() };
        // Fails only beyond the length that the cipher can take, 256 GiB.
        let sealed = cipher.encrypt(XNonce::from_slice(nonce), payload).unwrap_or_default();
        let mut bytes = Vec::with_capacity(1 + NONCE + sealed.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(nonce);
        bytes.extend_from_slice(&sealed);
        bytes
    }

    /// Decrypts what [`SubjectKey::seal`] made. `None` where it was made with another key.
    pub fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (&format, rest) = bytes.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        if format != FORMAT {
            return None;
        }
        let cipher = XChaCha20Poly1305::new(&hmac(&self.key, &[b"encrypt"]).into());
        let payload = Payload { msg: sealed, aad: &self.aad() };
        cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_its_own_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let subjects = Subjects::open(dir.path());
        let (ann, bea) = (subjects.key_of("ann").unwrap(), subjects.key_of("bea").unwrap());
        let sealed = ann.seal(b"a text");
        assert_eq!(sealed, subjects.key_of(" ann ").unwrap().seal(b"a text"));
        assert_eq!(ann.open(&sealed).as_deref(), Some(&b"a text"[..]));
        assert_eq!(bea.open(&sealed), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(ann.open(&damaged), None, "byte {at}");
        }
        assert_eq!(ann.open(&sealed[..10]), None);
        assert_ne!(ann.commit("id", &[b"ab", b"c"]), ann.commit("id", &[b"a", b"bc"]));
        assert_ne!(ann.commit("id", &[b"a"]), bea.commit("id", &[b"a"]));
    }

    #[test]
    fn many_threads_get_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let subjects = Subjects::open(dir.path());
        assert!(subjects.pseudonyms("ann").unwrap().is_empty());
        assert!(!subjects.layout.pseudonym_key().exists(), "looking makes nothing");
        let sealed: Vec<_> = std::thread::scope(|scope| {
            let work = || subjects.key_of("ann").unwrap().seal(b"text");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sealed.iter().all(|bytes| *bytes == sealed[0]));
        let files = fs::read_dir(subjects.layout.subject_keys()).unwrap();
        assert_eq!(files.count(), 1, "nothing is left behind");
    }

    /// What is stored must be found again by every later version: these texts never change.
    #[test]
    fn the_stored_forms_are_as_they_always_were() {
        let key = SubjectKey { pseudonym: pseudonym(&[9; 32], "ann", 0), key: [7; 32] };
        let sealed: String = key.seal(b"text").iter().map(|b| format!("{b:02x}")).collect();
        let own = commitment(&hmac(&[9; 32], &[b"commit"]), "row", &[b"a", b"b"]);
        let text = format!(
            "pseudonym {}\nforgotten once {}\nsealed {sealed}\ncommitment {}\nunowned {own}\n",
            key.pseudonym,
            pseudonym(&[9; 32], "ann", 1),
            key.commit("content", &[b"a", b"b"]),
        );
        crate::golden::compare("subject.1.txt", &text);
    }

    #[test]
    fn a_destroyed_key_is_gone_and_another_one_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let subjects = Subjects::open(dir.path());
        let key = subjects.key_of("ann").unwrap();
        let (name, sealed) = (key.pseudonym().to_owned(), key.seal(b"text"));
        let file = subjects.path(&name).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!file.to_string_lossy().contains("ann"));
        assert!(subjects.destroy(&name).unwrap());
        assert!(!subjects.destroy(&name).unwrap());
        assert!(subjects.key(&name).unwrap().is_none());
        let again = subjects.key_of("ann").unwrap();
        assert_ne!(again.pseudonym(), name);
        assert_eq!(again.open(&sealed), None);
        let all = [name.clone(), again.pseudonym().to_owned()];
        assert_eq!(subjects.pseudonyms("ann").unwrap(), all);
        let (secret, aside) = (subjects.layout.pseudonym_key(), dir.path().join("aside"));
        fs::rename(&secret, &aside).unwrap();
        assert!(matches!(subjects.key_of("ann"), Err(SubjectError::NoSecret { .. })));
        assert!(matches!(subjects.commit_unowned("x", &[]), Err(SubjectError::NoSecret { .. })));
        assert!(!secret.exists(), "a lost secret is not replaced");
        fs::rename(&aside, &secret).unwrap();
        // Overwritten, but the removal did not happen: destroyed all the same.
        fs::write(&file, vec![0; 86]).unwrap();
        assert!(subjects.key(&name).unwrap().is_none());
        fs::write(&file, "rubbish").unwrap();
        assert!(matches!(subjects.key(&name), Err(SubjectError::Malformed { .. })));
        assert!(subjects.key("s-../../signer").unwrap().is_none());
        assert!(matches!(subjects.key_of(" "), Err(SubjectError::NoName)));
    }
}
