//! Importing files: rows become canonical episodes, or are rejected with a reason.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use datasets::ingest::{self, Format, SourceInfo};
use datasets::{Episode, IngestError, Row};
use ledger::catalogue::{DatasetImported, TraceIngested, TraceRejected, TraceRevised};
use ledger::{BodyRef, Digest, NewEvent};
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
    /// Rows in order.
    pub rows: Vec<Row>,
    /// Facts of the import.
    pub facts: DatasetImported,
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
        let imported = read_file(&path, format)?;
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
/// When it cannot be read or is of no known format.
pub fn read_file(path: &Path, format: Option<Format>) -> Result<Imported, AppError> {
    // The name must not depend on how the path was written.
    let path = &std::path::absolute(path).map_err(AppError::file(path))?;
    let source = SourceInfo::of_file(path)?;
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
    let file = File::open(path).map_err(AppError::file(path))?;
    let rows = ingest::read(BufReader::new(file), &source, format)
        .collect::<Result<Vec<Row>, IngestError>>()?;
    let digest = models::model::file_digest(path)?;
    let accepted = rows.iter().filter(|row| row.result.is_ok()).count() as u64;
    let facts = DatasetImported {
        source: source.name.clone(),
        format: format.to_string(),
        file: Digest::from_bytes(digest),
        rows: rows.len() as u64,
        accepted,
        rejected: rows.len() as u64 - accepted,
    };
    Ok(Imported { source, rows, facts })
}

/// Returns the facts of an ingested episode.
pub fn trace_facts(episode: &Episode, identity: &Identity, body: BodyRef) -> TraceIngested {
    TraceIngested {
        content: identity.content,
        source: episode.source.name.clone(),
        external_id: identity.external_id.clone(),
        format: episode.source.format.clone(),
        location: episode.source.location.clone(),
        body,
        licence: episode.licence.clone(),
        track: episode.track.clone(),
        tools: episode.tool_names(),
        flags: episode.flags.clone(),
    }
}

/// Appends what is new of a file.
struct Appender<'a> {
    lab: &'a Lab<'a>,
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
    let mut appender = Appender { lab, known, pending: Vec::new(), report };
    for row in &imported.rows {
        appender.row(row)?;
    }
    appender.flush()?;
    let report = appender.report;
    let id = format!("import/{}/{}", facts.source, Digest::of_json(facts)?);
    let path = std::path::absolute(path).map_err(AppError::file(path))?;
    let measured = json!({ "path": path, "duplicates": report.duplicates });
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
                self.pending.push(Pending::Rejected(TraceRejected {
                    source: self.report.source.clone(),
                    location: at.clone(),
                    reason: reason.clone(),
                    content: row.content,
                }));
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
                    let facts = trace_facts(episode, identity, identity.body(stored));
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
