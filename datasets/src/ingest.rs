//! Readers: files of traces in, canonical episodes out, one file per format.
//!
//! A row that cannot be read becomes a rejection with its place and reason, and reading goes on.
//! Only an input that cannot be read at all, or is not of the format, ends in an error.

use std::fmt;
use std::io::BufRead;
use std::path::Path;
use std::str::FromStr;

use ledger::Digest;
use ledger::catalogue::Location;

use crate::episode::Episode;

mod biz_entity;
mod chat;
mod episodes;
mod hermes;
mod langfuse;
mod lines;
mod make;
mod prompt_completion;
mod provenance;
mod recorded;

pub use provenance::{SourceInfo, source_name};

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// JSON lines of `{prompt, completion}`.
    PromptCompletion,
    /// JSON lines of `{prompt_index, prompt, prediction, reference}`: a model's recorded answers.
    RecordedAnswers,
    /// JSON lines of `{id, conversations: [{from, value}]}` with Hermes tool tags.
    Hermes,
    /// JSON lines of `{instruction, input, output}`.
    BizEntity,
    /// One JSON document of `{trace, observations}`, or an array of such.
    LangfuseExport,
    /// JSON lines of canonical episodes.
    Episodes,
}

/// Says why an input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Reading failed.
    #[error("{file}: reading failed at row {row}")]
    Io {
        /// File.
        file: String,
        /// Row from 1.
        row: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// The input is not of the format at all.
    #[error("{file} is not of format {format}: {reason}")]
    NotOfFormat {
        /// File.
        file: String,
        /// Format that was asked for.
        format: Format,
        /// What is missing.
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
    /// The description of where data came from cannot be read.
    #[error("{file}: {reason}")]
    Provenance {
        /// `SOURCE.toml` that was found.
        file: String,
        /// Why.
        reason: String,
    },
}

/// One row of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub location: Location,
    /// SHA-256 of its bytes.
    pub content: Digest,
    /// It belongs to a subject or, where it cannot be read, may belong to one.
    pub is_personal: bool,
    /// Its episodes, or why it is rejected.
    pub result: Result<Vec<Episode>, String>,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self::PromptCompletion,
        Self::RecordedAnswers,
        Self::Hermes,
        Self::BizEntity,
        Self::LangfuseExport,
        Self::Episodes,
    ];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PromptCompletion => "prompt-completion",
            Self::RecordedAnswers => "recorded-answers",
            Self::Hermes => "hermes",
            Self::BizEntity => "biz-entity",
            Self::LangfuseExport => "langfuse-export",
            Self::Episodes => "episodes",
        }
    }

    /// Says whether all of a file is somebody's conversation, whether or not it names anybody.
    pub const fn is_conversation(self) -> bool {
        matches!(self, Self::LangfuseExport)
    }

    /// Returns the keys that a row of this format has.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::PromptCompletion => &["prompt", "completion"],
            Self::RecordedAnswers => &["prompt", "prediction", "reference"],
            Self::Hermes => &["conversations"],
            Self::BizEntity => &["instruction", "input", "output"],
            Self::LangfuseExport => &["trace", "observations"],
            Self::Episodes => &["schema", "track", "turns", "gold"],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = IngestError;

    fn from_str(name: &str) -> Result<Self, IngestError> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| IngestError::UnknownFormat { name: name.to_owned(), known: known() })
    }
}

/// Tells the format of a file by its first bytes; none where they are not enough to be sure.
///
/// The keys of the first object are read, even where the bytes end inside it. A path that ends in
/// neither `.jsonl`, `.json` nor `.ndjson` is read like the others: the content decides.
pub fn detect(_path: &Path, first_bytes: &[u8]) -> Option<Format> {
    let keys = lines::first_keys(&String::from_utf8_lossy(first_bytes));
    let has = |key: &&str| keys.iter().any(|known| known == key);
    let mut found = Format::ALL
        .into_iter()
        .filter(|format| *format != Format::LangfuseExport && format.keys().iter().all(has));
    found.next().or_else(|| {
        // The trace stands before the observations and may be longer than the first bytes.
        (keys.first().is_some_and(|key| key == "trace" || key == "observations"))
            .then_some(Format::LangfuseExport)
    })
}

/// Reads `input` row by row.
///
/// Lines are read one at a time, so that a file of any length needs little memory; a Langfuse
/// export is one document and is read whole.
pub fn read<'a, R: BufRead + 'a>(
    input: R,
    source: &'a SourceInfo,
    format: Format,
) -> Box<dyn Iterator<Item = Result<Row, IngestError>> + 'a> {
    match format {
        Format::LangfuseExport => Box::new(langfuse::read(input, source).into_iter()),
        Format::PromptCompletion => lines::rows(input, source, format, prompt_completion::read),
        Format::RecordedAnswers => lines::rows(input, source, format, recorded::read),
        Format::Hermes => lines::rows(input, source, format, hermes::read),
        Format::BizEntity => lines::rows(input, source, format, biz_entity::read),
        Format::Episodes => lines::rows(input, source, format, episodes::read),
    }
}

#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod tests;
