//! Making episodes, in the form in which they are stored.

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::Value;

use super::{Format, SourceInfo};
use crate::episode::{Episode, Gold, Source, Turn};
use crate::manifest::Stored;

/// Greatest whole number that canonical JSON (RFC 8785) keeps exactly.
const EXACT_MAX: u64 = 1 << 53;

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

/// Reads a subject's name. One that is blank names nobody.
pub(super) fn subject_of(value: Option<&Value>) -> Option<String> {
    let name = match value? {
        Value::String(name) => name.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!name.is_empty()).then_some(name)
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
    Episode::from_stored(&episode.to_bytes()).map_err(|error| error.to_string())
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
