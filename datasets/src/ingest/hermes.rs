//! Hermes function calling in ShareGPT form: `{id, conversations: [{from, value}]}`.

use serde_json::Value;

use super::Format;
use super::chat::open;
use super::lines::Input;
use super::make::{id_of, last_user, start, text_gold};
use crate::episode::{Episode, Gold, Tool, Turn};
use crate::export::{extra, sharegpt};
use crate::gold::{GoldError, read_golds};
use crate::literal;

/// Reads a row: one episode for each answer that calls tools or, in a dialogue without any call,
/// one for the last answer, whose gold is its text.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let mut turns = turns(input)?;
    let id = match input.object.get("id") {
        Some(Value::String(id)) => id.clone(),
        _ => id_of(last_user(&turns)),
    };
    let system = turns.first().filter(|turn| turn.role == "system");
    let tools = match input.object.get("tools") {
        Some(Value::String(text)) => tools_of_text(text)?,
        Some(list @ (Value::Array(_) | Value::Object(_))) => tools_of_value(list.clone())?,
        _ => system.map_or(Ok(Vec::new()), |turn| tools_between_tags(&turn.content))?,
    };
    let ours = extra::of_row(&input.object);
    if let Some(metadata) = ours {
        turns = sharegpt::lift(turns, &extra::tagged(metadata)?, &tools)?;
    }
    let mut episodes = Vec::new();
    for (place, answer) in answers(&turns, ours.is_some()) {
        let before = turns.get(..place).unwrap_or_default();
        let id = if episodes.is_empty() { id.clone() } else { format!("{id}#{place}") };
        let mut episode = start(input.source, input.location.clone(), Format::Hermes, id);
        episode.tools.clone_from(&tools);
        episode.turns = before.to_vec();
        episode.query = last_user(before).trim().to_owned();
        if is_call(answer) {
            let golds = read_golds(&answer.content).map_err(|error| unquoted(&error))?;
            episode.track = "toolcall".to_owned();
            episode.gold = Gold::Calls { calls: golds.calls };
            episode.flags = golds.flags;
        } else {
            episode.gold = text_gold(&answer.content);
        }
        episodes.push(episode);
    }
    if episodes.is_empty() {
        return Err("no answer: no message is from gpt".to_owned());
    }
    extra::settle(episodes, &input.object)
}

/// Returns the answers to train on, with their places. A row that was written here has one.
fn answers(turns: &[Turn], is_ours: bool) -> Vec<(usize, &Turn)> {
    let mut all = turns.iter().enumerate().filter(|(_, turn)| turn.role == "assistant");
    let calls: Vec<_> = all.clone().filter(|(_, turn)| is_call(turn)).collect();
    if calls.is_empty() || is_ours { all.next_back().into_iter().collect() } else { calls }
}

fn is_call(turn: &Turn) -> bool {
    turn.content.contains("<tool_call")
}

/// Says why a gold cannot be read without the words of the row: the row may be somebody's.
fn unquoted(error: &GoldError) -> String {
    match error {
        GoldError::NoCall { .. } => "gold: no call found".to_owned(),
        GoldError::Call { number, reason, .. } => {
            format!("gold: call {number} cannot be read: {reason}")
        }
    }
}

fn turns(input: &Input<'_>) -> Result<Vec<Turn>, String> {
    let messages = input.object.get("conversations").and_then(Value::as_array);
    let messages = messages.ok_or("field \"conversations\" is no array")?;
    let turn = |(place, message): (usize, &Value)| {
        let field = |name: &str| {
            let value = message.get(name).and_then(Value::as_str);
            value.ok_or_else(|| format!("message {} has no text {name:?}", place + 1))
        };
        let role = match field("from")? {
            "human" | "user" => "user",
            "gpt" | "assistant" => "assistant",
            "system" => "system",
            "tool" | "function" => "tool",
            _ => return Err(format!("message {} is from nobody known", place + 1)),
        };
        Ok(Turn::text(role, field("value")?))
    };
    messages.iter().enumerate().map(turn).collect()
}

pub(crate) fn tools_between_tags(system: &str) -> Result<Vec<Tool>, String> {
    // The instructions may name the tags before they use them: the last pair that holds text wins.
    let pieces = system.split("<tools>").skip(1);
    let inner =
        pieces.filter_map(|piece| piece.split_once("</tools>").map(|(inner, _)| inner.trim()));
    match inner.filter(|inner| !inner.is_empty()).last() {
        Some(text) => tools_of_text(text),
        None => Ok(Vec::new()),
    }
}

fn tools_of_text(text: &str) -> Result<Vec<Tool>, String> {
    let (value, _) = literal::parse(text).map_err(|error| format!("tools: {error}"))?;
    tools_of_value(value)
}

fn tools_of_value(value: Value) -> Result<Vec<Tool>, String> {
    let items = match value {
        Value::Array(items) => items.iter().map(open).collect(),
        value => vec![value],
    };
    items.iter().map(|item| tool_of(item).ok_or_else(|| "a tool has no name".to_owned())).collect()
}

/// Reads a tool in OpenAI's form, with or without the `function` around it.
pub(super) fn tool_of(item: &Value) -> Option<Tool> {
    let function = item.get("function").filter(|inner| inner.is_object()).unwrap_or(item);
    let schema = ["parameters", "inputSchema", "input_schema", "schema"];
    Some(Tool {
        name: function.get("name")?.as_str()?.to_owned(),
        description: function
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        parameters: schema
            .iter()
            .find_map(|&key| function.get(key))
            .cloned()
            .unwrap_or(Value::Null),
    })
}
