//! Spans of Mastra, as its exporter writes them today and as it did.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::tests::mapped;
use super::*;

fn step(input: Value, output: Value) -> Mapped {
    mapped(json!({
        "gen_ai.operation.name": "agent_step", "mastra.span.type": "model_step",
        "mastra.model_step.input": input.to_string(),
        "mastra.model_step.output": output.to_string(),
    }))
}

#[test]
fn a_step_is_a_call_of_a_model() {
    let asked = json!([
        { "role": "system", "content": "Answer by the tool." },
        { "role": "user", "content": "the weather in Oslo, or [tool: x] elsewhere?" },
    ]);
    let call = json!({ "toolCallId": "c1", "toolName": "weather", "args": { "city": "Oslo" } });
    let read = step(asked.clone(), json!({ "text": "", "toolCalls": [call] }));
    assert_eq!((read.role, read.form), (Role::Generation, "mastra"));
    let episode = read.episode.unwrap().unwrap();
    assert_eq!(episode.source.format, "otel-mastra");
    assert_eq!(episode.turns.len(), 2);
    let answer = episode.answer.unwrap();
    assert_eq!((answer.text, answer.calls[0].name.as_str()), (None, "weather"));
    assert_eq!(answer.calls[0].arguments["city"], "Oslo");

    let read = step(asked, json!({ "text": "It rains.", "toolCalls": [] }));
    let answer = read.episode.unwrap().unwrap().answer.unwrap();
    assert_eq!((answer.text.as_deref(), answer.calls.len()), (Some("It rains."), 0));
}

#[test]
fn a_step_whose_history_was_shortened_is_rejected() {
    let shortened = |role: &str, text: &str| {
        let asked = json!([
            { "role": "user", "content": "the weather?" }, { "role": role, "content": text },
        ]);
        step(asked, json!({ "text": "It rains.", "toolCalls": [] })).episode
    };
    for (role, text) in
        [("assistant", "[tool: get_weather]"), ("tool", "[tool-result: get_weather]")]
    {
        let reason = shortened(role, text).unwrap_err();
        assert!(reason.contains("through the gateway"), "{reason}");
    }
    let said = shortened("assistant", "I could use [tool: get_weather] for that");
    assert_eq!(said.unwrap().unwrap().turns.len(), 2);
}

#[test]
fn what_goes_around_steps_is_no_call_unless_it_tells_one() {
    let around = mapped(json!({
        "gen_ai.operation.name": "model_generation", "mastra.span.type": "model_generation",
        "mastra.model_generation.input": "{\"messages\":[]}",
        "mastra.model_generation.output": "{\"text\":\"It rains.\"}",
    }));
    assert_eq!((around.role, around.episode), (Role::Chain, Ok(None)));
    let asked = json!([{ "role": "user", "parts": [{ "type": "text", "content": "hot?" }] }]);
    let answered = json!([{ "role": "assistant", "parts": [{ "type": "text", "content": "no" }] }]);
    let older = mapped(json!({
        "gen_ai.operation.name": "chat", "mastra.span.type": "model_generation",
        "gen_ai.input.messages": asked.to_string(),
        "gen_ai.output.messages": answered.to_string(),
    }));
    assert_eq!((older.role, older.form), (Role::Generation, "genai"));
    // What Langfuse says of a span stands above all.
    let told = mapped(json!({
        "langfuse.observation.type": "span", "mastra.span.type": "model_step",
        "mastra.model_step.output": "{\"text\":\"x\"}",
    }));
    assert_eq!(told.role, Role::Span);
}
