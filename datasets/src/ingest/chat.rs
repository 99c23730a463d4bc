//! Messages as frameworks write them into traces: OpenAI, Vercel AI SDK, Anthropic, Gemini,
//! LangChain and OpenTelemetry shapes, as values or as JSON inside a string.

use serde_json::{Map, Value, json};

use super::hermes::tool_of;
use super::{printed, results};
use crate::episode::{Call, Tool, Turn};
use crate::literal;

/// Members of a request that hold its conversation, the first of them before the others.
pub(super) const LISTS: [&str; 4] = ["messages", "prompt", "contents", "input"];

/// Opens JSON that stands inside a string, at most twice; other values stay as they are.
pub(super) fn open(value: &Value) -> Value {
    let mut value = value.clone();
    for _ in 0..2 {
        let Value::String(text) = &value else { break };
        let opened = serde_json::from_str::<Value>(text);
        match opened {
            Ok(inner) if !inner.is_number() && !inner.is_boolean() && !inner.is_null() => {
                value = inner
            }
            _ => break,
        }
    }
    value
}

/// Reads the input of a generation as a conversation.
pub(super) fn turns_of(input: &Value) -> Result<Vec<Turn>, String> {
    match input {
        Value::Null => Err("no input".to_owned()),
        Value::String(text) => Ok(vec![Turn::text("user", text.clone())]),
        // What a model thought before is not shown to it again.
        Value::Array(items) => {
            let messages = items.iter().filter(|item| !is_thought(item));
            messages.flat_map(results::apart).map(|message| turn_of(&message)).collect()
        }
        Value::Object(object) => {
            let mut turns = system_of(object)?;
            let list = LISTS.iter().find_map(|&key| object.get(key));
            match list {
                Some(list) => turns.extend(turns_of(&open(list))?),
                None => turns.extend(turns_of(&Value::Array(vec![input.clone()]))?),
            }
            Ok(turns)
        }
        _ => Err("the input is neither text nor messages".to_owned()),
    }
}

/// Reads what a model is told beside its conversation, as text or parts.
fn system_of(request: &Map<String, Value>) -> Result<Vec<Turn>, String> {
    let told = ["system", "instructions"].iter().find_map(|&key| request.get(key));
    let told = told.filter(|told| told.is_string() || told.is_array());
    let message = |told| json!({ "role": "system", "content": told });
    let turn = told.map(|told| turn_of(&message(told))).transpose()?;
    Ok(turn.into_iter().filter(|turn| !turn.content.is_empty()).collect())
}

/// Finds what a model is told in a request of Gemini's API, as text or parts: it stands in the
/// request or in its `config`.
pub(super) fn gemini_system(request: &Value) -> Option<Value> {
    let config = request.get("config").map(open).unwrap_or_default();
    let keys = ["system_instruction", "systemInstruction"];
    let told = [request, &config].into_iter().find_map(|place| {
        keys.iter().find_map(|&key| place.get(key).filter(|told| !told.is_null()))
    })?;
    match told {
        Value::String(text) if text.is_empty() => None,
        Value::Object(content) => {
            let part = || Value::Array(vec![told.clone()]);
            Some(content.get("parts").cloned().unwrap_or_else(part))
        }
        told => Some(told.clone()),
    }
}

/// Reads the output of a generation: its text and the calls beside it.
pub(super) fn answer_of(output: &Value) -> Result<(Option<String>, Vec<Call>), String> {
    let turn = match output {
        Value::Null => return Err("no output".to_owned()),
        Value::String(text) => return Ok((Some(text.clone()), Vec::new())),
        Value::Array(items) if items.iter().all(|item| call_of(item).is_some()) => Turn {
            tool_calls: items.iter().filter_map(call_of).collect(),
            ..Turn::text("assistant", "")
        },
        Value::Array(items) => answer_of_items(items)?,
        Value::Object(object) => answer_turn(object)?,
        _ => return Err("the output is neither text nor message".to_owned()),
    };
    let text = (!turn.content.is_empty()).then_some(turn.content);
    if text.is_none() && turn.tool_calls.is_empty() {
        return Err("the output holds neither text nor call".to_owned());
    }
    Ok((text, turn.tool_calls))
}

/// Says whether an item of the Responses API is neither message nor call nor result.
fn is_thought(item: &Value) -> bool {
    let kind = item.get("type").and_then(Value::as_str);
    item.get("role").is_none() && matches!(kind, Some("reasoning" | "item_reference"))
}

fn answer_turn(object: &Map<String, Value>) -> Result<Turn, String> {
    let first =
        |key: &str| object.get(key).and_then(Value::as_array).and_then(|items| items.first());
    if let Some(choice) = first("choices").or_else(|| first("candidates")) {
        if let Some(text) = choice.get("text").and_then(Value::as_str) {
            return Ok(Turn::text("assistant", text));
        }
        let inner = choice.get("message").or_else(|| choice.get("content"));
        return own_turn_of(inner.ok_or("a choice without a message")?);
    }
    if let Some(message) = object.get("message") {
        return own_turn_of(message);
    }
    if let Some(text) = object.get("completion").and_then(Value::as_str) {
        return Ok(Turn::text("assistant", text));
    }
    if let Some(items) = object.get("output").and_then(Value::as_array) {
        return merged(items);
    }
    own_turn_of(&Value::Object(object.clone()))
}

/// Reads an output that is a list: messages by role, of which the last of the assistant is the
/// answer, or items and parts that are one answer together.
fn answer_of_items(items: &[Value]) -> Result<Turn, String> {
    let role = |item: &Value| {
        let (role, kind) = (item.get("role"), item.get("type"));
        let name = role.or(kind).and_then(Value::as_str).unwrap_or_default();
        let is_message = role.is_some() && kind.is_none_or(|kind| kind != "message");
        (is_message || matches!(name, "human" | "ai" | "system" | "tool")).then(|| name.to_owned())
    };
    if items.iter().all(|item| role(item).is_some()) {
        let is_own =
            |item: &&Value| matches!(role(item).as_deref(), Some("assistant" | "ai" | "model"));
        let last = items.iter().rfind(is_own).or(items.last());
        return turn_of(last.ok_or("the output is empty")?);
    }
    merged(items)
}

/// Joins what the model said in several items: messages and calls side by side, as in the Responses
/// API, or parts of one message. What it thought and what tools brought is passed over.
fn merged(items: &[Value]) -> Result<Turn, String> {
    let mut all = Turn::text("assistant", "");
    for item in items {
        let kind = item.get("type").and_then(Value::as_str);
        let turn = match kind {
            Some("function_call" | "message") => turn_of(item)?,
            Some("text" | "output_text" | "refusal" | "tool_use" | "tool-call") => part_turn(item)?,
            Some(_) if item.get("role").is_none() => continue,
            _ if item.is_string() => part_turn(item)?,
            _ if item.get("role").is_some() => turn_of(item)?,
            _ if is_part(item) => part_turn(item)?,
            _ => turn_of(item)?,
        };
        if turn.role == "assistant" {
            all.content.push_str(&turn.content);
            all.tool_calls.extend(turn.tool_calls);
        }
    }
    Ok(all)
}

/// Says whether an item is a part of a message, as Gemini writes them.
fn is_part(item: &Value) -> bool {
    let has = |key: &str| item.get(key).is_some();
    has("text") || has("functionCall") || has("function_call") || call_of(item).is_some()
}

fn part_turn(part: &Value) -> Result<Turn, String> {
    let mut turn = Turn::text("assistant", "");
    add_part(&mut turn, part)?;
    Ok(turn)
}

/// Reads a message that can only be the model's own, whether or not it says so.
fn own_turn_of(message: &Value) -> Result<Turn, String> {
    match message {
        Value::Object(object) if !object.contains_key("role") => {
            let mut object = object.clone();
            object.insert("role".to_owned(), Value::from("assistant"));
            turn_of(&Value::Object(object))
        }
        _ => turn_of(message),
    }
}

/// Reads one message.
fn turn_of(message: &Value) -> Result<Turn, String> {
    if let Some(printed) = message.as_str().and_then(printed::message) {
        return turn_of(&printed?);
    }
    let object = message.as_object().ok_or("a message is no object")?;
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind == "function_call" {
        let call = call_of(message).ok_or("a call without name or arguments")?;
        return Ok(Turn { tool_calls: vec![call], ..Turn::text("assistant", "") });
    }
    if kind == "function_call_output" {
        let output = object.get("output").map(text_of).unwrap_or_default();
        return Ok(Turn::text("tool", output));
    }
    if holds_media(message) {
        return Err("a message holds an image, a sound or a file, which is not kept".to_owned());
    }
    let role = object.get("role").and_then(Value::as_str).unwrap_or(kind);
    let role = match role {
        "system" | "developer" => "system",
        "user" | "human" => "user",
        "assistant" | "ai" | "model" | "message" => "assistant",
        "tool" | "function" => "tool",
        "" => return Err("a message has no role".to_owned()),
        // Not quoted: the reason stays in the log when the person's words have to go.
        _ => {
            let what = "a message has another role than system, user, assistant or tool";
            return Err(what.to_owned());
        }
    };
    let mut turn = Turn::text(role, "");
    match object.get("content").or_else(|| object.get("parts")).or_else(|| object.get("text")) {
        Some(Value::Array(parts)) => {
            parts.iter().try_for_each(|part| add_part(&mut turn, part))?;
        }
        Some(Value::Object(inner)) if inner.contains_key("parts") => {
            let parts = inner.get("parts").and_then(Value::as_array);
            parts.into_iter().flatten().try_for_each(|part| add_part(&mut turn, part))?;
        }
        Some(other) => turn.content = text_of(other),
        None => {}
    }
    if let Some(Value::String(refusal)) = object.get("refusal")
        && turn.content.is_empty()
    {
        turn.content.clone_from(refusal);
    }
    let more = object.get("additional_kwargs").and_then(|more| more.get("tool_calls"));
    let calls = object.get("tool_calls").or_else(|| object.get("toolCalls")).or(more);
    for call in calls.and_then(Value::as_array).into_iter().flatten() {
        turn.tool_calls.push(call_of(call).ok_or("a call without name or arguments")?);
    }
    if let Some(call) = object.get("function_call").filter(|call| call.is_object()) {
        turn.tool_calls.push(call_of(call).ok_or("a call without name or arguments")?);
    }
    Ok(turn)
}

/// Says whether a message has parts that are no text, however deep in the results that it brings,
/// so that its text alone is another message.
pub(super) fn holds_media(message: &Value) -> bool {
    let held = ["content", "parts", "output", "result"].iter().filter_map(|&key| message.get(key));
    held.flat_map(|held| match held {
        Value::Array(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    })
    .any(|part| part.is_object() && (is_media(part) || holds_media(part)))
}

fn is_media(part: &Value) -> bool {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = kind.strip_prefix("input_").unwrap_or(kind);
    let has = |key: &str| part.get(key).is_some_and(|value| !value.is_null());
    // Bedrock names a part by its only member.
    let is_alone = part.as_object().is_some_and(|part| part.len() == 1);
    let names = ["image", "audio", "video", "document", "file"];
    matches!(kind, "image" | "image_url" | "audio" | "video" | "file" | "document")
        || ["image_url", "inline_data", "inlineData", "file_data", "fileData"].into_iter().any(has)
        || (is_alone && names.into_iter().any(|name| part.get(name).is_some_and(Value::is_object)))
}

/// Says whether a part is what the model thought before it answered.
fn is_thinking(part: &Value) -> bool {
    let kind = part.get("type").and_then(Value::as_str);
    matches!(kind, Some("thinking" | "redacted_thinking" | "reasoning"))
        || part.get("thought").and_then(Value::as_bool) == Some(true)
}

fn add_part(turn: &mut Turn, part: &Value) -> Result<(), String> {
    if is_thinking(part) {
        return Ok(());
    }
    if let Some(call) = call_of(part) {
        turn.tool_calls.push(call);
        return Ok(());
    }
    let kind = part.get("type").and_then(Value::as_str);
    if matches!(kind, Some("tool_use" | "tool-call")) {
        return Err("a call without name or arguments".to_owned());
    }
    // Gemini: the call may stand beside text in one part.
    if let Some(call) = part.get("functionCall").or_else(|| part.get("function_call")) {
        turn.tool_calls.push(bare_call_of(call).ok_or("a call without name or arguments")?);
    }
    let keys = [
        "text",
        "content",
        "result",
        "output",
        "response",
        "function_response",
        "functionResponse",
        "refusal",
    ];
    let text = match part {
        Value::String(text) => text.clone(),
        // The provider ran it: a step of the answer, and no call of the client.
        part if kind.is_some_and(is_of_server) => part.to_string(),
        part => keys.iter().find_map(|&key| part.get(key)).map(text_of).unwrap_or_default(),
    };
    if !turn.content.is_empty() && !text.is_empty() {
        turn.content.push('\n');
    }
    turn.content.push_str(&text);
    Ok(())
}

/// Says whether a part is a call that the provider ran itself.
fn is_of_server(kind: &str) -> bool {
    matches!(kind, "server_tool_use" | "mcp_tool_use")
}

/// Reads a call that may leave out its arguments, because its place says what it is.
fn bare_call_of(value: &Value) -> Option<Call> {
    let has = |key: &str| value.get(key).is_some_and(|value| !value.is_null());
    if ["arguments", "input", "args"].iter().any(|key| has(key)) {
        return call_of(value);
    }
    let name = value.get("name")?.as_str()?.to_owned();
    Some(Call { name, arguments: Map::new() })
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads a call, in any of the shapes that providers give it.
pub(super) fn call_of(value: &Value) -> Option<Call> {
    let object = value.as_object()?;
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if matches!(kind, "tool-result" | "tool_result") || is_of_server(kind) {
        return None;
    }
    let inner = object.get("function").and_then(Value::as_object).unwrap_or(object);
    let name = ["name", "toolName"].iter().find_map(|&key| inner.get(key)?.as_str())?;
    let arguments = ["arguments", "input", "args"].iter().find_map(|&key| inner.get(key))?;
    let arguments = match arguments {
        Value::Object(arguments) => arguments.clone(),
        Value::String(text) if text.trim().is_empty() => Map::new(),
        Value::String(text) => match literal::parse(text).ok()?.0 {
            Value::Object(arguments) => arguments,
            _ => return None,
        },
        _ => return None,
    };
    Some(Call { name: name.to_owned(), arguments })
}

/// Reads a list of tools: values, JSON inside strings, or an object by name.
pub(super) fn tools_of(value: &Value) -> Vec<Tool> {
    match open(value) {
        Value::Array(items) => items.iter().filter_map(|item| tool_of(&open(item))).collect(),
        Value::Object(by_name) => by_name
            .iter()
            .filter_map(|(name, item)| {
                let mut item = open(item);
                item.as_object_mut()?.entry("name").or_insert_with(|| Value::from(name.as_str()));
                tool_of(&item)
            })
            .collect(),
        _ => Vec::new(),
    }
}
