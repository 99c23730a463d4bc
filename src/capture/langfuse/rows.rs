//! Rows of Langfuse's lists as spans and feedback.
//!
//! A span has only what is the same whenever it is asked for: not when a row was stored or changed,
//! and no latencies, which follow from its times.

use chrono::DateTime;
use datasets::redact::Rules;
use datasets::span::{SPAN_SCHEMA, Span};
use ledger::catalogue::FeedbackRecorded;
use serde_json::{Map, Value};

use crate::build::CORRECTION;

/// Library that is named as what told a span.
const SCOPE: &str = "langfuse-pull";
/// Longest id, in bytes: two of them stand in the name of an event, which has 512 at most.
const ID_BYTES_MAX: usize = 240;
/// Longest feedback, in bytes: an event holds 65,535 in all.
const FEEDBACK_BYTES_MAX: usize = 48 * 1024;

/// Attributes, with the fields that they come from; the first that says something counts. Those of
/// a trace stand with it where its observations do not repeat them.
const ATTRIBUTES: [(&str, &[&str]); 21] = [
    ("langfuse.observation.type", &["type"]),
    ("langfuse.observation.level", &["level"]),
    ("langfuse.observation.status_message", &["statusMessage"]),
    ("langfuse.observation.input", &["input"]),
    ("langfuse.observation.output", &["output"]),
    ("langfuse.observation.model.name", &["providedModelName", "model"]),
    ("langfuse.observation.model.parameters", &["modelParameters"]),
    ("langfuse.observation.usage_details", &["usageDetails", "usage"]),
    ("langfuse.observation.cost_details", &["costDetails"]),
    ("langfuse.observation.prompt.name", &["promptName"]),
    ("langfuse.observation.prompt.version", &["promptVersion"]),
    ("langfuse.observation.completion_start_time", &["completionStartTime"]),
    ("langfuse.observation.metadata", &["metadata"]),
    ("gen_ai.tool.definitions", &["toolDefinitions"]),
    ("langfuse.environment", &["environment"]),
    ("langfuse.version", &["version"]),
    ("langfuse.release", &["release"]),
    ("user.id", &["userId"]),
    ("session.id", &["sessionId"]),
    ("langfuse.trace.name", &["traceName"]),
    ("langfuse.trace.tags", &["tags"]),
];

/// The same of a trace, for lists whose observations do not have them.
const OF_TRACE: [(&str, &str); 5] = [
    ("langfuse.release", "release"),
    ("user.id", "userId"),
    ("session.id", "sessionId"),
    ("langfuse.trace.name", "name"),
    ("langfuse.trace.tags", "tags"),
];

/// Reads an observation, with what is known of its trace.
///
/// # Errors
/// When it is no observation. The reason does not quote it.
pub(super) fn span(row: &Value, trace: Option<&Value>) -> Result<Span, &'static str> {
    let row = row.as_object().ok_or("the row is no object")?;
    let id = |key: &str| text(row, key).filter(|id| id.len() <= ID_BYTES_MAX);
    let is_long = |key: &str| text(row, key).is_some_and(|id| id.len() > ID_BYTES_MAX);
    if is_long("id") || is_long("traceId") {
        return Err("an id of the observation is longer than 240 bytes");
    }
    let span_id = id("id").ok_or("the observation has no id")?;
    if span_id.contains('/') {
        return Err("the observation's id holds a slash, which parts it from that of its trace");
    }
    let trace_id = id("traceId").ok_or("the observation has no traceId")?;
    let start_us = micros(row.get("startTime")).ok_or("the observation has no startTime")?;
    let mut attributes = Map::new();
    for (name, fields) in ATTRIBUTES {
        let found = fields.iter().find_map(|field| told(field, row.get(*field)));
        attributes.extend(found.map(|value| (name.to_owned(), value.clone())));
    }
    for (name, field) in OF_TRACE {
        let found = trace.and_then(|trace| told(field, trace.get(field)));
        if let Some(value) = found.filter(|_| !attributes.contains_key(name)) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    Ok(Span {
        schema: SPAN_SCHEMA,
        trace_id: trace_id.to_owned(),
        span_id: span_id.to_owned(),
        parent_id: id("parentObservationId").map(str::to_owned),
        name: text(row, "name").unwrap_or_default().to_owned(),
        start_us,
        end_us: micros(row.get("endTime")),
        attributes,
        events: Vec::new(),
        is_error: text(row, "level").is_some_and(|level| level.eq_ignore_ascii_case("error")),
        status_message: text(row, "statusMessage").unwrap_or_default().to_owned(),
        resource: Map::new(),
        scope: SCOPE.to_owned(),
    })
}

/// Returns a field that says something. What went in or out may be empty; anything else that is
/// stands for nothing, and servers differ in which nothing they send.
fn told<'a>(field: &str, value: Option<&'a Value>) -> Option<&'a Value> {
    let says = |value: &&Value| match value {
        Value::Null => false,
        _ if matches!(field, "input" | "output") => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    value.filter(says)
}

/// Returns the id of a row; empty where it has none.
pub(super) fn id(row: &Value) -> &str {
    row.get("id").and_then(Value::as_str).unwrap_or_default()
}

/// Returns the trace that a row belongs to.
pub(super) fn trace_id(row: &Value) -> Option<&str> {
    row.get("traceId").and_then(Value::as_str).filter(|id| !id.is_empty())
}

/// Returns the user that a row names, itself or in the trace that it holds.
pub(super) fn user(row: &Value) -> Option<&str> {
    let mut names = [Some(row), row.get("trace")].into_iter().flatten().filter_map(|row| {
        row.get("userId")?.as_str().map(str::trim).filter(|name| !name.is_empty())
    });
    names.next()
}

/// Returns a time in microseconds since 1970.
pub(super) fn micros(value: Option<&Value>) -> Option<i64> {
    let text = value?.as_str()?;
    Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
}

fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What a score is here.
#[derive(Debug, PartialEq)]
pub(super) enum Score {
    /// It judges a trace or a part of it.
    Said(Box<FeedbackRecorded>),
    /// It is about a session or an experiment, or says nothing.
    Elsewhere,
}

/// Reads a score.
///
/// # Errors
/// When it is no score. The reason does not quote it.
pub(super) fn score(row: &Value) -> Result<Score, &'static str> {
    let row = row.as_object().ok_or("the row is no object")?;
    let Some(target) = target(row)? else { return Ok(Score::Elsewhere) };
    let kind = text(row, "dataType").unwrap_or_default().to_uppercase();
    let is_correction = kind == "CORRECTION";
    let name = if is_correction { Some(CORRECTION) } else { text(row, "name") };
    let name = name.ok_or("the score has no name")?;
    let value = match value(row, &kind) {
        Some(value) => value,
        None if is_correction => return Ok(Score::Elsewhere),
        None => return Err("the score has no value of its type"),
    };
    let mut said = FeedbackRecorded {
        target,
        name: name.to_owned(),
        value,
        comment: text(row, "comment").map(str::to_owned),
        body: None,
    };
    let rules = Rules::default();
    rules.redact_json(&mut said.value);
    said.comment = said.comment.map(|comment| rules.redact_text(&comment));
    let length = serde_json::to_vec(&said).map(|bytes| bytes.len());
    if length.is_ok_and(|length| length <= FEEDBACK_BYTES_MAX) {
        Ok(Score::Said(Box::new(said)))
    } else {
        Err("the score is longer than an event holds")
    }
}

/// Returns what a score is about; none where that is no trace.
fn target(row: &Map<String, Value>) -> Result<Option<String>, &'static str> {
    let none = "the score names nothing that it is about";
    let inside = |trace: &str, observation: &str| format!("{trace}/{observation}");
    if let Some(subject) = row.get("subject").and_then(Value::as_object) {
        let id = text(subject, "id").ok_or(none)?;
        return match text(subject, "kind").unwrap_or_default() {
            "trace" => Ok(Some(id.to_owned())),
            "observation" => {
                let trace = text(subject, "traceId").ok_or("the score names no trace")?;
                Ok(Some(inside(trace, id)))
            }
            _ => Ok(None),
        };
    }
    match (text(row, "traceId"), text(row, "observationId")) {
        (Some(trace), Some(observation)) => Ok(Some(inside(trace, observation))),
        (Some(trace), None) => Ok(Some(trace.to_owned())),
        _ if text(row, "sessionId").or_else(|| text(row, "datasetRunId")).is_some() => Ok(None),
        _ => Err(none),
    }
}

/// Returns the value of a score. Older lists give a number to every one, and the text beside it.
fn value(row: &Map<String, Value>, kind: &str) -> Option<Value> {
    let value = row.get("value").filter(|value| !value.is_null());
    let beside = || {
        let found = ["stringValue", "longStringValue"].iter().find_map(|key| text(row, key));
        found.map(Value::from)
    };
    let own = value.filter(|value| value.is_string() && **value != "");
    match kind {
        "NUMERIC" => value.filter(|value| value.is_number()).cloned(),
        "BOOLEAN" => match value {
            Some(Value::Bool(value)) => Some(Value::from(*value)),
            Some(Value::Number(number)) => Some(Value::from(number.as_f64() != Some(0.0))),
            _ => beside().map(|text| Value::from(text == "True" || text == "true")),
        },
        "CATEGORICAL" | "TEXT" | "CORRECTION" => own.cloned().or_else(beside),
        _ => value.filter(|value| !value.is_array() && !value.is_object()).cloned().or_else(beside),
    }
}

#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;
