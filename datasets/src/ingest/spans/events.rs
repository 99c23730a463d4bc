//! Messages as events of a span: `gen_ai.user.message`, `gen_ai.choice` and their like.
//!
//! What an event says stands in attributes of its own or, as JSON, in one of them. Some write all
//! events of a span into one attribute `events`.

use serde_json::{Map, Value, json};

use super::super::chat::open;
use super::content::Found;
use super::is_told;
use super::messages::{say_something, says_something};
use crate::span::Span;

/// Reads the events of a span.
pub(super) fn of_span(span: &Span) -> Found {
    let mut found = Found { form: "genai-events", ..Found::default() };
    let mut shown = Vec::new();
    for event in &span.events {
        add(&mut found, &mut shown, &event.name, &event.attributes);
    }
    with(found, shown)
}

/// Reads the attribute `events`, a list of objects that name themselves in `event.name`.
pub(super) fn of_attribute(span: &Span) -> Found {
    let mut found = Found { form: "genai-events", ..Found::default() };
    let mut shown = Vec::new();
    let Some(Value::Array(events)) = span.attributes.get("events").map(open) else { return found };
    for event in &events {
        let Value::Object(event) = open(event) else { continue };
        if let Some(name) = event.get("event.name").and_then(Value::as_str) {
            add(&mut found, &mut shown, name, &event);
        }
    }
    with(found, shown)
}

fn with(found: Found, shown: Vec<Value>) -> Found {
    let input = if say_something(&shown) { Value::Array(shown) } else { Value::Null };
    Found { input, ..found }
}

/// Adds what one event says.
fn add(found: &mut Found, shown: &mut Vec<Value>, name: &str, told: &Map<String, Value>) {
    let body = ["gen_ai.event.content", "body"].iter().find_map(|&key| told.get(key));
    let body = match body.map(open) {
        Some(Value::Object(body)) => body,
        _ => told.clone(),
    };
    let role = match name {
        "gen_ai.system.message" => "system",
        "gen_ai.user.message" => "user",
        "gen_ai.assistant.message" => "assistant",
        "gen_ai.tool.message" => "tool",
        "gen_ai.choice" => {
            // Of several answers the first is read.
            if !is_told(&found.output) {
                found.stopped = body.get("finish_reason").cloned().unwrap_or_default();
                let answer = choice(&body);
                found.output = Some(answer).filter(says_something).unwrap_or_default();
            }
            return;
        }
        _ => return,
    };
    shown.push(message(role, &body));
}

fn message(role: &str, body: &Map<String, Value>) -> Value {
    let own = body.get("role").and_then(Value::as_str);
    let content = ["content", "parts", "message"].iter().find_map(|&key| body.get(key));
    let calls = body.get("tool_calls").or_else(|| body.get("toolCalls"));
    json!({ "role": own.unwrap_or(role), "content": content, "tool_calls": calls })
}

fn choice(body: &Map<String, Value>) -> Value {
    match body.get("message").map(open) {
        Some(Value::Object(inner)) => message("assistant", &inner),
        _ => message("assistant", body),
    }
}
