//! `{request, response}`: calls of a model's API with their replies, as gateways log them.
//!
//! Bodies are JSON values, JSON text or, for a reply, a recorded stream (`stream.rs`). Known are
//! OpenAI's chat completions, completions and responses, and Anthropic's messages and completions;
//! of several choices the first is read. An answer that ran into its limit is marked `answer.cut`.
//! Calls are golds that nobody has checked. A request that was answered with an error is an episode
//! without an answer, marked `outcome.failure`.

use ledger::Digest;
use serde_json::{Map, Value};

use super::Format;
use super::chat::{answer_of, open, tools_of, turns_of};
use super::lines::Input;
use super::make::{last_user, start};
use super::stream::{assembled, events, is_something};
use crate::episode::{Answer, Episode, Gold, Turn, json_text};
use crate::template::query_of;

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let request = match input.object.get("request").map(open) {
        Some(Value::Object(request)) => request,
        _ => return Err("field \"request\" is neither an object nor JSON text of one".to_owned()),
    };
    let turns = request_turns(&request).map_err(|reason| format!("request: {reason}"))?;
    let response = match response(input) {
        // What stands in the body of an error is no matter.
        Err(_) if is_error_status(input) => Value::Null,
        response => response.map_err(|reason| format!("response: {reason}"))?,
    };
    let id = id(input, &request, &response);
    let mut episode = start(input.source, input.location.clone(), Format::Exchange, id);
    let tools = request.get("tools").or_else(|| request.get("functions"));
    episode.tools = tools.map(tools_of).unwrap_or_default();
    episode.query = query_of(last_user(&turns));
    episode.turns = turns;
    if is_failure(input, &response) {
        episode.flags.push("outcome.failure".to_owned());
    } else {
        let (text, calls) = answer_of(&response).map_err(|reason| format!("response: {reason}"))?;
        let model = response.get("model").and_then(Value::as_str);
        let model = model.or_else(|| request.get("model")?.as_str()).unwrap_or("unknown");
        let answer = Answer { model: model.to_owned(), text, calls: calls.clone() };
        episode.answer = Some(answer);
        episode.flags.push("answer.recorded".to_owned());
        if is_cut(&response) {
            episode.flags.push("answer.cut".to_owned());
        }
        if !calls.is_empty() {
            episode.gold = Gold::Calls { calls };
            episode.flags.push("gold.unchecked".to_owned());
        }
    }
    if episode.gold != Gold::None || !episode.tools.is_empty() {
        episode.track = "toolcall".to_owned();
    }
    Ok(vec![episode])
}

/// Reads what the model was shown.
fn request_turns(request: &Map<String, Value>) -> Result<Vec<Turn>, String> {
    let mut turns = Vec::new();
    if let Some(system) = request.get("system").or_else(|| request.get("instructions")) {
        let read = turns_of(&Value::Array(vec![message("system", system)]))?;
        turns.extend(read.into_iter().filter(|turn| !turn.content.is_empty()));
    }
    let Some(list) = ["messages", "prompt", "input"].iter().find_map(|&key| request.get(key))
    else {
        return Err("it has neither messages, prompt nor input".to_owned());
    };
    match list {
        Value::String(text) => turns.push(Turn::text("user", text.clone())),
        Value::Array(items) if items.iter().any(Value::is_string) => match items.as_slice() {
            [Value::String(text)] => turns.push(Turn::text("user", text.clone())),
            _ => return Err("it asks for more than one prompt at once".to_owned()),
        },
        list => turns.extend(turns_of(list)?),
    }
    if turns.iter().all(|turn| turn.role != "user") {
        return Err("it holds no message of a user".to_owned());
    }
    Ok(turns)
}

fn message(role: &str, content: &Value) -> Value {
    serde_json::json!({ "role": role, "content": content })
}

/// Reads the reply's body, put together where it was streamed; null where there is none.
fn response(input: &Input<'_>) -> Result<Value, String> {
    let response = input.object.get("response").unwrap_or(&Value::Null);
    match open(response) {
        Value::Array(chunks) => assembled(&chunks),
        Value::String(text) if text.trim().is_empty() => Ok(Value::Null),
        Value::String(text) => match events(&text) {
            Some(events) => assembled(&events?),
            None => Err("it is a text, but neither JSON nor a stream of events".to_owned()),
        },
        response @ (Value::Object(_) | Value::Null) => Ok(response),
        _ => Err("it is neither an object nor a stream".to_owned()),
    }
}

/// Says whether the request was answered with an error.
fn is_failure(input: &Input<'_>, response: &Value) -> bool {
    let text = |key: &str| response.get(key).and_then(Value::as_str);
    is_error_status(input)
        || text("status") == Some("failed")
        || text("type") == Some("error")
        || response.get("error").is_some_and(is_something)
}

/// Says whether the answer stopped because it was as long as it might be.
fn is_cut(response: &Value) -> bool {
    let first = |key: &str| response.get(key)?.as_array()?.first();
    let places = [Some(response), first("choices"), first("candidates")];
    places.into_iter().flatten().any(|place| {
        let keys = ["finish_reason", "finishReason", "stop_reason", "status"];
        keys.iter().any(|&key| {
            let why = place.get(key).and_then(Value::as_str).unwrap_or_default();
            matches!(why, "length" | "max_tokens" | "MAX_TOKENS" | "incomplete")
        })
    })
}

/// Says whether the status is one of HTTP's for errors, or a word for one.
fn is_error_status(input: &Input<'_>) -> bool {
    let status = ["status", "status_code"].iter().find_map(|&key| input.object.get(key));
    status.is_some_and(|status| match status {
        Value::String(text) => {
            let text = text.trim().to_ascii_lowercase();
            matches!(text.as_str(), "error" | "failed" | "failure")
                || text.parse::<u64>().is_ok_and(|status| status >= 400)
        }
        status => status.as_u64().is_some_and(|status| status >= 400),
    })
}

/// Names an exchange: by its own id, that of the reply, or what was asked.
fn id(input: &Input<'_>, request: &Map<String, Value>, response: &Value) -> String {
    let own = ["id", "request_id"].iter().find_map(|&key| input.object.get(key));
    let id = |value: &Value| match value {
        Value::String(id) if !id.trim().is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    };
    own.and_then(id).or_else(|| id(response.get("id")?)).unwrap_or_else(|| {
        let asked = json_text(&Value::Object(request.clone()));
        format!("x-{}", Digest::of(asked.as_bytes()).short())
    })
}
