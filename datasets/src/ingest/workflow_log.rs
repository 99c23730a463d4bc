//! A workflow tracer's log: `{timestamp, agent_type, agent_name, model_used, system_prompt,
//! user_query, assistant_response, tool_calls, success, error, execution_time_ms, cost_usd}`.
//!
//! What the agent did is all there is to learn from, and nobody has checked it: calls and plain
//! answers are golds marked `gold.unchecked`. A row that says that it failed, or that names an
//! error, has no gold.

use serde_json::Value;

use super::Format;
use super::chat::{answer_of, call_of, open};
use super::lines::Input;
use super::make::{gold_reason, id_of, start};
use super::prompt_completion::text;
use crate::episode::{Answer, Call, Episode, Gold, Turn};
use crate::gold::read_golds;
use crate::template::query_of;

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let query = text(input, "user_query")?;
    if query.trim().is_empty() {
        return Err("field \"user_query\" is blank".to_owned());
    }
    let word = |key: &str| input.object.get(key).and_then(Value::as_str).unwrap_or_default();
    let who = format!("{}\n{}\n{query}", word("timestamp"), word("agent_name"));
    let mut episode = start(input.source, input.location.clone(), Format::WorkflowLog, id_of(&who));
    let system = word("system_prompt");
    if !system.trim().is_empty() {
        episode.turns.push(Turn::text("system", system));
    }
    episode.turns.push(Turn::text("user", query));
    episode.query = query_of(query);
    let (response, said) = response(input)?;
    let mut calls = calls(input)?;
    if calls.is_empty() {
        calls = said;
    }
    let success = success(input)?;
    match success {
        Some(true) => episode.flags.push("outcome.success".to_owned()),
        Some(false) => episode.flags.push("outcome.failure".to_owned()),
        None => {}
    }
    if response.is_some() || !calls.is_empty() {
        episode.flags.push("answer.recorded".to_owned());
        let model = match word("model_used") {
            "" => "unknown",
            model => model,
        };
        let (text, calls) = (response.clone(), calls.clone());
        episode.answer = Some(Answer { model: model.to_owned(), text, calls });
    } else if success != Some(false) {
        return Err("neither an answer nor a call, and no failure".to_owned());
    }
    if success != Some(false) {
        episode.gold = gold(&mut episode.flags, calls, response)?;
        episode.flags.push("gold.unchecked".to_owned());
    }
    if matches!(episode.gold, Gold::Calls { .. }) {
        episode.track = "toolcall".to_owned();
    }
    Ok(vec![episode])
}

/// Reads how the agent fared: what `success` says, unless `error` says that something went wrong.
fn success(input: &Input<'_>) -> Result<Option<bool>, String> {
    let unread = || "field \"success\" is neither yes nor no".to_owned();
    let success = match input.object.get("success") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(success)) => Some(*success),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => return Err(unread()),
        },
        Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "" | "null" | "none" => None,
            "true" | "1" | "yes" | "success" | "ok" => Some(true),
            "false" | "0" | "no" | "failure" | "failed" | "error" => Some(false),
            _ => return Err(unread()),
        },
        Some(_) => return Err(unread()),
    };
    let is_error = match input.object.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => {
            !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "null" | "none")
        }
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(_) => true,
    };
    Ok(if is_error { Some(false) } else { success })
}

/// Reads what was said, none where it is blank, and the calls that stand in it.
fn response(input: &Input<'_>) -> Result<(Option<String>, Vec<Call>), String> {
    match input.object.get("assistant_response") {
        None | Some(Value::Null) => Ok((None, Vec::new())),
        Some(Value::String(text)) => {
            Ok(((!text.trim().is_empty()).then(|| text.clone()), Vec::new()))
        }
        Some(message @ Value::Object(_)) => {
            answer_of(message).map_err(|reason| format!("response: {reason}"))
        }
        Some(_) => Err("field \"assistant_response\" is no text".to_owned()),
    }
}

/// Reads the calls beside the answer, in the shape of any provider.
fn calls(input: &Input<'_>) -> Result<Vec<Call>, String> {
    let calls = match input.object.get("tool_calls").map(open) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(call @ Value::Object(_)) => vec![call],
        Some(_) => return Err("field \"tool_calls\" is no list of calls".to_owned()),
    };
    let read = |call: &Value| call_of(&open(call));
    let calls: Option<Vec<Call>> = calls.iter().map(read).collect();
    calls.ok_or_else(|| "a call has no name or no arguments that can be read".to_owned())
}

/// Takes what the agent did as gold: its calls, those in its text, or the text.
fn gold(
    flags: &mut Vec<String>,
    calls: Vec<Call>,
    response: Option<String>,
) -> Result<Gold, String> {
    if !calls.is_empty() {
        return Ok(Gold::Calls { calls });
    }
    let text = response.unwrap_or_default();
    if !text.contains("<tool_call") {
        return Ok(Gold::Text { text });
    }
    let golds = read_golds(&text).map_err(|error| gold_reason(&error))?;
    flags.extend(golds.flags);
    Ok(Gold::Calls { calls: golds.calls })
}
