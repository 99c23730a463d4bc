//! The log as JSON lines, out and in again: same events, same bytes, same root.
//!
//! The first line is a header. Each further line is an event's envelope with `leaf`, the leaf hash
//! of its stored bytes, or, where bodies were asked for, a part of a body; the parts of a body
//! stand together, before the first event that names it. Bodies of subjects stay encrypted; keys
//! never leave the notebook.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, Read as _, Write};
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
use crate::layout::{Config, LAYOUT, Lacks, Layout};
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

/// Bytes of a body in one line.
const PART: usize = 768 * 1024;
/// Longest line that is read: a part, or an event with everything in it escaped.
const LINE_MAX: u64 = 2 * 1024 * 1024;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    origin: String,
    size: u64,
    root: Digest,
    bodies: bool,
}

/// A line with a part of a body.
#[derive(Debug, Serialize, Deserialize)]
struct BodyLine {
    body: Digest,
    /// Byte of the body at which the part begins.
    at: u64,
    base64: String,
}

/// Writes the bytes of a body as lines.
struct Parts<'a, W: Write> {
    out: &'a mut W,
    body: Digest,
    at: u64,
    part: Vec<u8>,
}

impl<W: Write> Parts<'_, W> {
    /// Writes what has gathered as a line.
    fn end(&mut self) -> io::Result<()> {
        let text = BodyLine { body: self.body, at: self.at, base64: base64(&self.part) };
        self.at += self.part.len() as u64;
        self.part.clear();
        line(self.out, &text)
    }
}

impl<W: Write> Write for Parts<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == PART {
            self.end()?;
        }
        let taken = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
            bodies,
        };
        line(out, &header).map_err(InterchangeError::Write)?;
        let mut written = BTreeSet::new();
        let mut frames = self.frames(0);
        for seq in 0..head.size {
            let Some(frame) = frames.next_frame()? else {
                return Err(ReadError::Corrupt {
                    path: self.layout().journal(),
                    offset: 0,
                    seq,
                    what: "it cannot be read any more",
                }
                .into());
            };
            let event =
                codec::decode(&frame.event).map_err(|source| ReadError::Decode { seq, source })?;
            for body in bodies_in(&event.facts).into_iter().filter(|_| bodies) {
                if written.insert(body.digest) {
                    self.export_body(&body.digest, out)?;
                }
            }
            let leaf = Digest::from_bytes(record_hash(&frame.event).0);
            let mut value = serde_json::to_value(&event).map_err(io::Error::other);
            if let Ok(Value::Object(fields)) = &mut value {
                fields.insert("leaf".to_owned(), Value::String(leaf.to_string()));
            }
            value.and_then(|value| line(out, &value)).map_err(InterchangeError::Write)?;
        }
        out.flush().map_err(InterchangeError::Write)?;
        Ok(head)
    }

    /// Writes a body as lines, or nothing where it is gone.
    fn export_body(&self, body: &Digest, out: &mut impl Write) -> Result<(), InterchangeError> {
        let mut parts = Parts { out, body: *body, at: 0, part: Vec::with_capacity(PART) };
        match self.blobs().copy_to(body, &mut parts) {
            Ok(_) => parts.end().map_err(InterchangeError::Write),
            Err(BlobError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::other)?;
    out.write_all(b"\n")
}

/// Reads the next line into `text`, not more than [`LINE_MAX`] of it. `false` at the end.
fn next_line(lines: &mut impl BufRead, text: &mut String) -> Result<bool, String> {
    text.clear();
    let read = lines.take(LINE_MAX).read_line(text).map_err(|error| error.to_string())? as u64;
    if text.ends_with('\n') {
        text.pop();
    } else if read == LINE_MAX {
        return Err(format!("the line is longer than {LINE_MAX} bytes"));
    }
    Ok(read > 0)
}

/// Makes a notebook in `dir` from exported lines. Every event is encoded again and must come to
/// the bytes that its leaf hash names, and all of them to the header's root; `dir` is there whole
/// or not at all. The notebook has no signing key: that stays where the log was made.
///
/// # Errors
/// When `dir` exists, or a line is not what it should be.
pub fn import(mut lines: impl BufRead, dir: &Path) -> Result<Head, InterchangeError> {
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
    let done = read(&mut lines, &unfinished).and_then(|head| {
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
    /// The body whose parts are being read, and where they gather.
    body: Option<(Digest, File)>,
    /// Events of the segment that is being filled, from number `first` on.
    first: u64,
    events: Vec<Vec<u8>>,
    bytes: u64,
}

fn read(lines: &mut impl BufRead, dir: &Path) -> Result<Head, InterchangeError> {
    let layout = Layout::new(dir);
    let at = |path: PathBuf| move |source| InterchangeError::Io { path, source };
    for part in
        [layout.journal(), layout.blobs(), layout.index(), layout.keys(), layout.checkpoints()]
    {
        create_dir(&part).map_err(at(part))?;
    }
    let wrong = |line: u64, what: String| InterchangeError::Line { line, what };
    let mut text = String::new();
    if !next_line(lines, &mut text).map_err(|what| wrong(1, what))? {
        return Err(wrong(1, "the file is empty".to_owned()));
    }
    let header: Header = serde_json::from_str(&text)
        .map_err(|error| wrong(1, format!("not the header of an export: {error}")))?;
    if header.format != FORMAT || header.version > VERSION {
        let what = format!("{} {} is not known here", header.format, header.version);
        return Err(wrong(1, what));
    }
    let blobs = Blobs::open(dir);
    let (tree, events) = (Frontier::default(), Vec::new());
    let mut import = Import { layout, blobs, tree, body: None, first: 0, events, bytes: 0 };
    let mut last = 1;
    while next_line(lines, &mut text).map_err(|what| wrong(last + 1, what))? {
        last += 1;
        import.line(&text).map_err(|what| wrong(last, what))??;
    }
    import.end_body().map_err(|what| wrong(last, what))??;
    import.seal()?;
    let head = Head { size: import.tree.size(), root: import.tree.root() };
    if head != (Head { size: header.size, root: header.root }) {
        let what = format!(
            "{} events with root {} were read, the header says {} with {}",
            head.size, head.root, header.size, header.root
        );
        return Err(wrong(last, what));
    }
    let lacks = if header.bodies { Lacks::Keys } else { Lacks::Bodies };
    let config = Config { origin: header.origin, layout: LAYOUT, lacks: Some(lacks) };
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
            return self.part(&line);
        }
        if let Err(error) = self.end_body()? {
            return Ok(Err(error));
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

    /// Where the parts of a body gather.
    fn parts(&self) -> PathBuf {
        self.layout.blobs().join("parts")
    }

    /// Takes a part of a body.
    fn part(&mut self, line: &BodyLine) -> Result<Result<(), InterchangeError>, String> {
        let bytes = unbase64(&line.base64).ok_or("the body is not base64")?;
        let path = self.parts();
        let failed = |source| InterchangeError::Io { path: path.clone(), source };
        if line.at == 0 {
            if let Err(error) = self.end_body()? {
                return Ok(Err(error));
            }
            match File::create(&path) {
                Ok(file) => self.body = Some((line.body, file)),
                Err(source) => return Ok(Err(failed(source))),
            }
        }
        let Some((_, file)) = self.body.as_mut().filter(|(digest, _)| *digest == line.body) else {
            return Err("the part does not go on with the body before it".to_owned());
        };
        let size = match file.metadata() {
            Ok(meta) => meta.len(),
            Err(source) => return Ok(Err(failed(source))),
        };
        if size != line.at {
            return Err(format!("the part begins at byte {}, not at {size}", line.at));
        }
        Ok(file.write_all(&bytes).map_err(failed))
    }

    /// Stores the body whose parts were read.
    fn end_body(&mut self) -> Result<Result<(), InterchangeError>, String> {
        let Some((digest, _)) = self.body.take() else { return Ok(Ok(())) };
        let path = self.parts();
        match self.blobs.put_file(&path) {
            Ok(body) if body.digest == digest => {}
            Ok(_) => return Err("the bytes of the body before it have another digest".to_owned()),
            Err(error) => return Ok(Err(error.into())),
        }
        Ok(fs::remove_file(&path).map_err(|source| InterchangeError::Io { path, source }))
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
