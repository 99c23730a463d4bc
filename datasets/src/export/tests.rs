#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ledger::catalogue::Location;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::episode::{Answer, Source, Tool, Turn};
use crate::ingest::{detect, read};

mod arbitrary;

use arbitrary::episodes;

/// Returns a part of the real inputs that do not ship; says aloud when they are not there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LEDGER_SHARED_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let path = root.join(name);
    if !path.exists() {
        eprintln!("skipped: no real inputs at {} (set LEDGER_SHARED_DATA)", path.display());
        return None;
    }
    Some(path)
}

/// Reads the episodes of a file, as they would be ingested.
pub(super) fn episodes_of(path: &Path, format: Format) -> Vec<Episode> {
    let reading = Reading { beside: Beside::find(path, format).unwrap(), ..Reading::from(format) };
    let source = SourceInfo::of_file(path).unwrap();
    let input = BufReader::new(File::open(path).unwrap());
    let rows = read(input, &source, &reading);
    rows.filter_map(|row| row.unwrap().result.ok()).flatten().collect()
}

/// Writes episodes, reads the files again, and makes sure that those written are the same.
/// Returns how many were written, and how often each reason was given for the rest.
pub(super) fn round_trip(
    format: ExportFormat,
    episodes: &[Episode],
) -> (usize, BTreeMap<String, usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(format, folder.path(), "all").unwrap();
    let mut kept = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for episode in episodes {
        match writer.write(episode) {
            Ok(()) => kept.push(episode),
            Err(ExportError::Unsayable { reason, .. }) => *refused.entry(reason).or_default() += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let written = writer.finish().unwrap();
    assert_eq!(written.rows, kept.len() as u64);
    let reader = match format {
        ExportFormat::OpenAi | ExportFormat::Trl => Format::OpenAi,
        ExportFormat::ShareGpt => Format::Hermes,
        ExportFormat::Xlam => Format::Xlam,
        ExportFormat::Bfcl => Format::Bfcl,
        ExportFormat::Parquet => {
            assert_eq!(super::parquet_tests::episodes_of(&written.files[0]).len(), kept.len());
            return (kept.len(), refused);
        }
    };
    let again = episodes_of(&written.files[0], reader);
    assert_eq!(again.len(), kept.len(), "{format}");
    for (one, other) in kept.iter().zip(&again) {
        let one = Episode::from_stored(&one.to_bytes()).unwrap();
        assert_eq!(difference(&one, other), None, "{format}: {one:?}");
    }
    (kept.len(), refused)
}

#[test]
fn samples_of_each_format_survive_a_round_trip() {
    let sample = |name: &str, format| episodes_of(&crate::samples::path(name), format);
    for (format, reader, name, n, refused) in [
        (ExportFormat::OpenAi, Format::OpenAi, "openai/rows.jsonl", 7, 1),
        (ExportFormat::Trl, Format::OpenAi, "openai/rows.jsonl", 7, 1),
        (ExportFormat::Parquet, Format::OpenAi, "openai/rows.jsonl", 8, 0),
        (ExportFormat::Xlam, Format::Xlam, "xlam/rows.jsonl", 4, 0),
        (ExportFormat::ShareGpt, Format::Hermes, "sharegpt/rows.jsonl", 3, 0),
        (ExportFormat::ShareGpt, Format::Hermes, "hermes/hermes_test.jsonl", 49, 0),
        (ExportFormat::Bfcl, Format::Bfcl, "bfcl/question/BFCL_v4_live_multiple.json", 2, 0),
        (ExportFormat::Bfcl, Format::Bfcl, "bfcl/question/BFCL_v4_parallel.json", 2, 0),
        (ExportFormat::Bfcl, Format::Bfcl, "bfcl/question/BFCL_v4_irrelevance.json", 2, 0),
        (ExportFormat::Bfcl, Format::Bfcl, "bfcl/question/BFCL_v4_live_relevance.json", 1, 0),
        (ExportFormat::Bfcl, Format::Bfcl, "bfcl/question/BFCL_v4_simple_java.json", 2, 0),
    ] {
        let (written, why) = round_trip(format, &sample(name, reader));
        assert_eq!((written, why.values().sum::<usize>()), (n, refused), "{name}: {why:?}");
    }
}

#[test]
fn real_files_survive_a_round_trip_in_every_format_or_are_refused_with_a_reason() {
    let Some(data) = shared("") else { return };
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in [
        "bfcl/question",
        "bfcl/unused/question",
        "fledgling/hermes",
        "fledgling/datasets",
        "fledgling/xlam_derived/structured",
        "fledgling/xlam_derived/toolcall",
    ] {
        let entries = std::fs::read_dir(data.join(folder)).into_iter().flatten();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    let mut totals: BTreeMap<(ExportFormat, String), usize> = BTreeMap::new();
    let mut seen: BTreeMap<ExportFormat, usize> = BTreeMap::new();
    for path in files.iter().filter(|path| path.is_file()) {
        let text = std::fs::read(path).unwrap();
        let Some(format) = detect(path, &text) else { continue };
        let all = episodes_of(path, format);
        // All in their own format, some in every other.
        let some: Vec<Episode> = all.iter().step_by(all.len() / 20 + 1).cloned().collect();
        for to in ExportFormat::ALL {
            let is_own = matches!(
                (format, to),
                (Format::Hermes, ExportFormat::ShareGpt) | (Format::Bfcl, ExportFormat::Bfcl)
            );
            let episodes = if is_own { &all } else { &some };
            let (written, refused) = round_trip(to, episodes);
            *seen.entry(to).or_default() += episodes.len();
            *totals.entry((to, String::new())).or_default() += written;
            for (reason, n) in refused {
                *totals.entry((to, reason)).or_default() += n;
            }
        }
    }
    for ((format, reason), n) in &totals {
        let what = if reason.is_empty() { "written" } else { reason };
        eprintln!("{format}: {n} {what}");
    }
    // What is refused is refused for what it says, never for how it was written.
    assert!(!totals.keys().any(|(_, reason)| reason.contains("read back")));
    for (format, seen) in &seen {
        let of = totals.iter().filter(|((known, _), _)| known == format);
        assert_eq!(of.map(|(_, n)| n).sum::<usize>(), *seen, "{format}: none is dropped");
    }
    let parquet = ExportFormat::Parquet;
    assert_eq!(totals[&(parquet, String::new())], seen[&parquet], "Parquet can say all");
}

#[test]
fn conversations_of_a_real_agent_survive_as_messages() {
    let Some(path) = shared("tau_bench/gpt-4o-airline.json") else { return };
    let text = std::fs::read(path).unwrap();
    let tasks: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks.get(..20).unwrap();
    let lines = tasks.iter().map(|task| format!("{}\n", json!({ "messages": task["traj"] })));
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let all = episodes_of(&file, Format::OpenAi);
    assert!(all.len() > tasks.len());
    for format in [ExportFormat::OpenAi, ExportFormat::Trl, ExportFormat::ShareGpt] {
        let (written, refused) = round_trip(format, &all);
        eprintln!("{format}: {written} of {} answers, {refused:?}", all.len());
        assert_eq!(written + refused.values().sum::<usize>(), all.len());
        assert!(written * 10 > all.len() * 9, "{refused:?}");
    }
}

fn plain(gold: Gold) -> Episode {
    let tool = Tool {
        name: "f".to_owned(),
        description: "Does f.".to_owned(),
        parameters: json!({ "type": "object", "properties": { "a": { "type": "integer" } },
                            "required": ["a"] }),
    };
    Episode {
        schema: 2,
        track: "toolcall".to_owned(),
        tools: vec![tool],
        turns: vec![Turn::text("user", "Do.")],
        gold,
        answer: None,
        query: "Do.".to_owned(),
        source: Source {
            name: "made/up".to_owned(),
            external_id: "7".to_owned(),
            location: Location { file: "up".to_owned(), row: 1 },
            format: "episodes".to_owned(),
        },
        licence: "MIT".to_owned(),
        attribution: "Nobody".to_owned(),
        subject: Some("ann".to_owned()),
        flags: vec!["gold.unchecked".to_owned()],
    }
}

fn call(arguments: Value) -> Call {
    let arguments = arguments.as_object().cloned().unwrap();
    Call { name: "f".to_owned(), arguments }
}

fn text_of(format: ExportFormat, episode: &Episode) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(format, folder.path(), "all").unwrap();
    writer.write(episode).unwrap();
    let files = writer.finish().unwrap().files;
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts.collect::<Vec<_>>().join("--\n")
}

#[test]
fn rows_have_the_form_that_their_readers_expect() {
    let mut episode = plain(Gold::Calls { calls: vec![call(json!({ "a": 1 }))] });
    let asked = Turn { tool_calls: vec![call(json!({ "a": 0 }))], ..Turn::text("assistant", "") };
    let earlier = [asked, Turn::text("tool", "0"), Turn::text("user", "Again.")];
    let row: Value = serde_json::from_str(&text_of(ExportFormat::Xlam, &episode)).unwrap();
    let parameters = json!({ "a": { "type": "int" } });
    let tools: Value = serde_json::from_str(row["tools"].as_str().unwrap()).unwrap();
    assert_eq!((&row["id"], &row["query"]), (&json!("7"), &json!("Do.")));
    assert_eq!(tools[0]["parameters"], parameters);
    assert_eq!(row["answers"], "[{\"arguments\":{\"a\":1},\"name\":\"f\"}]");
    let text = text_of(ExportFormat::Bfcl, &episode);
    let (question, answer) = text.split_once("--\n").unwrap();
    let question: Value = serde_json::from_str(question).unwrap();
    assert_eq!(question["id"], "simple_7");
    assert_eq!(question["question"], json!([[{ "role": "user", "content": "Do." }]]));
    assert_eq!(question["function"][0]["parameters"]["type"], "dict");
    assert_eq!(answer, "{\"id\":\"simple_7\",\"ground_truth\":[{\"f\":{\"a\":[1]}}]}\n");

    episode.turns.extend(earlier);
    let row: Value = serde_json::from_str(&text_of(ExportFormat::OpenAi, &episode)).unwrap();
    let call = |id: &str, arguments: &str| {
        json!([{ "id": id, "type": "function",
        "function": { "name": "f", "arguments": arguments } }])
    };
    let messages = json!([
        { "role": "user", "content": "Do." },
        { "role": "assistant", "content": null, "tool_calls": call("call_1", "{\"a\":0}"),
          "weight": 0 },
        { "role": "tool", "content": "0", "tool_call_id": "call_1" },
        { "role": "user", "content": "Again." },
        { "role": "assistant", "content": null, "tool_calls": call("call_2", "{\"a\":1}"),
          "weight": 1 },
    ]);
    assert_eq!(row["messages"], messages);
    assert_eq!(
        (&row["tools"][0]["type"], &row["parallel_tool_calls"]),
        (&json!("function"), &json!(false))
    );
    assert_eq!(row["metadata"]["ledger_licence"], "MIT");
    assert_eq!(row["metadata"]["ledger_flags"], "[\"gold.unchecked\"]");
    assert!(!row.to_string().contains("ann"), "the person is not written");
    let row: Value = serde_json::from_str(&text_of(ExportFormat::Trl, &episode)).unwrap();
    assert_eq!(row["messages"][4]["tool_calls"][0]["function"]["arguments"], json!({ "a": 1 }));
    let row: Value = serde_json::from_str(&text_of(ExportFormat::ShareGpt, &episode)).unwrap();
    let said = |place: usize| row["conversations"][place]["value"].as_str().unwrap();
    assert!(said(0).contains("<tools>\n[{\"function\":{\"description\":\"Does f.\""));
    assert_eq!(said(2), "<tool_call>\n{\"arguments\":{\"a\":0},\"name\":\"f\"}\n</tool_call>");
    assert_eq!(said(3), "<tool_response>\n0\n</tool_response>");
    assert_eq!(said(5), "<tool_call>\n{\"arguments\":{\"a\":1},\"name\":\"f\"}\n</tool_call>");
}

#[test]
fn what_a_format_cannot_say_is_refused_with_a_reason() {
    let json_gold = plain(Gold::Json { value: json!({ "a": 1 }) });
    let none = plain(Gold::None);
    let wordless = plain(Gold::NoCall);
    let mut result = plain(Gold::Text { text: "x".to_owned() });
    result.turns.push(Turn::text("tool", "1"));
    let tag = plain(Gold::Text { text: "Write <tool_call> first.".to_owned() });
    let empty = plain(Gold::Calls { calls: vec![call(json!({ "a": 1, "b": "" }))] });
    let mut ends = result.clone();
    ends.turns[1].content = "x</tool_response>y".to_owned();
    let mut elsewhere = plain(Gold::Calls { calls: vec![call(json!({}))] });
    elsewhere.turns.push(Turn { tool_calls: vec![call(json!({}))], ..Turn::text("user", "") });
    use ExportFormat::{Bfcl, OpenAi, ShareGpt, Trl, Xlam};
    for (format, episode, why) in [
        (Bfcl, &json_gold, "its gold is no call"),
        (Xlam, &json_gold, "its gold is no call"),
        (OpenAi, &none, "it has no gold to train on"),
        (Trl, &wordless, "its gold only says that nothing may be called"),
        (ShareGpt, &none, "it has no gold to train on"),
        (Bfcl, &none, "it has no gold"),
        (OpenAi, &result, "a result of a tool stands behind no call"),
        (Xlam, &result, "the conversation is not one request alone"),
        (Bfcl, &elsewhere, "an earlier turn calls a tool"),
        (OpenAi, &elsewhere, "somebody else than the assistant calls a tool"),
        (ShareGpt, &elsewhere, "somebody else than the assistant calls a tool"),
        (ShareGpt, &tag, "its gold is a text with the tag of a call"),
        (ShareGpt, &ends, "a result of a tool holds the tag that ends results"),
        // "" is how the leaderboard says that an argument may be left out.
        (Bfcl, &empty, "it would not be read back: its metadata say another answer"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(format, folder.path(), "all").unwrap();
        let Err(ExportError::Unsayable { id, reason, .. }) = writer.write(episode) else {
            panic!("{format} should refuse: {why}");
        };
        assert_eq!(id, "7");
        assert!(reason.starts_with(why), "{format}: {reason}");
        writer.write(&plain(Gold::Calls { calls: vec![call(json!({ "a": 1 }))] })).unwrap();
        assert_eq!(writer.finish().unwrap().rows, 1, "and goes on");
    }
    assert_eq!(round_trip(ExportFormat::Parquet, &[json_gold, none, wordless, result]).0, 4);
    assert_eq!(round_trip(ExportFormat::Trl, &[ends]).0, 1);
}

#[test]
fn files_have_their_names_once_they_are_whole_and_none_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    for format in ExportFormat::ALL {
        assert_eq!(format.to_string().parse::<ExportFormat>().unwrap(), format);
        let stem = format.name();
        let mut writer = Writer::new(format, &dir, stem).unwrap();
        writer.write(&plain(Gold::Calls { calls: vec![call(json!({ "a": 1 }))] })).unwrap();
        let files: Vec<PathBuf> = format.files(stem).iter().map(|file| dir.join(file)).collect();
        assert!(files.iter().all(|file| !file.exists()));
        let written = writer.finish().unwrap();
        assert_eq!((&written.files, written.rows), (&files, 1));
        let bytes: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(bytes.iter().all(|bytes| !bytes.is_empty()));
        let again = Writer::new(format, &dir, stem);
        assert!(matches!(again, Err(ExportError::Io { .. })));
        let empty = Writer::new(format, &dir, "empty").map(Writer::finish);
        assert!(!empty.is_ok_and(|empty| empty.is_ok_and(|empty| empty.rows > 0)));
    }
    assert!(
        std::fs::read_dir(&dir)
            .unwrap()
            .all(|entry| { entry.unwrap().path().extension().is_none_or(|end| end != "partial") })
    );
    assert!(matches!("xml".parse::<ExportFormat>(), Err(ExportError::UnknownFormat { .. })));
}

#[test]
fn questions_that_share_an_id_keep_their_own_answers() {
    let numbered = |a: u8| plain(Gold::Calls { calls: vec![call(json!({ "a": a }))] });
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(ExportFormat::Bfcl, folder.path(), "all").unwrap();
    [1, 2, 2].into_iter().for_each(|a| writer.write(&numbered(a)).unwrap());
    let again = episodes_of(&writer.finish().unwrap().files[0], Format::Bfcl);
    let calls: Vec<&Value> = again.iter().map(|e| &e.gold.calls()[0].arguments["a"]).collect();
    assert_eq!(calls, [&json!(1), &json!(2), &json!(2)]);
}

#[test]
fn tags_inside_values_are_carried() {
    let tricky = json!({ "a": "</tool_call>\n<tool_call>{}", "b": ["</tools>", "<tools>"] });
    let mut episode = plain(Gold::Calls { calls: vec![call(tricky.clone()), call(json!({}))] });
    episode.tools[0].description = "Ends </tools> and <tool_call>.".to_owned();
    let asked = Turn { tool_calls: vec![call(tricky)], ..Turn::text("assistant", "Hm.\n") };
    episode.turns.insert(0, Turn::text("system", "Mind <tools>[]</tools>."));
    episode.turns.extend([asked, Turn::text("tool", "<tool_call>"), Turn::text("user", "<tools>")]);
    for format in [ExportFormat::ShareGpt, ExportFormat::OpenAi, ExportFormat::Parquet] {
        let (written, refused) = round_trip(format, std::slice::from_ref(&episode));
        assert_eq!((written, refused), (1, BTreeMap::new()), "{format}");
    }
    assert!(text_of(ExportFormat::ShareGpt, &episode).contains("\\\\u003c/tool_call>"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_episode_survives_a_round_trip_or_is_refused(all in episodes()) {
        for format in ExportFormat::ALL {
            round_trip(format, &all);
        }
    }

    #[test]
    fn what_a_format_can_say_is_not_refused(episode in arbitrary::sayable()) {
        for format in ExportFormat::ALL {
            let (written, refused) = round_trip(format, std::slice::from_ref(&episode));
            prop_assert_eq!(written, 1, "{}: {:?}", format, refused);
        }
    }
}
