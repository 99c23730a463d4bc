//! Forgetting a subject, through the binary.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Bench;

/// An exported trace of one user.
fn trace(id: &str, user: &str, words: &str) -> Value {
    json!({
        "trace": {
            "id": id, "name": "chat", "timestamp": "2025-11-17T14:55:18.786Z", "userId": user,
            "sessionId": null, "input": words, "output": format!("answer to {words}"),
            "tags": [], "public": true,
        },
        "observations": [{
            "id": format!("{id}-o"), "traceId": id, "type": "GENERATION", "name": "chat",
            "startTime": "2025-11-17T14:55:18.786Z", "endTime": "2025-11-17T14:55:19.786Z",
            "model": "m", "parentObservationId": null, "level": "DEFAULT",
            "input": json!([{ "role": "user", "content": words }]).to_string(),
            "output": json!({ "role": "assistant", "content": format!("answer to {words}") })
                .to_string(),
        }],
    })
}

/// Every file below a directory that holds one of the texts.
fn holding(dir: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, texts));
        } else if let Ok(bytes) = fs::read(&path) {
            let has =
                |t: &&str| bytes.windows(t.len()).any(|w| w.eq_ignore_ascii_case(t.as_bytes()));
            if texts.iter().any(has) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_forgotten_subject_leaves_no_trace_of_its_words() {
    let bench = Bench::with_notebook();
    let files = bench.path("traces");
    fs::create_dir(&files).unwrap();
    let rows = [
        ("a1", "ann@example.org", "the marmalade zeppelin of ann"),
        ("a2", "ann@example.org", "ann and the cobalt accordion"),
        ("b1", "bea", "the velvet harpoon of bea"),
    ];
    for (id, user, words) in rows {
        let file = files.join(format!("{id}.trace.json"));
        fs::write(file, trace(id, user, words).to_string()).unwrap();
    }
    let folder = files.to_str().unwrap();
    let report = bench.run(&["ingest", folder]).ok().json();
    assert_eq!((&report["accepted"], &report["duplicates"]), (&json!(3), &json!(0)), "{report}");
    assert_eq!(bench.run(&["ingest", folder]).ok().json()["duplicates"], 3);
    // Encrypted from the start: the index is the only file with readable words.
    assert_eq!(bench.run(&["search", "zeppelin"]).ok().lines().len(), 1);
    let words = ["zeppelin", "accordion", "ann@example.org"];
    let index = bench.notebook().join("index");
    let readable = holding(&bench.notebook(), &words);
    assert!(readable.iter().all(|path| path.starts_with(&index)), "{readable:?}");

    let seq = bench.run(&["log", "--kind", "trace.ingested"]).ok().lines()[0]["seq"].to_string();
    let body = bench.run(&["show", &seq, "--body"]).ok().json();
    assert!(body.to_string().contains("zeppelin"));
    bench.run(&["verify"]).ok();
    bench.run(&["forget", "ann@example.org"]).fails(2);
    bench.run(&["forget", "nobody", "--yes"]).fails(3);
    let forgotten = bench.run(&["forget", "ann@example.org", "--yes"]).ok().json();
    assert_eq!(
        (&forgotten["bodies"], forgotten["events"].as_array().unwrap().len()),
        (&json!(2), 2)
    );

    assert_eq!(holding(&bench.notebook(), &words), Vec::<PathBuf>::new());
    assert_eq!(bench.run(&["search", "zeppelin"]).ok().lines().len(), 0);
    assert_eq!(bench.run(&["search", "harpoon"]).ok().lines().len(), 1);
    assert_eq!(holding(&bench.notebook(), &words), Vec::<PathBuf>::new());
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
}
