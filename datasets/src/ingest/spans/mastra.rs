//! Mastra: a step of its loop is a call of a model, in attributes of its own since exporter 1.4.
//!
//! The span around the steps has the first question and the last answer with the calls of all
//! steps between, which is no call that any model was asked for.

use serde_json::{Map, Value, json};

use super::super::chat::open;
use super::content::Found;
use super::messages::list_of;
use super::{is_told, text_of};
use crate::span::Span;

/// Name of the convention.
pub(super) const FORM: &str = "mastra";

/// Says whether the span is a step that tells what was said in it.
pub(super) fn is_step(span: &Span) -> bool {
    span.attributes.get("mastra.model_step.output").is_some_and(is_told)
}

/// Says whether the span goes around steps that tell what was said in them.
pub(super) fn is_around_steps(span: &Span) -> bool {
    ["mastra.model_generation.input", "mastra.model_generation.output"]
        .iter()
        .any(|&key| span.attributes.contains_key(key))
        && !["gen_ai.input.messages", "gen_ai.output.messages"]
            .iter()
            .any(|&key| span.attributes.contains_key(key))
}

/// Reads the attributes of a step.
pub(super) fn of_span(span: &Span) -> Found {
    if !is_step(span) {
        return Found::default();
    }
    let get = |key: &str| span.attributes.get(key).map(open).unwrap_or_default();
    let output = get("mastra.model_step.output");
    let text = text_of(output.get("text"));
    let parts: Vec<Value> =
        text.iter().map(|text| json!({ "type": "text", "text": text })).collect();
    let calls = list_of(output.get("toolCalls").unwrap_or(&Value::Null));
    let output = json!({ "role": "assistant", "content": parts, "tool_calls": calls });
    Found { form: FORM, input: get("mastra.model_step.input"), output, ..Found::default() }
}

/// Says that calls and results of earlier steps were left out: the exporter writes
/// `[tool: name]` and `[tool-result: name]` in their place.
pub(super) fn check_whole(input: &Value) -> Result<(), String> {
    let is_shortened = |message: &Map<String, Value>| {
        let text = message.get("content").and_then(Value::as_str).unwrap_or_default().trim();
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let starts = |start: &str| text.starts_with(start) && text.ends_with(']');
        match role {
            "assistant" => starts("[tool: "),
            "tool" => starts("[tool-result: "),
            _ => false,
        }
    };
    let messages = input.as_array().into_iter().flatten();
    if messages.filter_map(Value::as_object).any(is_shortened) {
        let what = "its tracer left out the calls and results of earlier steps: take such calls \
                    through the gateway";
        return Err(what.to_owned());
    }
    Ok(())
}
