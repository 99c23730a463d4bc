//! Answers that were recorded as they were streamed: server-sent events, or a list of their data.
//!
//! Put together into the body that the same request without streaming would have had.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Reads the data of server-sent events. Comments, other fields and the mark of the end are passed
/// over; data of several lines belong together. None where the text is no such stream.
pub(super) fn events(text: &str) -> Option<Result<Vec<Value>, String>> {
    let mut data = String::new();
    let mut events = Vec::new();
    let mut is_stream = false;
    for line in text.lines().chain([""]) {
        if let Some(piece) = line.strip_prefix("data:") {
            is_stream = true;
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(piece.strip_prefix(' ').unwrap_or(piece));
        } else if line.is_empty() && !data.is_empty() {
            if data.trim() != "[DONE]" {
                let number = events.len() + 1;
                match serde_json::from_str(&data) {
                    Ok(event) => events.push(event),
                    Err(_) => return Some(Err(format!("event {number} of the stream is no JSON"))),
                }
            }
            data.clear();
        }
    }
    is_stream.then_some(Ok(events))
}

/// Puts the events of a stream together.
///
/// # Errors
/// When they are of no known provider's form, or say that the answer failed.
pub(super) fn assembled(events: &[Value]) -> Result<Value, String> {
    let kind = |event: &Value| event.get("type").and_then(Value::as_str).map(str::to_owned);
    if let Some(error) = events.iter().find(|event| event.get("error").is_some_and(is_something)) {
        return Ok(json!({ "error": error.get("error") }));
    }
    if events.iter().any(|event| event.get("choices").is_some()) {
        return Ok(choices(events));
    }
    if events.iter().any(|event| kind(event).as_deref() == Some("message_start")) {
        return Ok(message(events));
    }
    // The Responses API closes its stream with the whole response.
    let whole = events.iter().rev().find_map(|event| {
        let closes = matches!(
            kind(event).as_deref(),
            Some("response.completed" | "response.incomplete" | "response.failed")
        );
        event.get("response").filter(|_| closes)
    });
    whole.cloned().ok_or_else(|| {
        "the stream is neither of chat completions, completions, messages nor responses".to_owned()
    })
}

/// Says whether a member holds more than an empty place.
pub(super) fn is_something(value: &Value) -> bool {
    !value.is_null()
}

/// Appends the text at `key` of a delta to a text.
fn append(text: &mut String, delta: &Value, key: &str) {
    text.push_str(delta.get(key).and_then(Value::as_str).unwrap_or_default());
}

/// A call whose arguments come in pieces.
#[derive(Default)]
struct Pieces {
    name: String,
    arguments: String,
}

impl Pieces {
    fn add(&mut self, function: &Value) {
        // Some servers repeat the name.
        if self.name.is_empty() {
            append(&mut self.name, function, "name");
        }
        match function.get("arguments") {
            Some(whole @ Value::Object(_)) => self.arguments = whole.to_string(),
            _ => append(&mut self.arguments, function, "arguments"),
        }
    }

    fn call(self) -> Value {
        json!({ "name": self.name, "arguments": self.arguments })
    }
}

/// Chat completions (`choices[].delta`) and completions (`choices[].text`): the first choice.
fn choices(events: &[Value]) -> Value {
    let (mut content, mut text) = (String::new(), None::<String>);
    let mut calls: BTreeMap<u64, Pieces> = BTreeMap::new();
    let mut old_call: Option<Pieces> = None;
    let model = events.iter().find_map(|event| event.get("model")).cloned();
    let index = |value: &Value| value.get("index").and_then(Value::as_u64);
    let all = events.iter().filter_map(|event| event.get("choices")?.as_array()).flatten();
    for choice in all.filter(|choice| index(choice).unwrap_or_default() == 0) {
        if choice.get("text").is_some() {
            append(text.get_or_insert_default(), choice, "text");
        }
        let Some(delta) = choice.get("delta") else { continue };
        append(&mut content, delta, "content");
        append(&mut content, delta, "refusal");
        if let Some(function) = delta.get("function_call").filter(|call| is_something(call)) {
            old_call.get_or_insert_default().add(function);
        }
        let deltas = delta.get("tool_calls").and_then(Value::as_array);
        for (place, call) in deltas.into_iter().flatten().enumerate() {
            let at = index(call).unwrap_or(place as u64);
            calls.entry(at).or_default().add(call.get("function").unwrap_or(call));
        }
    }
    let first = events.iter().filter_map(|event| event.get("choices")?.as_array()).flatten();
    let why = first
        .filter(|choice| index(choice).unwrap_or_default() == 0)
        .filter_map(|choice| choice.get("finish_reason").filter(|why| is_something(why)))
        .next_back();
    let calls: Vec<Value> = calls.into_values().chain(old_call).map(Pieces::call).collect();
    let message = json!({ "role": "assistant", "content": content, "tool_calls": calls });
    let choice = match text {
        Some(text) => json!({ "text": text, "finish_reason": why }),
        None => json!({ "message": message, "finish_reason": why }),
    };
    json!({ "model": model, "choices": [choice] })
}

/// Anthropic's messages: blocks of content by index.
fn message(events: &[Value]) -> Value {
    let mut blocks: BTreeMap<u64, (Map<String, Value>, String)> = BTreeMap::new();
    let (mut model, mut why) = (Value::Null, Value::Null);
    for event in events {
        let at = event.get("index").and_then(Value::as_u64).unwrap_or_default();
        if let Some(name) = event.get("message").and_then(|message| message.get("model")) {
            model = name.clone();
        }
        if let Some(Value::Object(block)) = event.get("content_block") {
            blocks.insert(at, (block.clone(), String::new()));
        }
        if let Some(reason) = event.get("delta").and_then(|delta| delta.get("stop_reason")) {
            why = reason.clone();
            continue;
        }
        if let Some(delta) = event.get("delta") {
            let pieces = &mut blocks.entry(at).or_default().1;
            append(pieces, delta, "text");
            append(pieces, delta, "partial_json");
        }
    }
    let content: Vec<Value> =
        blocks.into_values().map(|block| block_of(block.0, block.1)).collect();
    json!({ "model": model, "role": "assistant", "content": content, "stop_reason": why })
}

fn block_of(mut block: Map<String, Value>, pieces: String) -> Value {
    let is_call = block.get("type").and_then(Value::as_str) == Some("tool_use");
    if is_call && !pieces.is_empty() {
        block.insert("input".to_owned(), Value::String(pieces));
    } else if !is_call {
        let begun = block.get("text").and_then(Value::as_str).unwrap_or_default();
        block.insert("text".to_owned(), Value::String(format!("{begun}{pieces}")));
    }
    Value::Object(block)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put_together(text: &str) -> Value {
        assembled(&events(text).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn deltas_join_by_index_whatever_stands_between_them() {
        let chunk =
            |delta: Value| json!({ "model": "m", "choices": [{ "index": 0, "delta": delta }] });
        let call = |at: u64, function: Value| {
            let deltas = [json!({ "index": at, "function": function })];
            json!({ "tool_calls": deltas })
        };
        let chunks = [
            chunk(json!({ "role": "assistant", "content": "So" })),
            chunk(call(0, json!({ "name": "f", "arguments": "" }))),
            chunk(call(1, json!({ "name": "g", "arguments": "{\"b\"" }))),
            chunk(call(0, json!({ "arguments": "{\"a\": 1}" }))),
            json!({ "choices": [{ "index": 1, "delta": { "content": "another choice" } }] }),
            chunk(call(1, json!({ "arguments": ": 2}" }))),
            chunk(json!({ "content": "." })),
            json!({ "choices": [], "usage": {} }),
        ];
        let mut text = ": ping\r\n\r\n".to_owned();
        chunks.iter().for_each(|chunk| text.push_str(&format!("data: {chunk}\r\n\r\n")));
        text.push_str("data: [DONE]\r\n\r\n");
        let whole = put_together(&text);
        let message = &whole["choices"][0]["message"];
        assert_eq!((&whole["model"], &message["content"]), (&json!("m"), &json!("So.")));
        assert_eq!(message["tool_calls"][0], json!({ "name": "f", "arguments": "{\"a\": 1}" }));
        assert_eq!(message["tool_calls"][1], json!({ "name": "g", "arguments": "{\"b\": 2}" }));
        assert_eq!(assembled(&chunks).unwrap(), whole, "a list of chunks is the same stream");
    }

    #[test]
    fn messages_and_responses_are_put_together() {
        let text = concat!(
            "event: message_start\n",
            "data: {\"type\":\"message_start\",\"message\":{\"model\":\"c\"}}\n\n",
            "data: {\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "data: {\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
            "data: {\"index\":1,\"content_block\":",
            "{\"type\":\"tool_use\",\"name\":\"f\",\"input\":{}}}\n\n",
            "data: {\"index\":1,\"delta\":{\"partial_json\":\"{\\\"a\\\":\"}}\n\n",
            "data: {\"index\":1,\"delta\":{\"partial_json\":\"1}\"}}",
        );
        let whole = put_together(text);
        assert_eq!((&whole["model"], &whole["content"][0]["text"]), (&json!("c"), &json!("hi")));
        assert_eq!(whole["content"][1]["input"], "{\"a\":1}");
        let text = "data: {\"type\":\"response.created\",\"response\":{\"output\":[]}}\n\n\
                    data: {\"type\":\"response.completed\",\"response\":{\"output\":[1]}}\n\n";
        assert_eq!(put_together(text), json!({ "output": [1] }));
    }

    #[test]
    fn what_is_no_stream_says_so() {
        assert!(events("no stream\n").is_none());
        assert!(events("data: {\"a\": \n\n").unwrap().is_err());
        assert!(assembled(&[json!({ "type": "ping" })]).is_err());
        assert_eq!(put_together("data: {\"error\": {\"code\": 1}}\n\n")["error"]["code"], 1);
    }
}
