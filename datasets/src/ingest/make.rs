//! Making episodes, in the form in which they are stored.

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::Value;

use super::{Format, SourceInfo};
use crate::episode::{EPISODE_SCHEMA, Episode, Gold, Source, Turn};
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
        schema: EPISODE_SCHEMA,
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

/// Returns the last user turn.
pub(super) fn last_user(turns: &[Turn]) -> &str {
    let mut users = turns.iter().rev().filter(|turn| turn.role == "user");
    users.next().map(|turn| turn.content.as_str()).unwrap_or_default()
}

/// Brings an episode into the form that reading it from the record gives (keys sorted, numbers
/// shortest), so that work on fresh and on stored episodes is the same work.
///
/// A whole number that the form would change is refused.
pub(super) fn finish(mut episode: Episode) -> Result<Episode, String> {
    episode.flags.sort();
    episode.flags.dedup();
    let value = serde_json::to_value(&episode).map_err(|error| error.to_string())?;
    if let Some(number) = inexact(&value) {
        return Err(format!("{number} is beyond 2^53 and would lose digits in canonical JSON"));
    }
    Episode::from_stored(&episode.to_bytes()).map_err(|error| error.to_string())
}

fn inexact(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            magnitude.filter(|&magnitude| magnitude > EXACT_MAX).map(|_| number.to_string())
        }
        Value::Array(items) => items.iter().find_map(inexact),
        Value::Object(members) => members.values().find_map(inexact),
        _ => None,
    }
}
