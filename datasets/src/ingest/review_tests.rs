//! What a hostile reading of the readers found.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::tests::{info, read_all, reason};
use super::*;
use crate::episode::Gold;

fn all(row: &Value, format: Format) -> Result<Vec<Episode>, String> {
    read_all(row.to_string().as_bytes(), format).remove(0).result
}

fn one(row: &Value, format: Format) -> Result<Episode, String> {
    all(row, format).map(|mut episodes| episodes.remove(0))
}

fn called(episode: &Episode) -> Vec<&str> {
    episode.gold.calls().iter().map(|call| call.name.as_str()).collect()
}

fn text(episode: &Episode) -> Option<&str> {
    episode.answer.as_ref()?.text.as_deref()
}

fn observation(output: Value) -> Value {
    json!({ "id": "o", "type": "GENERATION", "input": "hi", "output": output })
}

fn generation(output: Value) -> Result<Episode, String> {
    let export = json!({ "trace": {}, "observations": [observation(output)] });
    one(&export, Format::LangfuseExport)
}

fn exchange(response: Value) -> Result<Episode, String> {
    let request = json!({ "messages": [{ "role": "user", "content": "q" }] });
    one(&json!({ "request": request, "response": response }), Format::Exchange)
}

#[test]
fn an_output_of_several_items_is_one_answer() {
    let call = |name: &str| json!({ "type": "function_call", "name": name, "arguments": "{}" });
    let message = json!({ "type": "message", "role": "assistant",
        "content": [{ "type": "output_text", "text": "So." }] });
    let thought = json!({ "type": "reasoning", "summary": [] });
    let read = generation(json!([thought, call("a"), call("b")])).unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["a", "b"], None));
    let read = generation(json!([call("a"), message])).unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["a"], Some("So.")));
    let read = generation(json!([message, thought, call("a"), message])).unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["a"], Some("So.So.")));
    // Parts of one message, in the forms of Anthropic, Vercel and Gemini.
    let read = generation(json!([{ "type": "text", "text": "So." },
        { "type": "tool_use", "name": "a", "input": {} },
        { "type": "tool-call", "toolName": "b", "input": {} }]));
    let read = read.unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["a", "b"], Some("So.")));
    let read = generation(json!([{ "text": "So." }, { "functionCall": { "name": "a" } }])).unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["a"], Some("So.")));
    // Of messages by role, the last of the assistant is the answer.
    let said = |role: &str, text: &str| json!({ "role": role, "content": text });
    let read = generation(json!([said("user", "hi"), said("assistant", "a"), said("user", "b")]));
    assert_eq!(text(&read.unwrap()), Some("a"));
}

#[test]
fn calls_in_the_response_of_a_workflow_are_used_and_failures_are_none() {
    let call = |name: &str| json!({ "function": { "name": name, "arguments": "{}" } });
    let said = json!({ "role": "assistant", "content": null, "tool_calls": [call("a")] });
    let row = |calls: Value, success: Value, error: Value| {
        json!({ "agent_type": "x", "user_query": "q", "assistant_response": said,
            "tool_calls": calls, "success": success, "error": error })
    };
    let read = |calls, success, error| one(&row(calls, success, error), Format::WorkflowLog);
    let inside = read(json!([]), json!(true), Value::Null).unwrap();
    assert_eq!((called(&inside), inside.track.as_str()), (vec!["a"], "toolcall"));
    let beside = read(json!([call("b")]), json!("yes"), json!("")).unwrap();
    assert_eq!(called(&beside), ["b"]);
    assert!(beside.has_flag("outcome.success"));
    for (success, error) in [
        (json!("false"), Value::Null),
        (json!("No"), Value::Null),
        (json!(0), Value::Null),
        (json!("0"), json!("")),
        (json!(true), json!("timed out")),
        (Value::Null, json!({ "code": 7 })),
    ] {
        let failed = read(json!([]), success.clone(), error).unwrap();
        assert_eq!(failed.gold, Gold::None, "{success}");
        assert!(failed.has_flag("outcome.failure") && !failed.has_flag("outcome.success"));
    }
    for success in [json!("zeppelin"), json!(2), json!([])] {
        let said = read(json!([]), success, Value::Null).unwrap_err();
        assert_eq!(said, "field \"success\" is neither yes nor no");
    }
}

#[test]
fn every_episode_of_a_row_of_several_has_its_place() {
    let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
    let talk = json!([
        turn("user", "a"),
        turn("assistant", "b"),
        turn("user", "c"),
        turn("assistant", "d")
    ]);
    let ids = |id: Value, talk: &Value| -> Vec<String> {
        let read = all(&json!({ "id": id, "messages": talk }), Format::OpenAi).unwrap();
        read.into_iter().map(|episode| episode.source.external_id).collect()
    };
    assert_eq!(ids(json!("x"), &talk), ["x#0", "x#3"]);
    assert_eq!(ids(json!("x#7"), &talk), ["x#7#0", "x#7#3"], "the sign may be the row's own");
    assert_eq!(ids(json!("x"), &json!([turn("user", "a"), turn("assistant", "b")])), ["x"]);
    let made = ids(Value::Null, &talk);
    let rows: Vec<&str> = made.iter().map(|id| id.rsplit_once('#').unwrap().0).collect();
    assert!(rows[0] == rows[1] && rows[0].starts_with("q-"), "{made:?}");
}

fn redacted(row: &Value, format: Format, rules: &str) -> (Vec<Episode>, u64) {
    let reading = Reading { rules: rules.parse().unwrap(), ..format.into() };
    let (text, info) = (row.to_string(), info());
    let row = read(text.as_bytes(), &info, &reading).next().unwrap().unwrap();
    (row.result.unwrap(), row.redacted)
}

#[test]
fn ids_tell_nothing_of_what_was_taken_out() {
    let talk = |mail: &str| {
        json!({ "messages": [
            { "role": "user", "content": format!("Write to {mail}.") },
            { "role": "assistant", "content": "Yes." },
            { "role": "user", "content": "Again." },
            { "role": "assistant", "content": "Yes." },
        ] })
    };
    let ids = |mail: &str, rules: &str| -> Vec<String> {
        let (read, _) = redacted(&talk(mail), Format::OpenAi, rules);
        read.into_iter().map(|episode| episode.source.external_id).collect()
    };
    let (first, second) = (ids("ann@example.com", "email"), ids("bob@example.com", "email"));
    assert_eq!(first, second, "of two that differ in it alone, nobody can tell which is which");
    let digest = ledger::Digest::of(b"Write to [EMAIL_1].").short();
    assert_eq!(first, [format!("q-{digest}#0"), format!("q-{digest}#3")]);
    assert_ne!(ids("ann@example.com", "none"), ids("bob@example.com", "none"));
    assert_ne!(first, ids("ann@example.com", "none"));
    // Without anything to take out, an id stays what it was.
    assert_eq!(ids("nobody", "email"), ids("nobody", "none"));
    let ask = |id: &str, mail: &str| {
        let ask = format!("Write to {mail}");
        json!({ "id": id, "response": { "completion": "ok", "model": mail }, "request": {
            "prompt": ask } })
    };
    let (read, places) = redacted(&ask("of ann@example.com", "nobody"), Format::Exchange, "email");
    assert_eq!((read[0].source.external_id.as_str(), places), ("of [EMAIL_1]", 1));
    let (read, places) = redacted(&ask("q-17", "ann@example.com"), Format::Exchange, "email");
    assert_eq!(read[0].source.external_id, "q-17", "somebody's own id");
    assert_eq!(read[0].answer.as_ref().unwrap().model, "[EMAIL_1]");
    assert!(places >= 2);
}

#[test]
fn whole_numbers_beyond_2_to_the_64_are_refused_and_floats_are_not() {
    let row = |number: &str| {
        let row = format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"q\"}}, {{\"role\": \
             \"assistant\", \"tool_calls\": [{{\"name\": \"f\", \"arguments\": \
             {{\"x\": {number}}}}}]}}]}}"
        );
        read_all(row.as_bytes(), Format::OpenAi).remove(0)
    };
    for number in ["123456789012345678901234", "-99999999999999999999", "[1, 18446744073709551616]"]
    {
        let row = row(number);
        assert!(reason(&row).starts_with("a whole number is beyond 2^53"), "{number}");
        assert!(!reason(&row).contains("99999"));
    }
    for number in [
        "1e300",
        "1.2345678901234567890",
        "12345678901234567890123.5",
        "1.5e20",
        "\"123456789012345678901234\"",
    ] {
        assert!(row(number).result.is_ok(), "{number}");
    }
    let arguments = json!("{\"x\": 123456789012345678901234}").to_string();
    let text = json!({ "trace": {}, "observations": [observation(json!({ "tool_calls": [
        { "name": "f", "arguments": "ARGUMENTS" }] }))] });
    let text = text.to_string().replace("\"ARGUMENTS\"", &arguments);
    let rows = read_all(text.as_bytes(), Format::LangfuseExport);
    assert!(rows[0].result.is_err());
}

#[test]
fn generations_are_told_apart_and_none_vanishes() {
    let one = |id: &str, parent: Option<&str>, output: &str| {
        json!({ "id": id, "parentObservationId": parent, "type": "GENERATION", "input": "hi",
            "output": output })
    };
    let ids = |observations: Value| -> Vec<String> {
        let export = json!({ "trace": { "id": "t" }, "observations": observations }).to_string();
        let rows = read_all(export.as_bytes(), Format::LangfuseExport);
        rows.into_iter().map(|row| row.result.unwrap()[0].source.external_id.clone()).collect()
    };
    let twice = json!([one("o", None, "a"), one("o", None, "b"), one("o", None, "a")]);
    assert_eq!(ids(twice), ["t/o", "t/o~2", "t/o"]);
    assert_eq!(ids(json!([one("o", Some("o"), "a")])), ["t/o"]);
    let ring = json!([one("a", Some("b"), "x"), one("b", Some("a"), "y")]);
    assert_eq!(ids(ring), ["t/a", "t/b"]);
    let wrapped = json!([one("w", None, "x"), one("a", Some("w"), "x")]);
    assert_eq!(ids(wrapped), ["t/a"]);

    let failed = |output: Value| {
        let mut one = observation(output);
        one["level"] = json!("ERROR");
        let export = json!({ "trace": {}, "observations": [one] });
        self::one(&export, Format::LangfuseExport).unwrap()
    };
    let silent = failed(Value::Null);
    assert_eq!((&silent.answer, &silent.flags[..]), (&None, &["outcome.failure".to_owned()][..]));
    let called = failed(json!([{ "name": "f", "arguments": {} }]));
    assert_eq!(called.gold, Gold::None);
    assert_eq!(called.flags, ["answer.recorded", "outcome.failure"]);
}

#[test]
fn results_and_calls_of_the_provider_are_no_calls() {
    let parts = json!({ "role": "assistant", "content": [
        { "type": "text", "text": "So." },
        { "type": "server_tool_use", "name": "web_search", "input": { "query": "x" } },
        { "type": "tool-result", "toolName": "g", "input": {}, "output": "done" },
        { "type": "tool-call", "toolName": "f", "args": {} },
    ] });
    let read = generation(parts).unwrap();
    assert_eq!(called(&read), ["f"]);
    assert!(text(&read).unwrap().starts_with("So.\n{") && text(&read).unwrap().contains("done"));
    let gemini = json!({ "candidates": [{ "content": { "role": "model", "parts": [
        { "text": "So.", "functionCall": { "name": "f", "args": { "x": 1 } } }] } }] });
    let read = generation(gemini).unwrap();
    assert_eq!((called(&read), text(&read)), (vec!["f"], Some("So.")));
}

#[test]
fn answers_that_were_cut_are_marked() {
    let message = json!({ "role": "assistant", "content": "So" });
    let stream = "data: {\"choices\": [{\"delta\": {\"content\": \"So\"}}]}\n\n\
                  data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"length\"}]}\n\n";
    let events = "data: {\"type\": \"message_start\", \"message\": {}}\n\n\
                  data: {\"index\": 0, \"delta\": {\"text\": \"So\"}}\n\n\
                  data: {\"delta\": {\"stop_reason\": \"max_tokens\"}}\n\n";
    let said = json!([{ "type": "message", "role": "assistant", "content": "So" }]);
    for response in [
        json!({ "choices": [{ "message": message, "finish_reason": "length" }] }),
        json!({ "role": "assistant", "content": "So", "stop_reason": "max_tokens" }),
        json!({ "status": "incomplete", "output": said }),
        json!(stream),
        json!(events),
    ] {
        let read = exchange(response.clone()).unwrap();
        assert_eq!(
            (read.flags.as_slice(), text(&read)),
            (&["answer.cut".to_owned(), "answer.recorded".to_owned()][..], Some("So")),
            "{response}"
        );
    }
    let whole = json!({ "choices": [{ "message": message, "finish_reason": "stop" }] });
    assert_eq!(exchange(whole).unwrap().flags, ["answer.recorded"]);
    let request = json!({ "messages": [{ "role": "user", "content": "q" }] });
    let failed = json!({ "request": request, "response": {}, "status": "error" });
    assert_eq!(one(&failed, Format::Exchange).unwrap().flags, ["outcome.failure"]);
}

#[test]
fn what_is_no_text_is_refused_wherever_it_stands() {
    let image = json!({ "type": "image_url", "image_url": { "url": "zeppelin" } });
    let parts = [
        image.clone(),
        json!({ "inline_data": { "data": "zeppelin" } }),
        json!({ "inlineData": { "data": "zeppelin" } }),
        json!({ "image": { "format": "png" } }),
        json!({ "type": "input_image", "image_url": "zeppelin" }),
        json!({ "type": "tool_result", "content": [{ "type": "image", "source": {} }] }),
    ];
    for part in parts {
        let message = json!({ "role": "user", "content": [{ "text": "What is it?" }, part] });
        let asked = json!([message]);
        let mut observed = observation(json!("x"));
        observed["input"] = asked.clone();
        let answer = json!({ "role": "assistant", "content": "x" });
        let rows = [
            (json!({ "trace": {}, "observations": [observed] }), Format::LangfuseExport),
            (json!({ "request": { "messages": asked }, "response": answer }), Format::Exchange),
            (json!({ "task_id": 1, "reward": 1, "traj": [message, answer] }), Format::TauBench),
            (json!({ "messages": [message, answer] }), Format::OpenAi),
        ];
        for (row, format) in rows {
            let said = one(&row, format).unwrap_err();
            assert!(!said.contains("zeppelin"), "{said}");
            assert!(said.contains("an image, a sound") || said.contains("is no text"), "{said}");
        }
    }
    let answered = generation(json!({ "role": "assistant", "content": [image] })).unwrap_err();
    assert!(answered.contains("an image, a sound"), "{answered}");
    // What a call is given is no part of a message.
    let call = json!({ "type": "tool_use", "name": "f", "input": { "image": {} } });
    assert!(generation(json!({ "role": "assistant", "content": [call] })).is_ok());
}

#[test]
fn lists_of_tools_and_older_calls_are_read() {
    let turns = json!([{ "from": "human", "value": "q" }, { "from": "gpt", "value": "a" }]);
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": {} } });
    for tools in [json!([tool]), json!([tool.to_string()]), tool.clone(), json!("[{'name': 'f'}]")]
    {
        let row = json!({ "conversations": turns, "tools": tools });
        assert_eq!(one(&row, Format::Hermes).unwrap().tools[0].name, "f");
    }
    let nameless = json!({ "conversations": turns, "tools": [{}] });
    assert_eq!(one(&nameless, Format::Hermes).unwrap_err(), "a tool has no name");
    let answer = |answer: Value| {
        let row = json!({ "messages": [{ "role": "user", "content": "q" }, answer] });
        one(&row, Format::OpenAi)
    };
    let call = json!({ "name": "f", "arguments": "{}" });
    let old = json!({ "role": "assistant", "tool_calls": [], "function_call": call });
    assert_eq!(called(&answer(old).unwrap()), ["f"]);
    let blank = answer(json!({ "role": "assistant", "content": " \n" })).unwrap();
    assert_eq!(blank.gold, Gold::None);
    let turns = json!([{ "from": "human", "value": "q" }, { "from": "gpt", "value": " " }]);
    let blank = one(&json!({ "conversations": turns }), Format::Hermes).unwrap();
    assert_eq!(blank.gold, Gold::None);
}

#[test]
fn options_inside_options_become_values() {
    let gold =
        json!([{ "f": { "x": [{ "a": [{ "b": ["c", "d"], "e": ["", "g"] }], "h": [[1]] }] } }]);
    let row = json!({ "id": "a", "question": "Do.", "function": [{ "name": "f" }],
        "ground_truth": gold });
    let read = one(&row, Format::Bfcl).unwrap();
    let found = &read.gold.calls()[0].arguments["x"];
    assert_eq!(*found, json!({ "a": { "b": "c" }, "h": [1] }));
}

#[test]
fn names_that_no_wrapper_can_hold_are_refused() {
    for name in ["zeppelin\"", "<zeppelin", "zeppelin>"] {
        let call = json!({ "name": name, "arguments": {} });
        let row = json!({ "messages": [{ "role": "user", "content": "q" },
            { "role": "assistant", "tool_calls": [call] }] });
        let said = one(&row, Format::OpenAi).unwrap_err();
        assert!(said.starts_with("the name of a tool holds") && !said.contains("zeppelin"));
        let row = json!({ "query": "q", "answers": [], "tools": [{ "name": name }] });
        assert!(one(&row, Format::Xlam).is_err());
        let call = crate::episode::Call { name: name.to_owned(), arguments: Default::default() };
        let written = crate::gold::write_wrapper(&call);
        assert_eq!(
            crate::gold::is_writable(name),
            crate::gold::strict_call(&written) == Some(call) && !name.contains(['<', '>'])
        );
    }
}

#[test]
fn ids_of_providers_are_no_secrets() {
    let rules = crate::redact::Rules::secrets();
    for id in [
        "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "msg_013Zva2CMHLNnjNjJKqJ2EF",
        "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
        "4bf92f3577b34da6a3ce929d0e0e4736/00f067aa0ba902b7",
        "0190b3f2-7d4e-7c8a-9b1d-3f2a1c0e5d6b",
        "1718900000123456",
    ] {
        assert_eq!(rules.redact_text(id), id);
    }
}
