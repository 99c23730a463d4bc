//! `{messages, tools}`: OpenAI's chat and fine-tuning form, and TRL's.
//!
//! `arguments` are a JSON string (OpenAI) or an object (TRL), `tools` a list or a JSON string.
//! The older `functions` and `function_call` are read too. A message of weight 0 is not trained
//! on; without any weight, every message of the assistant is, as OpenAI does it.

use serde_json::{Map, Value};

use super::Format;
use super::hermes::tool_of;
use super::lines::Input;
use super::make::{id_of, last_user, start, text_gold};
use crate::episode::{Answer, Call, Episode, Gold, Tool, Turn};
use crate::export::extra;
use crate::literal::{self, Dialect};

/// One message.
struct Message {
    turn: Turn,
    is_trained: bool,
    /// It has text, be it an empty one.
    has_text: bool,
    /// Ids of its calls, in order; empty where one has none.
    call_ids: Vec<String>,
    /// Id of the call that it is the result of.
    result_of: Option<String>,
    /// Some arguments were Python literals.
    is_python: bool,
}

/// Reads a row: one episode for each message of the assistant that is trained on.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let list = input.object.get("messages").and_then(Value::as_array);
    let list = list.ok_or("field \"messages\" is no array")?;
    let mut messages = Vec::new();
    for (place, message) in list.iter().enumerate() {
        let read = message_of(message).map_err(|why| format!("message {}: {why}", place + 1))?;
        messages.push(read);
    }
    order_results(&mut messages);
    let tools = tools(&input.object)?;
    let turns: Vec<Turn> = messages.iter().map(|message| message.turn.clone()).collect();
    let mut episodes: Vec<Episode> = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if message.turn.role != "assistant" || !message.is_trained {
            continue;
        }
        let before = turns.get(..place).unwrap_or_default();
        let mut episode = episode(input, before, &tools);
        if let Some(first) = episodes.first() {
            episode.source.external_id = format!("{}#{place}", first.source.external_id);
        }
        answer(&mut episode, message).map_err(|why| format!("message {}: {why}", place + 1))?;
        episodes.push(episode);
    }
    if episodes.is_empty() {
        episodes.push(episode(input, &turns, &tools));
    }
    extra::settle(episodes, &input.object)
}

/// Starts the episode of an answer to `turns`.
fn episode(input: &Input<'_>, turns: &[Turn], tools: &[Tool]) -> Episode {
    let id = match input.object.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => id_of(last_user(turns)),
    };
    let mut episode = start(input.source, input.location.clone(), Format::OpenAi, id);
    episode.track = if tools.is_empty() { "chat" } else { "toolcall" }.to_owned();
    episode.tools = tools.to_vec();
    episode.turns = turns.to_vec();
    episode.query = last_user(turns).trim().to_owned();
    episode
}

/// Fills in the gold that a message of the assistant is.
fn answer(episode: &mut Episode, message: &Message) -> Result<(), String> {
    let Turn { content, tool_calls, .. } = &message.turn;
    if tool_calls.is_empty() {
        if !message.has_text {
            return Err("an answer with neither text nor call".to_owned());
        }
        episode.gold = text_gold(content);
        return Ok(());
    }
    episode.track = "toolcall".to_owned();
    episode.gold = Gold::Calls { calls: tool_calls.clone() };
    if message.is_python {
        episode.flags.push("gold.python_literal".to_owned());
    }
    if !content.is_empty() {
        // The gold is the calls; what was said beside them stays known.
        episode.answer = Some(Answer {
            model: "unknown".to_owned(),
            text: Some(content.clone()),
            calls: tool_calls.clone(),
        });
    }
    Ok(())
}

/// Brings results into the order of the calls that they belong to, because turns have no ids.
fn order_results(messages: &mut [Message]) {
    let mut rest = messages;
    while let Some(start) = rest.iter().position(|message| message.turn.role == "tool") {
        let (before, here) = rest.split_at_mut(start);
        let length = here.iter().take_while(|message| message.turn.role == "tool").count();
        let (run, behind) = here.split_at_mut(length);
        let ids = before.last().map(|message| message.call_ids.clone()).unwrap_or_default();
        let place = |message: &Message| {
            let id = message.result_of.as_ref();
            id.and_then(|id| ids.iter().position(|known| known == id)).unwrap_or(usize::MAX)
        };
        run.sort_by_key(place);
        rest = behind;
    }
}

fn message_of(message: &Value) -> Result<Message, String> {
    let object = message.as_object().ok_or("no object")?;
    let role = match object.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => "tool",
        Some(_) => return Err("another role than system, user, assistant or tool".to_owned()),
        None => return Err("no role".to_owned()),
    };
    let text = match object.get("content") {
        None | Some(Value::Null) => {
            object.get("refusal").and_then(Value::as_str).map(str::to_owned)
        }
        Some(content) => Some(text_of(content)?),
    };
    let mut read = Message {
        has_text: text.is_some(),
        turn: Turn::text(role, text.unwrap_or_default()),
        is_trained: !matches!(object.get("weight"), Some(weight) if weight.as_f64() == Some(0.0)),
        call_ids: Vec::new(),
        result_of: object.get("tool_call_id").and_then(Value::as_str).map(str::to_owned),
        is_python: false,
    };
    for call in calls(object)? {
        let (call, dialect) = call_of(call)?;
        read.is_python |= dialect == Dialect::Python;
        read.turn.tool_calls.push(call);
    }
    for call in object.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
        read.call_ids.push(id.to_owned());
    }
    if role != "assistant" && !read.turn.tool_calls.is_empty() {
        return Err("calls from somebody else than the assistant".to_owned());
    }
    Ok(read)
}

/// Returns the text of content: a text, or parts that are all text.
fn text_of(content: &Value) -> Result<String, String> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err("content that is neither text nor parts".to_owned()),
    };
    let part = |part: &Value| {
        let kind = part.get("type").and_then(Value::as_str);
        let is_text =
            matches!(kind, None | Some("text" | "input_text" | "output_text" | "refusal"));
        let text = || part.get("text").or_else(|| part.get("refusal"))?.as_str();
        let text = part.as_str().or_else(|| text().filter(|_| is_text));
        // What is not text would be lost, and the answer may hang on it.
        text.map(str::to_owned).ok_or_else(|| "a part of the content is no text".to_owned())
    };
    Ok(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn calls(object: &Map<String, Value>) -> Result<Vec<&Value>, String> {
    match object.get("tool_calls") {
        Some(Value::Array(calls)) if !calls.is_empty() => Ok(calls.iter().collect()),
        None | Some(Value::Null | Value::Array(_)) => {
            Ok(object.get("function_call").filter(|call| !call.is_null()).into_iter().collect())
        }
        Some(_) => Err("\"tool_calls\" are no list".to_owned()),
    }
}

/// Reads a call with its arguments as a JSON string or as an object.
pub(super) fn call_of(call: &Value) -> Result<(Call, Dialect), String> {
    let inner = call.get("function").filter(|inner| inner.is_object()).unwrap_or(call);
    let name = inner.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or("a call without a name")?.to_owned();
    let (arguments, dialect) = match inner.get("arguments") {
        None | Some(Value::Null) => (Map::new(), Dialect::Json),
        Some(Value::Object(arguments)) => (arguments.clone(), Dialect::Json),
        Some(Value::String(text)) if text.trim().is_empty() => (Map::new(), Dialect::Json),
        Some(Value::String(text)) => match literal::parse(text) {
            Ok((Value::Object(arguments), dialect)) => (arguments, dialect),
            Ok(_) => return Err("the arguments of a call are no object".to_owned()),
            Err(error) => return Err(format!("the arguments of a call: {error}")),
        },
        Some(_) => return Err("the arguments of a call are neither object nor text".to_owned()),
    };
    Ok((Call { name, arguments }, dialect))
}

fn tools(object: &Map<String, Value>) -> Result<Vec<Tool>, String> {
    let given = ["tools", "functions"].iter().find_map(|&key| object.get(key));
    let opened = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => {
            literal::parse(text).map_err(|error| format!("tools: {error}"))?.0
        }
        Some(value) => value.clone(),
    };
    let items = match opened {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        _ => return Err("tools: no list".to_owned()),
    };
    let tool = |item| tool_of(item).ok_or_else(|| "tools: a tool has no name".to_owned());
    items.iter().map(tool).collect()
}

#[cfg(test)]
mod tests;
