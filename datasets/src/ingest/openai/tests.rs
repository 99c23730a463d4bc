#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::episode::{Episode, Gold};
use crate::ingest::{Format, Row, SourceInfo, read};
use crate::samples::rows;

fn read_rows(values: &[Value]) -> Vec<Row> {
    let lines: Vec<String> = values.iter().map(Value::to_string).collect();
    let source = SourceInfo::unknown(std::path::Path::new("a/b.jsonl"));
    let reading = Format::OpenAi.into();
    let text = lines.join("\n");
    read(text.as_bytes(), &source, &reading).map(Result::unwrap).collect()
}

fn one(messages: Value) -> Result<Vec<Episode>, String> {
    read_rows(&[json!({ "id": "x", "messages": messages })]).remove(0).result
}

#[test]
fn samples_give_an_episode_for_each_answer_that_is_trained_on() {
    let all: Vec<Vec<Episode>> =
        rows("openai/rows.jsonl").into_iter().map(|row| row.result.unwrap()).collect();
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 2, 2, 1]);
    let ids = |row: usize| -> Vec<&str> {
        all[row].iter().map(|episode| episode.source.external_id.as_str()).collect()
    };
    assert_eq!(ids(1), ["shop-2#0", "shop-2#7"]);
    assert!(ids(0)[0].starts_with("q-"));
    assert_eq!(ids(4), ["5"]);
    let first = &all[0][0];
    assert_eq!((first.track.as_str(), first.tools.len()), ("toolcall", 2));
    assert_eq!(first.gold.calls()[0].arguments["number"], "A-17");
    assert_eq!(first.answer, None);
    let refunds = &all[1][0];
    assert_eq!(refunds.query, "Orders A-17 and B-2 came broken.\nMoney back, please.");
    let results: Vec<&str> = refunds.turns[2..].iter().map(|turn| turn.content.as_str()).collect();
    assert_eq!(results, ["A-17: delivered", "B-2: delivered"], "in the order of the calls");
    assert_eq!(refunds.gold.calls().len(), 2);
    assert_eq!(all[1][1].gold, Gold::Text { text: "Both are paid back.".to_owned() });
    assert_eq!((all[2][0].turns[0].role.as_str(), all[2][0].track.as_str()), ("system", "chat"));
    let legacy = &all[3][0];
    assert_eq!((legacy.tools[0].name.as_str(), legacy.gold.calls().len()), ("find_order", 1));
    assert_eq!(all[3][1].turns[2].role, "tool");
    assert_eq!((&all[4][0].gold, all[4][0].turns.len()), (&Gold::None, 1));
}

#[test]
fn text_beside_calls_is_kept_as_an_answer_of_nobody_known() {
    let call = json!({ "function": { "name": "f", "arguments": "{'a': True}" } });
    let messages = json!([
        { "role": "user", "content": "Do." },
        { "role": "assistant", "content": "I do.", "tool_calls": [call] },
    ]);
    let episode = one(messages).unwrap().remove(0);
    let answer = episode.answer.as_ref().unwrap();
    assert_eq!((answer.model.as_str(), answer.text.as_deref()), ("unknown", Some("I do.")));
    assert_eq!(answer.calls, episode.gold.calls());
    assert_eq!(episode.flags, ["gold.python_literal"]);
}

#[test]
fn what_cannot_be_read_says_why_without_a_word_of_the_row() {
    let user = json!({ "role": "user", "content": "zeppelin" });
    let answer = |answer: Value| json!([user, answer]);
    let call = |call: Value| answer(json!({ "role": "assistant", "tool_calls": [call] }));
    let cases = [
        (json!("zeppelin"), "field \"messages\" is no array"),
        (answer(json!({ "role": "zeppelin" })), "message 2: another role than"),
        (answer(json!({ "content": "zeppelin" })), "message 2: no role"),
        (answer(json!({ "role": "assistant" })), "message 2: an answer with neither"),
        (answer(json!({ "role": "assistant", "content": 1 })), "message 2: content that is"),
        (
            json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]),
            "message 1: a part of the content is no text",
        ),
        (call(json!({ "function": { "arguments": "{}" } })), "message 2: a call without a name"),
        (
            call(json!({ "function": { "name": "f", "arguments": "zeppelin" } })),
            "message 2: the arguments of a call: a bare word that is no value at byte 0",
        ),
        (
            call(json!({ "function": { "name": "f", "arguments": "[1]" } })),
            "message 2: the arguments of a call are no object",
        ),
        (call(json!({ "type": "custom", "custom": {} })), "message 2: a call without a name"),
        (
            json!([{ "role": "user", "tool_calls": [{ "name": "f" }] }]),
            "message 1: calls from somebody else",
        ),
    ];
    for (messages, why) in cases {
        let said = one(messages).unwrap_err();
        assert!(said.starts_with(why) && !said.contains("zeppelin"), "{said}");
    }
    let tools = json!({ "messages": [], "tools": "[{\"zeppelin\": 1}]" });
    let said = read_rows(&[tools]).remove(0).result.unwrap_err();
    assert_eq!(said, "tools: a tool has no name");
}

#[test]
fn a_row_of_ours_whose_messages_were_changed_is_rejected() {
    let row = |text: &str| {
        json!({
            "messages": [
                { "role": "user", "content": "Which?" },
                { "role": "assistant", "content": text },
            ],
            "metadata": {
                "ledger_id": "7", "ledger_licence": "MIT",
                "ledger_gold": "{\"kind\":\"json\",\"value\":[1]}",
            },
        })
    };
    let rows = read_rows(&[row("[1]"), row("[2]")]);
    let kept = &rows[0].result.as_ref().unwrap()[0];
    assert_eq!(kept.gold, Gold::Json { value: json!([1]) });
    assert_eq!((kept.licence.as_str(), kept.source.external_id.as_str()), ("MIT", "7"));
    let said = rows[1].result.as_ref().unwrap_err();
    assert_eq!(said, "its metadata say another answer than its messages");
}
