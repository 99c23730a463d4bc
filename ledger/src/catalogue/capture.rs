//! Streams `trace/<source>`: what came in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts;
use crate::event::BodyRef;
use crate::id::Digest;

/// Where in its file a row stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// File, as named relative to what was ingested.
    pub file: String,
    /// Row from 1 (a line of JSON lines, an element of an array).
    pub row: u64,
}

/// A canonical episode came in. Its text lies in `body`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceIngested {
    /// Source, which also names the stream.
    pub source: String,
    /// Id within the source.
    pub external_id: String,
    /// Format that it was read from.
    pub format: String,
    /// Where it stood.
    pub location: Location,
    /// Digest of the episode without where it came from: what tells a repetition from a revision.
    pub content: Digest,
    /// The canonical episode, as JSON.
    pub body: BodyRef,
    /// Licence of the row.
    pub licence: String,
    /// Track: `toolcall`, `structured`, `chat`, ...
    pub track: String,
    /// Names of the tools called or offered, sorted.
    pub tools: Vec<String>,
    /// Marks such as `answer.recorded` or `unpromoted`.
    pub flags: Vec<String>,
    /// Redaction rules that its texts went through, with their versions, as in `secrets/1`.
    pub rules: Vec<String>,
    /// Places at which a placeholder stands for what those rules took out.
    pub redacted: u64,
}

/// Schema 1 knew no redaction.
fn trace_of_1(mut facts: Value) -> Value {
    if let Some(fields) = facts.as_object_mut() {
        fields.insert("rules".to_owned(), Value::Array(Vec::new()));
        fields.insert("redacted".to_owned(), Value::from(0));
    }
    facts
}

/// Schema 1 held a trace of schema 1.
fn revised_of_1(mut facts: Value) -> Value {
    if let Some(trace) = facts.get_mut("trace") {
        *trace = trace_of_1(trace.take());
    }
    facts
}

/// The content behind a known external id changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceRevised {
    /// The event that this one takes the place of.
    pub revises: u64,
    /// The new content.
    pub trace: TraceIngested,
}

/// A row could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRejected {
    /// Source, which also names the stream.
    pub source: String,
    /// Where it stood.
    pub location: Location,
    /// Why, in one line.
    pub reason: String,
    /// SHA-256 of the row's bytes.
    pub content: Digest,
}

/// Somebody or something judged an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedbackRecorded {
    /// Response or trace that is judged.
    pub target: String,
    /// Name of the score.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Words beside it.
    pub comment: Option<String>,
    /// Value and words, where they are of a subject's call: then they stand here only.
    #[serde(default)]
    pub body: Option<BodyRef>,
}

/// Schema 1 had no body.
fn feedback_of_1(mut facts: Value) -> Value {
    if let Some(fields) = facts.as_object_mut() {
        fields.insert("body".to_owned(), Value::Null);
    }
    facts
}

/// How a call through the gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEnded {
    /// The whole answer came and was handed on.
    Complete,
    /// The answer broke off on its way from the teacher.
    Cut,
    /// The caller left before the answer was whole.
    Aborted,
    /// The teacher could not be reached.
    Failed,
}

/// A call went through the gateway. Beside it stands the trace of the same id that was read from
/// it, or the reason why none could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCaptured {
    /// Source, which also names the stream.
    pub source: String,
    /// Id of the answer, or one that was given to the call.
    pub external_id: String,
    /// What was asked: the body as it came, but for what a redaction rule took out. None where it
    /// could not be read, so that nobody can say whose it is or what stands in it.
    pub request: Option<BodyRef>,
    /// What was answered, as far as it came; none where nothing did, or where a rule would take
    /// something out of a stream: its trace has what it said.
    pub response: Option<BodyRef>,
    /// Status of the answer; none where there was none.
    pub status: Option<u16>,
    /// How it ended.
    pub ended: CallEnded,
    /// The answer was asked for in pieces.
    pub streamed: bool,
    /// Why the teacher could not be reached, or the answer broke off.
    pub error: Option<String>,
    /// Redaction rules that both bodies went through, with their versions.
    pub rules: Vec<String>,
    /// A rule took something out, so that the bodies are not the bytes that were sent.
    pub redacted: bool,
    /// The answer was longer than what is kept of it.
    pub truncated: bool,
}

/// A file was read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetImported {
    /// Source, which also names the stream.
    pub source: String,
    /// Format that it was read as.
    pub format: String,
    /// SHA-256 of the file.
    pub file: Digest,
    /// Rows in the file.
    pub rows: u64,
    /// Rows that became episodes.
    pub accepted: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Redaction rules that the rows went through, with their versions.
    pub rules: Vec<String>,
    /// Places at which those rules put a placeholder.
    pub redacted: u64,
    /// Member of a row that named its subject, where one was asked for.
    pub subject_field: Option<String>,
    /// SHA-256 of the files that were read beside it (possible answers, function documents).
    pub beside: Vec<Digest>,
}

/// Schema 1 knew neither redaction, subject fields nor files beside.
fn imported_of_1(mut facts: Value) -> Value {
    facts = trace_of_1(facts);
    if let Some(fields) = facts.as_object_mut() {
        fields.insert("subject_field".to_owned(), Value::Null);
        fields.insert("beside".to_owned(), Value::Array(Vec::new()));
    }
    facts
}

/// A subject was forgotten: the key was destroyed, and with it everything it encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyErased {
    /// Pseudonym of the subject.
    pub subject: String,
    /// Bodies that can no longer be read.
    pub bodies: u64,
    /// Events that named them.
    pub events: u64,
}

facts! {
    BodyErased = "body.erased" / 1,
    CallCaptured = "call.captured" / 1,
    TraceIngested = "trace.ingested" / 2 from [trace_of_1],
    TraceRevised = "trace.revised" / 2 from [revised_of_1],
    TraceRejected = "trace.rejected" / 1,
    FeedbackRecorded = "feedback.recorded" / 2 from [feedback_of_1],
    DatasetImported = "dataset.imported" / 2 from [imported_of_1],
}
