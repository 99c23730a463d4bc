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
use crate::episode::{Call, Tool, Turn};

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
    // A choice is left as it is, beside an empty message.
    let choice = &message["json"]["message"];
    let message = if message["role"].is_null() && choice.is_object() { choice } else { message };
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

/// Says whether a message of Langfuse's own reader tells neither who spoke nor what was said.
fn is_silent(message: &Value) -> bool {
    ["role", "content", "tool_calls", "json"].iter().all(|&key| message[key].is_null())
}

/// Reads a side of an observation, whatever stands in the other.
fn side_of(observation: &Value, side: &str) -> Vec<Turn> {
    let told = open(&observation[side]);
    if side == "input" {
        return super::super::langfuse::asked(told).unwrap().0;
    }
    let (text, tool_calls) = super::super::chat::answer_of(&told).unwrap();
    vec![Turn { tool_calls, ..Turn::text("assistant", text.unwrap_or_default()) }]
}

/// Observation in which what a tool brought is of role `tool` with us; Langfuse's reader leaves it
/// to the user, who gave it back to Gemini.
const RESULT_OF_USER: &str = "bded677884f031ce";

#[test]
fn generations_say_what_langfuse_s_own_reader_of_chats_reads() {
    let Some(exports) = exports() else { return };
    let (mut agreed, mut silent): (BTreeMap<&str, u64>, u64) = Default::default();
    for export in &exports {
        for observation in &export.observations {
            let id = observation["id"].as_str().unwrap();
            if observation["type"] != "GENERATION" {
                continue;
            }
            let span = span_of(export, observation);
            let mapped = map(&span, &SourceInfo::unknown(Path::new("x")), &Rules::none());
            // Each side is read alone below; where both can be, the episode says the same.
            if let Ok(Some(episode)) = &mapped.episode {
                let answer = episode.answer.clone().unwrap();
                let text = answer.text.unwrap_or_default();
                let said = Turn { tool_calls: answer.calls, ..Turn::text("assistant", text) };
                assert_eq!(episode.turns, side_of(observation, "input"), "{} {id}", export.name);
                assert_eq!([said], *side_of(observation, "output"), "{} {id}", export.name);
            }
            for side in ["input", "output"] {
                let theirs = &export.chatml[id][side];
                if theirs["success"] != true {
                    continue;
                }
                let theirs = theirs["data"].as_array().unwrap();
                let ours = side_of(observation, side);
                assert_eq!(ours.len(), theirs.len(), "{} {id} {side}", export.name);
                for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    if is_silent(theirs) {
                        // Agno's printed objects: see the next test.
                        assert_eq!(export.name, "agno-2025-06-11");
                        silent += 1;
                        continue;
                    }
                    let mut theirs = turn_of_chatml(theirs);
                    if (id, side, at) == (RESULT_OF_USER, "input", 3) {
                        assert_eq!(theirs.role, "user");
                        "tool".clone_into(&mut theirs.role);
                    }
                    assert_eq!(ours, &theirs, "{} {id} {side} {at}", export.name);
                }
                *agreed.entry(side).or_default() += 1;
            }
        }
    }
    assert_eq!(agreed, BTreeMap::from([("input", 15), ("output", 20)]));
    assert_eq!(silent, 6);
}

#[test]
fn the_tools_of_generations_are_those_that_langfuse_s_own_reader_finds() {
    let Some(exports) = exports() else { return };
    let mut compared = 0;
    for export in &exports {
        for observation in &export.observations {
            let theirs = &export.chatml[observation["id"].as_str().unwrap()]["input"]["data"][0];
            let Some(theirs) = theirs["tools"].as_array() else { continue };
            let span = span_of(export, observation);
            let mapped = map(&span, &SourceInfo::unknown(Path::new("x")), &Rules::none());
            let Ok(Some(episode)) = mapped.episode else { continue };
            let theirs: Vec<Tool> = theirs
                .iter()
                .map(|tool| Tool {
                    name: tool["name"].as_str().unwrap().to_owned(),
                    description: tool["description"].as_str().unwrap_or_default().to_owned(),
                    parameters: tool["parameters"].clone(),
                })
                .collect();
            assert_eq!(episode.tools, theirs, "{}", export.name);
            compared += 1;
        }
    }
    assert_eq!(compared, 10);
}

#[test]
fn what_agno_printed_is_read() {
    let Some(exports) = exports() else { return };
    let export = exports.iter().find(|export| export.name == "agno-2025-06-11").unwrap();
    let id = "b38a82eaa62b551e";
    let observation = export.observations.iter().find(|one| one["id"] == id).unwrap();
    let turns = side_of(observation, "input");
    let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!(turns[1].content, "What is currently trending on Twitter?");
    assert_eq!(turns[2].tool_calls[0].name, "duckduckgo_search");
    let arguments = Value::Object(turns[2].tool_calls[0].arguments.clone());
    assert_eq!(arguments, json!({ "query": "currently trending on Twitter" }));
    let found: Value = serde_json::from_str(&turns[3].content).unwrap();
    assert_eq!(found[0]["title"], "Twitter. It's what's happening / Twitter");
}
