//! Messages as the conventions write them, brought into a form that `chat.rs` reads in full.
//!
//! What a model thought is left out: it is not shown to it again. What a tool brought is a message
//! of its own. A call that cannot be read, and a part that is no text, make the whole unreadable: a
//! conversation that lacks them is another one.

use serde_json::{Map, Value, json};

use super::super::chat::{LISTS, answer_of, call_of, gemini_system, open, turns_of};
use super::is_told;
use crate::episode::{Call, Turn};

/// Kinds of parts that are what a model thought.
const THOUGHTS: [&str; 4] = ["reasoning", "thinking", "redacted_thinking", "redacted-reasoning"];
/// Kinds of parts that are text.
const TEXTS: [&str; 5] = ["text", "input_text", "output_text", "refusal", "system_prompt"];
/// Kinds of parts that are calls.
const CALLS: [&str; 5] = ["tool_call", "tool-call", "tool_use", "toolUse", "function"];
/// Kinds of parts that are what a tool brought.
const RESULTS: [&str; 4] = ["tool_call_response", "tool_result", "tool-result", "toolResult"];
/// Kinds of parts that were run by the provider: a step of the answer, kept as its JSON.
const OF_SERVER: [&str; 4] =
    ["server_tool_call", "server_tool_call_response", "server_tool_use", "mcp_tool_use"];
/// Kinds of parts that are neither text nor call, beside those that begin with one of these.
const MEDIA: [&str; 8] = ["blob", "uri", "file", "image", "audio", "video", "document", "binary"];
/// Members of an object that is a message or a reply, and no answer that happens to be JSON.
const OF_MESSAGE: [&str; 14] = [
    "role",
    "content",
    "parts",
    "text",
    "tool_calls",
    "toolCalls",
    "choices",
    "candidates",
    "message",
    "completion",
    "output",
    "function_call",
    "functionCall",
    "toolName",
];

/// Reads what a model was shown, with instructions that stand apart from it.
pub(super) fn turns(system: &Value, input: &Value) -> Result<Vec<Turn>, String> {
    let mut messages = Vec::new();
    if is_told(system) {
        instructions(system, &mut messages)?;
    }
    let before = messages.len();
    conversation(input, &mut messages)?;
    if messages.len() == before {
        return Err("it holds no message".to_owned());
    }
    let mut turns = turns_of(&Value::Array(messages))?;
    // Some tracers tell the instructions twice.
    if before == 1
        && let [first, second, ..] = turns.as_slice()
        && second.role == "system"
        && first == second
    {
        turns.remove(0);
    }
    Ok(turns)
}

/// Reads what a model answered: its text and the calls beside it.
pub(super) fn answer(output: &Value) -> Result<(Option<String>, Vec<Call>), String> {
    let opened = open(output);
    let answer = match &opened {
        Value::Array(items) if is_answer(items) => own_of_items(items)?,
        Value::Object(object) if OF_MESSAGE.iter().any(|&key| object.contains_key(key)) => {
            own_of_object(object)?
        }
        // What was asked for may be JSON itself.
        Value::Array(_) | Value::Object(_) => match output {
            Value::String(text) => Value::from(text.as_str()),
            value => Value::from(value.to_string()),
        },
        _ => opened,
    };
    answer_of(&answer)
}

/// Reads a list: values, JSON inside strings, or one value alone.
pub(super) fn list_of(value: &Value) -> Vec<Value> {
    match open(value) {
        Value::Array(items) => items.iter().map(open).collect(),
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        other => vec![other],
    }
}

/// Says whether any of some messages has content or calls. Tracers that may not tell what was said
/// still tell who spoke.
pub(super) fn say_something(messages: &[Value]) -> bool {
    messages.iter().any(says_something)
}

/// Says whether a message has content or calls.
pub(super) fn says_something(message: &Value) -> bool {
    ["content", "tool_calls"].iter().any(|&key| match message.get(key) {
        Some(Value::Array(items)) => !items.is_empty(),
        value => value.is_some_and(is_told),
    })
}

/// Finds parts of messages that are neither text nor call.
///
/// # Errors
/// When there is one.
pub(super) fn no_media(messages: &Value) -> Result<(), String> {
    let list = ["messages", "contents", "input"].iter().find_map(|&key| messages.get(key));
    for message in list_of(list.unwrap_or(messages)) {
        let parts = message.get("parts").or_else(|| message.get("content"));
        if parts.and_then(Value::as_array).is_some_and(|parts| parts.iter().any(is_media)) {
            return Err(media());
        }
    }
    Ok(())
}

fn media() -> String {
    "a message holds an image, a sound or a file, which is not kept".to_owned()
}

/// Reads instructions: text, parts or whole messages.
fn instructions(system: &Value, messages: &mut Vec<Value>) -> Result<(), String> {
    let parts = list_of(system);
    if parts.iter().all(|part| part.get("role").is_some()) {
        return parts.into_iter().try_for_each(|message| add(message, messages));
    }
    add(json!({ "role": "system", "content": parts }), messages)
}

/// Reads a conversation: text, messages, or the body of a request that holds them.
fn conversation(input: &Value, messages: &mut Vec<Value>) -> Result<(), String> {
    let opened = open(input);
    let list = LISTS.iter().find_map(|&key| opened.get(key));
    let is_message = ["role", "content", "parts"].iter().any(|&key| opened.get(key).is_some());
    match &opened {
        Value::Null => Err("nothing is told of what was asked".to_owned()),
        Value::String(text) => {
            messages.push(user(text));
            Ok(())
        }
        Value::Object(request) if list.is_some() => {
            for key in ["system", "instructions"] {
                match request.get(key).filter(|value| is_told(value)) {
                    Some(system) => instructions(system, messages)?,
                    None => continue,
                }
            }
            if let Some(told) = gemini_system(&opened) {
                add(json!({ "role": "system", "content": told }), messages)?;
            }
            each(&open(list.unwrap_or(&Value::Null)), messages)
        }
        Value::Object(_) if is_message => each(&opened, messages),
        // A question may be JSON itself.
        Value::Object(_) => {
            messages.push(user(&input.as_str().map_or_else(|| input.to_string(), str::to_owned)));
            Ok(())
        }
        _ => each(&opened, messages),
    }
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": [{ "type": "text", "text": text }] })
}

fn each(list: &Value, messages: &mut Vec<Value>) -> Result<(), String> {
    match list {
        Value::String(text) => messages.push(user(text)),
        Value::Object(_) => add(list.clone(), messages)?,
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] if open(&Value::from(text.as_str())).is_string() => {
                messages.push(user(text));
            }
            // LangChain asks for answers to several conversations at once, mostly one.
            [Value::Array(inner)] => {
                inner.iter().try_for_each(|item| add(open(item), messages))?;
            }
            items => items.iter().try_for_each(|item| add(open(item), messages))?,
        },
        _ => return Err("it is neither text nor messages".to_owned()),
    }
    Ok(())
}

/// Adds a message, and apart from it what tools brought in it.
fn add(message: Value, messages: &mut Vec<Value>) -> Result<(), String> {
    let Value::Object(mut object) = message else {
        return Err("a message is no object".to_owned());
    };
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if matches!(kind, "function_call" | "function_call_output") {
        messages.push(Value::Object(object));
        return Ok(());
    }
    let role = object.get("role").and_then(Value::as_str).unwrap_or(kind).to_owned();
    let content = ["content", "parts", "text"].iter().filter_map(|&key| object.get(key));
    let content = content.into_iter().find(|value| !value.is_null()).cloned();
    let mut sorted = Sorted::default();
    let mut is_of_parts = true;
    match content.map(|content| parts_of(content, &role)) {
        Some(Value::Array(parts)) => parts.into_iter().try_for_each(|part| sorted.add(part))?,
        Some(other) => {
            is_of_parts = false;
            object.insert("content".to_owned(), other);
        }
        None => {}
    }
    for call in calls_beside(&object) {
        sorted.calls.push(call_in(&call)?);
    }
    for key in ["parts", "text", "toolCalls", "tool_calls"] {
        object.remove(key);
    }
    let is_bare = is_of_parts && sorted.texts.is_empty() && sorted.calls.is_empty();
    let has_more = ["function_call", "refusal", "additional_kwargs"].iter();
    let has_more = has_more.into_iter().any(|&key| object.get(key).is_some_and(is_told));
    if is_of_parts {
        object.insert("content".to_owned(), Value::Array(sorted.texts));
    }
    object.insert("tool_calls".to_owned(), Value::Array(sorted.calls));
    let own = Value::Object(object);
    let is_own_left_out = is_bare && !has_more && !sorted.results.is_empty();
    let results = sorted.results.into_iter();
    let results = results.map(|text| json!({ "role": "tool", "content": text }));
    // A model's calls stand before what they brought, and what a user adds behind it.
    let is_first = matches!(role.as_str(), "assistant" | "ai" | "model");
    if is_first && !is_own_left_out {
        messages.push(own);
        messages.extend(results);
    } else {
        messages.extend(results);
        messages.extend(Some(own).filter(|_| !is_own_left_out));
    }
    Ok(())
}

fn calls_beside(message: &Map<String, Value>) -> Vec<Value> {
    let calls = message.get("tool_calls").or_else(|| message.get("toolCalls"));
    calls.map(list_of).unwrap_or_default()
}

/// Opens content that is a list of parts, also inside a string; other JSON in a string is what was
/// said.
fn parts_of(content: Value, role: &str) -> Value {
    match content {
        Value::String(text) if text.trim_start().starts_with('[') => {
            let inner = serde_json::from_str::<Value>(&text).unwrap_or_default();
            match inner.as_array().is_some_and(|items| are_parts(items, role)) {
                true => inner,
                false => Value::String(text),
            }
        }
        Value::Object(object) => match object.get("parts").and_then(Value::as_array) {
            Some(parts) => Value::Array(parts.clone()),
            None if kind_of(&Value::Object(object.clone())).is_some() => {
                Value::Array(vec![Value::Object(object)])
            }
            None => Value::Object(object),
        },
        other => other,
    }
}

/// Says whether the items of a list that stands in a string are parts. Of a tool only what is
/// marked as its result is: it may bring any list.
fn are_parts(items: &[Value], role: &str) -> bool {
    let is_known = |item: &Value| match kind_of(item) {
        Some(kind) if role == "tool" => RESULTS.contains(&kind),
        Some(kind) => {
            let known = [&TEXTS[..], &THOUGHTS, &CALLS, &RESULTS, &OF_SERVER];
            known.iter().any(|known| known.contains(&kind)) || is_media(item)
        }
        None => is_bedrock_text(item),
    };
    !items.is_empty() && items.iter().all(is_known)
}

fn is_bedrock_text(item: &Value) -> bool {
    item.as_object().is_some_and(|item| item.len() == 1)
        && item.get("text").is_some_and(Value::is_string)
}

/// Returns what a part is: as it says or, with Bedrock and Gemini, by the member that it has.
fn kind_of(part: &Value) -> Option<&str> {
    let own = part.get("type").or_else(|| part.get("kind")).and_then(Value::as_str);
    let inner = || {
        let keys = [
            ("toolUse", "toolUse"),
            ("toolResult", "toolResult"),
            ("functionCall", "function"),
            ("function_call", "function"),
            ("functionResponse", "toolResult"),
            ("function_response", "toolResult"),
            ("reasoningContent", "reasoning"),
        ];
        let found = keys.iter().find(|(key, _)| part.get(key).is_some_and(Value::is_object));
        found.map(|(_, kind)| *kind)
    };
    own.or_else(inner)
}

fn is_media(part: &Value) -> bool {
    let kind = part.get("type").or_else(|| part.get("kind")).and_then(Value::as_str);
    let kind = kind.unwrap_or_default();
    let kind = kind.strip_prefix("input_").unwrap_or(kind);
    let is_kind = |media: &&str| {
        let rest = kind.strip_prefix(*media);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    let members = ["inline_data", "inlineData", "file_data", "fileData", "image_url"];
    MEDIA.iter().any(is_kind)
        || members.iter().any(|&key| part.get(key).is_some_and(|value| !value.is_null()))
}

/// The parts of a message, sorted by what they are.
#[derive(Default)]
struct Sorted {
    texts: Vec<Value>,
    calls: Vec<Value>,
    results: Vec<Value>,
}

impl Sorted {
    fn add(&mut self, part: Value) -> Result<(), String> {
        let is_thought = part.get("thought").and_then(Value::as_bool).unwrap_or_default();
        let kind = kind_of(&part).unwrap_or_default();
        if is_media(&part) {
            return Err(media());
        }
        if is_thought || THOUGHTS.contains(&kind) {
            return Ok(());
        }
        if CALLS.contains(&kind) {
            self.calls.push(call_in(&part)?);
            // Gemini: text may stand beside the call in one part.
            if let Some(text) = part.get("text").filter(|text| text.is_string()) {
                self.texts.push(json!({ "type": "text", "text": text }));
            }
        } else if RESULTS.contains(&kind) {
            self.results.push(Value::from(result_of(&part)?));
        } else if OF_SERVER.contains(&kind) {
            self.texts.push(json!({ "type": "text", "text": part.to_string() }));
        } else {
            let is_text = |value: &&Value| value.is_string();
            let texts = ["text", "content", "refusal"].iter().filter_map(|&key| part.get(key));
            let text = Some(&part).filter(is_text).or_else(|| texts.into_iter().find(is_text));
            let text = text.ok_or("a part of a message is of a kind that is not known")?;
            self.texts.push(json!({ "type": "text", "text": text }));
        }
        Ok(())
    }
}

/// Reads a call. One without arguments has none; one that cannot be read is no call at all.
fn call_in(part: &Value) -> Result<Value, String> {
    let keys = ["toolUse", "functionCall", "function_call", "function"];
    let inner = keys.iter().find_map(|&key| part.get(key).filter(|inner| inner.is_object()));
    let mut inner = inner.unwrap_or(part).clone();
    if let Some(object) = inner.as_object_mut() {
        object.remove("type");
        let keys = ["arguments", "input", "args"];
        keys.iter().for_each(|&key| {
            if object.get(key).is_some_and(Value::is_null) {
                object.remove(key);
            }
        });
        if !keys.iter().any(|&key| object.contains_key(key)) {
            object.insert("arguments".to_owned(), Value::Object(Map::new()));
        }
    }
    let call = call_of(&inner).ok_or("a call without name or arguments")?;
    Ok(json!({ "name": call.name, "arguments": call.arguments }))
}

/// Reads what a tool brought, as text.
fn result_of(part: &Value) -> Result<String, String> {
    let keys = ["toolResult", "functionResponse", "function_response"];
    let inner = keys.iter().find_map(|&key| part.get(key).filter(|inner| inner.is_object()));
    let inner = inner.unwrap_or(part);
    let keys = ["response", "result", "output", "content", "text"];
    let brought = keys.iter().find_map(|&key| inner.get(key).filter(|value| !value.is_null()));
    let brought = brought.unwrap_or(&Value::Null);
    // Vercel says of what kind it is.
    let kind = brought.get("type").and_then(Value::as_str).unwrap_or_default();
    let is_wrapped = matches!(kind, "text" | "json" | "error-text" | "error-json" | "content");
    let brought = brought.get("value").filter(|_| is_wrapped).unwrap_or(brought);
    let Value::Array(parts) = brought else { return Ok(text_of(brought)) };
    if parts.iter().any(is_media) {
        return Err(media());
    }
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
    let texts = texts.filter(|texts| !texts.is_empty());
    Ok(texts.map_or_else(|| brought.to_string(), |texts| texts.join("\n")))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Says whether a list is an answer, and no answer that happens to be JSON.
fn is_answer(items: &[Value]) -> bool {
    let is_known = |item: &Value| {
        let has = |key: &&str| item.get(key).is_some();
        OF_MESSAGE.iter().any(has)
            || call_of(item).is_some()
            || kind_of(item).is_some_and(|kind| THOUGHTS.contains(&kind) || CALLS.contains(&kind))
            || is_media(item)
    };
    items.iter().all(|item| is_known(&open(item)))
}

/// Finds the answer in a list of messages, of choices, of calls or of parts.
fn own_of_items(items: &[Value]) -> Result<Value, String> {
    let items: Vec<Value> = items.iter().map(open).collect();
    let first = items.first().ok_or("the output is empty")?;
    let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_item = |item: &Value| {
        let is_bare = item.get("role").is_none();
        match text(item, "type").as_deref() {
            Some("message" | "function_call") => true,
            Some("reasoning") => is_bare && item.get("content").is_none_or(Value::is_array),
            _ => false,
        }
    };
    if items.iter().all(is_item) {
        return Ok(Value::Array(items));
    }
    if let Some(choice) = first.as_object().filter(|first| first.contains_key("message")) {
        return own_of_object(choice);
    }
    let role = |item: &Value| {
        let role = text(item, "role").or_else(|| item.get("parts").map(|_| "assistant".into()))?;
        Some(role.to_ascii_lowercase())
    };
    if items.iter().all(|item| role(item).is_some()) {
        let is_own =
            |item: &&Value| matches!(role(item).as_deref(), Some("assistant" | "ai" | "model"));
        let is_thought =
            |item: &&Value| matches!(role(item).as_deref(), Some("thinking" | "reasoning"));
        let said: Vec<&Value> = items.iter().filter(|item| !is_thought(item)).collect();
        // Messages of the model alone are several answers, of which the first is read. Between
        // others, its last is the answer.
        let answer = match said.iter().copied().all(|item| is_own(&item)) {
            true => said.first().copied(),
            false => said.iter().rev().copied().find(is_own),
        };
        let answer = answer.and_then(Value::as_object).ok_or("no message is the model's own")?;
        return own_of_object(answer);
    }
    let is_call = |item: &Value| text(item, "type").is_none() && call_of(item).is_some();
    if items.iter().all(is_call) {
        let calls: Vec<Value> = items.iter().map(call_in).collect::<Result<_, _>>()?;
        return Ok(json!({ "role": "assistant", "content": "", "tool_calls": calls }));
    }
    own(json!({ "content": items }))
}

/// Finds the answer in a message, a choice or the body of a reply.
fn own_of_object(object: &Map<String, Value>) -> Result<Value, String> {
    let is_list = |key: &str| object.get(key).is_some_and(Value::is_array);
    if is_list("choices") || is_list("candidates") || is_list("output") {
        return Ok(Value::Object(object.clone()));
    }
    match object.get("message") {
        Some(Value::Object(message)) => own(Value::Object(message.clone())),
        Some(content @ (Value::String(_) | Value::Array(_))) => own(json!({ "content": content })),
        _ if object.get("completion").is_some_and(Value::is_string) => {
            Ok(Value::Object(object.clone()))
        }
        _ => own(Value::Object(object.clone())),
    }
}

/// Brings a message that can only be the model's own into the form that is read.
fn own(mut message: Value) -> Result<Value, String> {
    if let Some(object) = message.as_object_mut() {
        object.entry("role").or_insert_with(|| Value::from("assistant"));
    }
    let mut messages = Vec::new();
    add(message, &mut messages)?;
    let is_result = |message: &Value| message.get("role").is_some_and(|role| role == "tool");
    let own = messages.into_iter().find(|message| !is_result(message));
    own.ok_or_else(|| "no message is the model's own".to_owned())
}
