//! What the readers of single rows make of them.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::tests::{read_all, reason};
use super::*;
use crate::episode::{Call, Gold};
use crate::samples::rows;

fn one(row: &Value, format: Format) -> Result<Episode, String> {
    let row = read_all(row.to_string().as_bytes(), format).remove(0);
    row.result.map(|mut episodes| episodes.remove(0))
}

fn called(episode: &Episode) -> Vec<(&str, String)> {
    let calls = episode.gold.calls().iter();
    calls.map(|Call { name, arguments }| (name.as_str(), json!(arguments).to_string())).collect()
}

#[test]
fn the_workflow_sample_gives_calls_texts_and_failures() {
    let rows = rows("workflow/all_traces.jsonl");
    assert_eq!(rows.len(), 8);
    assert_eq!(reason(&rows[7]), "neither an answer nor a call, and no failure");
    let read: Vec<&Episode> =
        rows[..7].iter().map(|row| &row.result.as_ref().unwrap()[0]).collect();
    let ids: std::collections::BTreeSet<&str> =
        read.iter().map(|episode| episode.source.external_id.as_str()).collect();
    assert_eq!(ids.len(), 7);
    assert_eq!(called(read[0])[0].0, "delegate", "the call stands in the text");
    assert_eq!(called(read[1])[0].0, "book_table");
    assert_eq!(read[1].gold.calls()[0].arguments["guests"], 4);
    let text = "I can book tables, look up opening hours and cancel bookings.";
    assert_eq!(read[2].gold, Gold::Text { text: text.to_owned() });
    assert_eq!((read[2].track.as_str(), read[2].schema), ("chat", 2));
    assert_eq!(
        called(read[4]).iter().map(|call| call.0).collect::<Vec<_>>(),
        ["opening_hours", "holidays"]
    );
    assert_eq!(called(read[6]), [("cancel_booking", "{\"booking\":5512}".to_owned())]);
    for place in [0, 1, 2, 4, 6] {
        let flags = ["answer.recorded", "gold.unchecked", "outcome.success"];
        assert_eq!(read[place].flags, flags, "{place}");
    }
    // A failure keeps what was said, and is nobody's gold.
    assert_eq!(read[3].gold, Gold::None);
    assert_eq!(read[3].flags, ["answer.recorded", "outcome.failure"]);
    assert_eq!(read[3].answer.as_ref().unwrap().calls[0].name, "book_table");
    assert_eq!((&read[5].gold, &read[5].answer), (&Gold::None, &None));
    assert_eq!(read[5].flags, ["outcome.failure"]);
    assert_eq!(read[0].answer.as_ref().unwrap().model, "small-router-1");
    assert_eq!((read[0].turns.len(), read[4].turns.len()), (2, 1));
    assert_eq!(read[1].query, "Table for four at Mirabel, Friday 19:30");
    assert_eq!(read[0].licence, "MIT OR Apache-2.0");
}

#[test]
fn workflow_rows_that_cannot_be_read_say_why() {
    let row = |calls: Value, response: Value| {
        json!({ "agent_type": "sub_agent", "user_query": "q", "assistant_response": response,
            "tool_calls": calls, "success": true })
    };
    let said = |calls: Value, response: Value| {
        one(&row(calls, response), Format::WorkflowLog).unwrap_err()
    };
    assert_eq!(said(json!(7), json!("x")), "field \"tool_calls\" is no list of calls");
    let unread = "a call has no name or no arguments that can be read";
    assert_eq!(said(json!([{ "name": "zeppelin" }]), json!("x")), unread);
    assert_eq!(said(json!([]), json!(7)), "field \"assistant_response\" is no text");
    let broken = said(json!([]), json!("<tool_call name=\"zeppelin\">{broken"));
    assert!(broken.starts_with("gold: call 1 cannot be read: "), "{broken}");
    assert!(!broken.contains("zeppelin"), "{broken}");
    let open = "<tool_call name=\"zeppelin\">{broken";
    for gold in [open, "<tool_call>zeppelin</tool_call>", "zeppelin"] {
        let row = json!({ "prompt": "Do.", "completion": gold });
        let said = one(&row, Format::PromptCompletion).unwrap_err();
        assert!(said.starts_with("gold: ") && !said.contains("zeppelin"), "{said}");
    }
    let blank = json!({ "agent_type": "a", "user_query": " ", "assistant_response": "x" });
    assert_eq!(one(&blank, Format::WorkflowLog).unwrap_err(), "field \"user_query\" is blank");
    let untold = json!({ "agent_type": "a", "user_query": "q", "assistant_response": "x" });
    let untold = one(&untold, Format::WorkflowLog).unwrap();
    assert_eq!(untold.flags, ["answer.recorded", "gold.unchecked"]);
    assert_eq!(untold.answer.unwrap().model, "unknown");
}

#[test]
fn trajectories_give_an_episode_for_each_answer_that_calls() {
    let rows = rows("tau_bench/airline.json");
    assert_eq!(rows.iter().map(|row| row.location.row).collect::<Vec<_>>(), [1, 2, 3]);
    let read: Vec<&Vec<Episode>> = rows.iter().map(|row| row.result.as_ref().unwrap()).collect();
    assert_eq!(read.iter().map(|episodes| episodes.len()).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(read[0][0].flags, ["outcome.success"]);
    assert_eq!(read[1][0].flags, ["gold.unchecked", "outcome.failure"]);
    assert_eq!(read[2][0].flags, ["outcome.success"]);
    assert_eq!((&read[2][0].gold, read[2][0].track.as_str()), (&Gold::None, "chat"));
    assert!(read[0][0].source.external_id.starts_with("48/1#"));
    let second = &read[0][1];
    assert_eq!(second.gold.calls().len(), 1);
    let first_call = read[0][0].turns.len();
    assert_eq!(second.turns[first_call].tool_calls, read[0][0].gold.calls());
    assert_eq!(second.turns[first_call + 1].role, "tool");
    assert!(!second.query.is_empty() && second.turns[0].role == "system");
}

#[test]
fn trajectories_that_cannot_be_read_say_why() {
    let said = |row: Value| one(&row, Format::TauBench).unwrap_err();
    let turns = json!([{ "role": "user", "content": "hi" }]);
    assert_eq!(said(json!({ "task_id": 1, "reward": 0, "traj": 7 })), "field \"traj\" is no array");
    assert_eq!(said(json!({ "task_id": 1, "traj": turns })), "field \"reward\" is no number");
    let silent = json!({ "task_id": 1, "reward": 0, "traj": turns });
    assert_eq!(said(silent), "the assistant says nothing");
    let odd = json!({ "task_id": 1, "reward": 0, "traj": [{ "role": "zeppelin" }] });
    assert!(!said(odd).contains("zeppelin"));
    let nameless = json!({ "task_id": {}, "reward": 0, "traj": turns });
    assert_eq!(said(nameless), "field \"task_id\" is neither number nor text");
}

#[test]
fn exchanges_of_the_sample_are_all_read() {
    let rows = rows("exchange/exchanges.jsonl");
    assert_eq!(rows.len(), 15);
    let mut streamed = 0;
    for row in &rows {
        let episode = &row.result.as_ref().unwrap()[0];
        let answer = episode.answer.as_ref().unwrap();
        assert!(!episode.query.is_empty() && answer.model != "unknown");
        assert_eq!(episode.gold.calls(), answer.calls);
        assert_eq!(episode.has_flag("gold.unchecked"), !answer.calls.is_empty());
        streamed += usize::from(episode.source.external_id.contains("stream"));
    }
    assert!(streamed >= 3, "{streamed}");
}

fn exchange(request: Value, response: Value) -> Result<Episode, String> {
    one(&json!({ "request": request, "response": response }), Format::Exchange)
}

#[test]
fn bodies_of_several_providers_are_read() {
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": {} } });
    let ask = json!({ "model": "asked", "tools": [tool], "messages": [
        { "role": "system", "content": "s" }, { "role": "user", "content": "q" }] });
    let call = json!({ "function": { "name": "f", "arguments": "{\"x\": 1}" } });
    let reply = json!({ "id": "r1", "model": "replied", "choices": [
        { "message": { "role": "assistant", "content": null, "tool_calls": [call] } }] });
    let read = exchange(ask.clone(), reply.clone()).unwrap();
    assert_eq!(called(&read), [("f", "{\"x\":1}".to_owned())]);
    assert_eq!((read.source.external_id.as_str(), read.track.as_str()), ("r1", "toolcall"));
    assert_eq!(read.answer.as_ref().unwrap().model, "replied");
    assert_eq!(read.flags, ["answer.recorded", "gold.unchecked"]);
    let texts = exchange(json!(ask.to_string()), json!(reply.to_string())).unwrap();
    assert_eq!((texts.gold, texts.turns), (read.gold, read.turns), "bodies may be JSON text");

    let old = json!({ "role": "assistant", "function_call": { "name": "f", "arguments": "{}" } });
    let old = exchange(ask.clone(), json!({ "choices": [{ "message": old }] })).unwrap();
    assert_eq!(called(&old), [("f", "{}".to_owned())]);
    let completion = json!({ "prompt": "{\"a\": 1}", "model": "m" });
    let text = exchange(completion, json!({ "choices": [{ "text": " b" }] })).unwrap();
    assert_eq!((text.turns[0].content.as_str(), text.track.as_str()), ("{\"a\": 1}", "chat"));
    assert_eq!(text.answer.unwrap().text.as_deref(), Some(" b"));
    assert!(text.source.external_id.starts_with("x-"), "without any id, what was asked names it");

    let anthropic = json!({ "system": [{ "type": "text", "text": "s" }], "messages": [
        { "role": "user", "content": "q" },
        { "role": "assistant", "content": [
            { "type": "tool_use", "name": "f", "input": { "x": 1 } }] },
        { "role": "user", "content": [{ "type": "tool_result", "content": "done" }] }] });
    let reply = json!({ "role": "assistant", "content": [{ "type": "text", "text": "ok" }] });
    let read = exchange(anthropic, reply).unwrap();
    let roles: Vec<&str> = read.turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert_eq!((read.query.as_str(), read.turns[2].tool_calls.len()), ("q", 1));

    let responses = json!({ "instructions": "s", "input": [{ "role": "user", "content": "q" },
        { "type": "reasoning", "summary": [] },
        { "type": "function_call", "name": "f", "arguments": "{}" },
        { "type": "function_call_output", "output": "done" }] });
    let reply = json!({ "output": [{ "type": "reasoning" },
        { "type": "message", "role": "assistant", "content": [
            { "type": "output_text", "text": "ok" }] },
        { "type": "function_call", "name": "g", "arguments": "{}" }] });
    let read = exchange(responses, reply).unwrap();
    assert_eq!((read.turns.len(), called(&read)[0].0), (4, "g"));
    assert_eq!(read.answer.unwrap().text.as_deref(), Some("ok"));
}

#[test]
fn refused_and_failed_requests_are_told_apart() {
    let ask = json!({ "messages": [{ "role": "user", "content": "q" }] });
    let refused = json!({ "choices": [{ "message": { "content": null, "refusal": "No." } }] });
    let refused = exchange(ask.clone(), refused).unwrap();
    assert_eq!(refused.answer.unwrap().text.as_deref(), Some("No."));
    let error = json!({ "error": { "message": "zeppelin" } });
    for row in [
        json!({ "request": ask, "response": error }),
        json!({ "request": ask, "response": "gone", "status": 502 }),
        json!({ "request": ask, "response": null, "status": "429" }),
        json!({ "request": ask, "response": { "status": "failed", "output": [] } }),
        json!({ "request": ask, "response": "data: {\"error\": {\"code\": 1}}\n\n" }),
    ] {
        let failed = one(&row, Format::Exchange).unwrap();
        assert_eq!((failed.answer, failed.gold), (None, Gold::None), "{row}");
        assert_eq!(failed.flags, ["outcome.failure"]);
    }
}

#[test]
fn exchanges_that_cannot_be_read_say_why() {
    let ask = json!({ "messages": [{ "role": "user", "content": "q" }] });
    let ok = json!({ "choices": [{ "text": "b" }] });
    let image = json!([{ "type": "image_url", "image_url": { "url": "zeppelin" } }]);
    let cases = [
        (json!(7), ok.clone(), "field \"request\" is neither"),
        (json!("zeppelin"), ok.clone(), "field \"request\" is neither"),
        (json!({ "zeppelin": 1 }), ok.clone(), "request: it has neither messages"),
        (json!({ "prompt": ["a", "b"] }), ok.clone(), "request: it asks for more than one"),
        (json!({ "input": [1, 2] }), ok.clone(), "request: a message is no object"),
        (json!({ "messages": [] }), ok.clone(), "request: it holds no message of a user"),
        (
            json!({ "messages": [{ "role": "user", "content": image }] }),
            ok,
            "request: a message holds",
        ),
        (ask.clone(), json!("zeppelin"), "response: it is a text, but neither"),
        (ask.clone(), json!("data: zeppelin\n\n"), "response: event 1 of the stream is no JSON"),
        (ask.clone(), json!("data: {\"zeppelin\": 1}\n\n"), "response: the stream is neither"),
        (ask.clone(), json!({ "choices": [] }), "response: the output holds neither"),
        (
            ask.clone(),
            json!({ "data": [{ "embedding": [] }] }),
            "response: the output holds neither",
        ),
        (ask.clone(), json!(7), "response: it is neither"),
        (ask, Value::Null, "response: no output"),
    ];
    for (request, response, why) in cases {
        let said = exchange(request, response).unwrap_err();
        assert!(said.starts_with(why) && !said.contains("zeppelin"), "{said}, not {why}");
    }
}
