//! Writers: episodes out, in the forms that trainers and benchmarks read.
//!
//! Every row is read again, with the reader of its format, before it counts as written. A row that
//! would be read as another episode is refused with a reason. So parsing, writing and parsing is
//! the identity on episodes, their place and format of origin aside, and the person whom they are
//! about, who is not written.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::episode::{Call, Episode, Gold};
use crate::ingest::{Beside, Format, Reading, SourceInfo, read};
use crate::manifest::Stored;

mod bfcl;
pub mod card;
pub(crate) mod extra;
mod file;
mod openai;
mod parquet;
pub(crate) mod sharegpt;
mod trl;
mod xlam;

use file::Lines;

/// A format that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExportFormat {
    /// JSON lines of OpenAI's fine-tuning: `{messages, tools, parallel_tool_calls}`, arguments as
    /// JSON strings, weight 1 on the gold and 0 on earlier answers.
    OpenAi,
    /// JSON lines of `{messages, tools}` with arguments as objects, for TRL.
    Trl,
    /// JSON lines of `{conversations: [{from, value}]}` with Hermes tool tags.
    ShareGpt,
    /// JSON lines of `{id, query, tools, answers}`, tools and answers as JSON strings.
    Xlam,
    /// A question file and a file of possible answers of the Berkeley leaderboard.
    Bfcl,
    /// Parquet, one row an episode: OpenAI's messages, and tools as a JSON string.
    Parquet,
}

/// Says why something cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The format cannot say this row. Nothing was written; the writer can go on.
    #[error("{id}: {format} cannot say this row: {reason}")]
    Unsayable {
        /// Id of the row within its source.
        id: String,
        /// Format.
        format: ExportFormat,
        /// Why.
        reason: String,
    },
    /// Writing failed.
    #[error("{}: writing failed", file.display())]
    Io {
        /// File.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Writing Parquet failed.
    #[error("{}: {reason}", file.display())]
    Columns {
        /// File.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The format's name is unknown.
    #[error("unknown format {name:?} (known: {known})")]
    UnknownFormat {
        /// Name that was given.
        name: String,
        /// Names that are known.
        known: String,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Rows in them; those of BFCL's possible answers are not counted twice.
    pub rows: u64,
}

impl ExportFormat {
    /// All formats.
    pub const ALL: [Self; 6] =
        [Self::OpenAi, Self::Trl, Self::ShareGpt, Self::Xlam, Self::Bfcl, Self::Parquet];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Trl => "trl",
            Self::ShareGpt => "sharegpt",
            Self::Xlam => "xlam",
            Self::Bfcl => "bfcl",
            Self::Parquet => "parquet",
        }
    }

    /// Returns the files that a writer makes, relative to its folder.
    pub fn files(self, stem: &str) -> Vec<PathBuf> {
        match self {
            Self::OpenAi | Self::Trl | Self::ShareGpt | Self::Xlam => {
                vec![format!("{stem}.jsonl").into()]
            }
            Self::Bfcl => {
                let name = format!("{stem}.json");
                vec![PathBuf::from(&name), Path::new("possible_answer").join(name)]
            }
            Self::Parquet => vec![format!("{stem}.parquet").into()],
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ExportFormat {
    type Err = ExportError;

    fn from_str(name: &str) -> Result<Self, ExportError> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| ExportError::UnknownFormat { name: name.to_owned(), known: known() })
    }
}

/// Writes episodes one by one.
///
/// Files bear the name `<name>.partial` until [`Writer::finish`]: what bears its own name is whole.
pub struct Writer {
    format: ExportFormat,
    rows: u64,
    sink: Sink,
}

enum Sink {
    Lines(Lines),
    Pair { questions: Lines, answers: Lines, ids: BTreeSet<String> },
    Columns(Box<parquet::Columns>),
}

impl Writer {
    /// Starts files of `format` in the folder `dir`, which is made where it is not there.
    ///
    /// # Errors
    /// When a file of that name is there already, or cannot be made.
    pub fn new(format: ExportFormat, dir: &Path, stem: &str) -> Result<Self, ExportError> {
        let mut files = format.files(stem).into_iter().map(|file| dir.join(file));
        let mut next = || file::Target::new(files.next().unwrap_or_default());
        let sink = match format {
            ExportFormat::OpenAi
            | ExportFormat::Trl
            | ExportFormat::ShareGpt
            | ExportFormat::Xlam => Sink::Lines(Lines::new(next()?)),
            ExportFormat::Bfcl => {
                let (questions, answers) = (Lines::new(next()?), Lines::new(next()?));
                Sink::Pair { questions, answers, ids: BTreeSet::new() }
            }
            ExportFormat::Parquet => Sink::Columns(Box::new(parquet::Columns::new(next()?)?)),
        };
        Ok(Self { format, rows: 0, sink })
    }

    /// Writes an episode.
    ///
    /// # Errors
    /// [`ExportError::Unsayable`] when the format cannot say it: then nothing is written, and the
    /// next episode can be. Any other error is of the file, and ends the writing.
    pub fn write(&mut self, episode: &Episode) -> Result<(), ExportError> {
        let mut rows = rows(self.format, episode).map_err(|reason| ExportError::Unsayable {
            id: episode.source.external_id.clone(),
            format: self.format,
            reason,
        })?;
        match &mut self.sink {
            Sink::Lines(lines) => lines.write(&rows.row)?,
            Sink::Pair { questions, answers, ids } => {
                rows.tell_apart(ids);
                questions.write(&rows.row)?;
                if let Some(answer) = &rows.answer {
                    answers.write(answer)?;
                }
            }
            Sink::Columns(columns) => columns.write(episode, rows.row)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends the files, and gives them their names.
    ///
    /// # Errors
    /// When they cannot be written to their end.
    pub fn finish(self) -> Result<Written, ExportError> {
        let files = match self.sink {
            Sink::Lines(lines) => vec![lines.finish()?],
            Sink::Pair { questions, answers, .. } => vec![questions.finish()?, answers.finish()?],
            Sink::Columns(columns) => vec![columns.finish()?],
        };
        Ok(Written { files, rows: self.rows })
    }
}

/// What an episode becomes.
struct Rows {
    row: Map<String, Value>,
    /// Row of the possible answers.
    answer: Option<Map<String, Value>>,
}

impl Rows {
    /// Gives a question an id that no other question of the file has, because its answers are
    /// found by it. The id that it had stands in its metadata.
    fn tell_apart(&mut self, ids: &mut BTreeSet<String>) {
        let given = self.row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let others = (2_u64..).map(|n| format!("{given}~{n}"));
        let mut free = std::iter::once(given.clone()).chain(others).filter(|id| !ids.contains(id));
        let id = free.next().unwrap_or_default();
        for row in [Some(&mut self.row), self.answer.as_mut()].into_iter().flatten() {
            row.insert("id".to_owned(), Value::from(id.as_str()));
        }
        ids.insert(id);
    }
}

/// Makes the rows of an episode.
fn rows(format: ExportFormat, episode: &Episode) -> Result<Rows, String> {
    // As stored: keys sorted, numbers shortest.
    let episode = Episode::from_stored(&episode.to_bytes()).map_err(|error| error.to_string())?;
    let mut beside = Beside::default();
    let mut answer = None;
    let (row, reader) = match format {
        ExportFormat::OpenAi => (openai::row(&episode)?, Format::OpenAi),
        ExportFormat::Trl => (trl::row(&episode)?, Format::OpenAi),
        ExportFormat::ShareGpt => (sharegpt::row(&episode)?, Format::Hermes),
        ExportFormat::Xlam => (xlam::row(&episode)?, Format::Xlam),
        ExportFormat::Bfcl => {
            let (question, possible) = bfcl::rows(&episode)?;
            if let Some(possible) = possible {
                beside.answers.insert(possible.id.clone(), possible.ground_truth.clone());
                answer = Some(possible.row());
            }
            (question, Format::Bfcl)
        }
        ExportFormat::Parquet => (parquet::row(&episode)?, Format::OpenAi),
    };
    let reading = Reading { beside, ..Reading::from(reader) };
    Ok(Rows { row: complete(&episode, row, &reading)?, answer })
}

/// Adds to a row what it lacks to be read as `episode` again, and makes sure that it is.
fn complete(
    episode: &Episode,
    mut row: Map<String, Value>,
    reading: &Reading,
) -> Result<Map<String, Value>, String> {
    let mut metadata = extra::always(episode);
    if let Some(Value::Object(more)) = row.remove(extra::MEMBER) {
        metadata.extend(more);
    }
    row.insert(extra::MEMBER.to_owned(), Value::Object(metadata.clone()));
    let read = read_back(episode, &row, reading)?;
    if difference(episode, &read).is_none() {
        return Ok(row);
    }
    extra::add_rest(&mut metadata, episode, &read);
    row.insert(extra::MEMBER.to_owned(), Value::Object(metadata));
    let read = read_back(episode, &row, reading)?;
    match difference(episode, &read) {
        Some(what) => Err(format!("its {what} would be read back differently")),
        None => Ok(row),
    }
}

fn read_back(
    episode: &Episode,
    row: &Map<String, Value>,
    reading: &Reading,
) -> Result<Episode, String> {
    let source = SourceInfo {
        name: episode.source.name.clone(),
        file: String::new(),
        licence: String::new(),
        attribution: String::new(),
    };
    let line = Value::Object(row.clone()).to_string();
    let row = read(line.as_bytes(), &source, reading).next();
    let row = row.ok_or("nothing would be read back")?.map_err(|error| error.to_string())?;
    let refused = |why| format!("it would not be read back: {why}");
    let mut episodes = row.result.map_err(refused)?;
    match (episodes.pop(), episodes.is_empty()) {
        (Some(episode), true) => Ok(episode),
        _ => Err("it would be read back as several episodes".to_owned()),
    }
}

/// Names the first part in which two episodes differ, their origin aside.
fn difference(one: &Episode, other: &Episode) -> Option<&'static str> {
    let parts = [
        ("tools", one.tools == other.tools),
        ("conversation", one.turns == other.turns),
        ("gold", one.gold == other.gold),
        ("recorded answer", one.answer == other.answer),
        ("track", one.track == other.track),
        ("query", one.query == other.query),
        ("flags", one.flags == other.flags),
        ("licence", one.licence == other.licence),
        ("attribution", one.attribution == other.attribution),
        ("id", one.source.external_id == other.source.external_id),
    ];
    parts.into_iter().find(|(_, is_same)| !is_same).map(|(what, _)| what)
}

/// Returns the calls of the gold with the text beside them, where that is known.
fn calls_and_text(episode: &Episode) -> (&[Call], Option<&str>) {
    let calls = episode.gold.calls();
    let answer = episode.answer.as_ref();
    let beside = answer.filter(|answer| answer.model == "unknown" && answer.calls == calls);
    (calls, beside.and_then(|answer| answer.text.as_deref()))
}

/// Returns the text of a gold that is no call; an error where there is nothing to train on.
fn gold_words(episode: &Episode) -> Result<String, String> {
    match &episode.gold {
        Gold::None => Err("it has no gold to train on".to_owned()),
        Gold::NoCall if episode.gold_text().is_empty() => {
            Err("its gold only says that nothing may be called: no words to train on".to_owned())
        }
        _ => Ok(episode.gold_text()),
    }
}

#[cfg(test)]
mod parquet_tests;
#[cfg(test)]
pub(crate) mod tests;
