//! OpenInference: `llm.input_messages.N.message.*`, or what stands whole in `input.value`.

use serde_json::{Map, Value, json};

use super::content::Found;
use super::indexed::{Fields, attributes, get, items, members};
use super::messages::{say_something, says_something};
use crate::span::Span;

/// Reads the messages where there are any, and else the whole input and output.
pub(super) fn of_span(span: &Span) -> Found {
    let whole = |key: &str| span.attributes.get(key).cloned().unwrap_or_default();
    let shown = messages(span, "llm.input_messages", "user");
    let answers = messages(span, "llm.output_messages", "assistant");
    let input = if say_something(&shown) { Value::Array(shown) } else { whole("input.value") };
    // Of several answers the first is read.
    let answer = answers.into_iter().next().filter(says_something);
    let output = answer.unwrap_or_else(|| whole("output.value"));
    let stopped = whole("llm.finish_reason");
    Found { form: "openinference", input, output, stopped, ..Found::default() }
}

fn messages(span: &Span, prefix: &str, role: &str) -> Vec<Value> {
    items(attributes(span), prefix).values().map(|fields| message(fields, role)).collect()
}

fn message(fields: &Fields<'_>, role: &str) -> Value {
    let parts = items(members(fields), "message.contents");
    let content = match parts.is_empty() {
        true => get(fields, &["message.content"]),
        false => parts.values().map(part).collect(),
    };
    let calls = items(members(fields), "message.tool_calls");
    let mut calls: Vec<Value> = calls
        .values()
        .map(|call| {
            json!({
                "name": get(call, &["tool_call.function.name"]),
                "arguments": get(call, &["tool_call.function.arguments"]),
            })
        })
        .collect();
    if let Some(name) = fields.get("message.function_call_name") {
        let arguments = get(fields, &["message.function_call_arguments_json"]);
        calls.push(json!({ "name": name, "arguments": arguments }));
    }
    let own = fields.get("message.role").and_then(|role| role.as_str());
    json!({ "role": own.unwrap_or(role), "content": content, "tool_calls": calls })
}

/// Reads a part. All that is no text keeps its kind, which tells that it is not read.
fn part(fields: &Fields<'_>) -> Value {
    let mut part = Map::new();
    for (name, value) in fields {
        let name = name.strip_prefix("message_content.").unwrap_or(name);
        let name = name.split_once('.').map_or(name, |(first, _)| first);
        part.insert(name.to_owned(), (*value).clone());
    }
    Value::Object(part)
}
