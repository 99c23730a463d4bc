//! The log as JSON lines, out and in again: same events, same bytes, same root.
//!
//! The first line is a header. Each further line is an event's envelope with `leaf`, the leaf hash
//! of its stored bytes, or, where bodies were asked for, a body before the first event that names
//! it. Bodies of subjects stay encrypted; keys never leave the notebook.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tlog_tiles::{Hash, record_hash};

use crate::base64::{base64, unbase64};
use crate::blob::{BlobError, Blobs, bodies_in};
use crate::codec;
use crate::durable::{create_dir, sync_dir, write_file};
use crate::event::{EVENT_BYTES_MAX, Envelope};
use crate::id::Digest;
use crate::journal::{Mark, SEGMENT_BYTES, segment_bytes};
use crate::layout::{Config, LAYOUT, Layout};
use crate::merkle::Frontier;
use crate::reader::{Head, ReadError, Reader};

/// What the first line says the file is.
const FORMAT: &str = "ledger-export";
/// Version of the lines.
const VERSION: u32 = 1;

/// Says why a log cannot be written out or read in.
#[derive(Debug, thiserror::Error)]
pub enum InterchangeError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A body cannot be read or stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A line is not what it should be. Nothing was imported.
    #[error("line {line}: {what}")]
    Line {
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The target is taken.
    #[error("{} exists already: name a folder that does not", dir.display())]
    Exists {
        /// Directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The lines cannot be written.
    #[error("the lines cannot be written: {0}")]
    Write(io::Error),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    origin: String,
    size: u64,
    root: Digest,
}

/// A line of a body.
#[derive(Debug, Serialize, Deserialize)]
struct BodyLine {
    body: Digest,
    base64: String,
}

impl Reader {
    /// Writes the log as JSON lines, in memory that does not grow with it. `bodies` adds the
    /// bodies that are there; released and erased ones are left out.
    ///
    /// # Errors
    /// When the log or a body cannot be read, or the lines cannot be written.
    pub fn export(&self, out: &mut impl Write, bodies: bool) -> Result<Head, InterchangeError> {
        let head = self.head()?;
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin: Config::read(self.layout())?.origin,
            size: head.size,
            root: head.root,
        };
        line(out, &header)?;
        let mut written = BTreeSet::new();
        let mut frames = self.frames(0);
        for seq in 0..head.size {
            let Some(frame) = frames.next_frame()? else { break };
            let event =
                codec::decode(&frame.event).map_err(|source| ReadError::Decode { seq, source })?;
            for body in bodies_in(&event.facts).into_iter().filter(|_| bodies) {
                if written.insert(body.digest)
                    && let Some(bytes) = self.blobs().raw(&body.digest)?
                {
                    line(out, &BodyLine { body: body.digest, base64: base64(&bytes) })?;
                }
            }
            let leaf = Digest::from_bytes(record_hash(&frame.event).0);
            let mut value = serde_json::to_value(&event).map_err(io::Error::other);
            if let Ok(Value::Object(fields)) = &mut value {
                fields.insert("leaf".to_owned(), Value::String(leaf.to_string()));
            }
            line(out, &value.map_err(InterchangeError::Write)?)?;
        }
        out.flush().map_err(InterchangeError::Write)?;
        Ok(head)
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), InterchangeError> {
    serde_json::to_writer(&mut *out, value)
        .map_err(io::Error::other)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(InterchangeError::Write)
}

/// Makes a notebook in `dir` from exported lines. Every event is encoded again and must come to
/// the bytes that its leaf hash names, and all of them to the header's root; `dir` is there whole
/// or not at all. The notebook has no signing key: that stays where the log was made.
///
/// # Errors
/// When `dir` exists, or a line is not what it should be.
pub fn import(lines: impl BufRead, dir: &Path) -> Result<Head, InterchangeError> {
    if dir.exists() {
        return Err(InterchangeError::Exists { dir: dir.to_owned() });
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unfinished = parent.join(format!(".{name}.importing-{}", std::process::id()));
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| InterchangeError::Io { path, source }
    };
    create_dir(&unfinished).map_err(at(&unfinished))?;
    let done = read(lines, &unfinished).and_then(|head| {
        fs::rename(&unfinished, dir).map_err(at(dir))?;
        sync_dir(parent).map_err(at(parent))?;
        Ok(head)
    });
    if done.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_dir_all(&unfinished);
    }
    done
}

/// A journal that is being written from lines.
struct Import {
    layout: Layout,
    blobs: Blobs,
    tree: Frontier,
    /// Events of the segment that is being filled, from number `first` on.
    first: u64,
    events: Vec<Vec<u8>>,
    bytes: u64,
}

fn read(lines: impl BufRead, dir: &Path) -> Result<Head, InterchangeError> {
    let layout = Layout::new(dir);
    let at = |path: PathBuf| move |source| InterchangeError::Io { path, source };
    for part in
        [layout.journal(), layout.blobs(), layout.index(), layout.keys(), layout.checkpoints()]
    {
        create_dir(&part).map_err(at(part))?;
    }
    let wrong = |line: u64, what: String| InterchangeError::Line { line, what };
    let mut lines = (1_u64..).zip(lines.lines());
    let (n, first) = lines.next().ok_or_else(|| wrong(1, "the file is empty".to_owned()))?;
    let first = first.map_err(|error| wrong(n, error.to_string()))?;
    let header: Header = serde_json::from_str(&first)
        .map_err(|error| wrong(n, format!("not the header of an export: {error}")))?;
    if header.format != FORMAT || header.version > VERSION {
        let what = format!("{} {} is not known here", header.format, header.version);
        return Err(wrong(n, what));
    }
    let blobs = Blobs::open(dir);
    let (tree, events) = (Frontier::default(), Vec::new());
    let mut import = Import { layout, blobs, tree, first: 0, events, bytes: 0 };
    let mut last = n;
    for (n, text) in lines {
        let text = text.map_err(|error| wrong(n, error.to_string()))?;
        import.line(&text).map_err(|what| wrong(n, what))??;
        last = n;
    }
    import.seal()?;
    let head = Head { size: import.tree.size(), root: import.tree.root() };
    if head != (Head { size: header.size, root: header.root }) {
        let what = format!(
            "{} events with root {} were read, the header says {} with {}",
            head.size, head.root, header.size, header.root
        );
        return Err(wrong(last, what));
    }
    let config = Config { origin: header.origin, layout: LAYOUT };
    let path = import.layout.config();
    write_file(&path, config.text().as_bytes(), 0o644).map_err(at(path))?;
    Ok(head)
}

impl Import {
    /// Takes one line. The outer error is what is wrong with it.
    fn line(&mut self, text: &str) -> Result<Result<(), InterchangeError>, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if value.get("body").is_some() && value.get("seq").is_none() {
            let line: BodyLine =
                serde_json::from_value(value).map_err(|error| error.to_string())?;
            let bytes = unbase64(&line.base64).ok_or("the body is not base64")?;
            if Digest::of(&bytes) != line.body {
                return Err("the body's bytes have another digest".to_owned());
            }
            return Ok(self.blobs.put(&bytes).map(drop).map_err(InterchangeError::from));
        }
        let leaf = value.as_object_mut().and_then(|fields| fields.remove("leaf"));
        let leaf: Digest =
            leaf.and_then(|leaf| leaf.as_str()?.parse().ok()).ok_or("there is no leaf hash")?;
        let event: Envelope = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let next = self.tree.size();
        if event.seq != next {
            return Err(format!("event {} stands where {next} should", event.seq));
        }
        let bytes = codec::encode(&event).map_err(|error| error.to_string())?;
        if bytes.len() > EVENT_BYTES_MAX || record_hash(&bytes).0 != *leaf.as_bytes() {
            return Err(format!("event {next} does not come to the bytes that its leaf names"));
        }
        self.tree.push_leaf(Hash(*leaf.as_bytes()));
        self.bytes += bytes.len() as u64;
        self.events.push(bytes);
        Ok(if self.bytes >= SEGMENT_BYTES { self.seal() } else { Ok(()) })
    }

    /// Writes the present segment.
    fn seal(&mut self) -> Result<(), InterchangeError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let marks = (self.first..).map(|seq| Mark { seq, since: 0, rest: 0 });
        let frames = marks.zip(self.events.iter().map(Vec::as_slice));
        let journal = self.layout.journal();
        let failed = |path: PathBuf| move |source| InterchangeError::Io { path, source };
        let (name, bytes) = segment_bytes(self.first, frames).map_err(failed(journal.clone()))?;
        let path = journal.join(name);
        write_file(&path, &bytes, 0o644).map_err(failed(path))?;
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
