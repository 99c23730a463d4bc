//! The notebook directory: its paths, its `ledger.toml`, and its lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::durable::sync_dir;
use crate::reader::ReadError;
use crate::tree::Tiles;

/// Version of the layout that this code writes.
pub(crate) const LAYOUT: u32 = 2;

/// Paths in a notebook.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("ledger.toml")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Tiles of the Merkle tree.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Hashes of request ids.
    pub(crate) fn ids(&self) -> PathBuf {
        self.tree().join("ids")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    pub(crate) fn signing_key(&self) -> PathBuf {
        self.keys().join("signer.key")
    }

    /// Keys of subjects, by pseudonym.
    pub(crate) fn subject_keys(&self) -> PathBuf {
        self.keys().join("subjects")
    }

    /// Secret that pseudonyms are made with.
    pub(crate) fn pseudonym_key(&self) -> PathBuf {
        self.keys().join("pseudonym.key")
    }

    /// Where a rotation keeps the next key until its event is durable.
    pub(crate) fn next_key(&self, id: &str) -> PathBuf {
        self.keys().join(format!("signer.key.next-{id}"))
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    pub(crate) fn latest_checkpoint(&self) -> PathBuf {
        self.checkpoints().join("latest")
    }

    /// Where the process that holds the notebook listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Returns how many events are known to have been durable by what stands beside the journal:
    /// a checkpoint is signed, and a leaf stored in the tree, only after that.
    pub(crate) fn known_events(&self) -> u64 {
        let signed = checkpoint::own_latest(self).map_or(0, |signed| signed.size);
        signed.max(Tiles::leaves(&self.tree()))
    }
}

/// What `ledger.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Origin line of the checkpoints.
    pub(crate) origin: String,
    /// Version of the layout. One that is newer than ours may be read, not written.
    pub(crate) layout: u32,
    /// What an import could not bring.
    pub(crate) lacks: Option<Lacks>,
}

/// What stayed where an imported log was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// Keys: the signing key, and those of subjects.
    Keys,
    /// Keys and all bodies.
    Bodies,
}

impl Lacks {
    fn text(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Bodies => "bodies",
        }
    }
}

impl Config {
    /// Reads `ledger.toml`.
    pub(crate) fn read(layout: &Layout) -> Result<Self, ReadError> {
        let path = layout.config();
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ReadError::NotANotebook { dir: layout.dir().to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(ReadError::NotANotebook { dir: layout.dir().to_owned() })
            }
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    /// Reads two keys in a small part of TOML; anything else is refused, so that a setting that
    /// this version does not know is never passed over.
    fn parse(text: &str, path: &Path) -> Result<Self, ReadError> {
        let wrong = |row: usize, what: String| ReadError::Config {
            path: path.to_owned(),
            what: format!("line {}: {what}", row + 1),
        };
        // What a newer version says of itself is read first: it may have keys that we do not know.
        let newer = newer_layout(text);
        let (mut layout, mut origin, mut lacks) = (None, None, None);
        for (row, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .ok_or_else(|| wrong(row, format!("not `key = value`: {line:?}")))?;
            match key {
                "layout" if layout.is_none() => {
                    layout = Some(value.parse::<u32>().map_err(|_| {
                        wrong(row, format!("layout must be a whole number, not {value:?}"))
                    })?);
                }
                "origin" if origin.is_none() => {
                    let text = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                    let text = text.filter(|t| !t.is_empty() && !t.contains(['"', '\\']));
                    origin = Some(text.map(str::to_owned).ok_or_else(|| {
                        wrong(row, format!("origin must be a plain quoted text, not {value}"))
                    })?);
                }
                "lacks" if lacks.is_none() => {
                    let known = [Lacks::Keys, Lacks::Bodies].into_iter();
                    let quoted = |lacks: &Lacks| format!("{:?}", lacks.text()) == value;
                    lacks =
                        Some(known.into_iter().find(quoted).ok_or_else(|| {
                            wrong(row, "lacks is \"keys\" or \"bodies\"".to_owned())
                        })?);
                }
                "layout" | "origin" | "lacks" => {
                    return Err(wrong(row, format!("{key} is set twice")));
                }
                _ if newer.is_some() || key == "readable_from" => {}
                _ => return Err(wrong(row, format!("unknown key {key:?}: remove it"))),
            }
        }
        let absent = |key: &str| ReadError::Config {
            path: path.to_owned(),
            what: format!("the key {key:?} is missing"),
        };
        let found = layout.ok_or_else(|| absent("layout"))?;
        if found > LAYOUT && newer.is_none_or(|readable_from| readable_from > LAYOUT) {
            return Err(ReadError::Newer { path: path.to_owned(), found, known: LAYOUT });
        }
        if found < LAYOUT {
            return Err(wrong(0, format!("layout {found} was never released: make it anew")));
        }
        Ok(Self { origin: origin.ok_or_else(|| absent("origin"))?, layout: found, lacks })
    }

    /// Refuses to write what a newer version made.
    pub(crate) fn writable(&self, layout: &Layout) -> Result<(), ReadError> {
        if self.layout <= LAYOUT {
            return Ok(());
        }
        let (path, found) = (layout.config(), self.layout);
        Err(ReadError::Newer { path, found, known: LAYOUT })
    }

    /// Returns the text of `ledger.toml`.
    pub(crate) fn text(&self) -> String {
        let mut text =
            format!("layout = {LAYOUT}\nreadable_from = {LAYOUT}\norigin = \"{}\"\n", self.origin);
        if let Some(lacks) = self.lacks {
            text.push_str(&format!("lacks = \"{}\"\n", lacks.text()));
        }
        text
    }
}

/// Returns, for a layout that is newer than ours, the oldest one whose readers can read it.
fn newer_layout(text: &str) -> Option<u32> {
    let number = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(name, _)| name.trim() == key);
        values.next().and_then(|(_, value)| value.trim().parse::<u32>().ok())
    };
    number("layout").filter(|layout| *layout > LAYOUT)?;
    number("readable_from")
}

/// Moves a directory that is to be rebuilt out of the way. Returns where it is then; `None` where
/// there was none.
pub(crate) fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut n = 0_u32;
    let mut aside = path.with_extension(format!("set-aside-{n}"));
    while aside.exists() {
        n += 1;
        aside = path.with_extension(format!("set-aside-{n}"));
    }
    fs::rename(path, &aside)?;
    if let Some(parent) = path.parent() {
        sync_dir(parent)?;
    }
    Ok(Some(aside))
}

/// The exclusive hold on a notebook: falls when it is dropped, or with its process.
#[derive(Debug)]
pub(crate) struct Lock(File);

/// Says why the lock was not had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody holds it: the process id that the holder wrote, where it can be read.
    Held(Option<u32>),
    /// The lock file cannot be used.
    Io(io::Error),
}

impl Lock {
    /// Takes the lock, or says who holds it.
    pub(crate) fn take(layout: &Layout) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(layout.lock())
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held(pid));
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).map_err(LockError::Io)?;
        file.rewind().map_err(LockError::Io)?;
        writeln!(file, "{}", std::process::id()).map_err(LockError::Io)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A stale number would be misleading, but it is only a courtesy: the lock is what counts.
        let _ = self.0.set_len(0);
        // Said aloud: a child process that was just forked may still share the open file.
        let _ = self.0.unlock();
    }
}
