//! Messages as frameworks write them into traces: OpenAI, Vercel AI SDK, Anthropic, Gemini,
//! LangChain and OpenTelemetry shapes, as values or as JSON inside a string.

use serde_json::{Map, Value};

use super::hermes::tool_of;
use crate::episode::{Call, Tool, Turn};
use crate::literal;

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
        Value::Array(items) => items.iter().map(turn_of).collect(),
        Value::Object(object) => {
            let system = object.get("system").and_then(Value::as_str);
            let mut turns: Vec<Turn> =
                system.map(|text| Turn::text("system", text)).into_iter().collect();
            let list =
                ["messages", "prompt", "contents", "input"].iter().find_map(|&key| object.get(key));
            match list {
                Some(list) => turns.extend(turns_of(&open(list))?),
                None => turns.push(turn_of(input)?),
            }
            Ok(turns)
        }
        _ => Err("the input is neither text nor messages".to_owned()),
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
        Value::Array(items) => turn_of(items.last().ok_or("the output is empty")?)?,
        Value::Object(object) => answer_turn(object)?,
        _ => return Err("the output is neither text nor message".to_owned()),
    };
    let text = (!turn.content.is_empty()).then_some(turn.content);
    if text.is_none() && turn.tool_calls.is_empty() {
        return Err("the output holds neither text nor call".to_owned());
    }
    Ok((text, turn.tool_calls))
}

fn answer_turn(object: &Map<String, Value>) -> Result<Turn, String> {
    let first =
        |key: &str| object.get(key).and_then(Value::as_array).and_then(|items| items.first());
    if let Some(choice) = first("choices").or_else(|| first("candidates")) {
        let inner = choice.get("message").or_else(|| choice.get("content"));
        return turn_of(inner.ok_or("a choice without a message")?);
    }
    if let Some(message) = object.get("message") {
        return turn_of(message);
    }
    if let Some(items) = object.get("output").and_then(Value::as_array) {
        // The Responses API: messages and calls side by side.
        let mut all = Turn::text("assistant", "");
        for turn in items.iter().filter_map(|item| turn_of(item).ok()) {
            all.content.push_str(&turn.content);
            all.tool_calls.extend(turn.tool_calls);
        }
        return Ok(all);
    }
    let mut with_role = object.clone();
    with_role.entry("role").or_insert_with(|| Value::from("assistant"));
    turn_of(&Value::Object(with_role))
}

/// Reads one message.
fn turn_of(message: &Value) -> Result<Turn, String> {
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
        Some(Value::Array(parts)) => parts.iter().for_each(|part| add_part(&mut turn, part)),
        Some(Value::Object(inner)) if inner.contains_key("parts") => {
            let parts = inner.get("parts").and_then(Value::as_array);
            parts.into_iter().flatten().for_each(|part| add_part(&mut turn, part));
        }
        Some(other) => turn.content = text_of(other),
        None => {}
    }
    let more = object.get("additional_kwargs").and_then(|more| more.get("tool_calls"));
    let calls = object.get("tool_calls").or_else(|| object.get("toolCalls")).or(more);
    for call in calls.and_then(Value::as_array).into_iter().flatten() {
        turn.tool_calls.push(call_of(call).ok_or("a call without name or arguments")?);
    }
    Ok(turn)
}

fn add_part(turn: &mut Turn, part: &Value) {
    if let Some(call) = call_of(part).or_else(|| call_of(part.get("function_call")?)) {
        turn.tool_calls.push(call);
        return;
    }
    let text = match part {
        Value::String(text) => text.clone(),
        part => ["text", "content", "result", "output", "response", "function_response"]
            .iter()
            .find_map(|&key| part.get(key))
            .map(text_of)
            .unwrap_or_default(),
    };
    if !turn.content.is_empty() && !text.is_empty() {
        turn.content.push('\n');
    }
    turn.content.push_str(&text);
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads a call, in any of the shapes that providers give it.
fn call_of(value: &Value) -> Option<Call> {
    let object = value.as_object()?;
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
