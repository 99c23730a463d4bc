//! Results of tools that a message of the user brings, as Anthropic, Gemini and OpenTelemetry write
//! them: each is a turn of its own.

use serde_json::{Value, json};

use super::chat::holds_media;

/// Takes a message apart that brings results of tools: a message of each, and one of what else
/// stands in it, after them. Other messages stay as they are.
pub(super) fn apart(message: &Value) -> Vec<Value> {
    let role = message.get("role").and_then(Value::as_str);
    // What the provider ran stands in the answer itself, behind the call.
    let is_answer = matches!(role, Some("assistant" | "ai" | "model"));
    let mut keys = ["content", "parts"].iter().filter(|_| !is_answer);
    let found = keys.find_map(|&key| Some((key, message.get(key)?.as_array()?)));
    let Some((key, parts)) = found.filter(|(_, parts)| parts.iter().any(is_result)) else {
        return vec![message.clone()];
    };
    let (results, rest): (Vec<&Value>, Vec<&Value>) =
        parts.iter().partition(|part| is_result(part));
    let mut messages: Vec<Value> = results.into_iter().map(result_of).collect();
    if !rest.is_empty() {
        let mut message = message.clone();
        message[key] = rest.into_iter().cloned().collect();
        messages.push(message);
    }
    messages
}

fn is_result(part: &Value) -> bool {
    let kind = part.get("type").and_then(Value::as_str);
    let has = |key: &str| part.get(key).is_some_and(Value::is_object);
    matches!(kind, Some("tool_result" | "tool-result" | "tool_call_response"))
        || has("function_response")
        || has("functionResponse")
}

/// Makes a message of a result. Whatever it is, it is what the tool brought: no list in it is read
/// as parts unless all of them are text.
fn result_of(part: &Value) -> Value {
    let keys = ["function_response", "functionResponse"];
    let inner = keys.iter().find_map(|&key| part.get(key).filter(|inner| inner.is_object()));
    let inner = inner.unwrap_or(part);
    let keys = ["content", "result", "output", "response"];
    let brought = keys.iter().find_map(|&key| inner.get(key).filter(|value| !value.is_null()));
    let brought = brought.cloned().unwrap_or_default();
    let whole = json!({ "role": "tool", "content": brought, "output": inner });
    // Refused where the turns are read.
    if holds_media(&whole) {
        return whole;
    }
    let texts = || brought.as_array()?.iter().map(text_in).collect::<Option<Vec<&str>>>();
    let text = match (&brought, texts()) {
        (Value::Null, _) => String::new(),
        (Value::String(text), _) => text.clone(),
        (_, Some(texts)) if !texts.is_empty() => texts.join("\n"),
        (other, _) => other.to_string(),
    };
    json!({ "role": "tool", "content": text })
}

/// Returns the text of a part that has nothing else.
fn text_in(part: &Value) -> Option<&str> {
    let is_text = part.get("type").and_then(Value::as_str) == Some("text");
    let is_alone = part.as_object().is_some_and(|part| part.len() == 1);
    part.get("text").filter(|_| is_text || is_alone)?.as_str()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::chat::turns_of;
    use super::*;
    use crate::episode::Turn;

    #[test]
    fn results_beside_words_are_turns_of_their_own_before_them() {
        let result = |text: &str| json!({ "type": "tool_result", "content": text });
        let words = json!({ "type": "text", "text": "and now?" });
        let message = json!({ "role": "user", "content": [result("a"), result("b"), words] });
        let turns = turns_of(&json!([message])).unwrap();
        let texts = ["a", "b"].map(|text| Turn::text("tool", text));
        assert_eq!(turns, [&texts[..], &[Turn::text("user", "and now?")]].concat());
    }

    #[test]
    fn what_a_provider_ran_stays_in_its_answer() {
        let parts = json!([{ "type": "text", "text": "so" }, { "type": "tool-result" }]);
        let message = json!({ "role": "assistant", "content": parts });
        assert_eq!(apart(&message), [message]);
    }

    #[test]
    fn what_a_model_thought_and_was_told_is_read_as_such() {
        let thought = json!({ "type": "thinking", "thinking": "hm", "signature": "x" });
        let of_gemini = json!({ "text": "hm", "thought": true });
        let said = json!({ "type": "text", "text": "hello" });
        let answer = json!({ "role": "assistant", "content": [thought, of_gemini, said] });
        let told = json!([{ "type": "text", "text": "be" }, { "type": "text", "text": "brief" }]);
        let request = json!({ "system": told, "messages": [answer] });
        let expected = [Turn::text("system", "be\nbrief"), Turn::text("assistant", "hello")];
        assert_eq!(turns_of(&request).unwrap(), expected);
        let request = json!({ "instructions": "be", "input": "hi" });
        let expected = [Turn::text("system", "be"), Turn::text("user", "hi")];
        assert_eq!(turns_of(&request).unwrap(), expected);
    }
}
