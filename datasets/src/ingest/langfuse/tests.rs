//! Inputs of generations in forms of their own, written for these tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::episode::Turn;

fn read(input: Value) -> Result<Episode, String> {
    let source = SourceInfo::unknown(Path::new("x"));
    let location = Location { file: String::new(), row: 1 };
    let observation = json!({ "id": "o", "input": input, "output": "yo" });
    let begin = |id: &str| start(&source, location, Format::LangfuseExport, id.to_owned());
    episode(&observation, begin)
}

fn turns(input: Value) -> Vec<(String, String)> {
    let turns = read(input).unwrap().turns;
    assert!(turns.iter().all(|turn| turn.tool_calls.is_empty()));
    turns.into_iter().map(|Turn { role, content, .. }| (role, content)).collect()
}

fn tool(text: &str) -> (String, String) {
    ("tool".to_owned(), text.to_owned())
}

#[test]
fn what_a_tool_brought_is_kept_whatever_it_is() {
    let list = json!([{ "url": "u", "text": "t" }, { "name": "f", "input": { "x": 1 } }]);
    let parts = json!([{ "type": "text", "text": "a" }, { "text": "b" }]);
    let response = |key: &str, value: &Value| {
        let kind = "tool_call_response";
        json!({ "type": kind, "id": "1", "content": null, key: value })
    };
    let asked = json!([{ "role": "user", "parts": [
        response("result", &list),
        response("response", &parts),
        { "functionResponse": { "name": "f", "response": { "parts": [1], "text": "t" } } },
        { "type": "tool_result", "tool_use_id": "2" },
    ] }]);
    let brought = [&*list.to_string(), "a\nb", "{\"parts\":[1],\"text\":\"t\"}", ""].map(tool);
    assert_eq!(turns(asked.clone()), brought);
    assert_eq!(turns(json!({ "messages": asked.to_string() })), brought);
    let image = json!([{ "type": "image", "source": {} }]);
    let inline = json!([{ "inlineData": { "data": "" } }]);
    for part in [
        response("result", &image),
        response("response", &image),
        json!({ "functionResponse": { "name": "f", "response": {}, "parts": inline } }),
    ] {
        let reason = read(json!([{ "role": "user", "parts": [part] }])).unwrap_err();
        assert!(reason.contains("an image"), "{reason}");
    }
}

#[test]
fn what_gemini_is_told_stands_first() {
    let hi = json!({ "role": "user", "parts": [{ "text": "hi" }] });
    let said = [("system", "Be brief."), ("user", "hi")];
    let said = said.map(|(role, text)| (role.to_owned(), text.to_owned()));
    for told in [
        json!("Be brief."),
        json!({ "text": "Be brief." }),
        json!({ "role": "user", "parts": [{ "text": "Be brief." }] }),
        json!([{ "text": "Be brief." }]),
        json!(["Be brief."]),
    ] {
        for contents in [json!([hi]), hi.clone(), json!("hi"), json!(["hi"])] {
            let config = json!({ "system_instruction": told });
            let asked = json!({ "model": "m", "config": config, "contents": contents });
            assert_eq!(turns(asked), said);
            let bare = json!({ "systemInstruction": told, "contents": contents });
            assert_eq!(turns(bare), said);
        }
    }
    for config in [json!({}), json!({ "system_instruction": "" })] {
        assert_eq!(turns(json!({ "config": config, "contents": [hi] })), said[1..]);
    }
    let offered = json!([{ "function_declarations": [{ "name": "f" }, { "name": "g" }] }]);
    let asked = json!({ "config": { "tools": offered }, "contents": [hi] });
    assert_eq!(read(asked).unwrap().tool_names(), ["f", "g"]);
}

#[test]
fn schemas_between_messages_are_tools_and_results_are_not() {
    let function = json!({ "type": "function", "function": { "name": "f", "parameters": {} } });
    let anthropic = json!({ "name": "g", "input_schema": { "type": "object" } });
    let asked = json!([
        { "role": "user", "content": "hi" },
        { "role": "tool", "content": function.to_string(), "tool_call_id": "1" },
        { "role": "tool", "content": function },
        { "role": "tool", "content": anthropic },
    ]);
    let episode = read(asked).unwrap();
    assert_eq!(episode.tool_names(), ["f", "g"]);
    assert_eq!(episode.track, "toolcall");
    assert_eq!(
        episode.turns,
        [Turn::text("user", "hi"), Turn::text("tool", function.to_string()),]
    );
}
