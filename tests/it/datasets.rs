//! Datasets and suites: built from a search, shown, compared, checked, written out.

use std::fs;

use serde_json::{Value, json};

use crate::ingesting::shared_data;
use crate::support::{Bench, samples, tiny_model};

fn seed() -> Bench {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &format!("{}/fledgling", samples())]).ok();
    bench
}

fn split(bench: &Bench) {
    let suite = ["suite", "build", "teacher", "--questions", "recorded/toolcall_azure"];
    bench.run(&[&suite[..], &["--golds", "toolcall/train"]].concat()).ok();
    let split = ["split", "toolcall", "--source", "toolcall/train", "--keep-out", "teacher"];
    bench.run(&split).ok();
}

fn events(bench: &Bench) -> Value {
    bench.run(&["status"]).ok().json()["events"].clone()
}

#[test]
fn a_preview_freezes_nothing_and_the_dataset_is_what_it_said() {
    let bench = seed();
    split(&bench);
    let before = events(&bench);
    let wish = ["dataset", "build", "places", "--query", "list OR find", "--kind", "trace"];
    let wish = [&wish[..], &["--source", "toolcall/train"]].concat();
    let preview = bench.run(&[&wish[..], &["--preview"]].concat()).ok().json();
    assert_eq!(events(&bench), before);
    assert_eq!(preview["kept_out"], json!(["teacher"]), "test suites are kept out unasked");
    let built = bench.run(&wish).ok().json();
    assert_eq!(built["dataset"]["dataset"], preview["dataset"]["dataset"]);
    assert!(built["dataset"]["train"].as_u64().unwrap() > 3, "{built}");
    // Built again, it is the same event.
    assert_eq!(bench.run(&wish).ok().json()["event"], built["event"]);
}

#[test]
fn failed_cases_of_a_test_suite_are_never_trained_on() {
    let bench = seed();
    split(&bench);
    bench.run(&["eval", "--suite", "teacher", "--recorded", "recorded/toolcall_phi"]).ok();
    let wish = ["dataset", "build", "next", "--query", "kind:case outcome:failed"];
    let error = bench.run(&wish).fails(4);
    assert!(error["message"].as_str().unwrap().contains("no rows"), "{error}");
}

#[test]
fn two_datasets_are_compared_row_by_row() {
    let bench = seed();
    split(&bench);
    let first = bench.run(&["dataset", "list"]).ok().lines()[0]["dataset"]["dataset"].clone();
    let other = ["split", "toolcall", "--source", "toolcall/train", "--salt", "another"];
    bench.run(&other).ok();
    let first = &first.as_str().unwrap()[..12];
    let diff = bench.run(&["dataset", "diff", first, "toolcall"]).ok().json();
    let n = |key: &str| diff[key].as_array().unwrap().len();
    assert_eq!(n("added"), 50, "the suite's questions are in the second");
    assert_eq!(n("removed"), 0);
    assert!(n("moved") > 0);
    assert!(diff["spec"].as_object().unwrap().contains_key("keep_out"), "{}", diff["spec"]);
}

#[test]
fn a_row_shows_what_is_learnt_and_what_is_cut() {
    let bench = seed();
    split(&bench);
    let shown = bench.run(&["dataset", "show", "toolcall"]).ok().json();
    assert!(!shown["profile"]["tools"].as_array().unwrap().is_empty());
    let row = shown["manifest"]["rows"][0]["seq"].to_string();
    let model = tiny_model().to_str().unwrap();
    let show = |limit: &str| {
        let wish = ["dataset", "show", "toolcall", "--row", &row, "--model", model];
        bench.run(&[&wish[..], &["--max-tokens", limit]].concat()).ok().json()["mask"].clone()
    };
    let whole = show("100000");
    assert_eq!(whole["cut_tokens"], 0);
    let pieces = |mask: &Value, part: &str| -> String {
        let all = mask["pieces"].as_array().unwrap().iter();
        let of_part = all.filter(|piece| piece["part"] == part);
        of_part.map(|piece| piece["text"].as_str().unwrap().to_owned()).collect()
    };
    let answer = pieces(&whole, "answer");
    assert!(answer.starts_with("<tool_call name="), "{answer}");
    let (prompt, all) = (whole["prompt_tokens"].as_u64().unwrap(), whole["answer_tokens"].as_u64());
    let cut = show(&(prompt + 5).to_string());
    assert_eq!(cut["supervised_tokens"], 5);
    assert_eq!(cut["cut_tokens"], all.unwrap() - 5);
    assert_eq!(pieces(&cut, "answer") + &pieces(&cut, "cut"), answer);
    assert!(!pieces(&cut, "cut").is_empty());
}

#[test]
fn a_dataset_is_written_out_and_read_again_in_every_format() {
    let bench = seed();
    split(&bench);
    for (format, file) in [
        ("openai", "train.jsonl"),
        ("trl", "train.jsonl"),
        ("sharegpt", "train.jsonl"),
        ("xlam", "train.jsonl"),
        ("bfcl", "train.json"),
        ("parquet", "train.parquet"),
    ] {
        let out = bench.path(format);
        let out = out.to_str().unwrap();
        let wish = ["dataset", "export", "toolcall", "--format", format, "--out", out];
        let said = bench.run(&[&wish[..], &["--skip-unsayable"]].concat()).ok().json();
        let left_out = said["left_out"].as_array().unwrap().len();
        let rows = said["rows"].as_u64().unwrap();
        assert_eq!(rows + left_out as u64, 250, "{format}: {said}");
        let card = fs::read_to_string(bench.path(format).join("README.md")).unwrap();
        assert!(card.contains("CC-BY-4.0") && card.contains("Salesforce"), "{card}");
        bench.run(&[&wish[..], &["--skip-unsayable"]].concat()).fails(2);
        if format == "parquet" || rows == 0 {
            continue;
        }
        let other = Bench::with_notebook();
        let file = bench.path(format).join(file);
        let report = other.run(&["ingest", file.to_str().unwrap()]).ok().json();
        assert_eq!(report["rejected"], 0, "{format}: {report}");
        let event = &other.run(&["log", "--kind", "trace.ingested"]).ok().lines()[0];
        assert_eq!(event["facts"]["licence"], "CC-BY-4.0", "{format}");
    }
}

#[test]
fn suites_are_picked_by_stratum_and_an_empty_one_is_an_error() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &format!("{}/hermes", samples())]).ok();
    let wish = ["suite", "build", "single", "--questions", "hermes/hermes_test"];
    let wish = [&wish[..], &["--track", "calls", "--kind", "single-turn"]].concat();
    let preview = bench.run(&[&wish[..], &["--preview"]].concat()).ok().json();
    let found: u64 =
        preview["strata"].as_array().unwrap().iter().map(|s| s["found"].as_u64().unwrap()).sum();
    assert!(found > 20, "{preview}");
    let built = bench.run(&wish).ok().json();
    assert_eq!(built["suite"]["n"].as_u64().unwrap(), found);
    assert_eq!(built["suite"]["gold_against_gold"], 1.0);
    let short = bench.run(&[&wish[..], &["--per-stratum", "1000"]].concat()).fails(4);
    assert!(short["message"].as_str().unwrap().contains("1,000"), "{short}");
    let wish = ["suite", "build", "talks", "--questions", "hermes/hermes_test"];
    let wish = [&wish[..], &["--track", "calls", "--kind", "multi-turn"]].concat();
    let empty = bench.run(&wish).fails(4);
    assert!(empty["message"].as_str().unwrap().contains("49"), "says what was looked at: {empty}");
}

#[test]
fn a_sealed_suite_opens_only_with_a_reason_that_is_recorded() {
    let bench = seed();
    let suite = ["suite", "build", "sealed", "--questions", "toolcall/eval100", "--sealed"];
    bench.run(&suite).ok();
    let looks = || bench.run(&["suite", "list"]).ok().lines()[0]["looks"].as_u64().unwrap();
    bench.run(&["suite", "show", "sealed"]).fails(7);
    assert_eq!(looks(), 0);
    bench.run(&["suite", "show", "sealed", "--look", "audit of golds"]).ok();
    bench.run(&["suite", "show", "sealed", "--look", "audit of golds"]).ok();
    assert_eq!(looks(), 2);
    let events = bench.run(&["log", "--kind", "test.looked_at"]).ok().lines();
    assert_eq!(events[0]["facts"]["purpose"], "show: audit of golds");
}

#[test]
fn the_leaks_of_the_seed_are_found_and_clean_pairs_are_clean() {
    let Some(data) = shared_data() else { return };
    let bench = Bench::with_notebook();
    bench.run(&["ingest", data.join("fledgling").to_str().unwrap()]).ok();
    let check = |train: &str, test: &str| {
        let said = bench.run(&["dataset", "check", train, test]);
        let clean = said.code == 0;
        assert!(clean || said.code == 7, "{}", said.err);
        (said.json(), clean)
    };
    let rows = |report: &Value, what: &str| report[what]["rows"].as_u64().unwrap();
    for (other, ids) in [("hermes/hermes_val", 1), ("hermes/hermes_test", 1)] {
        let (report, _) = check("hermes/hermes_train", other);
        assert_eq!(rows(&report, "shared_ids"), ids, "{other}");
    }
    let leaked = "leak_fixture_c1f7355/structured";
    let (report, clean) = check(&format!("{leaked}_train"), &format!("{leaked}_test"));
    assert_eq!((rows(&report, "shared_questions"), clean), (32, false));
    for track in ["toolcall", "structured"] {
        let train = format!("{track}/train");
        let (report, clean) = check(&train, &format!("{track}/eval100"));
        assert_eq!((rows(&report, "shared_questions"), clean), (100, false), "{track}");
        assert_eq!(rows(&report, "shared_prompts"), 0, "by its text no check would see it");
        let (report, clean) = check(&train, &format!("{track}/test"));
        assert!(clean, "{track}: {report}");
    }
}

#[test]
fn a_seal_cannot_be_broken_by_building_the_suite_again() {
    let bench = seed();
    let suite = ["suite", "build", "sealed", "--questions", "toolcall/eval100"];
    bench.run(&[&suite[..], &["--sealed"]].concat()).ok();
    bench.run(&suite).fails(7);
    bench.run(&["suite", "build", "copy", "--questions", "toolcall/eval100"]).fails(7);
}

#[test]
fn a_suite_of_dev_and_test_questions_is_a_test_suite() {
    let bench = seed();
    split(&bench);
    let mixed = ["suite", "build", "mixed", "--questions", "dev-of:toolcall"];
    bench.run(&[&mixed[..], &["--questions", "toolcall/eval100"]].concat()).ok();
    // A suite whose name another has by now is still kept out, by its identity.
    bench.run(&["suite", "build", "teacher", "--questions", "dev-of:toolcall"]).ok();
    let wish = ["dataset", "build", "d", "--query", "kind:trace", "--source", "toolcall/train"];
    let preview = bench.run(&[&wish[..], &["--preview"]].concat()).ok().json();
    let kept_out = preview["kept_out"].as_array().unwrap();
    assert!(kept_out.contains(&json!("mixed")) && kept_out.len() == 2, "{kept_out:?}");
    assert!(preview["dataset"]["train"].as_u64().unwrap() <= 220, "{preview}");
}
