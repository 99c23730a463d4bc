#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::calls;
use crate::episode::{Episode, Gold};
use crate::export::tests::shared;
use crate::ingest::{Beside, Format, IngestError, Reading, Row, SourceInfo, read};

/// Reads a file with what lies beside it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Row>, IngestError> {
    let reading =
        Reading { beside: Beside::find(path, Format::Bfcl)?, ..Reading::from(Format::Bfcl) };
    let source = SourceInfo::of_file(path)?;
    read(BufReader::new(File::open(path).unwrap()), &source, &reading).collect()
}

fn sample(name: &str) -> Vec<Episode> {
    let name = format!("bfcl/question/BFCL_v4_{name}.json");
    let rows = read_file(&crate::samples::path(&name)).unwrap();
    rows.into_iter().flat_map(|row| row.result.unwrap()).collect()
}

fn names(episode: &Episode) -> Vec<&str> {
    episode.tools.iter().map(|tool| tool.name.as_str()).collect()
}

#[test]
fn possible_answers_are_options_of_calls() {
    let simple = sample("simple_python");
    assert_eq!(simple.len(), 3);
    let Gold::AnyOf { calls, options, in_order } = &simple[0].gold else { panic!() };
    assert!(in_order);
    assert_eq!(options[0]["unit"], [json!("units"), json!("")]);
    assert_eq!(Value::Object(calls[0].arguments.clone()), json!({ "base": 10, "height": 5 }));
    assert_eq!(simple[0].tools[0].parameters["type"], "object");
    let Gold::AnyOf { calls, in_order, .. } = &sample("parallel")[0].gold else { panic!() };
    assert_eq!((calls.len(), *in_order), (2, false));
    let live = sample("live_multiple");
    let Gold::AnyOf { calls, options, .. } = &live[0].gold else { panic!() };
    let preferences = json!({
        "size": "large", "milk_type": "coconut", "sweetness_level": "extra",
        "temperature": "hot", "special_instructions": "served boiling hot",
    });
    assert_eq!(calls[0].arguments["new_preferences"], preferences);
    assert_eq!(options[0]["new_preferences"][0]["size"], json!(["large"]), "as it was given");
    // One level down, what looks like a list of options is a value.
    assert_eq!(live[1].gold.calls()[0].arguments["ego_info"]["position"]["lateral"], 10.5);
    assert_eq!(
        sample("simple_java")[1].gold.calls()[0].arguments["meta"]["format"],
        "epoch_millis"
    );
}

#[test]
fn rows_without_calls_say_what_is_known() {
    assert!(sample("irrelevance").iter().all(|episode| episode.gold == Gold::NoCall));
    for (name, flags) in [
        ("live_relevance", vec!["gold.some_call"]),
        ("memory", vec!["gold.accepted_texts", "tools.not_found"]),
        ("web_search", vec!["gold.accepted_texts"]),
    ] {
        let episode = sample(name).remove(0);
        assert_eq!(
            (&episode.gold, &episode.flags),
            (&Gold::None, &flags.iter().map(|&flag| flag.to_owned()).collect()),
            "{name}"
        );
    }
    assert!(names(&sample("web_search")[0]).contains(&"search_engine_query"));
    let alone = crate::samples::path("bfcl/question/BFCL_v4_simple_python.json");
    let text = std::fs::read(alone).unwrap();
    let source = SourceInfo::unknown(Path::new("x.json"));
    let reading = Format::Bfcl.into();
    for row in read(text.as_slice(), &source, &reading) {
        let episode = row.unwrap().result.unwrap().remove(0);
        assert_eq!((episode.gold, episode.flags), (Gold::None, vec!["gold.not_found".to_owned()]));
    }
}

#[test]
fn tools_follow_the_turn_from_which_on_they_are_on_offer() {
    let all = sample("multi_turn_miss_func");
    let first: Vec<&Episode> =
        all.iter().filter(|e| e.source.external_id.starts_with("multi_turn_miss_func_0")).collect();
    let ids: Vec<&str> = first.iter().map(|e| e.source.external_id.as_str()).collect();
    let id = "multi_turn_miss_func_0";
    assert_eq!(ids, [0, 2, 3, 4, 5].map(|turn| format!("{id}#{turn}")));
    let has_sort: Vec<bool> = first.iter().map(|e| names(e).contains(&"sort")).collect();
    assert_eq!(has_sort, [false, false, false, true, true]);
    assert!(first.iter().all(|e| !names(e).contains(&"cp")), "excluded");
    assert_eq!(first[2].gold, Gold::NoCall);
    assert_eq!(first[2].turns, first[3].turns, "only the tools are new");
    assert_eq!(first[3].gold.calls()[0].arguments["file_name"], "final_report.pdf");
    assert_eq!(first[1].turns[1].tool_calls, first[0].gold.calls());
    assert!(!first[0].has_flag("turns.no_results") && first[1].has_flag("turns.no_results"));
}

#[test]
fn calls_are_read_as_python_writes_them() {
    let order: BTreeMap<String, Vec<String>> =
        [("f.g".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
    let parse = |text: &str| calls::parse(text, &order);
    for (text, arguments) in [
        ("f.g()", json!({})),
        ("f.g(1, b='x=1, (y)')", json!({ "a": 1, "b": "x=1, (y)" })),
        (
            " f.g(\"k='v'\", [1.5, {'c': None}],) ",
            json!({ "a": "k='v'", "b": [1.5, { "c": null }] }),
        ),
        ("f.g( b = True , a=-3)", json!({ "a": -3, "b": true })),
    ] {
        let call = parse(text).unwrap();
        assert_eq!((call.name.as_str(), Value::Object(call.arguments)), ("f.g", arguments));
    }
    for (text, why) in [
        ("zeppelin", "no parenthesis opens"),
        ("(1)", "no name of a function"),
        ("zep pelin(1)", "no name of a function"),
        ("f.g(a=1/6)", "neither comma nor end behind argument 1"),
        ("f.g(a=zeppelin)", "argument 1 is no literal: a bare word that is no value"),
        ("f.g(1, 2, 3)", "more arguments than parameters"),
        ("h(1)", "a function without a document"),
        ("f.g(1, a=2)", "an argument is given twice"),
        ("f.g(a=1) zeppelin", "text goes on behind the call"),
        ("f.g(a=1", "neither comma nor end behind argument 1"),
        ("f.g(", "argument 1 is no literal: the text ends where a value should stand"),
    ] {
        let said = parse(text).unwrap_err();
        assert!(said.starts_with(why) && !said.contains("zeppelin"), "{text}: {said}");
    }
}

fn row(row: Value) -> Result<Vec<Episode>, String> {
    let source = SourceInfo::unknown(Path::new("x.json"));
    let reading = Format::Bfcl.into();
    let text = row.to_string();
    let mut rows: Vec<Row> = read(text.as_bytes(), &source, &reading).map(Result::unwrap).collect();
    rows.remove(0).result
}

#[test]
fn answers_may_stand_in_the_row() {
    let with = |gold: Value| {
        row(json!({ "id": "a", "question": "Do.", "function": [{ "name": "f" }],
                    "ground_truth": gold }))
    };
    let gold = |value: Value| with(value).unwrap().remove(0).gold;
    assert_eq!(gold(json!([])), Gold::NoCall);
    assert_eq!(gold(json!(["f(x=1)"])).calls()[0].arguments["x"], 1);
    assert!(matches!(gold(json!([{ "f": { "x": [1] } }])), Gold::AnyOf { .. }));
    assert_eq!(with(json!("zeppelin")).unwrap()[0].flags, ["gold.result_only"]);
    for (gold, why) in [
        (json!([{ "f": {}, "zeppelin": {} }]), "possible answer 1: not one function"),
        (json!([{ "f": { "zeppelin": 1 } }]), "possible answer 1: an argument without a list"),
        (json!([{ "f": { "zeppelin": [] } }]), "possible answer 1: an argument has an empty list"),
        (json!(["zeppelin"]), "call 1: no parenthesis opens"),
        (json!([1]), "possible answers of a shape that is not known"),
        (json!([["f(x=1)"], []]), "another number of turns than of answers"),
    ] {
        let said = with(gold).unwrap_err();
        assert!(said.starts_with(why) && !said.contains("zeppelin"), "{said}");
    }
    let said = row(json!({ "id": "a", "question": [[{ "role": "zeppelin" }]] })).unwrap_err();
    assert!(said.starts_with("a message with another role"), "{said}");
}

#[test]
fn files_beside_are_found_in_both_layouts_and_errors_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let question = make("question/multi_turn_x.json", "");
    let answers = make("possible_answer/multi_turn_x.json", "{\"id\": 1, \"ground_truth\": []}\n");
    make("multi_turn_func_doc/math_api.json", "{\"name\": \"add\"}\n\n{\"name\": \"sub\"}\n");
    make("multi_turn_func_doc/own.json", "{\"name\": \"f\"}");
    make("multi_turn_func_doc/README.md", "no rows");
    let found = Beside::find(&question, Format::Bfcl).unwrap();
    assert_eq!(found.files.len(), 3);
    assert_eq!(found.answers["1"], json!([]));
    assert_eq!(found.functions["MathAPI"].len(), 2);
    assert_eq!(found.functions["own"].len(), 1);
    assert_eq!(Beside::find(&question, Format::Xlam).unwrap(), Beside::default());
    assert!(Beside::companions(&answers).is_empty());
    let flat = make("multi_turn_x.json", "");
    assert_eq!(Beside::companions(&flat).len(), 3);
    for (text, why) in [
        ("{\"id\": 1}", "no field \"ground_truth\""),
        ("{\"ground_truth\": []}", "no id"),
        ("\n{", "broken JSON at column"),
        (
            "{\"id\": 1, \"ground_truth\": 1}\n{\"id\": \"1\", \"ground_truth\": 2}",
            "a second answer",
        ),
    ] {
        make("possible_answer/multi_turn_x.json", text);
        let error = Beside::find(&question, Format::Bfcl).unwrap_err();
        let IngestError::Io { file, source, .. } = error else { panic!() };
        assert!(file.ends_with("multi_turn_x.json") && source.to_string().starts_with(why));
    }
}

/// Counts of a file: rows, rejected rows, episodes by kind of gold.
fn counts(path: &Path) -> Result<(usize, usize, BTreeMap<&'static str, usize>), IngestError> {
    let rows = read_file(path)?;
    let mut kinds = BTreeMap::new();
    let mut rejected = 0;
    for row in &rows {
        let Ok(episodes) = &row.result else {
            rejected += 1;
            continue;
        };
        for episode in episodes {
            let kind = match &episode.gold {
                Gold::None => "none",
                Gold::Calls { .. } => "calls",
                Gold::NoCall => "no call",
                Gold::AnyOf { .. } => "any of",
                Gold::Json { .. } | Gold::Text { .. } => "other",
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    Ok((rows.len(), rejected, kinds))
}

fn questions(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    files
}

#[test]
fn every_row_of_the_leaderboard_is_read_or_rejected_with_a_reason() {
    let Some(bfcl) = shared("bfcl") else { return };
    let (mut rows, mut rejected) = (0, 0);
    for path in questions(&bfcl.join("question")) {
        let name = path.file_stem().unwrap().to_string_lossy().replace("BFCL_v4_", "");
        if name == "format_sensitivity" {
            // One document that names rows of other files: no row of its own.
            assert!(
                counts(&path).is_ok_and(|(_, _, kinds)| kinds.is_empty()) || counts(&path).is_err()
            );
            continue;
        }
        let (all, refused, kinds) = counts(&path).unwrap();
        eprintln!("{name}: {all} rows, {refused} rejected, {kinds:?}");
        (rows, rejected) = (rows + all, rejected + refused);
    }
    assert_eq!((rows, rejected), (4_696, 2));
}

#[test]
fn folders_out_of_use_are_read_too() {
    let Some(bfcl) = shared("bfcl/unused") else { return };
    for path in questions(&bfcl.join("question")) {
        let name = path.file_stem().unwrap().to_string_lossy().replace("BFCL_v4_", "");
        match counts(&path) {
            Ok((all, refused, kinds)) => {
                eprintln!("unused {name}: {all} rows, {refused} rejected, {kinds:?}");
            }
            Err(error) => eprintln!("unused {name}: {error}"),
        }
    }
}
