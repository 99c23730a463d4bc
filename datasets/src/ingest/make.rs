//! Making episodes, in the form in which they are stored.

use std::collections::BTreeSet;

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::{Map, Value};

use super::chat::open;
use super::values::settle;
use super::{Format, SourceInfo};
use crate::episode::{Call, Episode, Gold, Source, Turn};
use crate::gold::{GoldError, is_writable};
use crate::redact::Rules;

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

/// Makes a gold of an answer's text. A blank text is no gold: nobody wants to be answered so.
pub(super) fn text_gold(text: &str) -> Gold {
    if text.trim().is_empty() {
        return Gold::None;
    }
    Gold::Text { text: text.to_owned() }
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

/// Brings an episode into the form that reading it from the record gives; see
/// [`settle`](super::values::settle), which is told `has_long_number`.
pub(super) fn finish(mut episode: Episode, has_long_number: bool) -> Result<Episode, String> {
    episode.flags.sort();
    episode.flags.dedup();
    episode.schema = episode.lowest_schema();
    if !is_callable(&episode) {
        let what = "the name of a tool holds a quote or an angle bracket, so that no call of it \
                    can be written";
        return Err(what.to_owned());
    }
    settle(&mut episode, has_long_number)?;
    Ok(episode)
}

/// Says whether all calls of an episode can be written in a wrapper, and so all of its tools.
fn is_callable(episode: &Episode) -> bool {
    let said = episode.turns.iter().flat_map(|turn| &turn.tool_calls);
    let answered = episode.answer.iter().flat_map(|answer| &answer.calls);
    let called = said.chain(answered).chain(episode.gold.calls()).map(|Call { name, .. }| name);
    called.chain(episode.tools.iter().map(|tool| &tool.name)).all(|name| is_writable(name))
}

/// Tells the episodes of one row apart, where it gives several: all of them have `#<place>`, the
/// first too, so that what stands before the last `#` is the row.
pub(super) fn place_ids(episodes: &mut [Episode]) {
    if episodes.len() < 2 {
        return;
    }
    let row_of = |id: &str| id.rsplit_once('#').map(|(row, _)| row.to_owned());
    let rows: BTreeSet<String> =
        episodes.iter().filter_map(|episode| row_of(&episode.source.external_id)).collect();
    for episode in episodes {
        let id = &mut episode.source.external_id;
        // A row's own id may hold the sign as well.
        if !id.contains('#') || rows.contains(id.as_str()) {
            id.push_str("#0");
        }
    }
}

/// Takes out what the rules find in the episodes of one row, and says at how many places.
///
/// An id that was made of the question is made again of what is left of it: a digest of a phone
/// number can be guessed. One from the row, and the name of a model, are read like other texts.
pub(super) fn redact(rules: &Rules, episodes: &mut [Episode]) -> u64 {
    let mut places: u64 = episodes.iter_mut().map(|episode| rules.redact(episode)).sum();
    let is_changed = places > 0;
    let question = episodes.first().map(|episode| episode.query.clone()).unwrap_or_default();
    let mut text = |text: &mut String| {
        let redacted = rules.redact_text(text);
        places += u64::from(redacted != *text);
        *text = redacted;
    };
    for episode in episodes {
        let (mut id, place) = match episode.source.external_id.rsplit_once('#') {
            Some((id, place)) if place.bytes().all(|byte| byte.is_ascii_digit()) => {
                (id.to_owned(), format!("#{place}"))
            }
            _ => (episode.source.external_id.clone(), String::new()),
        };
        match made_with(&id) {
            Some(prefix) if is_changed => {
                id = format!("{prefix}{}", Digest::of(question.as_bytes()).short());
            }
            Some(_) => {}
            None => text(&mut id),
        }
        episode.source.external_id = id + &place;
        if let Some(answer) = &mut episode.answer {
            text(&mut answer.model);
        }
    }
    places
}

/// Returns how an id begins that was made of what was asked; none for other ids.
fn made_with(id: &str) -> Option<&str> {
    let (prefix, digest) = id.split_at_checked(2)?;
    let is_digest = digest.len() == Digest::of(b"").short().len()
        && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (matches!(prefix, "q-" | "x-") && is_digest).then_some(prefix)
}
