//! What is kept of the bytes of a call: all of them where no rule finds anything in what they say.
//!
//! Escapes hide what stands behind them, and a stream cuts its words into pieces. So rules look at
//! what was decoded, and at the answer that was put together, never at the bytes alone.

use std::borrow::Cow;

use datasets::redact::Rules;
use ledger::catalogue::CallEnded;
use serde_json::{Value, json};

use super::tee::Call;

/// Longest id of an answer that is taken over.
const ID_MAX: usize = 128;

/// Bytes to keep, and whether a rule took something out of them.
pub(super) struct Kept {
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) redacted: bool,
}

impl Kept {
    fn whole(bytes: &[u8]) -> Self {
        Self { bytes: Some(bytes.to_vec()), redacted: false }
    }

    fn nothing(redacted: bool) -> Self {
        Self { bytes: None, redacted }
    }
}

/// Keeps a body that is JSON, written anew where a rule takes something out.
fn json_body(rules: &Rules, bytes: &[u8], mut value: Value) -> Kept {
    if rules.redact_json(&mut value) == 0 {
        return Kept::whole(bytes);
    }
    Kept { bytes: Some(value.to_string().into_bytes()), redacted: true }
}

/// Keeps what was asked; nothing of what cannot be read.
pub(super) fn request(rules: &Rules, call: &Call) -> Kept {
    match serde_json::from_slice(&call.request) {
        Ok(value @ Value::Object(_)) => json_body(rules, &call.request, value),
        _ => Kept::nothing(false),
    }
}

/// The answer of a call, as far as it can be read.
pub(super) struct Answer<'a> {
    /// Its bytes as text, up to the last whole event of a stream.
    pub(super) text: Cow<'a, str>,
    pub(super) ended: CallEnded,
    pub(super) is_stream: bool,
    /// There is something to read an answer from.
    pub(super) is_readable: bool,
    /// The teacher's id, where it can be one in the record.
    pub(super) id: Option<String>,
    /// Numbers of tokens.
    pub(super) usage: Value,
    /// The events of a stream.
    events: Vec<Value>,
}

impl<'a> Answer<'a> {
    /// Reads what came of a call.
    pub(super) fn of(rules: &Rules, call: &'a Call) -> Self {
        let mut text = String::from_utf8_lossy(&call.response);
        let is_stream = text.lines().any(|line| line.starts_with("data:"));
        let is_closed = text.lines().any(|line| data_of(line) == Some("[DONE]"));
        let mut ended = call.ended;
        if is_stream && is_closed {
            // Callers may leave as soon as they see the mark.
            ended = CallEnded::Complete;
        }
        if is_stream && !is_closed {
            let end = ["\n\n", "\r\n\r\n"].iter().filter_map(|gap| text.rfind(gap)).max();
            text = text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned().into();
        }
        let data = || text.lines().filter_map(data_of);
        let events: Vec<Value> =
            if is_stream { data().filter_map(parsed).collect() } else { Vec::new() };
        if is_stream && !is_closed && ended == CallEnded::Complete && !events.iter().any(stops) {
            ended = CallEnded::Cut;
        }
        let whole: Value = match is_stream {
            true => Value::Null,
            false => serde_json::from_str(&text).unwrap_or_default(),
        };
        let all = || events.iter().chain([&whole]);
        let id = all().find_map(|event| id_of(rules, event.get("id")?));
        let usage = all().filter_map(|event| usage_of(event.get("usage")?)).next_back();
        let is_readable = match is_stream {
            true => !events.is_empty(),
            false => whole.is_object() && ended == CallEnded::Complete,
        };
        let usage = usage.unwrap_or_default();
        Self { text, ended, is_stream, is_readable, id, usage, events }
    }

    /// Keeps what was answered. `is_clean` says that no rule found anything in the answer as it was
    /// put together.
    pub(super) fn keep(&self, rules: &Rules, call: &Call, is_clean: bool) -> Kept {
        if call.response.is_empty() || call.is_encoded {
            return Kept::nothing(false);
        }
        if self.is_stream {
            let found = self.events.iter().any(|event| rules.redact_json(&mut event.clone()) > 0);
            let is_clean = is_clean && !found && rules.redact_text(&self.text) == *self.text;
            return if is_clean { Kept::whole(&call.response) } else { Kept::nothing(true) };
        }
        match serde_json::from_slice::<Value>(&call.response) {
            Ok(value) => json_body(rules, &call.response, value),
            // An error page, or a part of an answer: escapes in it cannot be read.
            Err(_) => {
                let text = rules.redact_text(&self.text);
                let redacted = text != *self.text;
                Kept { bytes: Some(text.into_bytes()), redacted }
            }
        }
    }
}

/// Returns the data of a line of a stream.
fn data_of(line: &str) -> Option<&str> {
    line.strip_prefix("data:").map(str::trim)
}

fn parsed(data: &str) -> Option<Value> {
    serde_json::from_str(data).ok()
}

/// Says whether an event tells why the answer stops.
fn stops(event: &Value) -> bool {
    let choices = event.get("choices").and_then(Value::as_array);
    let why = |choice: &Value| choice.get("finish_reason").is_some_and(|why| !why.is_null());
    choices.into_iter().flatten().any(why)
}

/// Takes an id over that says nothing but itself.
fn id_of(rules: &Rules, id: &Value) -> Option<String> {
    let id = match id {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let is_plain = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(fits);
    (is_plain && rules.redact_text(&id) == id).then_some(id)
}

/// Takes the numbers of a usage over, also those one level below.
fn usage_of(usage: &Value) -> Option<Value> {
    const NAMES: [&str; 5] = [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    ];
    const DETAILS: [&str; 5] = [
        "cached_tokens",
        "audio_tokens",
        "reasoning_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
    ];
    let numbers = |value: &Value, names: &[&str]| -> Value {
        let number = |name: &&str| Some(((*name).to_owned(), json!(value.get(*name)?.as_u64()?)));
        Value::Object(names.iter().filter_map(number).collect())
    };
    let usage = usage.as_object()?;
    let mut taken = numbers(&Value::Object(usage.clone()), &NAMES);
    for name in NAMES.iter().filter(|name| name.ends_with("_details")) {
        if let Some(details) = usage.get(*name).filter(|details| details.is_object()) {
            taken[*name] = numbers(details, &DETAILS);
        }
    }
    Some(taken)
}
