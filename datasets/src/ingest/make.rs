//! Making episodes, in the form in which they are stored.

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::{Map, Value};

use super::chat::open;
use super::{Format, SourceInfo};
use crate::episode::{Episode, Gold, Source, Turn};
use crate::gold::GoldError;
use crate::manifest::Stored;

/// Greatest whole number that canonical JSON (RFC 8785) keeps exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Deepest nesting that is read again, as in serde_json.
const DEPTH_MAX: usize = 127;

/// Starts an episode; the reader fills in what it knows.
pub(super) fn start(
    source: &SourceInfo,
    location: Location,
    format: Format,
    external_id: String,
) -> Episode {
    Episode {
        schema: 1,
        track: "chat".to_owned(),
        tools: Vec::new(),
        turns: Vec::new(),
        gold: Gold::None,
        answer: None,
        query: String::new(),
        source: Source {
            name: source.name.clone(),
            external_id,
            location,
            format: format.name().to_owned(),
        },
        licence: source.licence.clone(),
        attribution: source.attribution.clone(),
        subject: None,
        flags: Vec::new(),
    }
}

/// Makes an id of what identifies a row that has none: the question that it asks.
pub(super) fn id_of(question: &str) -> String {
    format!("q-{}", Digest::of(question.as_bytes()).short())
}

/// Says why a gold cannot be read, without quoting it: the row may be somebody's, and reasons stay
/// in the log.
pub(super) fn gold_reason(error: &GoldError) -> String {
    match error {
        GoldError::NoCall { .. } => "gold: no call found".to_owned(),
        GoldError::Call { number, reason, .. } => {
            format!("gold: call {number} cannot be read: {reason}")
        }
    }
}

/// Reads a subject's name. One that is blank names nobody.
pub(super) fn subject_of(value: Option<&Value>) -> Option<String> {
    let name = match value? {
        Value::String(name) => name.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!name.is_empty()).then_some(name)
}

/// Finds who is named at `path`, as `user` or `metadata.user`, in a row. JSON inside a string is
/// opened on the way. A name that holds dots itself is tried first.
///
/// # Errors
/// When something stands there that is neither text nor number.
pub(super) fn subject_at(object: &Map<String, Value>, path: &str) -> Result<Option<String>, ()> {
    if let Some(value) = object.get(path) {
        return match value {
            Value::Null => Ok(None),
            Value::String(_) | Value::Number(_) => Ok(subject_of(Some(value))),
            _ => Err(()),
        };
    }
    for (at, _) in path.match_indices('.') {
        let (first, rest) = (path.get(..at).unwrap_or_default(), path.get(at + 1..));
        if let Some(Value::Object(inner)) = object.get(first).map(open) {
            return subject_at(&inner, rest.unwrap_or_default());
        }
    }
    Ok(None)
}

/// Returns the last user turn.
pub(super) fn last_user(turns: &[Turn]) -> &str {
    let mut users = turns.iter().rev().filter(|turn| turn.role == "user");
    users.next().map(|turn| turn.content.as_str()).unwrap_or_default()
}

/// Brings an episode into the form that reading it from the record gives (keys sorted, numbers
/// shortest), so that work on fresh and on stored episodes is the same work.
///
/// A whole number that the form would change is refused. The reason does not quote it, because
/// reasons stand in the log for ever, and the number may be somebody's.
pub(super) fn finish(mut episode: Episode) -> Result<Episode, String> {
    episode.flags.sort();
    episode.flags.dedup();
    episode.schema = episode.lowest_schema();
    let value = serde_json::to_value(&episode).map_err(|error| error.to_string())?;
    if is_inexact(&value) {
        let what = "a whole number is beyond 2^53 and would lose digits: write it as text";
        return Err(what.to_owned());
    }
    // What is deeper can be written, but not be read again.
    if is_deeper(&value, DEPTH_MAX) {
        return Err(format!("nested more than {DEPTH_MAX} levels deep"));
    }
    Episode::from_stored(&episode.to_bytes()).map_err(|error| error.to_string())
}

/// Says whether arrays and objects stand in one another more than `depth` deep.
fn is_deeper(value: &Value, depth: usize) -> bool {
    match (value, depth.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => true,
        (Value::Array(items), Some(left)) => items.iter().any(|item| is_deeper(item, left)),
        (Value::Object(items), Some(left)) => items.values().any(|item| is_deeper(item, left)),
        _ => false,
    }
}

fn is_inexact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            magnitude.is_some_and(|magnitude| magnitude > EXACT_MAX)
        }
        Value::Array(items) => items.iter().any(is_inexact),
        Value::Object(members) => members.values().any(is_inexact),
        _ => false,
    }
}
