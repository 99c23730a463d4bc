//! Real spans and observations, where they are at hand, against what stands beside them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::shared_tests::shared;
use super::super::{Format, read};
use super::tests::{mapped, span};
use super::*;
use crate::episode::{Call, Turn};

fn json_at(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What an episode says, without where it came from.
type Said = (Vec<Turn>, Option<String>, Vec<Call>);

fn said(episode: &Episode) -> Said {
    let answer = episode.answer.as_ref().unwrap();
    (episode.turns.clone(), answer.text.clone(), answer.calls.clone())
}

#[test]
fn the_forms_of_openinference_s_exchange_say_the_same() {
    let Some(folder) = shared("openinference") else { return };
    let call = Call {
        name: "get_weather".to_owned(),
        arguments: json!({ "location": "Paris" }).as_object().unwrap().clone(),
    };
    let asked = "Absolutely! Let me check the weather for you.";
    let turns = vec![
        Turn::text("user", "Weather in Paris?"),
        Turn { tool_calls: vec![call], ..Turn::text("assistant", asked) },
        Turn::text("tool", "rainy, 57°F"),
    ];
    let answer = "The weather in Paris is currently rainy with a temperature of 57°F.";
    for (name, form) in [
        ("openinference_client_span_input_output_only", "openinference"),
        ("openinference_client_span_tool_calls", "openinference"),
        ("otel_genai_client_span_tool_calls", "genai"),
        ("otel_genai_deprecated_client_span_tool_calls", "genai-prompt"),
    ] {
        let file = format!("openinference-genai____fixtures___{name}.json");
        let attributes = json_at(&folder.join(file));
        let mapped = mapped(attributes.clone());
        assert_eq!((mapped.role, mapped.form), (Role::Generation, form), "{name}");
        let episode = mapped.episode.unwrap().unwrap();
        assert_eq!(said(&episode), (turns.clone(), Some(answer.to_owned()), Vec::new()), "{name}");
        assert_eq!(mapped.usage, json!({ "input": 97, "output": 52 }));
        assert_eq!(mapped.model.as_deref(), Some("gpt-4-0613"));
        // What stands beside the messages says the same.
        for other in ["input", "output"] {
            let mut plain = Map::new();
            let keys = ["gen_ai.operation.name", "openinference.span.kind"];
            let all = attributes.as_object().unwrap();
            for key in
                keys.iter().copied().chain(["input", "output", "input.value", "output.value"])
            {
                plain.extend(all.get(key).map(|value| (key.to_owned(), value.clone())));
            }
            if plain.keys().any(|key| key.starts_with(other)) {
                let read = super::tests::mapped(Value::Object(plain)).episode.unwrap().unwrap();
                assert_eq!(said(&read), said(&episode), "{name}");
            }
        }
    }
    let tool = "openinference-genai____fixtures___otel_genai_tool_execution_span.json";
    let mapped = mapped(json_at(&folder.join(tool)));
    assert_eq!((mapped.role, mapped.episode), (Role::Tool, Ok(None)));
}

#[test]
fn the_inner_spans_of_vercel_are_calls_and_the_outer_ones_are_not() {
    let Some(folder) = shared("openinference") else { return };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().contains("v6-spans_ai-"));
    files.sort();
    let (mut inner, mut outer, mut embeddings) = (0, 0, 0);
    for path in files {
        for told in json_at(&path).as_array().unwrap() {
            let told_of = |key: &str| told["attributes"][key].as_str().map(str::to_owned);
            let operation = told_of("ai.operationId").unwrap();
            let mut whole = span(told["attributes"].clone());
            assert_eq!(whole.redact(&Rules::secrets()), 0, "nothing here is secret");
            let mapped = mapped(told["attributes"].clone());
            if operation.contains("embed") {
                assert_eq!((mapped.role, mapped.episode), (Role::Embedding, Ok(None)));
                embeddings += 1;
                continue;
            }
            if !operation.contains(".do") {
                assert_eq!((mapped.role, mapped.episode), (Role::Chain, Ok(None)));
                outer += 1;
                continue;
            }
            assert_eq!((mapped.role, mapped.form), (Role::Generation, "vercel"));
            let episode = mapped.episode.unwrap().unwrap();
            let answer = episode.answer.unwrap();
            let text = told_of("ai.response.text").or(told_of("ai.response.object"));
            assert_eq!(answer.text, text);
            assert_eq!(answer.model, "gpt-4o-mini-2024-07-18");
            let asked = serde_json::from_str::<Value>(&told_of("ai.prompt.messages").unwrap());
            assert_eq!(asked.unwrap().as_array().unwrap().len(), episode.turns.len());
            assert!(mapped.aliases.contains(&told_of("ai.response.id").unwrap()));
            assert_eq!(episode.source.format, "otel-vercel");
            inner += 1;
        }
    }
    assert_eq!((inner, outer, embeddings), (4, 4, 2));
}

/// An export of Langfuse, with what its own reader of chats made of it.
struct Export {
    name: String,
    path: PathBuf,
    trace: Value,
    observations: Vec<Value>,
    chatml: Value,
}

fn exports() -> Option<Vec<Export>> {
    let folder = shared("langfuse_traces")?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".trace.json") else { continue };
        let export = json_at(&path);
        all.push(Export {
            name: name.to_owned(),
            trace: export["trace"].clone(),
            observations: export["observations"].as_array().unwrap().clone(),
            chatml: json_at(&path.with_file_name(format!("{name}.chatml.json"))),
            path,
        });
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(all.len(), 10);
    Some(all)
}

/// Writes an observation as a span, as whoever fetches it does.
fn span_of(export: &Export, observation: &Value) -> Span {
    let mut attributes = Map::new();
    let told = [
        ("type", "type"),
        ("input", "input"),
        ("output", "output"),
        ("level", "level"),
        ("model.name", "model"),
        ("usage_details", "usageDetails"),
        ("metadata", "metadata"),
    ];
    for (key, member) in told {
        let value = observation.get(member).filter(|value| !value.is_null());
        attributes
            .extend(value.map(|value| (format!("langfuse.observation.{key}"), value.clone())));
    }
    for (key, member) in [("user.id", "userId"), ("session.id", "sessionId")] {
        let value = export.trace.get(member).filter(|value| !value.is_null());
        attributes.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Span {
        trace_id: text(&export.trace["id"]),
        span_id: text(&observation["id"]),
        ..span(Value::Object(attributes))
    }
}

#[test]
fn observations_as_spans_say_what_the_reader_of_exports_reads() {
    let Some(exports) = exports() else { return };
    let (mut same, mut rejected) = (0, 0);
    for export in &exports {
        let source = SourceInfo::unknown(Path::new("x"));
        let input = BufReader::new(File::open(&export.path).unwrap());
        let reading = Format::LangfuseExport.into();
        for row in read(input, &source, &reading).map(Result::unwrap) {
            let observation = &export.observations[row.location.row as usize - 1];
            let span = span_of(export, observation);
            let mapped = map(&span, &source, &Rules::none());
            assert_eq!((mapped.role, mapped.form), (Role::Generation, "langfuse"));
            match row.result {
                Ok(read) => {
                    assert_eq!(read.len(), 1);
                    let read = &read[0];
                    let mut episode = mapped.episode.unwrap().unwrap();
                    assert_eq!(episode.source.external_id, read.source.external_id);
                    assert_eq!(episode.source.format, "langfuse");
                    episode.source.clone_from(&read.source);
                    assert_eq!(&episode, read, "{}", export.name);
                    same += 1;
                }
                Err(reason) => {
                    assert_eq!(mapped.episode, Err(reason), "{}", export.name);
                    rejected += 1;
                }
            }
        }
    }
    assert_eq!((same, rejected), (17, 3));
}

/// What a message of Langfuse's own reader says, as we would say it.
fn turn_of_chatml(message: &Value) -> Turn {
    let role = match message["role"].as_str().unwrap_or_default() {
        "model" => "assistant",
        "developer" => "system",
        role => role,
    };
    let mut turn = Turn::text(role, "");
    let call = |name: &Value, arguments: &Value| {
        let arguments = match arguments {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        };
        Call {
            name: name.as_str().unwrap().to_owned(),
            arguments: arguments.as_object().unwrap().clone(),
        }
    };
    match &message["content"] {
        Value::Array(parts) => {
            for part in parts {
                match part["type"].as_str() {
                    Some("tool_use") => turn.tool_calls.push(call(&part["name"], &part["input"])),
                    _ => turn.content.push_str(part["text"].as_str().unwrap()),
                }
            }
        }
        content => turn.content.push_str(content.as_str().unwrap_or_default()),
    }
    for told in message["tool_calls"].as_array().into_iter().flatten() {
        turn.tool_calls.push(call(&told["name"], &told["arguments"]));
    }
    turn
}

/// The input holds no messages that can be read, so that there is no episode at all: an agent's
/// printed objects, or `{"content": "role"}`. Langfuse's reader takes each side alone, and of the
/// printed objects it keeps neither role nor text.
const NO_INPUT: &str = "no episode";
/// What a tool brought is of role `tool` with us; Langfuse's reader leaves it to the user, who gave
/// it back to Gemini.
const RESULT: &str = "a result";
/// Langfuse's reader keeps the choice as JSON beside an empty message; we read the message in it.
const CHOICE: &str = "a choice";

/// Where we read another thing than Langfuse's own reader, and why.
const DIFFERENCES: [(&str, &str, &str, &str); 9] = [
    ("agno-2025-06-11", "b38a82eaa62b551e", "input", NO_INPUT),
    ("agno-2025-06-11", "b38a82eaa62b551e", "output", NO_INPUT),
    ("agno-2025-06-11", "ca136de468e156c9", "input", NO_INPUT),
    ("agno-2025-06-11", "ca136de468e156c9", "output", NO_INPUT),
    ("claude-agent-2025-12-22", "371496f71d82baed", "output", NO_INPUT),
    ("claude-agent-2025-12-22", "f8e8f040dc94e67e", "output", NO_INPUT),
    ("claude-agent-2025-12-22", "2cc13e77781787fd", "output", NO_INPUT),
    ("google-adk-2025-08-28", "bded677884f031ce", "input", RESULT),
    ("pydantic-ai-2025-06-06", "5cb389a3bdd21a6e", "output", CHOICE),
];

#[test]
fn generations_say_what_langfuse_s_own_reader_of_chats_reads() {
    let Some(exports) = exports() else { return };
    let mut agreed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut differ: Vec<(String, String, &str)> = Vec::new();
    for export in &exports {
        for observation in &export.observations {
            let id = observation["id"].as_str().unwrap();
            if observation["type"] != "GENERATION" {
                continue;
            }
            let mapped = map(
                &span_of(export, observation),
                &SourceInfo::unknown(Path::new("x")),
                &Rules::none(),
            );
            for side in ["input", "output"] {
                let theirs = &export.chatml[id][side];
                if theirs["success"] != true {
                    continue;
                }
                let theirs: Vec<Turn> =
                    theirs["data"].as_array().unwrap().iter().map(turn_of_chatml).collect();
                let ours = mapped.episode.as_ref().ok().and_then(Option::as_ref);
                let ours = ours.map(|episode| match side {
                    "input" => episode.turns.clone(),
                    _ => {
                        let answer = episode.answer.clone().unwrap();
                        let text = answer.text.unwrap_or_default();
                        vec![Turn { tool_calls: answer.calls, ..Turn::text("assistant", text) }]
                    }
                });
                if ours.as_ref() == Some(&theirs) {
                    *agreed.entry(side).or_default() += 1;
                } else {
                    differ.push((export.name.clone(), id.to_owned(), side));
                }
            }
        }
    }
    let expected = DIFFERENCES.map(|(name, id, side, _)| (name.to_owned(), id.to_owned(), side));
    assert_eq!(differ, expected);
    assert_eq!(agreed, BTreeMap::from([("input", 12), ("output", 14)]));
}
