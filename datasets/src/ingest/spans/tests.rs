//! Spans of each convention, written for these tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::episode::{Call, Turn};
use crate::manifest::Stored;
use crate::span::SpanEvent;

mod forms;

/// Makes a span of attributes.
pub(super) fn span(attributes: Value) -> Span {
    Span {
        schema: 1,
        trace_id: "84f1b349eaa2610d744bd77557177dec".to_owned(),
        span_id: "c5394c8ecc5c68a8".to_owned(),
        parent_id: None,
        name: "chat".to_owned(),
        start_us: 1,
        end_us: None,
        attributes: attributes.as_object().unwrap().clone(),
        events: Vec::new(),
        is_error: false,
        status_message: String::new(),
        resource: serde_json::Map::new(),
        scope: String::new(),
    }
}

fn event(name: &str, attributes: Value) -> SpanEvent {
    let attributes = attributes.as_object().unwrap().clone();
    SpanEvent { name: name.to_owned(), at_us: 1, attributes }
}

fn of_span(span: &Span) -> Mapped {
    map(span, &SourceInfo::unknown(Path::new("x")), &Rules::none())
}

pub(super) fn mapped(attributes: Value) -> Mapped {
    of_span(&span(attributes))
}

/// Adds attributes to a chat in the current convention.
fn chat(more: Value) -> Span {
    let mut attributes = json!({
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages":
            [{ "role": "user", "parts": [{ "type": "text", "content": "hi" }] }],
        "gen_ai.output.messages":
            [{ "role": "assistant", "parts": [{ "type": "text", "content": "yo" }] }],
    });
    let more = more.as_object().unwrap().clone();
    attributes.as_object_mut().unwrap().extend(more);
    span(attributes)
}

fn episode(span: &Span) -> Episode {
    of_span(span).episode.unwrap().unwrap()
}

fn answer(span: &Span) -> (Option<String>, Vec<Call>) {
    let answer = episode(span).answer.unwrap();
    (answer.text, answer.calls)
}

fn reason(span: &Span) -> String {
    of_span(span).episode.unwrap_err()
}

#[test]
fn roles_are_told_by_the_attribute_that_is_made_for_it() {
    for (key, value, role, form) in [
        ("langfuse.observation.type", "generation", "generation", "langfuse"),
        ("langfuse.observation.type", "RETRIEVER", "retriever", "langfuse"),
        ("langfuse.observation.type", "evaluator", "evaluator", "langfuse"),
        ("langfuse.observation.type", "guardrail", "guardrail", "langfuse"),
        ("langfuse.observation.type", "event", "event", "langfuse"),
        ("langfuse.observation.type", "span", "span", "langfuse"),
        ("langfuse.observation.type", "other", "span", "none"),
        ("mastra.span.type", "model_generation", "generation", "genai"),
        ("mastra.span.type", "model_step", "span", "genai"),
        ("mastra.span.type", "model_chunk", "span", "genai"),
        ("mastra.span.type", "agent_run", "agent", "genai"),
        ("mastra.span.type", "mcp_tool_call", "tool", "genai"),
        ("mastra.span.type", "workflow_run", "chain", "genai"),
        ("ai.operationId", "ai.generateText.doGenerate", "generation", "vercel"),
        ("ai.operationId", "ai.streamObject.doStream", "generation", "vercel"),
        ("ai.operationId", "ai.generateObject", "chain", "vercel"),
        ("ai.operationId", "ai.streamText", "chain", "vercel"),
        ("ai.operationId", "ai.toolCall", "tool", "vercel"),
        ("ai.operationId", "ai.embedMany.doEmbed", "embedding", "vercel"),
        ("gen_ai.operation.name", "chat", "generation", "genai"),
        ("gen_ai.operation.name", "generate_content", "generation", "genai"),
        ("gen_ai.operation.name", "text_completion", "generation", "genai"),
        ("gen_ai.operation.name", "execute_tool", "tool", "genai"),
        ("gen_ai.operation.name", "invoke_agent", "agent", "genai"),
        ("gen_ai.operation.name", "create_agent", "agent", "genai"),
        ("gen_ai.operation.name", "embeddings", "embedding", "genai"),
        ("gen_ai.operation.name", "invoke_workflow", "chain", "genai"),
        ("gen_ai.operation.name", "dance", "span", "none"),
        ("openinference.span.kind", "LLM", "generation", "openinference"),
        ("openinference.span.kind", "RERANKER", "retriever", "openinference"),
        ("traceloop.span.kind", "workflow", "chain", "genai-indexed"),
        ("traceloop.span.kind", "agent", "agent", "genai-indexed"),
        ("llm.request.type", "completion", "generation", "genai-indexed"),
        ("llm.request.type", "embedding", "embedding", "genai-indexed"),
        ("gen_ai.tool.name", "add", "tool", "genai"),
        ("gen_ai.agent.name", "clerk", "agent", "genai"),
        ("gen_ai.request.model", "m", "span", "none"),
        ("http.method", "GET", "span", "none"),
    ] {
        let mapped = mapped(json!({ key: value }));
        assert_eq!((mapped.role.name(), mapped.form), (role, form), "{key} {value}");
        // Nothing here tells what was said.
        assert_eq!(mapped.episode.is_err(), role == "generation", "{key} {value}");
    }
    let both = json!({
        "langfuse.observation.type": "tool", "mastra.span.type": "model_generation",
        "gen_ai.operation.name": "chat",
    });
    assert_eq!(mapped(both).role, Role::Tool);
    let step = json!({ "mastra.span.type": "model_step", "gen_ai.operation.name": "chat" });
    assert_eq!(mapped(step).role, Role::Span);
    let unnamed = json!({ "gen_ai.request.model": "m", "gen_ai.prompt.0.content": "hi" });
    assert_eq!(mapped(unnamed).role, Role::Generation);
}

#[test]
fn people_conversations_ids_and_tokens_are_told() {
    let told = mapped(json!({
        "user.id": 7, "gen_ai.conversation.id": "c", "gen_ai.response.id": "r",
        "ai.response.id": "r", "gen_ai.usage.prompt_tokens": "3", "gen_ai.response.model": "m2",
        "gen_ai.request.model": "m1", "gen_ai.usage.output_tokens": 2.0,
    }));
    assert_eq!(told.subject.as_deref(), Some("7"));
    assert_eq!(told.session.as_deref(), Some("c"));
    assert_eq!(told.aliases, ["84f1b349eaa2610d744bd77557177dec", "r"]);
    assert_eq!(told.usage, json!({ "input": 3, "output": 2 }));
    assert_eq!(told.model.as_deref(), Some("m2"));
    let own = mapped(json!({
        "langfuse.user.id": " me ", "user.id": "you", "enduser.id": "who",
        "langfuse.observation.usage_details": "{\"input\": 5}", "gen_ai.response.id": "[SECRET_1]",
        "langfuse.observation.output": "{\"id\": \"chatcmpl-1\", \"choices\": []}",
    }));
    assert_eq!(own.subject.as_deref(), Some("me"));
    assert_eq!(own.usage, json!({ "input": 5 }));
    assert_eq!(own.aliases, ["84f1b349eaa2610d744bd77557177dec", "chatcmpl-1"]);
    let none = mapped(json!({ "user.id": "  ", "enduser.id": ["x"] }));
    assert_eq!((none.subject, none.session, none.model), (None, None, None));
    assert_eq!(none.usage, Value::Null);
    let mut of_user = chat(json!({ "user.id": "u", "gen_ai.response.finish_reasons": ["stop"] }));
    assert_eq!(episode(&of_user).subject.as_deref(), Some("u"));
    assert_eq!(episode(&of_user).flags, ["answer.recorded"]);
    assert_eq!(episode(&of_user).source.format, "otel-genai");
    assert_eq!(episode(&of_user).source.external_id, of_user.external_id());
    of_user.is_error = true;
    assert_eq!(episode(&of_user).flags, ["answer.recorded", "outcome.failure"]);
}

#[test]
fn answers_that_ran_into_their_limit_are_marked() {
    let message = |why: &str| {
        json!([{ "role": "assistant", "finish_reason": why,
            "parts": [{ "type": "text", "content": "yo" }] }])
    };
    for (more, is_cut) in [
        (json!({ "gen_ai.response.finish_reasons": ["length"] }), true),
        (json!({ "gen_ai.response.finish_reasons": "[\"length\"]" }), true),
        (json!({ "gen_ai.response.finish_reasons": "max_tokens" }), true),
        (json!({ "gen_ai.response.finish_reasons": ["stop"] }), false),
        (json!({ "gen_ai.output.messages": message("length") }), true),
        (json!({ "gen_ai.output.messages": message("length").to_string() }), true),
        (json!({ "gen_ai.output.messages": message("stop") }), false),
    ] {
        assert_eq!(episode(&chat(more.clone())).has_flag("answer.cut"), is_cut, "{more}");
    }
}

#[test]
fn a_call_without_content_names_the_switch() {
    let bare = json!({ "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o" });
    let bare = reason(&span(bare));
    assert!(bare.starts_with("the span has no content: "), "{bare}");
    assert!(bare.ends_with("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true"), "{bare}");
    let vercel = reason(&span(json!({ "ai.operationId": "ai.generateText.doGenerate" })));
    assert!(vercel.contains("recordInputs"), "{vercel}");
    // Who spoke is told though what was said may not be.
    let mut named = span(json!({
        "gen_ai.operation.name": "chat", "gen_ai.prompt.0.role": "user",
        "gen_ai.completion.0.finish_reason": "stop",
    }));
    named.events = vec![
        event("gen_ai.user.message", json!({ "gen_ai.system": "openai" })),
        event("gen_ai.choice", json!({ "index": 0, "finish_reason": "stop" })),
    ];
    assert!(reason(&named).starts_with("the span has no content: "));
}

#[test]
fn what_is_no_text_makes_a_call_unreadable_and_thoughts_are_left_out() {
    let asked = |part: Value| {
        let text = json!({ "type": "text", "content": "look" });
        chat(json!({ "gen_ai.input.messages": [{ "role": "user", "parts": [text, part] }] }))
    };
    for part in [
        json!({ "type": "blob", "modality": "image", "content": "aGk=" }),
        json!({ "type": "uri", "uri": "https://x.org/secret.png" }),
        json!({ "type": "file", "file_id": "f" }),
        json!({ "type": "image_url", "image_url": { "url": "https://x.org/secret.png" } }),
        json!({ "kind": "image-url", "url": "https://x.org/secret.png" }),
        json!({ "type": "tool_call", "id": "secret" }),
        json!({ "type": "tool_call", "name": "f", "arguments": "secret" }),
        json!({ "type": "tool_call_response", "response": [{ "type": "image", "data": "" }] }),
        json!({ "type": "secret", "level": 3 }),
        json!(3),
    ] {
        let said = reason(&asked(part.clone()));
        assert!(said.starts_with("input: ") && !said.contains("secret"), "{part}: {said}");
    }
    for part in [
        json!({ "type": "reasoning", "content": "hm" }),
        json!({ "type": "thinking", "thinking": "hm" }),
        json!({ "text": "hm", "thought": true }),
    ] {
        assert_eq!(episode(&asked(part)).turns, [Turn::text("user", "look")]);
    }
    let thought = json!([{ "role": "assistant", "parts": [
        { "type": "reasoning", "content": "hm" }, { "type": "text", "content": "yo" },
    ] }]);
    let thought = chat(json!({ "gen_ai.output.messages": thought }));
    assert_eq!(answer(&thought), (Some("yo".to_owned()), Vec::new()));
    let only =
        json!([{ "role": "assistant", "parts": [{ "type": "reasoning", "content": "hm" }] }]);
    let mut only = chat(json!({ "gen_ai.output.messages": only }));
    assert_eq!(reason(&only), "output: the output holds neither text nor call");
    only.is_error = true;
    assert_eq!(episode(&only).answer, None);
}

#[test]
fn calls_without_arguments_and_results_of_several_tools_are_kept() {
    let call = |name: &str| json!({ "type": "tool_call", "id": name, "name": name });
    let result = |text: &str| json!({ "type": "tool_call_response", "id": "x", "response": text });
    let asked = json!([
        { "role": "user", "parts": [{ "type": "text", "content": "go" }] },
        { "role": "assistant", "parts": [call("f"), call("g")] },
        { "role": "user", "parts": [result("1"), result("2")] },
    ]);
    let output =
        json!([{ "role": "assistant", "parts": [call("h")], "finish_reason": "tool_call" }]);
    let episode = episode(&chat(json!({
        "gen_ai.input.messages": asked, "gen_ai.output.messages": output,
        "gen_ai.tool.definitions": "[\"f\", \"g\", \"h\"]",
    })));
    let roles: Vec<&str> = episode.turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool"]);
    let names = |calls: &[Call]| calls.iter().map(|call| call.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&episode.turns[1].tool_calls), ["f", "g"]);
    assert_eq!((&*episode.turns[2].content, &*episode.turns[3].content), ("1", "2"));
    assert_eq!(names(episode.gold.calls()), ["h"]);
    assert_eq!(episode.flags, ["answer.recorded", "gold.unchecked"]);
    assert_eq!(episode.track, "toolcall");
    assert_eq!(episode.tool_names(), ["f", "g", "h"]);
    assert!(episode.tools.iter().all(|tool| tool.parameters.is_null()));
}

#[test]
fn answers_and_questions_that_are_json_stay_what_was_said() {
    for text in ["{\"city\": \"Paris\"}", "[1, 2]", "[{\"city\": \"Paris\"}]", "7", "[not json"] {
        let asked = json!({
            "gen_ai.operation.name": "text_completion",
            "gen_ai.prompt": text, "gen_ai.completion": text,
        });
        if !text.starts_with('[') {
            assert_eq!(episode(&span(asked.clone())).turns, [Turn::text("user", text)], "{text}");
        }
        let indexed = json!({
            "gen_ai.operation.name": "chat",
            "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": text,
            "gen_ai.completion.0.content": text,
        });
        assert_eq!(episode(&span(indexed.clone())).turns, [Turn::text("user", text)]);
        assert_eq!(answer(&span(indexed)).0.as_deref(), Some(text));
        let vercel = json!({
            "ai.operationId": "ai.streamText.doStream",
            "ai.prompt.messages": "[{\"role\": \"user\", \"content\": \"hi\"}]",
            "ai.response.text": text,
        });
        assert_eq!(answer(&span(vercel)).0.as_deref(), Some(text));
        let whole = json!({
            "openinference.span.kind": "LLM", "input.value": "hi", "output.value": text,
        });
        assert_eq!(answer(&span(whole)).0.as_deref(), Some(text));
    }
}

#[test]
fn absurd_indexes_cost_nothing_and_stand_in_order() {
    let mut attributes = serde_json::Map::new();
    attributes.insert("gen_ai.operation.name".into(), "chat".into());
    for (index, text) in
        [("4000000000", "c"), ("10", "b"), ("9", "a"), ("18446744073709551616", "z")]
    {
        attributes.insert(format!("gen_ai.prompt.{index}.content"), text.into());
    }
    for index in ["+1", "-1", "", "x", "1.5", "\u{661}"] {
        attributes.insert(format!("gen_ai.prompt.{index}.content"), "z".into());
    }
    attributes.insert("gen_ai.completion.18446744073709551615.content".into(), "yo".into());
    // As many again, to show that time grows with their number only.
    for index in 0..20_000_u64 {
        let name = format!("gen_ai.prompt.{}.tool_calls.{index}.id", u64::MAX);
        attributes.insert(name, "id".into());
    }
    attributes.insert(format!("gen_ai.prompt{}", ".0".repeat(10_000)), "deep".into());
    let span = span(Value::Object(attributes.clone()));
    assert_eq!(reason(&span), "input: a call without name or arguments");
    attributes.retain(|name, _| !name.contains("tool_calls"));
    let turns = episode(&self::span(Value::Object(attributes))).turns;
    let said: Vec<&str> = turns.iter().map(|turn| turn.content.as_str()).collect();
    assert_eq!(said, ["a", "b", "c"]);
}

#[test]
fn rules_run_over_what_was_put_together_and_ids_stay() {
    let rules: Rules = "email".parse().unwrap();
    let mut span = chat(json!({
        "user.id": "me@example.org",
        "gen_ai.input.messages": json!([{ "role": "user", "parts": [
            { "type": "text", "content": "write to a@example.org and b@example.org" },
        ] }]).to_string(),
        "gen_ai.output.messages": json!([{ "role": "assistant", "parts": [
            { "type": "tool_call", "name": "mail", "arguments": { "to": "b@example.org" } },
        ] }]).to_string(),
    }));
    let source = SourceInfo::unknown(Path::new("x"));
    let apart = map(&span, &source, &rules);
    let places = span.redact(&rules);
    let mapped = map(&span, &source, &rules);
    assert_eq!((places, apart.redacted > 0, mapped.redacted), (3, true, 0));
    assert_eq!(mapped.subject.as_deref(), Some("me@example.org"));
    let episode = mapped.episode.unwrap().unwrap();
    assert_eq!(episode.query, "write to [EMAIL_1] and [EMAIL_2]");
    assert_eq!(episode.gold.calls()[0].arguments["to"], "[EMAIL_2]");
    assert_eq!(apart.episode.unwrap().unwrap().turns, episode.turns);
}

#[test]
fn numbers_that_lost_digits_are_no_arguments() {
    let call = |number: &str| {
        let call = format!(
            "[{{\"role\":\"assistant\",\"parts\":[{{\"type\":\"tool_call\",\"name\":\"f\",\
             \"arguments\":{{\"n\":{number}}}}}]}}]"
        );
        of_span(&chat(json!({ "gen_ai.output.messages": call }))).episode
    };
    assert!(call("9007199254740992").is_ok());
    assert!(call("9007199254740993").unwrap_err().contains("2^53"));
    assert!(call("100000000000000000000000").unwrap_err().contains("2^53"));
    assert!(call("1e300").is_ok());
}

/// Attributes that are read, of all conventions.
const KEYS: [&str; 44] = [
    "langfuse.observation.type",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "langfuse.observation.metadata",
    "langfuse.observation.metadata.tools",
    "langfuse.observation.usage_details",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.prompt.0.role",
    "gen_ai.prompt.0.content",
    "gen_ai.prompt.1.tool_calls.0.name",
    "gen_ai.prompt.1.tool_calls.0.arguments",
    "gen_ai.completion.0.content",
    "gen_ai.completion.0.tool_calls.9.name",
    "llm.request.functions.0.name",
    "llm.request.functions.0.parameters",
    "events",
    "llm.input_messages.0.message.role",
    "llm.input_messages.0.message.content",
    "llm.input_messages.0.message.contents.0.message_content.text",
    "llm.output_messages.0.message.content",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name",
    "llm.tools.0.tool.json_schema",
    "input.value",
    "output.value",
    "ai.prompt.messages",
    "ai.prompt",
    "ai.prompt.tools",
    "ai.response.text",
    "ai.response.toolCalls",
    "ai.response.object",
    "ai.response.finishReason",
    "input",
    "output",
    "user.id",
    "model_request_parameters",
];

/// Members of events that are read.
const MEMBERS: [&str; 4] = ["content", "role", "message", "tool_calls"];

/// Makes values of words that the conventions use, so that many of them are nearly messages.
fn value() -> impl Strategy<Value = Value> {
    let words = [
        "role",
        "content",
        "parts",
        "text",
        "type",
        "user",
        "assistant",
        "tool",
        "tool_call",
        "name",
        "arguments",
        "tool_calls",
        "message",
        "messages",
        "function",
        "{}",
        "[]",
        "reasoning",
        "blob",
        "tool_call_response",
        "response",
        "choices",
        "gen_ai.choice",
        "event.name",
        "finish_reason",
        "generation",
        "chat",
        "a@example.org",
        "input",
        "output",
        "toolUse",
        "system",
        "tools",
    ];
    let word = prop::sample::select(words.to_vec());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner.clone()), 0..5).prop_map(|members| {
                members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
            inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_makes_it_panic_and_what_is_made_can_be_stored(
        told in prop::collection::vec((prop::sample::select(KEYS.to_vec()), value()), 0..12),
        of_event in prop::collection::vec((prop::sample::select(MEMBERS.to_vec()), value()), 0..3),
        is_error in any::<bool>(),
        is_chat in any::<bool>(),
    ) {
        let attributes = told.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut span = span(Value::Object(attributes));
        if is_chat {
            span.attributes.insert("openinference.span.kind".to_owned(), "LLM".into());
        }
        span.is_error = is_error;
        let of_event = of_event.into_iter().map(|(key, value)| (key.to_owned(), value));
        let of_event: Value = of_event.collect();
        span.events = vec![
            event("gen_ai.user.message", of_event.clone()),
            event("gen_ai.choice", of_event),
        ];
        let rules: Rules = "secrets,email".parse().unwrap();
        let before = span.clone();
        if span.redact(&rules) == 0 {
            prop_assert_eq!(&span, &before);
        }
        prop_assert_eq!(span.redact(&rules), 0);
        let mapped = map(&span, &SourceInfo::unknown(Path::new("x")), &rules);
        if let Ok(Some(episode)) = mapped.episode {
            let stored = episode.to_bytes();
            prop_assert_eq!(Episode::from_stored(&stored).ok(), Some(episode));
        }
    }
}
