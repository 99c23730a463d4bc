//! Readers: files of traces in, canonical episodes out, one file per format.
//!
//! A row that cannot be read becomes a rejection with its place and reason, and reading goes on.
//! Only an input that cannot be read at all, or is not of the format, ends in an error. How rows
//! may be laid out in a file, and how that is told, is written in `ingest/records.rs`.

use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

use ledger::Digest;
use ledger::catalogue::Location;

use crate::episode::Episode;
use crate::redact::Rules;

mod beside;
mod bfcl;
mod biz_entity;
mod cep_text;
mod chat;
mod detect;
mod episodes;
mod exchange;
mod gzip;
mod hermes;
mod langfuse;
mod lines;
mod make;
mod openai;
mod printed;
mod prompt_completion;
mod provenance;
mod recorded;
mod records;
mod results;
mod spans;
mod stream;
mod tau_bench;
mod values;
mod workflow_log;
mod xlam;

pub use beside::Beside;
pub use cep_text::{CepText, cep_of};
pub use detect::{detect, is_companion};
pub use gzip::{Opened, head, opened};
pub(crate) use hermes::tools_between_tags;
pub use provenance::{SourceInfo, source_name};
pub use spans::{MAPPER, Mapped, Role, map};

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Rows of `{prompt, completion}`.
    PromptCompletion,
    /// Rows of `{prompt_index, prompt, prediction, reference}`: a model's recorded answers.
    RecordedAnswers,
    /// Rows of `{id, conversations: [{from, value}]}` with Hermes tool tags.
    Hermes,
    /// Rows of `{instruction, input, output}`.
    BizEntity,
    /// JSON documents of `{trace, observations}`, alone, one after another or in an array.
    LangfuseExport,
    /// Rows that are canonical episodes.
    Episodes,
    /// Rows of `{query, tools, answers}`, tools and answers as JSON inside strings: xLAM.
    Xlam,
    /// Rows of `{messages, tools}`: OpenAI's chat and fine-tuning form, and TRL's.
    OpenAi,
    /// Rows of `{request, response}`: calls of an OpenAI-compatible API with their replies.
    Exchange,
    /// Rows of `{id, question, function}`, with the possible answers in a file beside: BFCL.
    Bfcl,
    /// Rows of `{task_id, reward, info, traj}`: trajectories of tau-bench.
    TauBench,
    /// Rows of `{timestamp, agent_type, user_query, assistant_response, ...}`: a workflow tracer.
    WorkflowLog,
    /// A context engineering prefix: a document with a member `cep`, or plain text.
    CepText,
}

/// How an input is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Format of its rows.
    pub format: Format,
    /// What lies in files beside it.
    pub beside: Beside,
    /// Member that names the person whom a row is about, as `user_id` or `metadata.user`.
    pub subject_field: Option<String>,
    /// What is taken out of the texts.
    pub rules: Rules,
}

impl From<Format> for Reading {
    /// Reads a format from one file, as it stands.
    fn from(format: Format) -> Self {
        Self { format, beside: Beside::default(), subject_field: None, rules: Rules::none() }
    }
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
    /// Places at which a placeholder stands for what was taken out.
    pub redacted: u64,
    /// Its episodes, or why it is rejected.
    pub result: Result<Vec<Episode>, String>,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 13] = [
        Self::PromptCompletion,
        Self::RecordedAnswers,
        Self::Hermes,
        Self::BizEntity,
        Self::LangfuseExport,
        Self::Episodes,
        Self::Xlam,
        Self::OpenAi,
        Self::Exchange,
        Self::Bfcl,
        Self::TauBench,
        Self::WorkflowLog,
        Self::CepText,
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
            Self::Xlam => "xlam",
            Self::OpenAi => "openai",
            Self::Exchange => "exchange",
            Self::Bfcl => "bfcl",
            Self::TauBench => "tau-bench",
            Self::WorkflowLog => "workflow-log",
            Self::CepText => "cep-text",
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
            Self::Xlam => &["query", "tools", "answers"],
            Self::OpenAi => &["messages"],
            Self::Exchange => &["request", "response"],
            Self::Bfcl => &["id", "question"],
            Self::TauBench => &["task_id", "traj"],
            Self::WorkflowLog => &["agent_type", "user_query"],
            Self::CepText => &["cep"],
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

/// Reads `input` row by row.
///
/// For every format of rows, the rows may stand one a line, in one array, or as JSON values of any
/// layout one after another; the content decides. A broken row is a rejection, and reading goes
/// on. No more than the longest row is held (64 MiB; of a Langfuse export 256 MiB), so that a file
/// of any length needs little memory. What is packed with gzip is unpacked.
///
/// A prefix is no trace: see [`cep_of`].
pub fn read<'a, R: BufRead + 'a>(
    input: R,
    source: &'a SourceInfo,
    reading: &'a Reading,
) -> Box<dyn Iterator<Item = Result<Row, IngestError>> + 'a> {
    let read_row: lines::ReadRow = match reading.format {
        Format::LangfuseExport => return langfuse::rows(input, source, reading),
        Format::CepText => return Box::new(std::iter::once(Err(cep_text::no_trace(source)))),
        Format::PromptCompletion => prompt_completion::read,
        Format::RecordedAnswers => recorded::read,
        Format::Hermes => hermes::read,
        Format::BizEntity => biz_entity::read,
        Format::Episodes => episodes::read,
        Format::Xlam => xlam::read,
        Format::OpenAi => openai::read,
        Format::Exchange => exchange::read,
        Format::Bfcl => bfcl::read,
        Format::TauBench => tau_bench::read,
        Format::WorkflowLog => workflow_log::read,
    };
    lines::rows(input, source, reading, read_row)
}

#[cfg(test)]
mod container_tests;
#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod readers_tests;
#[cfg(test)]
mod review_tests;
#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
