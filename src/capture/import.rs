//! Importing files: rows become canonical episodes, or are rejected with a reason.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use datasets::ingest::{self, Format, SourceInfo};
use datasets::{Episode, IngestError, Row};
use ledger::catalogue::{DatasetImported, Location, TraceIngested, TraceRejected, TraceRevised};
use ledger::{BlobError, BodyRef, Digest, NewEvent, Subjects};
use serde::Serialize;
use serde_json::json;

use super::{Identity, files};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};
use crate::rows::Traces;

/// Episodes that are made durable together.
const BATCH: usize = 256;

/// What came of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// File.
    pub file: String,
    /// Source that its rows belong to.
    pub source: String,
    /// Format that it was read as.
    pub format: String,
    /// Rows in it.
    pub rows: u64,
    /// Rows that are episodes.
    pub accepted: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Accepted rows that the record had already.
    pub duplicates: u64,
    /// Rows whose content changed since.
    pub revised: u64,
    /// Rejected rows with their reasons.
    pub rejections: Vec<String>,
}

/// What came of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Rows in all files.
    pub rows: u64,
    /// Rows that are episodes.
    pub accepted: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Accepted rows that the record had already.
    pub duplicates: u64,
    /// File by file.
    pub files: Vec<FileReport>,
}

/// A file that was read: its rows in order, and what they amount to.
pub struct Imported {
    /// What is known of the file as a whole.
    pub source: SourceInfo,
    /// Rows in order. Of a file that is somebody's, the contents of rejected rows are commitments.
    pub rows: Vec<Row>,
    /// Facts of the import.
    pub facts: DatasetImported,
    /// Rows belong to subjects, or may belong to some: the log does not name the file, because its
    /// name may be that of the person.
    pub is_personal: bool,
}

/// Imports files and folders.
///
/// # Errors
/// When a file cannot be read or is of no known format; rows that cannot be read are rejections.
pub fn import(
    lab: &Lab<'_>,
    paths: &[PathBuf],
    format: Option<Format>,
) -> Result<ImportReport, AppError> {
    let mut report = ImportReport::default();
    let files = files::found(paths)?;
    let bar = lab.talk.bar(files.len() as u64, "files");
    for path in files {
        let imported = read_file(&path, format, lab.notebook.blobs().subjects())?;
        let file = append(lab, &path, &imported)?;
        report.rows += file.rows;
        report.accepted += file.accepted;
        report.rejected += file.rejected;
        report.duplicates += file.duplicates;
        report.files.push(file);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// Reads a file without recording anything.
///
/// # Errors
/// When it cannot be read or is of no known format, or the notebook's secret cannot be had.
pub fn read_file(
    path: &Path,
    format: Option<Format>,
    subjects: &Subjects,
) -> Result<Imported, AppError> {
    // The name must not depend on how the path was written.
    let path = &std::path::absolute(path).map_err(AppError::file(path))?;
    let mut source = SourceInfo::of_file(path)?;
    let format = match format {
        Some(format) => format,
        None => ingest::detect(path, &files::head(path)?).ok_or_else(|| {
            AppError::hinted(
                Kind::Input,
                format!("{}: none of the known formats", path.display()),
                format!("name it with --format: {}", Format::ALL.map(Format::name).join(", ")),
            )
        })?,
    };
    if format.is_conversation() {
        source = source.of_conversation(path);
    }
    let file = File::open(path).map_err(AppError::file(path))?;
    let mut rows = ingest::read(BufReader::new(file), &source, &format.into())
        .collect::<Result<Vec<Row>, IngestError>>()?;
    let mut digest = Digest::from_bytes(models::model::file_digest(path)?);
    // Of a conversation without a readable answer nobody can say whose it is.
    let nobodys = rows.is_empty() && format.is_conversation();
    let is_personal = nobodys || rows.iter().any(|row| row.is_personal);
    if is_personal || format.is_conversation() {
        source = source.of_conversation(path);
        digest = committed_file(digest, subjects)?;
        for row in rows.iter_mut().filter(|row| row.result.is_err()) {
            row.content = committed("row", row.content, subjects)?;
        }
    }
    let accepted = rows.iter().filter(|row| row.result.is_ok()).count() as u64;
    let facts = DatasetImported {
        source: source.name.clone(),
        format: format.to_string(),
        file: digest,
        rows: rows.len() as u64,
        accepted,
        rejected: rows.len() as u64 - accepted,
    };
    Ok(Imported { source, rows, facts, is_personal })
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

impl Imported {
    /// Returns the facts of an episode of the file.
    pub fn trace_facts(
        &self,
        episode: &Episode,
        identity: &Identity,
        body: BodyRef,
    ) -> TraceIngested {
        let facts = trace_facts(episode, identity, body);
        TraceIngested { location: self.location(&facts.location), ..facts }
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
    fn location(&self, at: &Location) -> Location {
        let file = if self.is_personal { &self.source.name } else { &at.file };
        Location { file: file.clone(), row: at.row }
    }
}

/// Returns the facts of an episode. Where it belongs to a subject, they hold nothing that was made
/// of its words: facts stay when the subject is forgotten.
pub fn trace_facts(episode: &Episode, identity: &Identity, body: BodyRef) -> TraceIngested {
    let of_subject = identity.key.is_some();
    let tools = if of_subject { episode.offered_names() } else { episode.tool_names() };
    let offers = if tools.is_empty() { "chat" } else { "toolcall" };
    let track = if of_subject { offers } else { episode.track.as_str() };
    // How a gold was written tells what was answered.
    let stays = |flag: &&String| !of_subject || !flag.starts_with("gold.");
    let flags = episode.flags.iter().filter(stays).cloned().collect();
    TraceIngested {
        content: identity.content,
        source: episode.source.name.clone(),
        external_id: identity.external_id.clone(),
        format: episode.source.format.clone(),
        location: episode.source.location.clone(),
        body,
        licence: episode.licence.clone(),
        track: track.to_owned(),
        tools,
        flags,
    }
}

/// Appends what is new of a file.
struct Appender<'a> {
    lab: &'a Lab<'a>,
    imported: &'a Imported,
    /// What is known of each external id: its event, where it stands in the record, and content.
    known: BTreeMap<String, (Option<u64>, Digest)>,
    pending: Vec<Pending>,
    report: FileReport,
}

/// An episode or rejection that is not in the record yet.
enum Pending {
    Episode { episode: Box<Episode>, identity: Box<Identity>, revises: Option<u64> },
    Rejected(TraceRejected),
}

fn append(lab: &Lab<'_>, path: &Path, imported: &Imported) -> Result<FileReport, AppError> {
    let traces = Traces::list(&lab.view())?;
    let facts = &imported.facts;
    let report = FileReport {
        file: path.display().to_string(),
        source: facts.source.clone(),
        format: facts.format.clone(),
        rows: facts.rows,
        accepted: facts.accepted,
        rejected: facts.rejected,
        ..FileReport::default()
    };
    let known = traces.contents(&facts.source);
    let mut appender = Appender { lab, imported, known, pending: Vec::new(), report };
    for row in &imported.rows {
        appender.row(row)?;
    }
    appender.flush()?;
    let report = appender.report;
    let id = format!("import/{}/{}", facts.source, Digest::of_json(facts)?);
    let mut measured = json!({ "duplicates": report.duplicates });
    if !imported.is_personal {
        measured["path"] = json!(std::path::absolute(path).map_err(AppError::file(path))?);
    }
    let stream = format!("trace/{}", facts.source);
    lab.record(&stream, &id, facts, Place::default().measured(measured))?;
    Ok(report)
}

impl Appender<'_> {
    fn row(&mut self, row: &Row) -> Result<(), AppError> {
        match &row.result {
            Ok(episodes) => {
                let before = self.pending.len();
                for episode in episodes {
                    self.episode(episode)?;
                }
                if self.pending.len() == before && !episodes.is_empty() {
                    self.report.duplicates += 1;
                }
            }
            Err(reason) => {
                let at = &row.location;
                self.report.rejections.push(format!("{}: row {}: {reason}", at.file, at.row));
                self.pending.push(Pending::Rejected(self.imported.rejected_facts(row, reason)));
            }
        }
        if self.pending.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn episode(&mut self, episode: &Episode) -> Result<(), AppError> {
        let identity = Identity::make(episode, self.lab.notebook.blobs())?;
        let id = &identity.external_id;
        let mut revises = None;
        if let Some((_, known)) = self.known.get(id) {
            if *known == identity.content {
                return Ok(());
            }
            // What it revises must have a number, so it goes to the record first.
            if self.known.get(id).is_some_and(|(seq, _)| seq.is_none()) {
                self.flush()?;
            }
            revises = self.known.get(id).and_then(|(seq, _)| *seq);
            self.report.revised += 1;
        }
        self.known.insert(id.clone(), (None, identity.content));
        let (episode, identity) = (Box::new(episode.clone()), Box::new(identity));
        self.pending.push(Pending::Episode { episode, identity, revises });
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AppError> {
        let pending = std::mem::take(&mut self.pending);
        let bodies: Vec<Vec<u8>> = pending
            .iter()
            .filter_map(|one| match one {
                Pending::Episode { episode, identity, .. } => {
                    Some(identity.stored(episode.to_bytes()))
                }
                Pending::Rejected(_) => None,
            })
            .collect();
        self.lab.notebook.blobs().put_many(&bodies)?;
        let mut bodies = bodies.iter();
        let mut events = Vec::with_capacity(pending.len());
        for one in &pending {
            events.push(match one {
                Pending::Rejected(facts) => self.rejection(facts)?,
                Pending::Episode { episode, identity, revises } => {
                    let stored = bodies.next().map(Vec::as_slice).unwrap_or_default();
                    let body = identity.body(stored);
                    let facts = self.imported.trace_facts(episode, identity, body);
                    self.trace(facts, *revises)?
                }
            });
        }
        let appended = self.lab.notebook.append(&[], events)?;
        for (one, done) in pending.iter().zip(appended) {
            if let Pending::Episode { identity, .. } = one {
                let id = identity.external_id.clone();
                self.known.insert(id, (Some(done.seq()), identity.content));
            }
        }
        Ok(())
    }

    fn rejection(&self, facts: &TraceRejected) -> Result<NewEvent, AppError> {
        let (source, row) = (&facts.source, facts.location.row);
        let id = format!("reject/{source}/{row}/{}", Digest::of_json(facts)?);
        self.lab.event(&format!("trace/{source}"), &id, facts, Place::default())
    }

    fn trace(&self, facts: TraceIngested, revises: Option<u64>) -> Result<NewEvent, AppError> {
        let key = Digest::of_json(&(&facts.source, &facts.external_id, facts.content))?;
        let stream = format!("trace/{}", facts.source);
        match revises {
            None => self.lab.event(&stream, &format!("trace/{key}"), &facts, Place::default()),
            Some(seq) => {
                let facts = TraceRevised { revises: seq, trace: facts };
                let id = format!("revise/{seq}/{key}");
                self.lab.event(&stream, &id, &facts, Place::default().because(seq))
            }
        }
    }
}
