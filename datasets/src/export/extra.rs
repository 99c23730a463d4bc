//! What an exported row says beside what its format can say, in a member `metadata`.
//!
//! Every value is a text, as OpenAI asks of metadata. `ledger_id`, `ledger_source`,
//! `ledger_licence` and `ledger_attribution` are always there; the others only where the row
//! would be read as another episode without them. The person whom a row is about is not written:
//! source and id lead to the row in the record, which knows.

use serde_json::{Map, Value};

use crate::episode::{Episode, Gold, json_text};

/// Member of a row that holds the rest.
pub(crate) const MEMBER: &str = "metadata";

const ID: &str = "ledger_id";
const SOURCE: &str = "ledger_source";
const LICENCE: &str = "ledger_licence";
const ATTRIBUTION: &str = "ledger_attribution";
const FLAGS: &str = "ledger_flags";
const TRACK: &str = "ledger_track";
const QUERY: &str = "ledger_query";
const GOLD: &str = "ledger_gold";
const ANSWER: &str = "ledger_answer";
/// Places of the messages of a dialogue in which tags stand for calls, results or tools.
const TAGGED: &str = "ledger_tagged";

/// Returns the metadata of a row that was written here; none for rows of others.
pub(crate) fn of_row(row: &Map<String, Value>) -> Option<&Map<String, Value>> {
    row.get(MEMBER)?.as_object().filter(|metadata| metadata.contains_key(ID))
}

/// Returns what every row says.
pub(super) fn always(episode: &Episode) -> Map<String, Value> {
    let pairs = [
        (ID, &episode.source.external_id),
        (SOURCE, &episode.source.name),
        (LICENCE, &episode.licence),
        (ATTRIBUTION, &episode.attribution),
    ];
    pairs.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text.as_str()))).collect()
}

/// Adds what `read`, the episode that the row says without it, lacks.
pub(super) fn add_rest(metadata: &mut Map<String, Value>, episode: &Episode, read: &Episode) {
    let mut add = |key: &str, value: String| metadata.insert(key.to_owned(), Value::from(value));
    if episode.track != read.track {
        add(TRACK, episode.track.clone());
    }
    if episode.query != read.query {
        add(QUERY, episode.query.clone());
    }
    if episode.flags != read.flags {
        add(FLAGS, json_text(&Value::from(episode.flags.clone())));
    }
    if episode.gold != read.gold {
        add(GOLD, written(&episode.gold));
    }
    if episode.answer != read.answer {
        add(ANSWER, written(&episode.answer));
    }
}

/// Names the messages of a dialogue that the writer changed.
pub(super) fn add_tagged(metadata: &mut Map<String, Value>, places: &[usize]) {
    if !places.is_empty() {
        metadata.insert(TAGGED.to_owned(), Value::from(written(places)));
    }
}

fn written<T: serde::Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8_lossy(&crate::manifest::canonical(value)).into_owned()
}

/// Returns the places of messages that the writer changed.
pub(crate) fn tagged(metadata: &Map<String, Value>) -> Result<Vec<usize>, String> {
    Ok(parsed(metadata, TAGGED)?.unwrap_or_default())
}

/// Brings the episodes of a row in line with what its metadata say.
///
/// # Errors
/// When a row that was written here gives more than one episode, or when its messages were
/// changed since, so that they say another answer than its metadata.
pub(crate) fn settle(
    mut episodes: Vec<Episode>,
    row: &Map<String, Value>,
) -> Result<Vec<Episode>, String> {
    let Some(metadata) = of_row(row) else {
        return Ok(episodes);
    };
    let [episode] = episodes.as_mut_slice() else {
        return Err("its metadata belong to one answer, but it has several".to_owned());
    };
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let places: [(&str, &mut String); 5] = [
        (ID, &mut episode.source.external_id),
        (LICENCE, &mut episode.licence),
        (ATTRIBUTION, &mut episode.attribution),
        (TRACK, &mut episode.track),
        (QUERY, &mut episode.query),
    ];
    for (key, place) in places {
        if let Some(text) = text(key) {
            *place = text;
        }
    }
    if let Some(flags) = parsed(metadata, FLAGS)? {
        episode.flags = flags;
    }
    if let Some(answer) = parsed(metadata, ANSWER)? {
        episode.answer = answer;
    }
    if let Some(gold) = parsed::<Gold>(metadata, GOLD)? {
        let (calls, words) = (episode.gold.calls().to_vec(), episode.gold_text());
        episode.gold = gold;
        if episode.gold.calls() != calls || (calls.is_empty() && episode.gold_text() != words) {
            return Err("its metadata say another answer than its messages".to_owned());
        }
    }
    Ok(episodes)
}

fn parsed<T: serde::de::DeserializeOwned>(
    metadata: &Map<String, Value>,
    key: &str,
) -> Result<Option<T>, String> {
    let Some(value) = metadata.get(key) else {
        return Ok(None);
    };
    let text = value.as_str().ok_or_else(|| format!("metadata: {key} is no text"))?;
    // Not quoted: serde would repeat words of the row.
    serde_json::from_str(text).map(Some).map_err(|_| format!("metadata: {key} cannot be read"))
}
