//! Recorded exchanges against what the provider's own reply says.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use serde_json::{Map, Value};

use super::shared_tests::shared;
use super::{Format, SourceInfo, read};
use crate::episode::Call;

/// What a reply says, read apart from the reader: text and calls.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    text: String,
    calls: Vec<Call>,
}

impl Reply {
    fn call(&mut self, name: &Value, arguments: &str) {
        let arguments: Map<String, Value> = match arguments {
            "" => Map::new(),
            text => serde_json::from_str(text).unwrap(),
        };
        self.calls.push(Call { name: name.as_str().unwrap().to_owned(), arguments });
    }

    fn add(&mut self, text: &Value) {
        self.text.push_str(text.as_str().unwrap_or_default());
    }
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Reads a reply that came whole, of the provider whose members it has.
fn whole(body: &Value) -> (&'static str, Reply) {
    let mut reply = Reply::default();
    let first = &body["choices"][0];
    if let Some(message) = first.get("message") {
        reply.add(&message["content"]);
        if reply.text.is_empty() {
            reply.add(&message["refusal"]);
        }
        for call in each(&message["tool_calls"]) {
            let function = &call["function"];
            reply.call(&function["name"], function["arguments"].as_str().unwrap());
        }
        let old = &message["function_call"];
        if old.is_object() {
            reply.call(&old["name"], old["arguments"].as_str().unwrap());
        }
        return ("chat completions", reply);
    }
    if first.get("text").is_some() {
        reply.add(&first["text"]);
        return ("completions", reply);
    }
    if body["object"] == "response" {
        for item in each(&body["output"]) {
            match item["type"].as_str().unwrap() {
                "message" => each(&item["content"]).for_each(|part| reply.add(&part["text"])),
                "function_call" => {
                    reply.call(&item["name"], item["arguments"].as_str().unwrap());
                }
                _ => {}
            }
        }
        return ("responses", reply);
    }
    if body["type"] == "message" {
        let mut blocks = Vec::new();
        for block in each(&body["content"]) {
            match block["type"].as_str().unwrap() {
                "text" => blocks.push(block["text"].as_str().unwrap()),
                "tool_use" => reply.call(&block["name"], &block["input"].to_string()),
                _ => {}
            }
        }
        reply.text = blocks.join("\n");
        return ("messages", reply);
    }
    reply.add(&body["completion"]);
    ("complete", reply)
}

/// Reads a reply that came as a stream of events, delta by delta.
fn streamed(text: &str) -> (&'static str, Reply) {
    let mut reply = Reply::default();
    let mut kind = "none";
    // Calls by their place in the answer: name and arguments.
    let mut calls: BTreeMap<u64, (Value, String)> = BTreeMap::new();
    let mut blocks: BTreeMap<u64, String> = BTreeMap::new();
    let data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    for data in data.filter(|data| *data != "[DONE]") {
        let event: Value = serde_json::from_str(data).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let at = |value: &Value| value.as_u64().unwrap();
        for choice in each(&event["choices"]).filter(|choice| choice["index"] == 0) {
            kind = if choice.get("delta").is_some() { "chat completions" } else { "completions" };
            reply.add(&choice["text"]);
            reply.add(&choice["delta"]["content"]);
            for call in each(&choice["delta"]["tool_calls"]) {
                let function = &call["function"];
                let known = calls.entry(at(&call["index"])).or_default();
                if function["name"].is_string() {
                    known.0 = function["name"].clone();
                }
                known.1.push_str(&text(&function["arguments"]));
            }
        }
        match event["type"].as_str().unwrap_or_default() {
            "content_block_start" => {
                kind = "messages";
                let block = &event["content_block"];
                match block["type"].as_str().unwrap() {
                    "tool_use" => {
                        calls.insert(at(&event["index"]), (block["name"].clone(), String::new()));
                    }
                    "text" => drop(blocks.insert(at(&event["index"]), text(&block["text"]))),
                    _ => {}
                }
            }
            "content_block_delta" => {
                let (index, delta) = (at(&event["index"]), &event["delta"]);
                if let Some(call) = calls.get_mut(&index) {
                    call.1.push_str(&text(&delta["partial_json"]));
                }
                if let Some(block) = blocks.get_mut(&index) {
                    block.push_str(&text(&delta["text"]));
                }
            }
            "response.output_text.delta" | "response.refusal.delta" => reply.add(&event["delta"]),
            "response.created" => kind = "responses",
            "response.output_item.done" if event["item"]["type"] == "function_call" => {
                let item = &event["item"];
                reply.call(&item["name"], item["arguments"].as_str().unwrap());
            }
            _ => {}
        }
    }
    if !blocks.is_empty() {
        reply.text = blocks.into_values().collect::<Vec<_>>().join("\n");
    }
    calls.values().for_each(|(name, arguments)| reply.call(name, arguments));
    (kind, reply)
}

#[test]
fn answers_are_those_of_the_provider_s_own_members() {
    let Some(path) = shared("openllmetry/llm_http_exchanges.jsonl") else { return };
    let open = || BufReader::new(File::open(&path).unwrap());
    let lines: Vec<Value> =
        open().lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let source = SourceInfo::of_file(&path).unwrap();
    let mut compared: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    let mut calls = 0;
    let mut unreadable = Vec::new();
    for row in read(open(), &source, &Format::Exchange.into()).map(Result::unwrap) {
        let line = &lines[row.location.row as usize - 1];
        let episodes = match row.result {
            Ok(episodes) => episodes,
            Err(reason) => {
                unreadable.push(reason);
                continue;
            }
        };
        let (kind, reply) = match &line["response"] {
            Value::String(text) => streamed(text),
            body => whole(body),
        };
        let answer = episodes[0].answer.as_ref().unwrap();
        let ours =
            Reply { text: answer.text.clone().unwrap_or_default(), calls: answer.calls.clone() };
        assert_eq!(ours, reply, "{kind}, row {}", row.location.row);
        calls += reply.calls.len();
        *compared.entry((kind, line["response"].is_string())).or_default() += 1;
    }
    let expected = [
        (("chat completions", false), 105),
        (("chat completions", true), 30),
        (("complete", false), 1),
        (("completions", false), 20),
        (("completions", true), 6),
        (("messages", false), 12),
        (("messages", true), 15),
        (("responses", false), 40),
        (("responses", true), 25),
    ];
    assert_eq!(compared, BTreeMap::from(expected));
    assert_eq!(calls, 51);
    // What a request with an image asks, and one that begins with a call, is not read.
    let media = unreadable.iter().filter(|reason| reason.contains("image")).count();
    let without = unreadable.iter().filter(|reason| reason.contains("message of a user")).count();
    assert_eq!((media, without, unreadable.len()), (2, 6, 8));
}
