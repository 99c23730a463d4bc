//! Lists that are spread over attributes: `gen_ai.prompt.0.role`, `gen_ai.prompt.1.content`.
//!
//! Only the indexes that occur are kept, so that a great one costs no more than a small one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::content::Found;
use super::messages::{say_something, says_something};
use crate::span::Span;

/// The members of one item, by what stands behind its index.
pub(super) type Fields<'a> = BTreeMap<&'a str, &'a Value>;

/// Collects the items of a list: of the names that begin with `prefix`, an index and a dot.
pub(super) fn items<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a Value)>,
    prefix: &str,
) -> BTreeMap<u64, Fields<'a>> {
    let mut items: BTreeMap<u64, Fields<'a>> = BTreeMap::new();
    for (name, value) in attributes {
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        let Some((index, field)) = rest.and_then(|rest| rest.split_once('.')) else { continue };
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(index) = index.parse().ok().filter(|_| is_index) {
            items.entry(index).or_default().insert(field, value);
        }
    }
    items
}

/// Lists the attributes of a span.
pub(super) fn attributes(span: &Span) -> impl Iterator<Item = (&str, &Value)> {
    span.attributes.iter().map(|(name, value)| (name.as_str(), value))
}

/// Lists the members of an item.
pub(super) fn members<'a>(fields: &Fields<'a>) -> impl Iterator<Item = (&'a str, &'a Value)> {
    fields.iter().map(|(name, value)| (*name, *value))
}

/// Returns the first member of several that is there.
pub(super) fn get(fields: &Fields<'_>, names: &[&str]) -> Value {
    let found = names.iter().find_map(|name| fields.get(name));
    found.map(|value| (*value).clone()).unwrap_or_default()
}

/// Reads `gen_ai.prompt.N` and `gen_ai.completion.N`.
pub(super) fn of_span(span: &Span) -> Found {
    let shown = items(attributes(span), "gen_ai.prompt");
    // An index alone says nothing.
    let shown = shown.values().filter(|fields| fields.contains_key("role") || has_words(fields));
    let shown: Vec<Value> = shown.map(|fields| message(fields, "user")).collect();
    let answers = items(attributes(span), "gen_ai.completion");
    // Of several answers the first is read; what a model thought stands before it as another.
    let is_thought = |fields: &&Fields<'_>| {
        matches!(fields.get("role").and_then(|role| role.as_str()), Some("thinking" | "reasoning"))
    };
    let answer = answers.values().find(|fields| !is_thought(fields));
    let said = answer.map(|fields| message(fields, "assistant"));
    Found {
        form: "genai-indexed",
        input: if say_something(&shown) { Value::Array(shown) } else { Value::Null },
        output: said.filter(says_something).unwrap_or_default(),
        stopped: answer.map(|fields| get(fields, &["finish_reason"])).unwrap_or_default(),
        ..Found::default()
    }
}

fn has_words(fields: &Fields<'_>) -> bool {
    says_something(&message(fields, "user"))
}

fn message(fields: &Fields<'_>, role: &str) -> Value {
    let calls: Vec<Value> = items(members(fields), "tool_calls").values().map(call).collect();
    let role = fields.get("role").and_then(|role| role.as_str()).unwrap_or(role);
    // Older tracers name a bare prompt by its role.
    json!({ "role": role, "content": get(fields, &["content", "user"]), "tool_calls": calls })
}

/// Reads a call: its name and its arguments, which are JSON inside a string.
fn call(fields: &Fields<'_>) -> Value {
    json!({
        "name": get(fields, &["name", "function.name"]),
        "arguments": get(fields, &["arguments", "function.arguments"]),
    })
}
