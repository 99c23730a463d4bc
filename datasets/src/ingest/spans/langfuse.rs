//! Langfuse's attributes: `langfuse.observation.*`, as its SDKs write them, and as its observations
//! are written by whoever fetches them.

use serde_json::{Map, Value, json};

use super::super::chat::open;
use super::super::langfuse::episode;
use super::{content, is_told, messages, tools};
use crate::episode::{Episode, Gold};
use crate::span::Span;

/// Name of this convention.
pub(super) const FORM: &str = "langfuse";

const INPUT: &str = "langfuse.observation.input";
const OUTPUT: &str = "langfuse.observation.output";
const METADATA: &str = "langfuse.observation.metadata";

fn has(span: &Span, key: &str) -> bool {
    span.attributes.get(key).is_some_and(is_told)
}

/// Says whether the span tells what was asked or what was answered.
pub(super) fn is_there(span: &Span) -> bool {
    has(span, INPUT) || has(span, OUTPUT)
}

/// Says whether the span tells both.
pub(super) fn is_whole(span: &Span) -> bool {
    has(span, INPUT) && has(span, OUTPUT)
}

/// Reads a call as an observation of an export is read.
pub(super) fn read(
    span: &Span,
    model: Option<&str>,
    begin: impl Fn(&str) -> Episode,
) -> Result<Episode, String> {
    let attributes = &span.attributes;
    let get = |key: &str| attributes.get(key).cloned().unwrap_or_default();
    let told = attributes.get("langfuse.observation.level").and_then(Value::as_str);
    let level = if span.is_error { "ERROR" } else { told.unwrap_or_default() };
    let (input, output) = (get(INPUT), get(OUTPUT));
    for (what, value) in [("input", &input), ("output", &output)] {
        messages::no_media(&open(value)).map_err(|reason| format!("{what}: {reason}"))?;
    }
    let observation = json!({
        "id": span.span_id, "input": input, "output": output, "level": level, "model": model,
        "metadata": metadata(attributes),
    });
    let mut episode = episode(&observation, |_| begin(FORM))?;
    if episode.tools.is_empty() {
        episode.tools = tools::of(attributes, &Value::Null);
    }
    if episode.gold != Gold::None || !episode.tools.is_empty() {
        episode.track = "toolcall".to_owned();
    }
    if episode.answer.is_some() && content::is_cut(attributes, &Value::Null, &output) {
        episode.flags.push("answer.cut".to_owned());
    }
    Ok(episode)
}

/// Puts the metadata together: they stand in one attribute, or in one for each member.
fn metadata(attributes: &Map<String, Value>) -> Value {
    let mut metadata = match attributes.get(METADATA).map(open) {
        Some(Value::Object(whole)) => whole,
        _ => Map::new(),
    };
    for (key, value) in attributes {
        let name = key.strip_prefix(METADATA).and_then(|rest| rest.strip_prefix('.'));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    // JSON inside a string is opened one level down only.
    if let Some(inside) = metadata.get_mut("attributes") {
        *inside = open(inside);
    }
    Value::Object(metadata)
}
