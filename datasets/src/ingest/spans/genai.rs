//! OpenTelemetry's conventions for generative AI, as attributes: the current ones
//! (`gen_ai.input.messages`) and those before them (`gen_ai.prompt`).

use serde_json::{Map, Value};

use super::content::Found;
use super::is_told;
use crate::span::Span;

/// Reads the current attributes of the span.
pub(super) fn of_attributes(span: &Span) -> Found {
    current(&span.attributes)
}

/// Reads the current attributes of an event, where a tracer keeps them off its spans.
pub(super) fn of_details(span: &Span) -> Found {
    let name = "gen_ai.client.inference.operation.details";
    let event = span.events.iter().find(|event| event.name == name);
    event.map(|event| current(&event.attributes)).unwrap_or_default()
}

fn current(attributes: &Map<String, Value>) -> Found {
    let get = |key: &str| attributes.get(key).cloned().unwrap_or_default();
    Found {
        form: "genai",
        system: get("gen_ai.system_instructions"),
        input: get("gen_ai.input.messages"),
        output: get("gen_ai.output.messages"),
        ..Found::default()
    }
}

/// Reads `gen_ai.prompt` and `gen_ai.completion`, on the span or on events of their own.
pub(super) fn of_prompt(span: &Span) -> Found {
    let get = |key: &str, event: &str| {
        let own = span.attributes.get(key).filter(|value| is_told(value));
        let of_event = || {
            let mut named = span.events.iter().filter(|told| told.name == event);
            named.find_map(|told| told.attributes.get(key))
        };
        own.or_else(of_event).cloned().unwrap_or_default()
    };
    Found {
        form: "genai-prompt",
        input: get("gen_ai.prompt", "gen_ai.content.prompt"),
        output: get("gen_ai.completion", "gen_ai.content.completion"),
        ..Found::default()
    }
}
