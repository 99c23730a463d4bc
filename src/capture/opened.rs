//! A file that is being read in: what it is, and its rows one after another.
//!
//! Rows are parsed on a thread of their own and handed over in small lots, so that reading and
//! storing go on at once and memory does not grow with the file.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use datasets::ingest::{self, Beside, Format, Reading, SourceInfo};
use datasets::manifest::Stored as _;
use datasets::redact::Rules;
use datasets::{Episode, Row};
use ledger::catalogue::{DatasetImported, Location, TraceRejected};
use ledger::{BlobError, Digest, Subjects};
use sha2::{Digest as _, Sha256};

use super::files;
use crate::error::{AppError, Kind};

/// Rows that are handed over together.
const LOT: usize = 64;
/// Lots that may wait to be stored.
const LOTS_WAITING: usize = 16;
/// Bytes that are read from a file at a time.
const CHUNK: usize = 1 << 20;

/// Most bytes that facts of a row may take beside its body: an event holds 65,535 in all.
const FACTS_BYTES_MAX: usize = 32 * 1024;

/// How files are to be read.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Format; told from the content where it is not named.
    pub format: Option<Format>,
    /// What is taken out of the texts before they are stored.
    pub rules: Rules,
    /// Member of a row that names its subject.
    pub subject_field: Option<String>,
    /// Name of the source, where it is not that of folder and file.
    pub source: Option<String>,
    /// Rows of a source that came from another file may be revised.
    pub is_revision: bool,
}

/// A file of which it is known how it will be read.
pub struct Opened {
    /// The file.
    pub path: PathBuf,
    /// What is known of it as a whole.
    pub source: SourceInfo,
    /// Rows belong to subjects, or may belong to some: the log does not name the file, because its
    /// name may be that of the person.
    pub is_personal: bool,
    /// Rows of its source that came from another file may be revised.
    pub is_revision: bool,
    reading: Reading,
    /// What its bytes were when somebody looked whose rows they are.
    seen: Option<Digest>,
}

/// A row whose episodes are ready to be stored.
pub struct Fresh {
    /// Where it stood and what it was.
    pub row: Row,
    /// Its episodes, in the row's order.
    pub episodes: Vec<Prepared>,
}

/// An episode with what storing it needs.
pub struct Prepared {
    /// The episode.
    pub episode: Episode,
    /// Digest of its content.
    pub content: Digest,
    /// Its stored form.
    pub bytes: Vec<u8>,
}

impl Opened {
    /// Finds out what a file is.
    ///
    /// # Errors
    /// When it cannot be read or is of no known format.
    pub fn open(path: &Path, asked: &Asked) -> Result<Self, AppError> {
        // The name must not depend on how the path was written.
        let path = std::path::absolute(path).map_err(AppError::file(path))?;
        let mut source = SourceInfo::of_file(&path)?;
        let format = match asked.format {
            Some(format) => format,
            None => ingest::detect(&path, &files::head(&path)?).ok_or_else(|| unknown(&path))?,
        };
        let reading = Reading {
            format,
            beside: Beside::find(&path, format)?,
            subject_field: asked.subject_field.clone(),
            rules: asked.rules.clone(),
        };
        if let Some(name) = &asked.source {
            source.name.clone_from(name);
        }
        let is_revision = asked.is_revision;
        let mut opened =
            Self { path, source, is_personal: false, is_revision, reading, seen: None };
        opened.is_personal = opened.may_be_personal()?;
        if asked.source.is_none() && (opened.is_personal || format.is_conversation()) {
            opened.source = opened.source.of_conversation(&opened.path);
        }
        Ok(opened)
    }

    /// Returns the format of the file.
    pub fn format(&self) -> Format {
        self.reading.format
    }

    /// Returns the files that are read beside it.
    pub fn beside(&self) -> &[PathBuf] {
        &self.reading.beside.files
    }

    /// Looks through formats that may name somebody in any row. Of a conversation without a
    /// readable answer nobody can say whose it is.
    fn may_be_personal(&mut self) -> Result<bool, AppError> {
        let format = self.reading.format;
        let field = self.reading.subject_field.clone();
        if field.is_none() && !matches!(format, Format::Episodes | Format::LangfuseExport) {
            return Ok(false);
        }
        let (mut rows, mut personal, mut named) = (0_u64, false, false);
        let digest = self.parse(&|_| (), |row| {
            rows += 1;
            personal |= row.is_personal;
            named |= row.is_personal && row.result.is_ok();
            true
        })?;
        self.seen = Some(digest);
        // A name that is written wrong must not leave everybody's rows in plain.
        if let Some(field) = field.filter(|_| rows > 0 && !named) {
            let what = format!("{}: no row has the member {field:?}", self.path.display());
            return Err(AppError::hinted(
                Kind::Input,
                what,
                "name the member that says whose a row is, as user_id or metadata.user",
            ));
        }
        Ok(personal || (rows == 0 && format.is_conversation()))
    }

    /// Parses all rows; `take` says whether to go on. Returns the digest of the file.
    fn parse(
        &self,
        progress: &dyn Fn(u64),
        mut take: impl FnMut(Row) -> bool,
    ) -> Result<Digest, AppError> {
        let file = File::open(&self.path).map_err(AppError::file(&self.path))?;
        let hash = RefCell::new(Sha256::new());
        let tally = || Tally { file: &file, hash: &hash, progress };
        let input = ingest::opened(BufReader::with_capacity(CHUNK, tally()));
        for row in ingest::read(input, &self.source, &self.reading) {
            if !take(row?) {
                break;
            }
        }
        // What stands behind the last row belongs to the file too.
        io::copy(&mut tally(), &mut io::sink()).map_err(AppError::file(&self.path))?;
        Ok(Digest::from_bytes(hash.into_inner().finalize().into()))
    }

    /// Hands over all rows in order, and returns the facts of the import.
    ///
    /// `progress` is told how many more bytes of the file were read.
    ///
    /// # Errors
    /// When the file cannot be read, changed since it was opened, or `each` fails.
    pub fn for_each(
        &self,
        subjects: &Subjects,
        progress: &(dyn Fn(u64) + Sync),
        mut each: impl FnMut(Fresh) -> Result<(), AppError>,
    ) -> Result<DatasetImported, AppError> {
        let mut facts = self.facts_before(subjects)?;
        let (send, receive) = sync_channel::<Vec<Fresh>>(LOTS_WAITING);
        let (digest, taken) = thread::scope(|scope| {
            let parser = scope.spawn(|| self.prepare(progress, send));
            let taken = self.take_all(&receive, subjects, &mut facts, &mut each);
            // A parser that waits to hand over rows that nobody takes any more must not wait on.
            drop(receive);
            let stopped = || AppError::said(Kind::Internal, "the thread that reads rows stopped");
            (parser.join().unwrap_or_else(|_| Err(stopped())), taken)
        });
        taken?;
        let digest = digest?;
        if self.seen.is_some_and(|seen| seen != digest) {
            let what = format!("{} changed while it was read", self.path.display());
            return Err(AppError::hinted(Kind::Input, what, "read it again when it is at rest"));
        }
        // A digest of what was taken out could be guessed, as of the digits of a phone number.
        let is_committed = self.is_committed() || facts.redacted > 0;
        facts.file = if is_committed { committed_file(digest, subjects)? } else { digest };
        Ok(facts)
    }

    fn take_all(
        &self,
        receive: &Receiver<Vec<Fresh>>,
        subjects: &Subjects,
        facts: &mut DatasetImported,
        each: &mut impl FnMut(Fresh) -> Result<(), AppError>,
    ) -> Result<(), AppError> {
        for mut fresh in receive.iter().flatten() {
            facts.rows += 1;
            facts.redacted += fresh.row.redacted;
            if fresh.row.result.is_ok() {
                facts.accepted += 1;
            } else {
                facts.rejected += 1;
                // What a rule would have taken out stands in the row that nobody could read.
                if self.is_committed() || !self.rules().is_empty() {
                    fresh.row.content = committed("row", fresh.row.content, subjects)?;
                }
            }
            each(fresh)?;
        }
        Ok(())
    }

    /// Parses on a thread of its own.
    fn prepare(
        &self,
        progress: &(dyn Fn(u64) + Sync),
        send: SyncSender<Vec<Fresh>>,
    ) -> Result<Digest, AppError> {
        let mut lot = Vec::with_capacity(LOT);
        let parsed = self.parse(&progress, |mut row| {
            if let Ok(episodes) = &row.result
                && episodes.iter().any(is_too_large)
            {
                let why = format!("id, tools and flags take more than {FACTS_BYTES_MAX} bytes");
                row.result = Err(why);
            }
            let episodes = match &mut row.result {
                Ok(episodes) => std::mem::take(episodes),
                Err(_) => Vec::new(),
            };
            let episodes = episodes.into_iter().map(Prepared::new).collect();
            lot.push(Fresh { row, episodes });
            lot.len() < LOT || send.send(std::mem::take(&mut lot)).is_ok()
        });
        // Rows before a failure were read well, so they are handed over like the others.
        let _ = send.send(lot);
        parsed
    }

    fn facts_before(&self, subjects: &Subjects) -> Result<DatasetImported, AppError> {
        let mut beside = Vec::new();
        for path in self.beside() {
            let digest = Digest::from_bytes(models::model::file_digest(path)?);
            beside.push(if self.is_committed() {
                committed_file(digest, subjects)?
            } else {
                digest
            });
        }
        Ok(DatasetImported {
            source: self.source.name.clone(),
            format: self.reading.format.to_string(),
            file: Digest::from_bytes([0; 32]),
            rows: 0,
            accepted: 0,
            rejected: 0,
            rules: self.reading.rules.names().to_vec(),
            redacted: 0,
            subject_field: self.reading.subject_field.clone(),
            beside,
        })
    }

    /// Digests of the file and its rows are commitments.
    fn is_committed(&self) -> bool {
        self.is_personal || self.reading.format.is_conversation()
    }

    /// Returns the redaction rules, as they stand on events.
    pub fn rules(&self) -> &[String] {
        self.reading.rules.names()
    }

    /// Returns the facts of a rejected row.
    pub fn rejected_facts(&self, row: &Row, reason: &str) -> TraceRejected {
        TraceRejected {
            source: self.source.name.clone(),
            location: self.location(&row.location),
            reason: reason.to_owned(),
            content: row.content,
        }
    }

    /// Says where a row stood, without the name of a file that may be somebody's.
    pub fn location(&self, at: &Location) -> Location {
        let file = if self.is_personal { &self.source.name } else { &at.file };
        Location { file: file.clone(), row: at.row }
    }
}

/// Says whether what an event would say of an episode beside its body is more than an event holds.
fn is_too_large(episode: &Episode) -> bool {
    let texts = |texts: &[String]| texts.iter().map(|text| text.len() + 8).sum::<usize>();
    let source = &episode.source;
    let size = source.external_id.len() + texts(&episode.tool_names()) + texts(&episode.flags);
    size + source.name.len() * 2 + source.location.file.len() > FACTS_BYTES_MAX
}

impl Prepared {
    fn new(episode: Episode) -> Self {
        let (content, bytes) = (episode.content_digest(), episode.to_stored());
        Self { episode, content, bytes }
    }
}

/// Returns what the log says of a file that is somebody's in the place of its digest. Whoever has a
/// copy of the file could find a plain digest again, also when the person is long forgotten.
///
/// # Errors
/// When the notebook's secret cannot be read or made.
pub fn committed_file(digest: Digest, subjects: &Subjects) -> Result<Digest, AppError> {
    committed("file", digest, subjects)
}

fn committed(label: &str, digest: Digest, subjects: &Subjects) -> Result<Digest, AppError> {
    Ok(subjects.commit_unowned(label, &[digest.as_bytes()]).map_err(BlobError::from)?)
}

/// The failure of a file that is of no known format.
pub(super) fn unknown(path: &Path) -> AppError {
    AppError::hinted(
        Kind::Input,
        format!("{}: none of the known formats", path.display()),
        format!("name it with --format: {}", Format::ALL.map(Format::name).join(", ")),
    )
}

/// Reads a file, hashing every byte and telling how many there were.
struct Tally<'a> {
    file: &'a File,
    hash: &'a RefCell<Sha256>,
    progress: &'a dyn Fn(u64),
}

impl Read for Tally<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.borrow_mut().update(buffer.get(..read).unwrap_or_default());
        (self.progress)(read as u64);
        Ok(read)
    }
}
