//! Vercel's AI SDK: `ai.prompt.messages`, `ai.response.text`, `ai.response.toolCalls`.

use serde_json::{Value, json};

use super::content::Found;
use super::is_told;
use super::messages::list_of;
use crate::span::Span;

/// Reads the attributes of one call of a model.
pub(super) fn of_span(span: &Span) -> Found {
    let get = |keys: &[&str]| {
        let mut found = keys.iter().filter_map(|&key| span.attributes.get(key));
        found.find(|value| is_told(value)).cloned().unwrap_or_default()
    };
    let input = get(&["ai.prompt.messages", "ai.prompt"]);
    let text =
        get(&["ai.response.text", "ai.response.object", "ai.result.text", "ai.result.object"]);
    let calls = get(&["ai.response.toolCalls", "ai.result.toolCalls"]);
    let output = if is_told(&text) || is_told(&calls) {
        // An object that stands here as a value is the answer as well.
        let text = match text {
            Value::Object(_) | Value::Array(_) => Value::from(text.to_string()),
            text => text,
        };
        // As a part, it is read as the text that it is, though it be JSON.
        let parts: Vec<Value> =
            text.as_str().map(|text| json!({ "type": "text", "text": text })).into_iter().collect();
        json!({ "role": "assistant", "content": parts, "tool_calls": list_of(&calls) })
    } else {
        Value::Null
    };
    Found { form: "vercel", input, output, ..Found::default() }
}
