//! OpenAI's fine-tuning: `{messages, tools, parallel_tool_calls}`.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{calls_and_text, gold_words};
use crate::episode::{Call, Episode, Gold, Tool, Turn, json_text};

/// What differs between those who read messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Arguments are JSON strings, and every result answers a call.
    OpenAi,
    /// Arguments are objects.
    Trl,
    /// As for OpenAI, but results may stand alone, and an episode may have no answer.
    Columns,
}

/// Makes the row of an episode.
pub(super) fn row(episode: &Episode) -> Result<Map<String, Value>, String> {
    let mut row = Map::new();
    row.insert("messages".to_owned(), messages(episode, Style::OpenAi)?);
    if !episode.tools.is_empty() {
        row.insert("tools".to_owned(), tools(&episode.tools));
        let is_parallel = episode.gold.calls().len() > 1;
        row.insert("parallel_tool_calls".to_owned(), Value::from(is_parallel));
    }
    row.insert("id".to_owned(), Value::from(episode.source.external_id.as_str()));
    Ok(row)
}

/// Writes tools in OpenAI's form. Unknown parameters are left out.
pub(super) fn tools(tools: &[Tool]) -> Value {
    tools
        .iter()
        .map(|tool| {
            let mut function = json!({ "name": tool.name, "description": tool.description });
            if let (Value::Object(function), false) = (&mut function, tool.parameters.is_null()) {
                function.insert("parameters".to_owned(), tool.parameters.clone());
            }
            json!({ "type": "function", "function": function })
        })
        .collect()
}

/// Writes the conversation and the gold as messages.
pub(super) fn messages(episode: &Episode, style: Style) -> Result<Value, String> {
    let mut writer = Messages { style, calls: 0, open: VecDeque::new(), written: Vec::new() };
    for turn in &episode.turns {
        writer.turn(turn)?;
    }
    let (calls, text) = calls_and_text(episode);
    if !calls.is_empty() {
        writer.assistant(text.unwrap_or_default(), calls, 1);
    } else if style != Style::Columns || has_words(episode) {
        writer.assistant(&gold_words(episode)?, &[], 1);
    }
    Ok(Value::Array(writer.written))
}

fn has_words(episode: &Episode) -> bool {
    match episode.gold {
        Gold::None => false,
        Gold::NoCall => !episode.gold_text().is_empty(),
        _ => true,
    }
}

fn message(role: &str, content: Value) -> Map<String, Value> {
    let members = [("role".to_owned(), Value::from(role)), ("content".to_owned(), content)];
    members.into_iter().collect()
}

struct Messages {
    style: Style,
    /// Calls written so far; their numbers are their ids.
    calls: usize,
    /// Ids of calls that wait for their results.
    open: VecDeque<String>,
    written: Vec<Value>,
}

impl Messages {
    fn turn(&mut self, turn: &Turn) -> Result<(), String> {
        match turn.role.as_str() {
            "assistant" => {
                self.assistant(&turn.content, &turn.tool_calls, 0);
                return Ok(());
            }
            _ if !turn.tool_calls.is_empty() => {
                return Err("somebody else than the assistant calls a tool".to_owned());
            }
            "tool" => {
                let mut message = message("tool", Value::from(turn.content.as_str()));
                match (self.open.pop_front(), self.style) {
                    (Some(id), _) => drop(message.insert("tool_call_id".to_owned(), id.into())),
                    (None, Style::OpenAi) => {
                        return Err("a result of a tool stands behind no call".to_owned());
                    }
                    (None, _) => {}
                }
                self.written.push(Value::Object(message));
                return Ok(());
            }
            role => self.written.push(json!({ "role": role, "content": turn.content })),
        }
        self.open.clear();
        Ok(())
    }

    fn assistant(&mut self, text: &str, calls: &[Call], weight: u8) {
        self.open.clear();
        let content =
            if text.is_empty() && !calls.is_empty() { Value::Null } else { Value::from(text) };
        let mut message = message("assistant", content);
        if !calls.is_empty() {
            let calls = calls.iter().map(|call| self.call(call)).collect();
            message.insert("tool_calls".to_owned(), calls);
        }
        message.insert("weight".to_owned(), Value::from(weight));
        self.written.push(Value::Object(message));
    }

    fn call(&mut self, call: &Call) -> Value {
        self.calls += 1;
        let id = format!("call_{}", self.calls);
        self.open.push_back(id.clone());
        let arguments = Value::Object(call.arguments.clone());
        let arguments = match self.style {
            Style::Trl => arguments,
            Style::OpenAi | Style::Columns => Value::from(json_text(&arguments)),
        };
        let function = json!({ "name": call.name, "arguments": arguments });
        json!({ "id": id, "type": "function", "function": function })
    }
}
