#![allow(clippy::unwrap_used)]

use std::io::BufReader;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::episode::Gold;
use crate::manifest::Stored;

pub(super) fn info() -> SourceInfo {
    SourceInfo {
        name: "made/up".to_owned(),
        file: "up.jsonl".to_owned(),
        licence: "MIT".to_owned(),
        attribution: "Nobody".to_owned(),
    }
}

pub(super) fn read_all(text: &[u8], format: Format) -> Vec<Row> {
    read(BufReader::new(text), &info(), &format.into()).map(Result::unwrap).collect()
}

pub(super) fn reason(row: &Row) -> &str {
    row.result.as_ref().unwrap_err()
}

pub(super) const GOOD: &str = r#"{"prompt": "Say a.", "completion": "{\"b\":1.0,\"a\":2}"}"#;

#[test]
fn a_broken_row_is_rejected_by_name_and_reading_goes_on() {
    let mut text = format!("{GOOD}\n").repeat(16);
    text.push_str("{\"prompt\": \"x\", \"completion\": \n");
    text.push_str(GOOD);
    let rows = read_all(text.as_bytes(), Format::PromptCompletion);
    assert_eq!(rows.len(), 18);
    let rejected: Vec<&Row> = rows.iter().filter(|row| row.result.is_err()).collect();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].location, Location { file: "up.jsonl".to_owned(), row: 17 });
    assert!(reason(rejected[0]).starts_with("broken JSON at column"), "{}", reason(rejected[0]));
    assert_eq!(rejected[0].content, Digest::of(b"{\"prompt\": \"x\", \"completion\": "));
}

#[test]
fn what_cannot_be_read_says_why() {
    let deep =
        format!("{{\"prompt\": \"x\", \"completion\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    let big = "{\"prompt\": \"x\", \"completion\": \"{\\\"id\\\": 9007199254740993}\"}";
    let lines: [&[u8]; 7] = [
        GOOD.as_bytes(),
        b"{\"prompt\": \"\xff\", \"completion\": \"1\"}",
        b"[1]",
        b"{\"prompt\": 1, \"completion\": \"1\"}",
        b"{\"prompt\": \"x\"}",
        deep.as_bytes(),
        big.as_bytes(),
    ];
    let rows = read_all(&lines.join(&b"\n"[..]), Format::PromptCompletion);
    let reasons: Vec<&str> = rows.iter().skip(1).map(reason).collect();
    assert_eq!(reasons[0], "not UTF-8 at byte 12");
    assert_eq!(reasons[1], "not a JSON object");
    assert_eq!(reasons[2], "field \"prompt\" is no text");
    assert_eq!(reasons[3], "no field \"completion\"");
    assert!(reasons[4].contains("recursion limit"), "{}", reasons[4]);
    assert!(reasons[5].starts_with("a whole number is beyond 2^53"), "{}", reasons[5]);
}

#[test]
fn blank_lines_carriage_returns_and_marks_are_no_rows() {
    let text = format!("\u{feff}{GOOD}\r\n\r\n  \n{GOOD}");
    let rows = read_all(text.as_bytes(), Format::PromptCompletion);
    let places: Vec<u64> = rows.iter().map(|row| row.location.row).collect();
    assert_eq!(places, [1, 4]);
    assert!(rows.iter().all(|row| row.result.is_ok()));
    assert!(read_all(b"", Format::PromptCompletion).is_empty());
}

#[test]
fn another_format_is_an_error_not_a_pile_of_rejections() {
    let text = format!("{GOOD}\n{GOOD}");
    let mut rows = read_owned(&text, Format::Hermes);
    assert!(matches!(rows.remove(0), Err(IngestError::NotOfFormat { .. })));
    assert!(rows.is_empty());
    let mut rows = read_owned("{\"trace\": {", Format::LangfuseExport);
    assert!(matches!(rows.remove(0), Err(IngestError::NotOfFormat { .. })));
}

pub(super) fn read_owned(text: &str, format: Format) -> Vec<Result<Row, IngestError>> {
    read(text.as_bytes(), &info(), &format.into()).collect()
}

#[test]
fn failing_input_is_an_error_with_its_row() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let input = BufReader::new(std::io::Read::chain(GOOD.as_bytes(), Failing));
    let info = info();
    let reading = Format::PromptCompletion.into();
    let mut rows = read(input, &info, &reading);
    assert!(matches!(rows.next(), Some(Err(IngestError::Io { row: 1, .. }))));
    assert!(rows.next().is_none());
}

#[test]
fn stored_and_fresh_episodes_are_the_same() {
    let rows = read_all(GOOD.as_bytes(), Format::PromptCompletion);
    let episode = &rows[0].result.as_ref().unwrap()[0];
    assert_eq!(Episode::from_stored(&episode.to_bytes()).unwrap(), *episode);
    assert_eq!(episode.gold_text(), "{\"a\":2,\"b\":1}");
    let exported = String::from_utf8(episode.to_bytes()).unwrap();
    let again = read_all(exported.as_bytes(), Format::Episodes);
    assert_eq!(again[0].result.as_ref().unwrap()[0], *episode);
    let newer = exported.replace("\"schema\":1", "\"schema\":3");
    let newer = read_all(newer.as_bytes(), Format::Episodes);
    assert!(reason(&newer[0]).contains("newer than 2"), "{}", reason(&newer[0]));
    let unknown = exported.replace("\"schema\":1", "\"schema\":1,\"more\":1");
    assert!(reason(&read_all(unknown.as_bytes(), Format::Episodes)[0]).contains("unknown field"));
}

#[test]
fn rows_that_share_a_prompt_are_told_apart_and_repetitions_are_not() {
    let other = GOOD.replace("2}", "3}");
    let text = format!("{GOOD}\n{other}\n{GOOD}\n{other}");
    let rows = read_all(text.as_bytes(), Format::PromptCompletion);
    let ids: Vec<&str> = rows
        .iter()
        .map(|row| row.result.as_ref().unwrap()[0].source.external_id.as_str())
        .collect();
    assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
    assert_eq!(ids[1], format!("{}~2", ids[0]));
    let content = |place: usize| rows[place].result.as_ref().unwrap()[0].content_digest();
    assert_eq!(content(0), content(2));
    assert_ne!(content(0), content(1));
}

#[test]
fn formats_are_known_by_name_and_by_first_bytes() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert!(matches!("xml".parse::<Format>(), Err(IngestError::UnknownFormat { .. })));
    let path = Path::new("x.jsonl");
    let cases: [(&str, Option<Format>); 9] = [
        (GOOD, Some(Format::PromptCompletion)),
        (
            r#"{"prompt_index": 1, "prompt": "{", "prediction": "", "reference": "a", "is"#,
            Some(Format::RecordedAnswers),
        ),
        ("{\"id\": 1, \"conversations\": [{\"from\": \"sys", Some(Format::Hermes)),
        ("{\"instruction\": \"\", \"input\": \"\", \"output\": {\"date\"", Some(Format::BizEntity)),
        ("{\n \"trace\": {\"id\": ", Some(Format::LangfuseExport)),
        ("[{\"trace\": {\"id\": ", Some(Format::LangfuseExport)),
        ("{\"schema\":1,\"track\":\"chat\",\"turns\":[],\"gold\":{}}", Some(Format::Episodes)),
        ("{\"a\": \"prompt\", \"b\": \"completion\"}", None),
        ("prompt,completion\n", None),
    ];
    for (text, format) in cases {
        assert_eq!(detect(path, text.as_bytes()), format, "{text}");
    }
}

#[test]
fn hermes_dialogues_give_an_episode_for_each_answer_that_calls() {
    let row = r#"{"id": "h", "tools": "[{'name': 'f', 'parameters': {}}]", "conversations": [
        {"from": "system", "value": "s"}, {"from": "human", "value": "Do a."},
        {"from": "gpt", "value": "<tool_call>{'name': 'f', 'arguments': {'x': True}}</tool_call>"},
        {"from": "tool", "value": "done"}, {"from": "gpt", "value": "It is done."},
        {"from": "human", "value": "Do b."},
        {"from": "gpt", "value": "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"}]}"#;
    let rows = read_all(row.replace('\n', " ").as_bytes(), Format::Hermes);
    let episodes = rows[0].result.as_ref().unwrap();
    assert_eq!(episodes.len(), 2);
    let ids: Vec<&str> = episodes.iter().map(|e| e.source.external_id.as_str()).collect();
    assert_eq!(ids, ["h#0", "h#6"]);
    assert_eq!((episodes[0].turns.len(), episodes[1].turns.len()), (2, 6));
    assert_eq!((episodes[0].query.as_str(), episodes[1].query.as_str()), ("Do a.", "Do b."));
    assert_eq!(episodes[0].tools[0].name, "f");
    assert!(
        episodes[0].has_flag("gold.python_literal") && !episodes[1].has_flag("gold.python_literal")
    );
    let chat = row.replace("<tool_call>", "").replace("</tool_call>", "").replace('\n', " ");
    let said = read_all(chat.as_bytes(), Format::Hermes).remove(0).result.unwrap();
    assert!(said.len() == 1 && matches!(said[0].gold, Gold::Text { .. }), "the last answer");
}

#[test]
fn recorded_answers_keep_index_and_absence() {
    let row = r#"{"prompt_index": 7, "prompt": "Do.", "prediction": null, "reference": "{}"}"#;
    let rows = read_all(row.as_bytes(), Format::RecordedAnswers);
    let episode = &rows[0].result.as_ref().unwrap()[0];
    assert_eq!(episode.source.external_id, "7");
    let answer = episode.answer.as_ref().unwrap();
    assert_eq!((answer.text.as_ref(), answer.model.as_str()), (None, "up-recorded"));
    assert_ne!(episode.gold, Gold::None);
}

#[test]
fn langfuse_shapes_of_several_frameworks() {
    let export = include_str!("langfuse_shapes.json");
    let rows = read_all(export.as_bytes(), Format::LangfuseExport);
    let places: Vec<u64> = rows.iter().map(|row| row.location.row).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 7], "spans and wrappers are no rows");
    let first = &rows[0].result.as_ref().unwrap()[0];
    assert_eq!(first.turns[0].role, "system");
    assert_eq!((first.query.as_str(), first.subject.as_deref()), ("hi", Some("u1")));
    assert_eq!(first.gold.calls()[0].name, "f");
    assert_eq!(first.tools[0].name, "f");
    assert_eq!(rows[1].result.as_ref().unwrap()[0].gold.calls()[0].name, "g");
    let third = &rows[2].result.as_ref().unwrap()[0];
    assert_eq!((third.track.as_str(), &third.gold), ("chat", &Gold::None));
    assert_eq!(reason(&rows[3]), "input: a message has no role");
    assert_eq!(reason(&rows[4]), "output: no output");
}

fn export(user: Value, role: &str) -> Value {
    json!({
        "trace": { "id": "t", "userId": user },
        "observations": [{
            "id": "o", "type": "GENERATION", "input": [{ "role": role, "content": "hi" }],
            "output": { "role": "assistant", "content": "ho" },
        }],
    })
}

#[test]
fn a_blank_user_is_nobody_and_a_number_is_somebody() {
    let cases = [
        (json!("ann"), Some("ann")),
        (json!(" ann\n"), Some("ann")),
        (json!(17), Some("17")),
        (json!(""), None),
        (json!("  "), None),
        (Value::Null, None),
    ];
    for (user, subject) in cases {
        let rows = read_all(export(user, "user").to_string().as_bytes(), Format::LangfuseExport);
        assert_eq!(rows[0].result.as_ref().unwrap()[0].subject.as_deref(), subject);
        assert_eq!(rows[0].is_personal, subject.is_some());
    }
    let row = read_all(GOOD.as_bytes(), Format::PromptCompletion).remove(0);
    assert!(!row.is_personal);
    let episode = row.result.unwrap().remove(0);
    for (name, subject) in [("ann", Some("ann")), (" ", None), ("", None)] {
        let named = Episode { subject: Some(name.to_owned()), ..episode.clone() };
        let rows = read_all(&named.to_bytes(), Format::Episodes);
        assert_eq!(rows[0].result.as_ref().unwrap()[0].subject.as_deref(), subject);
        assert_eq!(rows[0].is_personal, subject.is_some());
    }
}

#[test]
fn no_reason_quotes_a_row_that_may_be_somebodys() {
    let text = export(json!("ann"), "zeppelin").to_string();
    let row = read_all(text.as_bytes(), Format::LangfuseExport).remove(0);
    assert!(row.is_personal);
    let known = "input: a message has another role than system, user, assistant or tool";
    assert_eq!(reason(&row), known);
    let text = export(json!("ann"), "user").to_string().replace("\"hi\"", "9007199254740993");
    let rows = read_all(text.as_bytes(), Format::LangfuseExport);
    assert!(rows[0].result.is_ok(), "as a text it keeps its digits");

    let episode = read_all(GOOD.as_bytes(), Format::PromptCompletion).remove(0).result.unwrap();
    let good: Value = serde_json::from_slice(&episode[0].to_bytes()).unwrap();
    let with = |key: &str, value: Value| {
        let mut row = good.clone();
        row["subject"] = json!("ann");
        row[key] = value;
        row.to_string()
    };
    let rejected = [
        (with("turns", json!("zeppelin, expected rain")), "invalid type, expected a sequence"),
        (with("flags", json!({ "zeppelin": 1 })), "invalid type, expected a sequence"),
        (with("zeppelin: \"`", json!(1)), "unknown field, expected one of `schema`, `track`"),
        (with("gold", json!({ "kind": "zeppelin" })), "unknown variant, expected one of `none`"),
        (with("schema", json!("zeppelin")), "invalid type, expected u32"),
        (with("turns", json!([{ "role": "user" }])), "missing field `content`"),
        ("{\"schema\": 1, \"zeppelin\": ".to_owned(), "broken JSON at column"),
    ];
    for (text, why) in rejected {
        let row = read_all(text.as_bytes(), Format::Episodes).remove(0);
        assert!(row.is_personal, "{text}");
        let said = reason(&row);
        assert!(said.contains(why) && !said.contains("zeppelin"), "{said}");
    }
}
