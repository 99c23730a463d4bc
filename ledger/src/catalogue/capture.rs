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
    /// Other ids that feedback may name it by, sorted: of the answer, of a trace around it.
    pub aliases: Vec<String>,
    /// What made it of a span, with its version, as in `spans/1`.
    pub mapper: Option<String>,
}

impl TraceIngested {
    /// Says whether feedback on `target` is about this trace.
    pub fn is_called(&self, target: &str) -> bool {
        self.external_id == target || self.aliases.iter().any(|alias| alias == target)
    }
}

/// Adds fields that older facts lack.
fn lacking<const N: usize>(mut facts: Value, fields: [(&str, Value); N]) -> Value {
    if let Some(held) = facts.as_object_mut() {
        held.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
    facts
}

/// Schema 1 knew no redaction.
fn trace_of_1(facts: Value) -> Value {
    lacking(facts, [("rules", Value::Array(Vec::new())), ("redacted", Value::from(0))])
}

/// Schema 2 knew one id, which in exports of Langfuse began with that of the trace.
fn trace_of_2(facts: Value) -> Value {
    let text = |key: &str| facts.get(key).and_then(Value::as_str).unwrap_or_default();
    let around = text("external_id").split_once('/').map(|(trace, _)| Value::from(trace));
    let aliases = around.filter(|_| text("format") == "langfuse-export").into_iter().collect();
    lacking(facts, [("aliases", Value::Array(aliases)), ("mapper", Value::Null)])
}

/// Lifts the trace within a revision.
fn within(mut facts: Value, lift: fn(Value) -> Value) -> Value {
    if let Some(trace) = facts.get_mut("trace") {
        *trace = lift(trace.take());
    }
    facts
}

/// Schema 1 held a trace of schema 1.
fn revised_of_1(facts: Value) -> Value {
    within(facts, trace_of_1)
}

/// Schema 2 held a trace of schema 2.
fn revised_of_2(facts: Value) -> Value {
    within(facts, trace_of_2)
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
fn feedback_of_1(facts: Value) -> Value {
    lacking(facts, [("body", Value::Null)])
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

/// Calls were answered, or spans came in, that the record could not take: nobody can look them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureLost {
    /// Source that they would have belonged to.
    pub source: String,
    /// How many.
    pub calls: u64,
    /// Why, as the last of them met it.
    pub reason: String,
}

/// A span came in: one step of what an application did, from its tracer. Beside it stands the trace
/// that was made of it where it is a call of a model, or the reason why none could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanCaptured {
    /// Source, which also names the stream.
    pub source: String,
    /// The trace that it is a part of.
    pub trace_id: String,
    /// Its id within the trace.
    pub span_id: String,
    /// The span that it is a part of; none for a root.
    pub parent_id: Option<String>,
    /// What it is: `generation`, `tool`, `agent`, ... or `span`.
    pub role: String,
    /// Convention that its attributes follow.
    pub form: String,
    /// What read it, with its version, as in `spans/1`.
    pub mapper: String,
    /// Digest of the span's content, or a commitment to it: what tells a repetition.
    pub content: Digest,
    /// The span, as canonical JSON.
    pub body: BodyRef,
    /// Redaction rules that it went through, with their versions.
    pub rules: Vec<String>,
    /// Places at which a placeholder stands for what those rules took out.
    pub redacted: u64,
    /// The event that this one takes the place of, where the span came with other content before.
    pub revises: Option<u64>,
}

/// A page of another system's records was fetched; what stands in it was recorded before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagePulled {
    /// Source, which also names the stream.
    pub source: String,
    /// Address of the system, without name and password.
    pub origin: String,
    /// Path of the list, as in `/api/public/v2/observations`.
    pub route: String,
    /// Parameters that it was asked with, sorted: bounds and place in the list.
    pub query: Vec<(String, String)>,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
    /// Records in it.
    pub rows: u64,
    /// The page as it came, but for what a redaction rule took out.
    pub body: BodyRef,
    /// Pseudonyms of the subjects that it is about, sorted: the page goes when one of them does.
    pub subjects: Vec<String>,
    /// Redaction rules that it went through, with their versions.
    pub rules: Vec<String>,
    /// A rule took something out, so that the page is not the bytes that came.
    pub redacted: bool,
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
fn imported_of_1(facts: Value) -> Value {
    let more = [("subject_field", Value::Null), ("beside", Value::Array(Vec::new()))];
    lacking(trace_of_1(facts), more)
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
    CaptureLost = "capture.lost" / 1,
    PagePulled = "page.pulled" / 1,
    SpanCaptured = "span.captured" / 1,
    TraceIngested = "trace.ingested" / 3 from [trace_of_1, trace_of_2],
    TraceRevised = "trace.revised" / 3 from [revised_of_1, revised_of_2],
    TraceRejected = "trace.rejected" / 1,
    FeedbackRecorded = "feedback.recorded" / 2 from [feedback_of_1],
    DatasetImported = "dataset.imported" / 2 from [imported_of_1],
}
