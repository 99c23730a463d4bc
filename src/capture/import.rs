//! Importing files: rows become canonical episodes, or are rejected with a reason.

use std::fs::File;
use std::path::{Path, PathBuf};

use datasets::ingest::{self, CepText, Format, cep_of};
use datasets::{Cep, Episode};
use ledger::catalogue::{DatasetImported, TraceIngested, TraceRejected, TraceRevised};
use ledger::{Appended, BodyRef, Digest, NewEvent};
use serde::Serialize;
use serde_json::json;

use super::Identity;
use super::files::{self, Found, Walk};
use super::known::{Known, Seen};
use super::opened::{Asked, Fresh, Opened, Prepared};
use crate::error::{AppError, Kind};
use crate::eval::propose_cep;
use crate::lab::{Lab, Place};

/// Most episodes that are made durable together.
const BATCH: usize = 4096;
/// Most bytes of bodies that are made durable together.
const BATCH_BYTES: usize = 16 << 20;
/// Rejections of a file that are told; the log has them all.
const REJECTIONS_TOLD: usize = 100;

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
    /// Episodes whose content changed since.
    pub revised: u64,
    /// Places at which a placeholder stands for what was taken out.
    pub redacted: u64,
    /// The first rejected rows with their reasons.
    pub rejections: Vec<String>,
    /// Files that were read beside it.
    pub beside: Vec<String>,
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
    /// Places at which a placeholder stands for what was taken out.
    pub redacted: u64,
    /// File by file.
    pub files: Vec<FileReport>,
    /// Files of folders that were passed over, with the reason.
    pub skipped: Vec<String>,
}

/// Imports files and folders.
///
/// Rows are stored as they are read; what was stored before an error stays, and reading the file
/// again goes on from there.
///
/// # Errors
/// When a file cannot be read or is of no known format; rows that cannot be read are rejections.
pub fn import(lab: &Lab<'_>, paths: &[PathBuf], asked: &Asked) -> Result<ImportReport, AppError> {
    // Two at once would not see each other's rows, and take a change for something new.
    let _turn = take_turn(lab)?;
    let mut known = Known::list(&lab.view())?;
    let Walk { files, skipped } = files::found(paths)?;
    let mut report = ImportReport { skipped, ..ImportReport::default() };
    let bar = lab.talk.bytes_bar(files.iter().map(|file| file.length).sum());
    for file in &files {
        if let Some(why) = passed_over(file, asked)? {
            report.skipped.push(format!("{}: {why}", file.path.display()));
            bar.inc(file.length);
            continue;
        }
        bar.set_message(file.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let done = if is_cep(&file.path, asked)? {
            import_cep(lab, &file.path)?
        } else {
            let opened = Opened::open(&file.path, asked)?;
            import_file(lab, &opened, &mut known, &|bytes| bar.inc(bytes))?
        };
        report.rows += done.rows;
        report.accepted += done.accepted;
        report.rejected += done.rejected;
        report.duplicates += done.duplicates;
        report.redacted += done.redacted;
        report.files.push(done);
    }
    bar.finish_and_clear();
    if report.files.is_empty() {
        return Err(AppError::hinted(
            Kind::Input,
            format!("nothing to read: {} files were passed over", report.skipped.len()),
            "name a file itself, or name its --format",
        ));
    }
    Ok(report)
}

/// Waits until no other process reads files into the notebook.
fn take_turn(lab: &Lab<'_>) -> Result<File, AppError> {
    let path = lab.notebook.dir().join("ingest.lock");
    let file = File::create(&path).map_err(AppError::file(&path))?;
    if file.try_lock().is_err() {
        lab.talk.say("another process reads files into this notebook: waiting for it");
        file.lock().map_err(AppError::file(&path))?;
    }
    Ok(file)
}

/// Says why a file of a folder is not read; a file that was named is read in any case.
fn passed_over(file: &Found, asked: &Asked) -> Result<Option<String>, AppError> {
    if file.is_named {
        return Ok(None);
    }
    let head = files::head(&file.path)?;
    if ingest::is_companion(&file.path, &head) {
        return Ok(Some("read beside the questions that it belongs to".to_owned()));
    }
    let told = asked.format.is_some() || ingest::detect(&file.path, &head).is_some();
    Ok((!told).then(|| "none of the known formats".to_owned()))
}

fn is_cep(path: &Path, asked: &Asked) -> Result<bool, AppError> {
    Ok(match asked.format {
        Some(format) => format == Format::CepText,
        None => files::format_of(path)? == Some(Format::CepText),
    })
}

/// Records a prefix, which is no trace.
fn import_cep(lab: &Lab<'_>, path: &Path) -> Result<FileReport, AppError> {
    let bytes = std::fs::read(path).map_err(AppError::file(path))?;
    let CepText { name, text } = cep_of(path, &bytes)?;
    propose_cep(lab, &Cep::new(&name, &text, &[]))?;
    Ok(FileReport {
        file: path.display().to_string(),
        source: format!("cep/{name}"),
        format: Format::CepText.to_string(),
        rows: 1,
        accepted: 1,
        ..FileReport::default()
    })
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
    let around = identity.external_id.split_once('/').map(|(trace, _)| trace.to_owned());
    let is_export = episode.source.format == Format::LangfuseExport.name();
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
        rules: Vec::new(),
        redacted: 0,
        // An export's id begins with that of its trace.
        aliases: around.filter(|_| is_export).into_iter().collect(),
        mapper: None,
    }
}

impl Opened {
    /// Returns the facts of an episode of the file. `redacted` counts the placeholders of its row.
    pub fn trace_facts(
        &self,
        episode: &Episode,
        (identity, body): (&Identity, BodyRef),
        redacted: u64,
    ) -> TraceIngested {
        let facts = trace_facts(episode, identity, body);
        let location = self.location(&facts.location);
        TraceIngested { location, rules: self.rules().to_vec(), redacted, ..facts }
    }
}

/// Appends what is new of a file.
struct Appender<'a> {
    lab: &'a Lab<'a>,
    opened: &'a Opened,
    known: &'a mut Known,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Names this reading of the file, so that its events can be told from those of another.
    run: String,
    /// Events that told the record something new.
    told: u64,
    report: FileReport,
}

/// An episode or rejection that is not in the record yet.
enum Pending {
    Episode(Box<Coming>),
    Rejected(TraceRejected),
}

/// An episode on its way to the record.
struct Coming {
    facts: TraceIngested,
    stored: Vec<u8>,
    revises: Option<u64>,
}

fn import_file(
    lab: &Lab<'_>,
    opened: &Opened,
    known: &mut Known,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<FileReport, AppError> {
    let report = FileReport {
        file: opened.path.display().to_string(),
        source: opened.source.name.clone(),
        format: opened.format().to_string(),
        beside: opened.beside().iter().map(|path| path.display().to_string()).collect(),
        ..FileReport::default()
    };
    let (pending, pending_bytes) = (Vec::new(), 0);
    let run = import_run(lab, opened)?;
    let known_now = &mut *known;
    let mut appender =
        Appender { lab, opened, known: known_now, pending, pending_bytes, run, told: 0, report };
    let subjects = lab.notebook.blobs().subjects();
    let read = opened.for_each(subjects, progress, |row| appender.row(row));
    // What was read well before a failure stays.
    appender.flush()?;
    let facts: DatasetImported = read?;
    let (mut report, run, told) = (appender.report, appender.run, appender.told);
    (report.rows, report.accepted, report.rejected) = (facts.rows, facts.accepted, facts.rejected);
    report.redacted = facts.redacted;
    let same_source = |known: &DatasetImported| known.source == facts.source;
    let newest = lab.view().newest(same_source)?;
    if !opened.is_personal {
        known.put_file(&facts.source, &opened.path);
    }
    // Read again without anything new, the file has said all before.
    if told == 0 && lab.view().newest(|known: &DatasetImported| *known == facts)?.is_some() {
        return Ok(report);
    }
    let after = newest.map_or(0, |(event, _)| event);
    let id = format!("import/{}/{after}/{}", facts.source, Digest::of_json(&facts)?);
    let mut measured = json!({ "duplicates": report.duplicates });
    if !opened.is_personal {
        measured["path"] = json!(opened.path);
    }
    let stream = format!("trace/{}", facts.source);
    lab.record(&stream, &id, &facts, Place::run(&run).measured(measured))?;
    Ok(report)
}

/// Names a reading of a file: unlike any before in this record.
fn import_run(lab: &Lab<'_>, opened: &Opened) -> Result<String, AppError> {
    let head = lab.notebook.reader().head()?.size;
    let key = json!([opened.source.name, opened.path, head, std::process::id()]);
    Ok(format!("import-{}", Digest::of_json(&key)?.short()))
}

impl Appender<'_> {
    fn row(&mut self, fresh: Fresh) -> Result<(), AppError> {
        match &fresh.row.result {
            Ok(_) => {
                let mut is_new = fresh.episodes.is_empty();
                for prepared in fresh.episodes {
                    is_new |= self.episode(prepared, fresh.row.redacted)?;
                }
                if !is_new {
                    self.report.duplicates += 1;
                }
            }
            Err(reason) => {
                if self.report.rejections.len() < REJECTIONS_TOLD {
                    let at = &fresh.row.location;
                    self.report.rejections.push(format!("{}: row {}: {reason}", at.file, at.row));
                }
                let facts = self.opened.rejected_facts(&fresh.row, reason);
                self.pending.push(Pending::Rejected(facts));
            }
        }
        if self.pending.len() >= BATCH || self.pending_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes an episode up; says whether it tells the record something new.
    fn episode(&mut self, prepared: Prepared, redacted: u64) -> Result<bool, AppError> {
        let Prepared { episode, content, bytes } = prepared;
        let identity = Identity::make(&episode, content, self.lab.notebook.blobs())?;
        let (source, id) = (&episode.source.name, &identity.external_id);
        let mut seen = self.known.see(source, id, identity.content);
        if matches!(seen, Seen::OtherPending) {
            // What it revises must have a number, so it goes to the record first.
            self.flush()?;
            seen = self.known.see(source, id, identity.content);
        }
        let revises = match seen {
            Seen::Same => return Ok(false),
            Seen::New | Seen::OtherPending => None,
            Seen::Other(seq) => {
                self.refuse_other_file(source, &episode)?;
                Some(seq)
            }
        };
        self.report.revised += u64::from(revises.is_some());
        self.known.put(source, id, identity.content, None);
        let stored = identity.stored(bytes);
        self.pending_bytes += stored.len();
        let body = identity.body(&stored);
        let facts = self.opened.trace_facts(&episode, (&identity, body), redacted);
        self.pending.push(Pending::Episode(Box::new(Coming { facts, stored, revises })));
        Ok(true)
    }

    /// Refuses to revise rows of a source that came from another file: two folders may have the
    /// same name, and then these are other rows under the same ids.
    fn refuse_other_file(&self, source: &str, episode: &Episode) -> Result<(), AppError> {
        let opened = self.opened;
        if opened.is_revision || opened.is_personal || *source != opened.source.name {
            return Ok(());
        }
        let Some(other) = self.known.other_file(source, &opened.path) else { return Ok(()) };
        let row = episode.source.location.row;
        Err(AppError::hinted(
            Kind::Conflict,
            format!(
                "{}: row {row} has an id that source {source} knows with other content, from {}",
                opened.path.display(),
                other.display()
            ),
            "if these are other rows, name their source with --source; if it is the same file, \
             changed and moved, say --revise",
        ))
    }

    fn flush(&mut self) -> Result<(), AppError> {
        let mut pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let take = |one: &mut Pending| match one {
            Pending::Episode(coming) => Some(std::mem::take(&mut coming.stored)),
            Pending::Rejected(_) => None,
        };
        let bodies: Vec<Vec<u8>> = pending.iter_mut().filter_map(take).collect();
        self.lab.notebook.blobs().put_many(&bodies)?;
        drop(bodies);
        let mut events = Vec::with_capacity(pending.len());
        for one in &pending {
            events.push(match one {
                Pending::Rejected(facts) => self.rejection(facts)?,
                Pending::Episode(coming) => self.trace(coming)?,
            });
        }
        let appended = self.lab.notebook.append(&[], events)?;
        for (one, done) in pending.iter().zip(appended) {
            self.told += u64::from(matches!(done, Appended::New(_)));
            if let Pending::Episode(coming) = one {
                let TraceIngested { source, external_id, content, .. } = &coming.facts;
                self.known.put(source, external_id, *content, Some(done.seq()));
            }
        }
        Ok(())
    }

    fn rejection(&self, facts: &TraceRejected) -> Result<NewEvent, AppError> {
        let (source, row) = (&facts.source, facts.location.row);
        let id = format!("reject/{source}/{row}/{}", Digest::of_json(facts)?);
        self.lab.event(&format!("trace/{source}"), &id, facts, Place::run(&self.run))
    }

    fn trace(&self, coming: &Coming) -> Result<NewEvent, AppError> {
        let facts = &coming.facts;
        let key = Digest::of_json(&(&facts.source, &facts.external_id, facts.content))?;
        let stream = format!("trace/{}", facts.source);
        match coming.revises {
            None => self.lab.event(&stream, &format!("trace/{key}"), facts, Place::run(&self.run)),
            Some(seq) => {
                let facts = TraceRevised { revises: seq, trace: facts.clone() };
                let id = format!("revise/{seq}/{key}");
                self.lab.event(&stream, &id, &facts, Place::run(&self.run).because(seq))
            }
        }
    }
}
