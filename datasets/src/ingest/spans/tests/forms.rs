//! One exchange in all conventions.

use super::*;
use crate::episode::{Gold, Tool};

const SYSTEM: &str = "Help.";
const ASKED: &str = "Weather in Paris?";
const TEXT: &str = "Let me look.";
const BROUGHT: &str = "rainy, 57°F";

fn parameters() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } } })
}

fn arguments() -> Value {
    json!({ "city": "Paris" })
}

fn function() -> Value {
    json!({ "name": "weather", "description": "Tells it.", "parameters": parameters() })
}

fn tool() -> Value {
    json!({ "type": "function", "function": function() })
}

/// Messages as OpenAI has them.
fn openai() -> Value {
    let call = json!({ "id": "1", "type": "function", "function":
        { "name": "weather", "arguments": arguments().to_string() } });
    json!([
        { "role": "system", "content": SYSTEM },
        { "role": "user", "content": ASKED },
        { "role": "assistant", "content": TEXT, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "1", "content": BROUGHT },
        { "role": "user", "content": "And now?" },
    ])
}

fn openai_answer() -> Value {
    let call = json!({ "id": "2", "type": "function", "function":
        { "name": "weather", "arguments": arguments().to_string() } });
    json!({ "role": "assistant", "content": "Again.", "tool_calls": [call] })
}

fn genai() -> Value {
    let text = |text: &str| json!({ "type": "text", "content": text });
    let call =
        json!({ "type": "tool_call", "id": "1", "name": "weather", "arguments": arguments() });
    json!([
        { "role": "user", "parts": [text(ASKED)] },
        { "role": "assistant", "parts": [text(TEXT), call] },
        { "role": "tool",
            "parts": [{ "type": "tool_call_response", "id": "1", "response": BROUGHT }] },
        { "role": "user", "parts": [text("And now?")] },
    ])
}

fn genai_answer() -> Value {
    let call =
        json!({ "type": "tool_call", "id": "2", "name": "weather", "arguments": arguments() });
    json!([{ "role": "assistant", "finish_reason": "tool_call",
        "parts": [{ "type": "reasoning", "content": "hm" },
            { "type": "text", "content": "Again." }, call] }])
}

fn current(as_text: bool) -> Value {
    let written = |value: Value| if as_text { Value::from(value.to_string()) } else { value };
    json!({
        "gen_ai.system_instructions": written(json!([{ "type": "text", "content": SYSTEM }])),
        "gen_ai.input.messages": written(genai()),
        "gen_ai.output.messages": written(genai_answer()),
        "gen_ai.tool.definitions": written(json!([{ "type": "function", "name": "weather",
            "description": "Tells it.", "parameters": parameters() }])),
    })
}

fn with(kind: (&str, &str), attributes: Value) -> Span {
    let mut span = span(attributes);
    span.attributes.insert(kind.0.to_owned(), kind.1.into());
    span
}

const CHAT: (&str, &str) = ("gen_ai.operation.name", "chat");

/// The messages in attributes that are numbered.
fn indexed() -> Value {
    json!({
        "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": SYSTEM,
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": json!([{ "type": "text", "text": ASKED }]).to_string(),
        "gen_ai.prompt.2.role": "assistant", "gen_ai.prompt.2.content": TEXT,
        "gen_ai.prompt.2.tool_calls.0.id": "1", "gen_ai.prompt.2.tool_calls.0.name": "weather",
        "gen_ai.prompt.2.tool_calls.0.arguments": arguments().to_string(),
        "gen_ai.prompt.3.role": "tool", "gen_ai.prompt.3.content": BROUGHT,
        "gen_ai.prompt.3.tool_call_id": "1",
        "gen_ai.prompt.10.role": "user", "gen_ai.prompt.10.content": "And now?",
        "gen_ai.completion.0.role": "thinking", "gen_ai.completion.0.content": "hm",
        "gen_ai.completion.1.role": "assistant", "gen_ai.completion.1.content": "Again.",
        "gen_ai.completion.1.tool_calls.0.name": "weather",
        "gen_ai.completion.1.tool_calls.0.arguments": arguments().to_string(),
        "llm.request.functions.0.name": "weather",
        "llm.request.functions.0.description": "Tells it.",
        "llm.request.functions.0.parameters": parameters().to_string(),
    })
}

fn openinference() -> Value {
    let start = "llm.input_messages";
    let call = "message.tool_calls.0.tool_call.function";
    json!({
        format!("{start}.0.message.role"): "system",
        format!("{start}.0.message.content"): SYSTEM,
        format!("{start}.1.message.role"): "user",
        format!("{start}.1.message.contents.0.message_content.type"): "text",
        format!("{start}.1.message.contents.0.message_content.text"): ASKED,
        format!("{start}.2.message.role"): "assistant",
        format!("{start}.2.message.content"): TEXT,
        format!("{start}.2.{call}.name"): "weather",
        format!("{start}.2.{call}.arguments"): arguments().to_string(),
        format!("{start}.3.message.role"): "tool",
        format!("{start}.3.message.content"): BROUGHT,
        format!("{start}.3.message.tool_call_id"): "1",
        format!("{start}.4.message.role"): "user",
        format!("{start}.4.message.content"): "And now?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "Again.",
        format!("llm.output_messages.0.{call}.name"): "weather",
        format!("llm.output_messages.0.{call}.arguments"): arguments().to_string(),
        "llm.tools.0.tool.json_schema": tool().to_string(),
    })
}

fn vercel() -> Value {
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    let messages = json!([
        { "role": "system", "content": SYSTEM },
        { "role": "user", "content": text(ASKED) },
        { "role": "assistant", "content": [{ "type": "text", "text": TEXT }, { "type": "tool-call",
            "toolCallId": "1", "toolName": "weather", "input": arguments() }] },
        { "role": "tool", "content": [{ "type": "tool-result", "toolCallId": "1",
            "toolName": "weather", "output": { "type": "text", "value": BROUGHT } }] },
        { "role": "user", "content": text("And now?") },
    ]);
    let tool = json!({ "type": "function", "name": "weather", "description": "Tells it.",
        "inputSchema": parameters() });
    json!({
        "ai.prompt.messages": messages.to_string(),
        "ai.prompt.tools": [tool.to_string()],
        "ai.response.text": "Again.",
        "ai.response.toolCalls": json!([{ "toolCallId": "2", "toolName": "weather",
            "input": arguments().to_string() }]).to_string(),
        "ai.response.finishReason": "tool-calls",
    })
}

/// The messages as events; `of` says how the attributes of one are written.
fn events(of: fn(&str, Value) -> SpanEvent) -> Span {
    let mut span = with(CHAT, json!({ "gen_ai.tool.definitions": [function()] }));
    let Value::Array(messages) = openai() else { return span };
    for message in messages {
        let name = format!("gen_ai.{}.message", message["role"].as_str().unwrap());
        span.events.push(of(&name, message));
    }
    let choice = json!({ "index": 0, "finish_reason": "tool_calls", "message": openai_answer() });
    span.events.push(of("gen_ai.choice", choice));
    span
}

fn flat(name: &str, message: Value) -> SpanEvent {
    event(name, message)
}

fn as_texts(name: &str, message: Value) -> SpanEvent {
    let text = |value: &Value| match value {
        Value::Array(_) | Value::Object(_) => Value::from(value.to_string()),
        other => other.clone(),
    };
    let members = message.as_object().unwrap().iter();
    event(name, members.map(|(key, value)| (key.clone(), text(value))).collect())
}

fn in_one(name: &str, message: Value) -> SpanEvent {
    event(name, json!({ "gen_ai.event.content": message.to_string() }))
}

fn in_attribute() -> Span {
    let all = events(flat).events.into_iter().map(|event| {
        let mut told = event.attributes;
        told.insert("event.name".to_owned(), event.name.into());
        Value::Object(told)
    });
    let all: Value = all.collect();
    let tools = json!({ "function_tools": [{ "name": "weather", "description": "Tells it.",
        "parameters_json_schema": parameters() }] });
    let told = json!({
        "events": all.to_string(), "model_request_parameters": tools.to_string(),
    });
    with(CHAT, told)
}

/// The same exchange in all forms.
fn all() -> Vec<(&'static str, &'static str, Span)> {
    let (request, reply) = (
        json!({ "model": "m", "messages": openai(), "tools": [tool()] }),
        json!({ "id": "r", "choices": [{ "index": 0, "message": openai_answer() }] }),
    );
    let tools = || json!([tool()]);
    let mut details = with(CHAT, json!({ "gen_ai.tool.definitions": tools() }));
    details.events = vec![event("gen_ai.client.inference.operation.details", current(true))];
    let mut content = with(CHAT, json!({ "gen_ai.tool.definitions": tools() }));
    content.events = vec![
        event("gen_ai.content.prompt", json!({ "gen_ai.prompt": openai().to_string() })),
        event(
            "gen_ai.content.completion",
            json!({ "gen_ai.completion": json!([openai_answer()]).to_string() }),
        ),
    ];
    let prompt = json!({
        "gen_ai.prompt": request.to_string(), "gen_ai.completion": reply.to_string(),
    });
    let whole = json!({ "input.value": request.to_string(), "output.value": reply.to_string() });
    let langfuse = json!({
        "langfuse.observation.input": request.to_string(),
        "langfuse.observation.output": openai_answer().to_string(),
    });
    let pulled = json!({
        "langfuse.observation.input": openai(), "langfuse.observation.output": reply,
        "langfuse.observation.metadata":
            json!({ "attributes": { "gen_ai.tool.definitions": tools() } }).to_string(),
    });
    let spread = json!({
        "langfuse.observation.input": openai(), "langfuse.observation.output": openai_answer(),
        "langfuse.observation.metadata.tools": tools().to_string(),
    });
    let plain = json!({ "input": request.to_string(), "output": openai_answer().to_string() });
    let generation = ("langfuse.observation.type", "generation");
    let llm = ("openinference.span.kind", "LLM");
    let vercel_kind = ("ai.operationId", "ai.generateText.doGenerate");
    vec![
        ("values", "genai", with(CHAT, current(false))),
        ("texts", "genai", with(CHAT, current(true))),
        ("mastra", "genai", with(("mastra.span.type", "model_generation"), current(true))),
        ("details", "genai", details),
        ("flat events", "genai-events", events(flat)),
        ("events of texts", "genai-events", events(as_texts)),
        ("events in one", "genai-events", events(in_one)),
        ("an attribute of events", "genai-events", in_attribute()),
        ("indexed", "genai-indexed", with(("llm.request.type", "chat"), indexed())),
        ("prompt", "genai-prompt", with(CHAT, prompt)),
        ("content events", "genai-prompt", content),
        ("vercel", "vercel", with(vercel_kind, vercel())),
        ("openinference", "openinference", with(llm, openinference())),
        ("openinference whole", "openinference", with(llm, whole)),
        ("langfuse", "langfuse", with(generation, langfuse)),
        ("langfuse pulled", "langfuse", with(generation, pulled)),
        ("langfuse spread", "langfuse", with(generation, spread)),
        ("langfuse of genai", "genai", with(generation, current(true))),
        ("plain", "none", with(CHAT, plain)),
    ]
}

#[test]
fn one_exchange_says_the_same_in_all_forms() {
    let call =
        Call { name: "weather".to_owned(), arguments: arguments().as_object().unwrap().clone() };
    let turns = vec![
        Turn::text("system", SYSTEM),
        Turn::text("user", ASKED),
        Turn { tool_calls: vec![call.clone()], ..Turn::text("assistant", TEXT) },
        Turn::text("tool", BROUGHT),
        Turn::text("user", "And now?"),
    ];
    let tool = Tool {
        name: "weather".to_owned(),
        description: "Tells it.".to_owned(),
        parameters: parameters(),
    };
    let mut contents = std::collections::BTreeSet::new();
    for (name, form, span) in all() {
        let mapped = of_span(&span);
        assert_eq!((mapped.role, mapped.form), (Role::Generation, form), "{name}");
        let episode = mapped.episode.unwrap().unwrap();
        assert_eq!(episode.turns, turns, "{name}");
        assert_eq!(episode.tools, std::slice::from_ref(&tool), "{name}");
        let answer = episode.answer.as_ref().unwrap();
        assert_eq!(answer.text.as_deref(), Some("Again."), "{name}");
        assert_eq!(answer.calls, std::slice::from_ref(&call), "{name}");
        assert_eq!(episode.gold, Gold::Calls { calls: vec![call.clone()] }, "{name}");
        assert_eq!((episode.query.as_str(), episode.track.as_str()), ("And now?", "toolcall"));
        assert_eq!(episode.flags, ["answer.recorded", "gold.unchecked"], "{name}");
        contents.insert(episode.content_digest());
    }
    assert_eq!(contents.len(), 1);
}

#[test]
fn a_form_that_tells_half_gives_way_to_one_that_tells_all() {
    let mut both = with(CHAT, openinference());
    both.attributes.insert("gen_ai.input.messages".to_owned(), genai());
    let mapped = of_span(&both);
    assert_eq!(mapped.form, "openinference");
    assert!(mapped.episode.is_ok());
    let half = with(CHAT, json!({ "gen_ai.input.messages": genai() }));
    assert_eq!(of_span(&half).form, "genai");
    assert_eq!(reason(&half), "output: no output");
    let other = with(CHAT, json!({ "gen_ai.output.messages": genai_answer() }));
    assert_eq!(reason(&other), "input: nothing is told of what was asked");
    let failed = Span { is_error: true, ..half };
    assert_eq!(episode(&failed).flags, ["outcome.failure"]);
    assert_eq!((episode(&failed).answer, episode(&failed).gold), (None, Gold::None));
}

#[test]
fn what_gemini_is_told_and_offered_in_a_whole_request_is_read() {
    let request = json!({
        "model": "m", "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }],
        "config": {
            "system_instruction": { "parts": [{ "text": "Be brief." }] },
            "tools": [{ "function_declarations": [{ "name": "f" }] }],
        },
    });
    let read = episode(&span(json!({
        "openinference.span.kind": "LLM", "input.value": request.to_string(), "output.value": "yo",
    })));
    assert_eq!(read.turns, [Turn::text("system", "Be brief."), Turn::text("user", "hi")]);
    assert_eq!(read.tool_names(), ["f"]);
}
