//! ShareGPT with Hermes tool tags: `{conversations: [{from, value}], tools}`.
//!
//! Tags inside JSON strings are written with `\u003c` for their first character, so that nobody
//! who looks for tags finds one that is none.

use serde_json::{Map, Value, json};

use super::{calls_and_text, extra, gold_words, openai};
use crate::episode::{Call, Episode, Tool, Turn, json_text};
use crate::gold::read_calls;
use crate::ingest::tools_between_tags;

const CALL: &str = "<tool_call>\n";
const CALL_END: &str = "\n</tool_call>";
const RESULT: &str = "<tool_response>\n";
const RESULT_END: &str = "\n</tool_response>";

/// Makes the row of an episode.
pub(crate) fn row(episode: &Episode) -> Result<Map<String, Value>, String> {
    let mut turns = episode.turns.clone();
    let mut tagged = Vec::new();
    if !episode.tools.is_empty() && !says_tools(turns.first(), &episode.tools) {
        add_tools(&mut turns, &episode.tools);
        tagged.push(0);
    }
    let mut messages = Vec::new();
    for (place, turn) in turns.iter().enumerate() {
        let (value, is_tagged) = value(turn)?;
        if is_tagged {
            tagged.push(place);
        }
        let from = match turn.role.as_str() {
            "user" => "human",
            "assistant" => "gpt",
            role => role,
        };
        messages.push(json!({ "from": from, "value": value }));
    }
    messages.push(json!({ "from": "gpt", "value": gold(episode)? }));
    let mut row = Map::new();
    row.insert("id".to_owned(), Value::from(episode.source.external_id.as_str()));
    row.insert("conversations".to_owned(), Value::Array(messages));
    row.insert("tools".to_owned(), Value::from(openai::tools(&episode.tools).to_string()));
    let mut metadata = Map::new();
    extra::add_tagged(&mut metadata, &tagged);
    row.insert(extra::MEMBER.to_owned(), Value::Object(metadata));
    Ok(row)
}

fn gold(episode: &Episode) -> Result<String, String> {
    let (calls, text) = calls_and_text(episode);
    if calls.is_empty() {
        let words = gold_words(episode)?;
        if words.contains("<tool_call") {
            return Err("its gold is a text with the tag of a call in it".to_owned());
        }
        return Ok(words);
    }
    let calls = tags(calls);
    Ok(match text.filter(|text| !text.is_empty() && !text.contains("<tool_call")) {
        Some(text) => format!("{text}\n{calls}"),
        None => calls,
    })
}

/// Writes a turn, and says whether tags in it stand for what the turn itself does not say in text.
fn value(turn: &Turn) -> Result<(String, bool), String> {
    match turn.role.as_str() {
        "assistant" if !turn.tool_calls.is_empty() => {
            let calls = tags(&turn.tool_calls);
            if turn.content.is_empty() {
                return Ok((calls, true));
            }
            Ok((format!("{}\n{calls}", turn.content), true))
        }
        "tool" if !turn.content.contains("<tool_response>") => {
            if turn.content.contains("</tool_response>") {
                return Err("a result of a tool holds the tag that ends results".to_owned());
            }
            Ok((format!("{RESULT}{}{RESULT_END}", turn.content), true))
        }
        _ if !turn.tool_calls.is_empty() => {
            Err("somebody else than the assistant calls a tool".to_owned())
        }
        _ => Ok((turn.content.clone(), false)),
    }
}

fn tags(calls: &[Call]) -> String {
    let tag = |call: &Call| {
        let json = json!({ "arguments": call.arguments, "name": call.name });
        format!("{CALL}{}{CALL_END}", untagged(&json_text(&json)))
    };
    calls.iter().map(tag).collect::<Vec<_>>().join("\n")
}

/// Takes tags out of JSON. In JSON, `<` stands inside strings only.
fn untagged(json: &str) -> String {
    ["<tool", "</tool"]
        .iter()
        .fold(json.to_owned(), |json, tag| json.replace(tag, &tag.replace('<', "\\u003c")))
}

/// Says whether a system turn lists just these tools.
fn says_tools(turn: Option<&Turn>, tools: &[Tool]) -> bool {
    let system = turn.filter(|turn| turn.role == "system");
    let said = system.and_then(|turn| tools_between_tags(&turn.content).ok());
    said.is_some_and(|said| said == tools)
}

/// Lists the tools at the end of the system turn, which is made where there is none.
fn add_tools(turns: &mut Vec<Turn>, tools: &[Tool]) {
    let block = block(tools);
    match turns.first_mut().filter(|turn| turn.role == "system") {
        Some(system) => system.content = format!("{}\n\n{block}", system.content),
        None => turns.insert(0, Turn::text("system", block)),
    }
}

fn block(tools: &[Tool]) -> String {
    let tools = untagged(&json_text(&openai::tools(tools)));
    format!(
        "These tools can be called:\n<tools>\n{tools}\n</tools>\nTo call one, write\n\
         {CALL}{{\"arguments\": <object>, \"name\": <name>}}{CALL_END}\nand nothing else."
    )
}

/// Undoes what [`row`] did to the turns at `places`.
///
/// # Errors
/// When a turn there is not as it was written.
pub(crate) fn lift(
    mut turns: Vec<Turn>,
    places: &[usize],
    tools: &[Tool],
) -> Result<Vec<Turn>, String> {
    let mut drops_first = false;
    for &place in places {
        let wrong = || format!("message {} is not as it was written", place + 1);
        let turn = turns.get_mut(place).ok_or_else(wrong)?;
        match turn.role.as_str() {
            "system" => {
                let rest = turn.content.strip_suffix(&block(tools)).ok_or_else(wrong)?;
                drops_first = rest.is_empty();
                turn.content = rest.strip_suffix("\n\n").unwrap_or_default().to_owned();
            }
            "assistant" => {
                let start = turn.content.find(CALL).ok_or_else(wrong)?;
                let (text, calls) = turn.content.split_at(start);
                turn.tool_calls = read_calls(calls).map_err(|_| wrong())?;
                turn.content = text.strip_suffix('\n').unwrap_or(text).to_owned();
            }
            _ => {
                let inner = turn.content.strip_prefix(RESULT);
                let inner = inner.and_then(|inner| inner.strip_suffix(RESULT_END));
                turn.content = inner.ok_or_else(wrong)?.to_owned();
            }
        }
    }
    if drops_first {
        turns.remove(0);
    }
    Ok(turns)
}
