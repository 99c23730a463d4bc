//! Files in: formats, folders, packed files, redaction, subjects.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bench, holding, samples};

/// The folder of real inputs beside the project, where there is one.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let dir = std::env::var_os("LEDGER_SHARED_DATA").map_or(beside, PathBuf::from);
    if dir.join("bfcl").is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: real inputs are not beside the project ({})", dir.display());
    None
}

fn write(bench: &Bench, name: &str, rows: &[Value]) -> String {
    let path = bench.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn chat(question: &str, answer: &str) -> Value {
    json!({ "messages": [
        { "role": "user", "content": question },
        { "role": "assistant", "content": answer },
    ]})
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// Format, rows, accepted rows and rejected rows of each file that was read.
fn counts(report: &Value) -> Vec<(String, u64, u64, u64)> {
    let files = report["files"].as_array().unwrap().iter();
    let count = |file: &Value| {
        let format = file["format"].as_str().unwrap().to_owned();
        (format, number(&file["rows"]), number(&file["accepted"]), number(&file["rejected"]))
    };
    files.map(count).collect()
}

#[test]
fn every_real_file_of_a_known_format_is_read_and_every_row_is_counted() {
    let Some(data) = shared_data() else { return };
    let bench = Bench::with_notebook();
    let folders = ["bfcl/question", "fledgling", "tau_bench", "langfuse_traces", "openllmetry"];
    let mut read = 0;
    for folder in folders {
        let report = bench.run(&["ingest", data.join(folder).to_str().unwrap()]).ok().json();
        for (file, (format, rows, accepted, rejected)) in
            report["files"].as_array().unwrap().iter().zip(counts(&report))
        {
            let name = file["file"].as_str().unwrap().rsplit('/').next().unwrap();
            eprintln!("{folder}/{name}: {format}, {rows} rows, {accepted} + {rejected}");
            assert_eq!(accepted + rejected, rows, "{name}");
            assert!(accepted > 0, "{name}");
            assert!(rejected == 0 || !file["rejections"][0].as_str().unwrap().is_empty());
            read += rows;
        }
    }
    assert!(read > 6_800, "{read} rows");
    let rejections = bench.run(&["log", "--kind", "trace.rejected"]).ok().lines();
    assert!(rejections.iter().all(|event| !event["facts"]["reason"].as_str().unwrap().is_empty()));
    bench.run(&["verify"]).ok();
}

#[test]
fn packed_files_and_folders_are_read_and_other_files_are_passed_over() {
    let bench = Bench::with_notebook();
    let plain = write(&bench, "in/a.jsonl", &[chat("one?", "1"), chat("two?", "2")]);
    let packed = bench.path("in/b.jsonl.gz");
    let mut pack = flate2::write::GzEncoder::new(
        fs::File::create(&packed).unwrap(),
        flate2::Compression::fast(),
    );
    pack.write_all(chat("three?", "3").to_string().as_bytes()).unwrap();
    pack.finish().unwrap();
    fs::write(bench.path("in/notes.json"), "{\"hello\": 1}").unwrap();
    fs::write(bench.path("in/notes.txt"), "hello").unwrap();
    let report = bench.run(&["ingest", bench.path("in").to_str().unwrap()]).ok().json();
    assert_eq!(counts(&report), [("openai".to_owned(), 2, 2, 0), ("openai".to_owned(), 1, 1, 0)]);
    let skipped = report["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(skipped[1].as_str().unwrap().contains("notes.json"), "{skipped:?}");
    // Cut short, a packed file is told, and what came before it stays.
    let whole = fs::read(&packed).unwrap();
    fs::write(&packed, &whole[..whole.len() - 6]).unwrap();
    let error = bench.run(&["ingest", packed.to_str().unwrap()]).fails(4);
    assert!(error["message"].as_str().unwrap().contains("b.jsonl.gz"), "{error}");
    let again = bench.run(&["ingest", &plain]).ok().json();
    assert_eq!(again["duplicates"], 2);
}

#[test]
fn secrets_never_reach_the_notebook_unless_asked_for() {
    let bench = Bench::with_notebook();
    let (key, mail) = ("sk-proj-abcdEFGH1234abcdEFGH1234abcdEFGH1234", "ann@example.org");
    let row = chat(&format!("Use {key} and write to {mail}."), &format!("I used {key}."));
    let path = write(&bench, "in/rows.jsonl", &[row]);
    let report = bench.run(&["ingest", &path]).ok().json();
    assert!(number(&report["redacted"]) >= 2, "{report}");
    assert_eq!(holding(&bench.notebook(), &[key]), Vec::<PathBuf>::new());
    assert!(!holding(&bench.notebook(), &[mail]).is_empty(), "only secrets go by default");
    let events = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines();
    assert_eq!(events[0]["facts"]["rules"], json!(["secrets/2"]));
    assert!(number(&events[0]["facts"]["redacted"]) >= 2);

    let both = Bench::with_notebook();
    both.run(&["ingest", "--redact", "secrets,email", &path]).ok();
    assert_eq!(holding(&both.notebook(), &[key, mail]), Vec::<PathBuf>::new());
    both.run(&["ingest", "--redact", "secrets,shoe-size", &path]).fails(2);
}

#[test]
fn a_replay_redacts_as_the_import_did() {
    let bench = Bench::with_notebook();
    let row = json!({
        "prompt_index": 1,
        "prompt": "Respond.\nRequest: mail ann@example.org",
        "prediction": "<tool_call name=\"mail\">{\"to\":\"ann@example.org\"}</tool_call>",
        "reference": "<tool_call name=\"mail\">{\"to\":\"ann@example.org\"}</tool_call>",
    });
    let path = write(&bench, "in/rows.jsonl", &[row]);
    bench.run(&["ingest", "--redact", "secrets,email", &path]).ok();
    bench.run(&["suite", "build", "s", "--questions", "in/rows"]).ok();
    let run = bench.run(&["eval", "--suite", "s", "--recorded", "in/rows"]).ok().json();
    assert_eq!((&run["n"], &run["exact_strict"]), (&json!(1), &json!(1)), "{run}");
    let report = bench.run(&["replay", run["run"].as_str().unwrap()]).ok().json();
    assert_eq!(report["divergence"], Value::Null, "{report}");
}

#[test]
fn rows_of_a_subject_are_forgotten_with_it() {
    let bench = Bench::with_notebook();
    let mut rows =
        vec![chat("Where is the heliotrope?", "Here."), chat("And the walrus?", "There.")];
    rows[0]["user_id"] = json!("ann");
    let path = write(&bench, "in/rows.jsonl", &rows);
    let report = bench.run(&["ingest", "--subject-field", "user_id", &path]).ok().json();
    assert_eq!(report["accepted"], 2);
    assert_eq!(bench.run(&["search", "heliotrope"]).ok().lines().len(), 1);
    bench.run(&["forget", "ann", "--yes"]).ok();
    assert_eq!(bench.run(&["search", "heliotrope"]).ok().lines().len(), 0);
    assert_eq!(bench.run(&["search", "walrus"]).ok().lines().len(), 1);
    assert_eq!(holding(&bench.notebook(), &["heliotrope", "ann"]), Vec::<PathBuf>::new());
    bench.run(&["verify"]).ok();
}

#[test]
fn a_folder_of_samples_is_read_the_same_at_any_time() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let events = bench.run(&["status"]).ok().json()["events"].clone();
    let other = Bench::with_notebook();
    other.run(&["ingest", &samples()]).ok();
    assert_eq!(other.run(&["status"]).ok().json()["events"], events);
    let digests = |bench: &Bench| -> Vec<Value> {
        let lines = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines();
        lines.iter().map(|event| event["facts"]["content"].clone()).collect()
    };
    assert_eq!(digests(&bench), digests(&other));
}

#[test]
fn odd_things_in_a_folder_are_passed_over_and_told() {
    let bench = Bench::with_notebook();
    write(&bench, "in/a.JSONL", &[chat("one?", "1")]);
    fs::write(bench.path("in/b.csv"), "a,b").unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, bench.path(name)).unwrap();
    link(".", "in/loop");
    link("absent", "in/broken.jsonl");
    let fifo = bench.path("in/pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let report = bench.run(&["ingest", bench.path("in").to_str().unwrap()]).ok().json();
    assert_eq!(report["accepted"], 1);
    let skipped = report["skipped"].to_string();
    for name in ["b.csv", "loop", "broken.jsonl", "pipe.jsonl"] {
        assert!(skipped.contains(name), "{name} is not in {skipped}");
    }
    bench.run(&["ingest", fifo.to_str().unwrap()]).fails(4);
}

#[test]
fn other_rows_of_the_same_name_are_not_taken_for_revisions() {
    let bench = Bench::with_notebook();
    let row = |question: &str| {
        let mut row = chat(question, "1");
        row["id"] = json!("7");
        row
    };
    let one = write(&bench, "one/data/train.jsonl", &[row("first?")]);
    let two = write(&bench, "two/data/train.jsonl", &[row("second?")]);
    bench.run(&["ingest", &one]).ok();
    let error = bench.run(&["ingest", &two]).fails(10);
    assert!(error["hint"].as_str().unwrap().contains("--source"), "{error}");
    assert_eq!(bench.run(&["ingest", "--source", "two", &two]).ok().json()["accepted"], 1);
    // The same file, changed where it lies, or moved and said to be so.
    write(&bench, "one/data/train.jsonl", &[row("third?")]);
    assert_eq!(bench.run(&["ingest", &one]).ok().json()["files"][0]["revised"], 1);
    assert_eq!(bench.run(&["ingest", "--revise", &two]).ok().json()["files"][0]["revised"], 1);
}

#[test]
fn a_subject_field_that_no_row_has_stores_nothing() {
    let bench = Bench::with_notebook();
    let mut row = chat("Where is the heliotrope?", "Here.");
    row["user_id"] = json!("ann");
    let path = write(&bench, "in/rows.jsonl", &[row]);
    let before = bench.run(&["status"]).ok().json()["events"].clone();
    let error = bench.run(&["ingest", "--subject-field", "userid", &path]).fails(4);
    assert!(error["message"].as_str().unwrap().contains("userid"), "{error}");
    assert_eq!(bench.run(&["status"]).ok().json()["events"], before);
}
