//! The kept corpus is read again by every run of the tests; `UPDATE_GOLDEN=1` writes its seeds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use ledger::Digest;

use super::*;
use crate::episode::Turn;
use crate::samples;
use crate::split::{Excluded, SplitSpec, build_split};
use crate::suite::tests::toolcall_suite;

/// What takes the inputs of a target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("ingest", super::ingest),
    ("gold", super::gold),
    ("redact", super::redact),
    ("manifest", super::manifest),
];

/// Samples of which the shortest rows are seeds.
const SAMPLES: [&str; 10] = [
    "biz_entity/entity_location_date.jsonl",
    "exchange/exchanges.jsonl",
    "fledgling/recorded/toolcall_phi.jsonl",
    "fledgling/structured/eval100.jsonl",
    "fledgling/structured/train.jsonl",
    "fledgling/toolcall/eval100.jsonl",
    "fledgling/toolcall/train.jsonl",
    "hermes/hermes_test.jsonl",
    "tau_bench/airline.json",
    "workflow/all_traces.jsonl",
];

/// Rows of formats without a sample.
const MADE: [&str; 5] = [
    r#"{"query": "q", "tools": "[{\"name\": \"f\"}]",
        "answers": "[{\"name\": \"f\", \"arguments\": {}}]"}"#,
    r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
    r#"{"id": "b", "question": [[{"role": "user", "content": "q"}]], "function": [{"name": "f"}]}"#,
    r#"[{"trace": {"id": "t"}, "observations": [{"id": "o", "type": "GENERATION", "input": "q",
        "output": {"content": [{"type": "tool_use", "name": "g", "input": {}}]}}]}]"#,
    r#"{"cep": "Be brief."}"#,
];

/// Texts in which every rule finds something.
const SECRETS: [(&str, &str); 5] = [
    ("keys", "sk-aB3dE5fG7hJ9kL1mN2pQ4rS6 hf_ AKIAIOSFODNN7EXAMPLE [SECRET_7]"),
    ("bearer", "Authorization: Bearer aB3dE5fG7hJ9kL1m, password=\"hunter2xyz99\" u:p4ss@h.io"),
    ("people", "a@b.io, +1 415 555 2671 or (415) 555-2671"),
    ("numbers", "4111 1111 1111 1111 DE89370400440532013000 4111-1111"),
    ("block", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY----- eyJhbGciOi"),
];

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = fuzz().join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
}

/// Reads the rows of a sample as they were written, the shortest first.
fn sample(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(samples::path(name)).unwrap();
    let mut rows: Vec<Value> = match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    };
    rows.sort_by_key(|row| row.to_string().len());
    rows
}

/// Writes what the fuzzer begins with: real rows, laid out in all ways.
fn write_seeds() {
    let n_formats = u8::try_from(Format::ALL.len()).unwrap();
    for name in SAMPLES {
        let rows = sample(name);
        let stem = name.replace(['/', '.'], "-");
        let (first, second) = (&rows[0], &rows[1]);
        put("ingest", &stem, format!("{}\u{4}{first}\n{second}\n", n_formats as char).as_bytes());
        put(
            "ingest",
            &format!("{stem}-array"),
            format!("{}\u{0}[{first}]", n_formats as char).as_bytes(),
        );
        let golds = ["completion", "reference"].iter().find_map(|key| first[key].as_str());
        let gold = golds.or_else(|| first["conversations"][2]["value"].as_str());
        if let Some(gold) = gold {
            put("gold", &stem, gold.as_bytes());
        }
        if let Some(row) = samples::rows(name).iter().find_map(|row| row.result.as_ref().ok()) {
            let stored = row.first().unwrap().to_bytes();
            if stored.len() < 2000 {
                put("ingest", &format!("{stem}-episode"), &[&[n_formats, 0], &stored[..]].concat());
            }
        }
    }
    for (place, row) in MADE.iter().enumerate() {
        put(
            "ingest",
            &format!("made-{place}"),
            format!("{}\u{1}{row}", n_formats as char).as_bytes(),
        );
    }
    let pretty = format!("{:#}\n{:#}", sample(SAMPLES[0])[0], sample(SAMPLES[0])[1]);
    put("ingest", "pretty", &[&[n_formats, 1], pretty.as_bytes()].concat());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(pretty.as_bytes()).unwrap();
    put("ingest", "gzip", &[&[n_formats, 0], &encoder.finish().unwrap()[..]].concat());
    for (name, text) in [
        ("python", "[{'name': 'f', 'arguments': {'a': (1, None), 'b': True,}}]"),
        ("fenced", "```json\n{\"name\": \"f\", \"parameters\": {\"a\": 1e3}}\n```"),
        ("attribute", "<tool_call name=\"f\" arguments='{\"a\": 1}' />"),
        ("lifted", "<tool_call>{'arguments': {'a': 1, 'name': 'f'}}</tool_call>"),
    ] {
        put("gold", name, text.as_bytes());
    }
    for (name, text) in SECRETS {
        put("redact", name, &[&[0b1_1111], text.as_bytes()].concat());
    }
    let (suite, split) = manifests();
    put("manifest", "suite", &suite.to_stored());
    put("manifest", "split", &split.to_stored());
    put("manifest", "episode", &samples::episodes(SAMPLES[0], 0)[0].1.to_stored());
}

/// A suite and a split, small enough for a fuzzer.
fn manifests() -> (SuiteManifest, SplitManifest) {
    let mut suite = toolcall_suite(100);
    suite.cases.truncate(1);
    let case = &mut suite.cases[0];
    case.turns = vec![Turn::text("user", "q")];
    case.gold_all.truncate(1);
    let rows = samples::episodes("fledgling/toolcall/train.jsonl", 0);
    let mut split = build_split(&SplitSpec::default(), &rows[..8], &[suite.clone()]).unwrap();
    split.rows.truncate(2);
    split.excluded.push(Excluded {
        seq: 7,
        episode: Digest::of(b"e"),
        content: Digest::of(b"c"),
        reason: "near duplicate".to_owned(),
        near_duplicate_of: Some(3),
    });
    (suite, split)
}

#[test]
fn the_kept_corpus_harms_nobody() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write_seeds();
    }
    for (name, target) in TARGETS {
        let folder = fuzz().join("corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{name} has no corpus"));
        let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 3, "{name}");
        for input in inputs {
            target(&input);
            (0..input.len().min(300)).for_each(|cut| target(&input[..cut]));
        }
    }
}
