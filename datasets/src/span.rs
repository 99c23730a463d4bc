//! A span: one step of what an application did, as its tracer told it.
//!
//! The form is that of OpenTelemetry's spans with plain JSON values as attributes, so that spans
//! from OTLP and observations of Langfuse are one thing to whoever reads them.

use std::iter::Peekable;

use ledger::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::manifest::canonical;
use crate::redact::Rules;

/// Version of the form of [`Span`].
pub const SPAN_SCHEMA: u32 = 1;

/// Attributes that name the person whom a span is about, the first that is there first.
pub(crate) const SUBJECT_KEYS: [&str; 8] = [
    "langfuse.user.id",
    "user.id",
    "enduser.id",
    "langfuse.trace.user.id",
    "langfuse.trace.user_id",
    "langfuse.trace.userId",
    "ai.telemetry.metadata.userId",
    "traceloop.association.properties.user_id",
];

/// Attributes that name the conversation that a span is a part of.
pub(crate) const SESSION_KEYS: [&str; 5] = [
    "langfuse.session.id",
    "session.id",
    "gen_ai.conversation.id",
    "ai.telemetry.metadata.sessionId",
    "traceloop.association.properties.session_id",
];

/// Strings within strings that are opened. What lies deeper is redacted apart.
const OPENED_MAX: u32 = 3;

/// One step of what an application did. Stored as canonical JSON (RFC 8785).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Version of this form.
    pub schema: u32,
    /// The trace that it is a part of: in OTLP 32 hex digits, in small letters.
    pub trace_id: String,
    /// Its id within the trace: in OTLP 16 hex digits, in small letters.
    pub span_id: String,
    /// The span that it is a part of; none for a root.
    pub parent_id: Option<String>,
    /// What it did.
    pub name: String,
    /// When it began, in microseconds since 1970.
    pub start_us: i64,
    /// When it ended; none where that is not known.
    pub end_us: Option<i64>,
    /// What its tracer noted.
    pub attributes: Map<String, Value>,
    /// What happened in it, in the order told.
    pub events: Vec<SpanEvent>,
    /// It failed.
    pub is_error: bool,
    /// Words beside its status; empty where there are none.
    pub status_message: String,
    /// What is known of the process that told it, as `service.name`.
    pub resource: Map<String, Value>,
    /// Library that told it, with its version where known: `langfuse-sdk 5.0.4`.
    pub scope: String,
}

/// Something that happened in a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanEvent {
    /// What happened.
    pub name: String,
    /// When, in microseconds since 1970.
    pub at_us: i64,
    /// What its tracer noted.
    pub attributes: Map<String, Value>,
}

impl Span {
    /// Encodes the span as it is stored: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Returns the digest of the stored bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Names it among all spans: its trace's id and its own.
    pub fn external_id(&self) -> String {
        format!("{}/{}", self.trace_id, self.span_id)
    }

    /// Puts placeholders into all texts of the span, and says at how many places.
    ///
    /// JSON inside texts is opened, so that one value has one placeholder in all of the span: the
    /// call that an answer makes still copies what the question says. Names of subjects and
    /// sessions stay, as everywhere: a placeholder would make one person of many.
    pub fn redact(&mut self, rules: &Rules) -> u64 {
        if rules.names().is_empty() {
            return 0;
        }
        let is_name = |key: &str| SUBJECT_KEYS.contains(&key) || SESSION_KEYS.contains(&key);
        let (names, attributes): (Map<String, Value>, Map<String, Value>) =
            std::mem::take(&mut self.attributes).into_iter().partition(|(key, _)| is_name(key));
        let events = std::mem::take(&mut self.events);
        let of_events = events.iter().map(|event| {
            Value::Array(vec![event.name.clone().into(), event.attributes.clone().into()])
        });
        let mut all = Value::Array(vec![
            attributes.into(),
            of_events.collect(),
            std::mem::take(&mut self.name).into(),
            std::mem::take(&mut self.status_message).into(),
            std::mem::take(&mut self.resource).into(),
        ]);
        let mut opened = Vec::new();
        unfold(&mut all, OPENED_MAX, &mut 0, &mut opened);
        let places = rules.redact_json(&mut all);
        fold(&mut all, &mut 0, &mut opened.into_iter().peekable());
        let mut all = items(all);
        self.attributes = members(all.next());
        self.attributes.extend(names);
        let redacted = items(all.next().unwrap_or_default());
        self.events = events
            .into_iter()
            .zip(redacted)
            .map(|(event, redacted)| {
                let mut redacted = items(redacted);
                let (name, attributes) = (text(redacted.next()), members(redacted.next()));
                SpanEvent { name, attributes, ..event }
            })
            .collect();
        self.name = text(all.next());
        self.status_message = text(all.next());
        self.resource = members(all.next());
        places
    }
}

fn items(value: Value) -> std::vec::IntoIter<Value> {
    match value {
        Value::Array(items) => items.into_iter(),
        _ => Vec::new().into_iter(),
    }
}

fn members(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// A string that was opened: its place among all values, and what it was.
type Opened = (u64, String);

/// Opens JSON that stands inside strings, `left` of them within one another, and keeps the strings.
/// `place` counts the values; redacting changes neither their number nor their order.
fn unfold(value: &mut Value, left: u32, place: &mut u64, opened: &mut Vec<Opened>) {
    let mut left = left;
    if let Value::String(text) = value
        && left > 0
        && text.trim_start().starts_with(['{', '['])
        && let Ok(inner) = serde_json::from_str::<Value>(text)
    {
        opened.push((*place, std::mem::take(text)));
        *value = inner;
        left -= 1;
    }
    *place += 1;
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(|item| unfold(item, left, place, opened));
        }
        Value::Object(members) => {
            members.values_mut().for_each(|member| unfold(member, left, place, opened));
        }
        _ => {}
    }
}

/// Makes strings again of what [`unfold`] opened. One in which nothing changed stays as it was.
fn fold(value: &mut Value, place: &mut u64, opened: &mut Peekable<impl Iterator<Item = Opened>>) {
    let original = opened.next_if(|(at, _)| at == place);
    *place += 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| fold(item, place, opened)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| fold(member, place, opened));
        }
        _ => {}
    }
    if let Some((_, text)) = original {
        let is_same = serde_json::from_str::<Value>(&text).is_ok_and(|inner| inner == *value);
        *value = Value::String(if is_same { text } else { value.to_string() });
    }
}

#[cfg(test)]
mod tests;
