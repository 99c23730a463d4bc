//! Forgetting a subject, through the binary.

use std::fs;
use std::path::{Path, PathBuf};

use ledger::Digest;
use serde_json::{Value, json};

use crate::support::{Bench, holding};

/// An exported trace of one user, whose model called a tool and was offered another.
fn trace(id: &str, user: &str, words: &str) -> Value {
    let called = format!("summon_{}", words.replace(' ', "_"));
    json!({
        "trace": {
            "id": id, "name": "chat", "timestamp": "2025-11-17T14:55:18.786Z", "userId": user,
            "sessionId": null, "input": words, "output": format!("answer to {words}"),
            "tags": [], "public": true,
        },
        "observations": [{
            "id": observation(id), "traceId": id, "type": "GENERATION", "name": "chat",
            "startTime": "2025-11-17T14:55:18.786Z", "endTime": "2025-11-17T14:55:19.786Z",
            "model": "m", "parentObservationId": null, "level": "DEFAULT",
            "metadata": { "tools": [{ "name": "offered_tool", "parameters": {} }] },
            "input": json!([{ "role": "user", "content": words }]).to_string(),
            "output": json!({
                "role": "assistant", "content": format!("answer to {words}"),
                "tool_calls": [{ "function": { "name": called, "arguments": "{}" } }],
            })
            .to_string(),
        }],
    })
}

fn observation(trace: &str) -> String {
    format!("observation-of-{trace}")
}

/// Everything that a digest could be made of, so that none of it may stand anywhere: the file, its
/// row, and the words themselves.
fn digests(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap();
    let export: Value = serde_json::from_slice(&bytes).unwrap();
    let row = &export["observations"][0];
    let mut all = vec![Digest::of(&bytes), Digest::of(row.to_string().as_bytes())];
    all.push(Digest::of(&ledger::id::canonical_json(row).unwrap()));
    for text in [&export["trace"]["input"], &export["trace"]["output"], &row["id"], &row["output"]]
    {
        all.push(Digest::of(text.as_str().unwrap().as_bytes()));
    }
    all.iter().map(Digest::to_string).collect()
}

/// Digests of a canonical episode, as a body and as the content of its event.
fn episode_digests(episode: &Value) -> Vec<String> {
    let digest = |value: &Value| Digest::of(&ledger::id::canonical_json(value).unwrap());
    let mut nowhere = episode.clone();
    nowhere["source"] = json!({
        "name": "", "external_id": "", "location": { "file": "", "row": 0 }, "format": "",
    });
    vec![digest(episode).to_string(), digest(&nowhere).to_string()]
}

/// Writes traces, each into a file that bears the name of its user.
fn write(dir: &Path, rows: &[(&str, &str, &str)]) -> Vec<PathBuf> {
    fs::create_dir(dir).unwrap();
    let file = |(id, user, words): &(&str, &str, &str)| {
        let file = dir.join(format!("{user}.{id}.trace.json"));
        fs::write(&file, trace(id, user, words).to_string()).unwrap();
        file
    };
    rows.iter().map(file).collect()
}

fn none(found: &[PathBuf]) {
    assert!(found.is_empty(), "{found:?}");
}

/// Ingests three traces, twice, and checks what the log says of them. Returns the first's event.
fn ingested(bench: &Bench, folder: &str) -> Value {
    let report = bench.run(&["ingest", folder]).ok().json();
    assert_eq!((&report["accepted"], &report["duplicates"]), (&json!(3), &json!(0)), "{report}");
    assert_eq!(report["files"][0]["source"], "traces");
    let size = bench.run(&["status"]).ok().json()["events"].clone();
    assert_eq!(bench.run(&["ingest", folder]).ok().json()["duplicates"], 3);
    assert_eq!(bench.run(&["status"]).ok().json()["events"], size, "a repetition adds nothing");

    let events = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines();
    let facts = &events[0]["facts"];
    assert_eq!((&facts["tools"], &facts["track"]), (&json!(["offered_tool"]), &json!("toolcall")));
    assert_eq!(
        (&facts["flags"], &facts["source"]),
        (&json!(["answer.recorded"]), &json!("traces"))
    );
    assert_eq!(facts["location"], json!({ "file": "traces", "row": 1 }));
    let imports = bench.run(&["log", "--kind", "dataset.imported"]).ok().lines();
    assert!(imports.iter().all(|event| event["measured"].get("path").is_none()), "{imports:?}");
    events[0].clone()
}

#[test]
fn a_forgotten_subject_leaves_no_trace_of_its_words() {
    let bench = Bench::with_notebook();
    let dir = bench.path("traces");
    let files = write(
        &dir,
        &[
            ("a1", "ann@example.org", "the marmalade zeppelin of ann"),
            ("a2", "ann@example.org", "ann and the cobalt accordion"),
            ("b1", "bea", "the velvet harpoon of bea"),
        ],
    );
    let folder = dir.to_str().unwrap();
    let first = ingested(&bench, folder);
    let seq = first["seq"].to_string();
    let body = bench.run(&["show", &seq, "--body"]).ok().json();
    assert!(body.to_string().contains("zeppelin"));
    // Never stood anywhere, not even while the subject is known.
    let mut never =
        vec!["ann@example.org".to_owned(), observation("a1"), "summon_the_m".to_owned()];
    never.extend(files.iter().flat_map(|file| digests(file)));
    never.extend(episode_digests(&body));
    let never: Vec<&str> = never.iter().map(String::as_str).collect();
    none(&holding(&bench.notebook(), &never));
    // Encrypted from the start: the index is the only file with readable words.
    assert_eq!(bench.run(&["search", "zeppelin"]).ok().lines().len(), 1);
    let words = ["zeppelin", "accordion", "ann@example.org"];
    let index = bench.notebook().join("index");
    let readable = holding(&bench.notebook(), &words);
    assert!(readable.iter().all(|path| path.starts_with(&index)), "{readable:?}");

    bench.run(&["verify"]).ok();
    bench.run(&["forget", "ann@example.org"]).fails(2);
    bench.run(&["forget", "nobody", "--yes"]).fails(3);
    let forgotten = bench.run(&["forget", "ann@example.org", "--yes"]).ok().json();
    assert_eq!(
        (&forgotten["bodies"], forgotten["events"].as_array().unwrap().len()),
        (&json!(2), 2)
    );
    assert_eq!(forgotten["downstream"]["unreadable"], json!([]));

    none(&holding(&bench.notebook(), &words));
    assert_eq!(bench.run(&["search", "zeppelin"]).ok().lines().len(), 0);
    assert_eq!(bench.run(&["search", "harpoon"]).ok().lines().len(), 1);
    none(&holding(&bench.notebook(), &words));
    none(&holding(&bench.notebook(), &never));
    let error = bench.run(&["show", &seq, "--body"]).fails(12);
    assert_eq!(error["kind"], "erased");
    let report = bench.run(&["verify"]).ok().json();
    assert_eq!(report["good"], true);
    let size = report["events"].clone();
    bench.run(&["forget", "ann@example.org", "--yes"]).ok();
    assert_eq!(bench.run(&["verify"]).ok().json()["events"], size);
    // What was removed leaves nothing to collect.
    let garbage = bench.run(&["gc", "--dry-run", "--grace", "0"]).ok().json();
    assert_eq!(garbage["garbage"], json!([]));
    // Longer than the world is old, and no overflow.
    bench.run(&["gc", "--dry-run", "--grace", &u64::MAX.to_string()]).ok();
}

#[test]
fn a_rejected_row_of_a_person_leaves_nothing_either() {
    let bench = Bench::with_notebook();
    let dir = bench.path("traces");
    let files = write(&dir, &[("a1", "ann@example.org", "the marmalade zeppelin of ann")]);
    let whole = fs::read_to_string(&files[0]).unwrap();
    // A role that nobody knows, with words in it.
    fs::write(&files[0], whole.replace(r#"\"user\""#, r#"\"zeppelin pilot\""#)).unwrap();
    let folder = dir.to_str().unwrap();
    let report = bench.run(&["ingest", folder]).ok().json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(0), &json!(1)), "{report}");
    // Whoever has the file is told which it is; the log is not.
    let told = report["files"][0]["rejections"][0].as_str().unwrap();
    assert!(told.starts_with("ann@example.org.a1.trace.json: row 1: input: "), "{told}");
    let events = bench.run(&["log", "--kind", "trace.rejected"]).ok().lines();
    assert_eq!(events[0]["facts"]["location"], json!({ "file": "traces", "row": 1 }));
    bench.run(&["search", "role"]).ok();
    let mut never = digests(&files[0]);
    never.extend(["zeppelin", "ann@example.org", "observation-of", "summon_"].map(str::to_owned));
    let never: Vec<&str> = never.iter().map(String::as_str).collect();
    none(&holding(&bench.notebook(), &never));
    let size = bench.run(&["status"]).ok().json()["events"].clone();
    bench.run(&["ingest", folder]).ok();
    assert_eq!(bench.run(&["status"]).ok().json()["events"], size, "a repetition adds nothing");
    assert_eq!(bench.run(&["verify"]).ok().json()["good"], true);
}

#[test]
fn episodes_of_a_person_are_as_safe_as_traces() {
    let bench = Bench::with_notebook();
    let dir = bench.path("traces");
    write(&dir, &[("a1", "ann@example.org", "the marmalade zeppelin of ann")]);
    bench.run(&["ingest", dir.to_str().unwrap()]).ok();
    let event = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines()[0].clone();
    let episode = bench.run(&["show", &event["seq"].to_string(), "--body"]).ok().json();
    let mut broken = episode.clone();
    broken["turns"] = json!("the cobalt accordion");
    let mut open = episode.clone();
    (open["subject"], open["query"]) = (Value::Null, json!("of nobody"));
    (open["turns"], open["answer"], open["gold"]) =
        (json!([]), json!(null), json!({"kind": "none"}));
    open["source"]["external_id"] = json!("open");
    open["source"]["location"]["file"] = json!("open");

    let other = Bench::with_notebook();
    fs::create_dir(other.path("episodes")).unwrap();
    let file = other.path("episodes/ann@example.org.jsonl");
    fs::write(&file, format!("{episode}\n{broken}\n{open}\n")).unwrap();
    let report = other.run(&["ingest", file.to_str().unwrap()]).ok().json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(2), &json!(1)), "{report}");
    let file_digest = Digest::of(&fs::read(&file).unwrap()).to_string();
    let row_digest = Digest::of(broken.to_string().as_bytes()).to_string();
    let mut never = episode_digests(&episode);
    never.extend([file_digest, row_digest]);
    never.extend(["zeppelin", "accordion", "ann@example.org", "summon_"].map(str::to_owned));
    let never: Vec<&str> = never.iter().map(String::as_str).collect();
    none(&holding(&other.notebook(), &never));
    let events = other.run(&["log", "--kind", "trace.rejected"]).ok().lines();
    let facts = &events[0]["facts"];
    assert_eq!(facts["location"], json!({ "file": "episodes", "row": 2 }));
    let why = facts["reason"].as_str().unwrap();
    assert!(why.ends_with("invalid type, expected a sequence"), "{why}");
}

#[test]
fn a_blank_user_is_nobody_and_stops_no_import() {
    let bench = Bench::with_notebook();
    let dir = bench.path("traces");
    fs::create_dir(&dir).unwrap();
    for (id, user) in [("a1", ""), ("a2", "  ")] {
        let text = trace(id, user, "the open question").to_string();
        fs::write(dir.join(format!("{id}.json")), text).unwrap();
    }
    let report = bench.run(&["ingest", dir.to_str().unwrap()]).ok().json();
    assert_eq!(report["accepted"], 2, "{report}");
    let events = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines();
    assert!(events.iter().all(|event| event["facts"]["body"]["subject"].is_null()), "{events:?}");
}

#[test]
fn conversations_of_nobody_are_replayed_and_those_of_somebody_are_left_out() {
    let bench = Bench::with_notebook();
    let dir = bench.path("traces");
    let rows = [("a1", "ann", "the marmalade zeppelin"), ("b1", "", "the velvet harpoon")];
    write(&dir, &rows);
    // Another row of nobody that cannot be read: its commitment is made again as well.
    let broken = trace("c1", "", "the cobalt accordion").to_string();
    fs::write(dir.join("c1.json"), broken.replace(r#"\"user\""#, r#"\"pilot\""#)).unwrap();
    bench.run(&["ingest", dir.to_str().unwrap()]).ok();
    let suite = ["suite", "build", "s", "--questions", "traces", "--golds", "traces"];
    bench.run(&suite).ok();
    let run = bench.run(&["eval", "--suite", "s", "--recorded", "traces"]).ok().json();
    let report = bench.run(&["replay", run["run"].as_str().unwrap()]).ok().json();
    assert!(report["divergence"].is_null(), "{report}");
    // Two files of nobody: an episode, a rejection, and an import each.
    assert_eq!(report["stages"][0]["compared"], 4, "{report}");
    let scope = report["stages"][0]["scope"].as_str().unwrap();
    assert!(scope.contains("the record does not name it"), "{scope}");
}
