//! The whole loop with a tiny model: the demo, broken off and gone on with, replayed and damaged.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Bench, Said, TINY_RECIPE, said, tiny_model};

fn demo(bench: &Bench, extra: &[&str]) -> Said {
    let recipe = bench.path("recipe.toml");
    std::fs::write(&recipe, TINY_RECIPE).unwrap();
    said(demo_command(bench, &recipe, extra).output().unwrap())
}

fn demo_command(bench: &Bench, recipe: &Path, extra: &[&str]) -> std::process::Command {
    let mut command = bench.command(extra);
    command.arg("demo").arg("--model").arg(tiny_model());
    command.arg("--recipe").arg(recipe).args(["--max-new-tokens", "12"]);
    command
}

/// One demo that the tests read but do not change.
fn finished() -> &'static (Bench, Value) {
    static DEMO: OnceLock<(Bench, Value)> = OnceLock::new();
    DEMO.get_or_init(|| {
        let bench = Bench::new();
        let summary = demo(&bench, &["--threads", "2"]).ok().json();
        (bench, summary)
    })
}

fn arm<'a>(report: &'a Value, label: &str) -> &'a Value {
    let arms = report["arms"].as_array().unwrap();
    arms.iter().find(|arm| arm["label"] == label).unwrap_or_else(|| panic!("no arm {label}"))
}

fn group<'a>(arm: &'a Value, stratum: &str, reading: &str) -> &'a Value {
    let groups = arm["groups"].as_array().unwrap();
    groups.iter().find(|g| g["stratum"] == stratum && g["reading"] == reading).unwrap()
}

#[test]
fn the_demo_tells_the_seeds_story_properly() {
    let (_, summary) = finished();
    assert_eq!(summary["dataset"]["train"], 220);
    assert_eq!(summary["dataset"]["dev"], 30);
    let report = &summary["report"];
    let labels: Vec<&str> =
        report["arms"].as_array().unwrap().iter().map(|a| a["label"].as_str().unwrap()).collect();
    for label in ["teacher", "phi-4-mini", "base", "base+cep", "adapter", "adapter+cep"] {
        assert!(labels.contains(&label), "{labels:?}");
        for (stratum, n) in [("all", 50), ("single-call", 22), ("truncated", 28)] {
            assert_eq!(group(arm(report, label), stratum, "strict")["n"], n, "{label} {stratum}");
        }
    }
    let teacher = arm(report, "teacher");
    let exact = |stratum: &str| group(teacher, stratum, "strict")["exact"]["k"].clone();
    assert_eq!(
        (exact("all"), exact("single-call"), exact("truncated")),
        (32.into(), 17.into(), 15.into())
    );
    // The structured teacher answered 39 questions; the other 11 count as failures.
    let structured = arm(&summary["structured"], "teacher");
    assert_eq!(group(structured, "all", "strict")["n"], 50);
    assert_eq!(group(structured, "all", "strict")["valid"]["k"], 39);
    // A random model passes no gate, and is served as what it is.
    for gate in summary["gates"].as_array().unwrap() {
        assert_ne!(gate["facts"]["verdict"], "PASS");
    }
    assert!(summary["promotions"][0].as_str().unwrap().ends_with("refused"));
    assert!(summary["served"]["marks"].as_array().unwrap().contains(&"unpromoted".into()));
    assert!(summary["contaminated"].as_str().unwrap().contains("50 of its 50 questions"));
    assert!(summary["next"]["dataset"]["train"].as_u64().unwrap() >= 1);
    assert!(summary["replays"][0]["divergence"].is_null());
    assert_eq!(summary["verified"]["good"], true);
    for page in summary["pages"].as_array().unwrap() {
        assert!(Path::new(page.as_str().unwrap()).exists());
    }
}

#[test]
fn run_again_the_demo_changes_no_result() {
    let (finished, first) = finished();
    let bench = finished.copy();
    let again = demo(&bench, &[]).ok().json();
    for part in ["dataset", "training", "report", "gates", "served", "next"] {
        assert_eq!(first[part], again[part], "{part}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_facts() {
    let (_, two) = finished();
    let bench = Bench::new();
    let one = demo(&bench, &["--threads", "1"]).ok().json();
    assert_eq!(one["training"], two["training"]);
    let cases = |summary: &Value| arm(&summary["report"], "adapter")["groups"].clone();
    assert_eq!(cases(&one), cases(two));
}

#[test]
fn killed_at_any_moment_the_demo_goes_on_and_ends_the_same() {
    let (_, whole) = finished();
    let recipe_of = |bench: &Bench| {
        let recipe = bench.path("recipe.toml");
        std::fs::write(&recipe, TINY_RECIPE).unwrap();
        recipe
    };
    let bench = Bench::new();
    let recipe = recipe_of(&bench);
    for wait in [150, 800, 2000, 4000, 7000, 10_000] {
        let mut child = demo_command(&bench, &recipe, &[])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        // SIGKILL, at a moment that nothing prepared for.
        let _ = child.kill();
        let _ = child.wait();
    }
    let ended = demo(&bench, &[]).ok().json();
    assert_eq!(ended["training"], whole["training"]);
    assert_eq!(ended["verified"]["good"], true);
    bench.run(&["verify"]).ok();
}

#[test]
fn a_replay_of_everything_is_equal_and_a_change_is_named() {
    let (bench, summary) = finished();
    let model = tiny_model().to_str().unwrap();
    let training = summary["training"]["run"].as_str().unwrap();
    let report = bench.run(&["replay", training, "--model", model]).ok().json();
    assert!(report["divergence"].is_null());
    assert!(report["compared"].as_u64().unwrap() > 300, "{report}");
    let evaluation = arm(&summary["report"], "adapter")["run"].as_str().unwrap();
    bench.run(&["replay", evaluation, "--model", model]).ok();
    let recorded = arm(&summary["report"], "teacher")["run"].as_str().unwrap();
    assert_eq!(bench.run(&["replay", recorded]).ok().json()["tier"], "L4");

    let changed = bench.run(&["replay", training, "--model", model, "--set", "seed=8"]);
    let report = changed.json();
    assert_eq!(report["divergence"]["kind"], "step.completed", "{report}");
    assert_eq!(report["divergence"]["path"], "gradient_norm", "{report}");
    let error = changed.fails(8);
    assert_eq!(error["kind"], "diverged");
    bench.run(&["replay", recorded, "--set", "seed=8"]).fails(2);
}

#[test]
fn a_damaged_body_is_named_before_anything_runs() {
    let (finished, summary) = finished();
    let bench = finished.copy();
    let digest = summary["training"]["outcome"]["weights"]["digest"].as_str().unwrap();
    let path = bench.notebook().join("blobs").join(&digest[..2]).join(&digest[2..]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let run = summary["training"]["run"].as_str().unwrap();
    // The model does not even exist: the damage is found before it would be loaded.
    let error = bench.run(&["replay", run, "--model", "absent.gguf"]).fails(6);
    assert!(error["message"].as_str().unwrap().contains(&digest[..12]), "{error}");
    let error = bench.run(&["verify"]).fails(6);
    assert_eq!(error["kind"], "damaged");
}

#[test]
fn search_and_why_find_what_happened() {
    let (bench, summary) = finished();
    let served = bench.run(&["search", "source:serve"]).ok().lines();
    assert_eq!(served.len(), 1);
    let failed = bench.run(&["search", "label:adapter", "outcome:failed", "-n", "99"]).ok().lines();
    assert!(failed.len() >= 50, "{}", failed.len());
    let words = bench.run(&["search", "pit stop", "--kind", "case.scored"]).ok().lines();
    assert!(!words[0]["highlights"].as_array().unwrap().is_empty());
    let id = arm(&summary["report"], "adapter")["deployment_id"].as_str().unwrap();
    let said = said(
        std::process::Command::new(env!("CARGO_BIN_EXE_ledger"))
            .arg("--dir")
            .arg(bench.notebook())
            .args(["why", &id[..12]])
            .output()
            .unwrap(),
    )
    .ok();
    for part in ["champion", "report", "train-", "toolcall/train", "event"] {
        assert!(said.out.contains(part), "{part} is not in\n{}", said.out);
    }
}

#[test]
fn an_override_is_loud_and_needs_somebody_else() {
    let bench = finished().0.copy();
    let error = bench.run(&["promote", "--alias", "canary"]).fails(7);
    assert_eq!(error["kind"], "refused");
    let force = ["promote", "--alias", "canary", "--override", "--reason", "drill"];
    let alone = [&force[..], &["--second-actor", "operator"]].concat();
    bench.run(&alone).fails(7);
    let two = [&force[..], &["--second-actor", "auditor"]].concat();
    assert_eq!(bench.run(&two).ok().json()["overridden"], true);
    let selection = std::fs::read_to_string(bench.notebook().join("model_selection.json")).unwrap();
    assert!(selection.contains("drill") || selection.contains("overrid"), "{selection}");
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", "canary", "--model", model, "--port", "0"]);
    assert!(first["marks"].as_array().unwrap().contains(&"overridden".into()), "{first}");
    assert_eq!(running.stop(), 0);
}
