//! Bad input and forbidden moves: a clear error, a hint, the documented exit code.

use std::fs;

use crate::support::{Bench, samples, tiny_model};

fn text(error: &serde_json::Value, key: &str) -> String {
    error[key].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_missing_file() {
    let bench = Bench::with_notebook();
    let error = bench.run(&["ingest", "absent.jsonl"]).fails(3);
    assert!(text(&error, "message").contains("absent.jsonl"));
}

#[test]
fn broken_json_on_line_17_is_rejected_with_file_and_row() {
    let bench = Bench::with_notebook();
    let whole =
        fs::read_to_string(format!("{}/fledgling/toolcall/train.jsonl", samples())).unwrap();
    let mut lines: Vec<&str> = whole.lines().collect();
    lines[16] = "{\"prompt\": \"cut";
    fs::create_dir(bench.path("toolcall")).unwrap();
    let path = bench.path("toolcall/train.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    let report = bench.run(&["ingest", path.to_str().unwrap()]).ok().json();
    assert_eq!((&report["rows"], &report["accepted"]), (&300.into(), &299.into()));
    assert_eq!(report["rejected"], 1);
    let why = report["files"][0]["rejections"][0].as_str().unwrap();
    assert!(why.contains("train.jsonl") && why.contains("row 17"), "{why}");
    let events = bench.run(&["log", "--kind", "trace.rejected"]).ok().lines();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["facts"]["location"]["row"], 17);
}

#[test]
fn ingesting_twice_adds_nothing_and_a_change_is_a_revision() {
    let bench = Bench::with_notebook();
    let first = bench.run(&["ingest", &samples()]).ok().json();
    assert_eq!(first["duplicates"], 0);
    let counted = |report: &serde_json::Value| {
        report["accepted"].as_u64().unwrap() + report["rejected"].as_u64().unwrap()
    };
    assert_eq!(first["rows"].as_u64().unwrap(), counted(&first));
    let events = bench.run(&["status"]).ok().json()["events"].clone();
    // However the path is written, the source is the same.
    let odd = format!("{}/../samples/.", samples());
    assert_eq!(bench.run(&["ingest", &odd]).ok().json()["duplicates"], first["accepted"]);
    let again = bench.run(&["ingest", &samples()]).ok().json();
    assert_eq!(again["duplicates"], again["accepted"]);
    assert_eq!(bench.run(&["status"]).ok().json()["events"], events);

    let rows = |gold: &str| {
        let call = format!("<tool_call name=\"f\">{{\"a\":{gold}}}</tool_call>");
        serde_json::json!({ "prompt": "Respond.\nRequest: hi", "completion": call }).to_string()
    };
    fs::create_dir(bench.path("own")).unwrap();
    let path = bench.path("own/rows.jsonl");
    fs::write(&path, rows("1")).unwrap();
    bench.run(&["ingest", path.to_str().unwrap()]).ok();
    fs::write(&path, rows("2")).unwrap();
    let report = bench.run(&["ingest", path.to_str().unwrap()]).ok().json();
    assert_eq!(report["files"][0]["revised"], 1, "{report}");
    let revised = bench.run(&["log", "--kind", "trace.revised"]).ok().lines();
    assert_eq!(revised.len(), 1);
}

#[test]
fn a_file_of_no_known_format() {
    let bench = Bench::with_notebook();
    let path = bench.path("notes.jsonl");
    fs::write(&path, "{\"hello\": 1}\n").unwrap();
    let error = bench.run(&["ingest", path.to_str().unwrap()]).fails(4);
    assert!(text(&error, "hint").contains("--format"));
}

#[test]
fn a_model_file_cut_short() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let suite = ["suite", "build", "s", "--questions", "recorded/toolcall_azure"];
    bench.run(&[&suite[..], &["--golds", "toolcall/train"]].concat()).ok();
    let whole = fs::read(tiny_model()).unwrap();
    let path = bench.path("cut.gguf");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = bench.run(&["eval", "--suite", "s", "--model", path.to_str().unwrap()]).fails(4);
    assert!(text(&error, "message").contains("cut.gguf"), "{error}");
    assert!(text(&error, "hint").contains("cut short"), "{error}");
}

#[test]
fn an_unknown_recipe_key() {
    let bench = Bench::with_notebook();
    let path = bench.path("recipe.toml");
    fs::write(&path, format!("{}\nspeed = 9\n", crate::support::TINY_RECIPE)).unwrap();
    let error =
        bench.run(&["train", "--dataset", "d", "--recipe", path.to_str().unwrap()]).fails(2);
    assert!(text(&error, "message").contains("speed"), "{error}");
    assert!(text(&error, "message").contains("line "), "{error}");
}

#[test]
fn a_folder_that_is_no_notebook() {
    let bench = Bench::new();
    for command in [&["status"][..], &["log"], &["ingest", "x"], &["verify"], &["search", "x"]] {
        let error = bench.run(command).fails(3);
        assert!(text(&error, "message").contains("no notebook"), "{command:?}: {error}");
    }
    assert!(text(&bench.run(&["status"]).fails(3), "hint").contains("ledger init"));
    bench.run(&["init"]).ok();
    bench.run(&["init"]).fails(2);
}

#[test]
fn an_empty_suite_and_an_empty_split_are_errors() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let error = bench.run(&["suite", "build", "s", "--questions", "nowhere"]).fails(3);
    assert!(text(&error, "hint").contains("toolcall/train"), "{error}");
    let suite = ["suite", "build", "s", "--questions", "toolcall/train"];
    bench.run(&suite).ok();
    let split = ["split", "d", "--source", "toolcall/train", "--keep-out", "s"];
    let error = bench.run(&split).fails(4);
    assert!(text(&error, "message").contains("no row"), "{error}");
}

#[test]
fn a_contaminated_suite_is_refused_until_asked_for_and_then_no_gate_passes() {
    let bench = Bench::with_notebook();
    let model = tiny_model().to_str().unwrap();
    bench.run(&["ingest", &samples()]).ok();
    let questions = ["--questions", "recorded/toolcall_azure", "--golds", "toolcall/train"];
    bench.run(&[&["suite", "build", "s"], &questions[..]].concat()).ok();
    // The seed's own way: train on everything, the test questions included.
    bench.run(&["split", "all", "--source", "toolcall/train"]).ok();
    let recipe = bench.path("recipe.toml");
    fs::write(&recipe, crate::support::TINY_RECIPE).unwrap();
    let recipe = recipe.to_str().unwrap();
    let train = ["train", "--dataset", "all", "--recipe", recipe, "--model", model];
    let quick = ["--set", "epochs=1", "--set", "rates=[0.01]"];
    let trained = bench.run(&[&train[..], &quick[..]].concat()).ok().json();
    let adapter = trained["adapter"].as_str().unwrap();
    let eval = ["eval", "--suite", "s", "--model", model, "--max-new-tokens", "4"];
    let with = [&eval[..], &["--adapter", &adapter[..12]]].concat();
    let error = bench.run(&with).fails(7);
    assert!(text(&error, "message").contains("50 of its 50"), "{error}");
    bench.run(&[&with[..], &["--allow-leak"]].concat()).ok();
    bench.run(&eval).ok();
    bench.run(&["compare", "--suite", "s"]).ok();
    let gate = bench.run(&["gate", "--policy", "canary"]).ok().json();
    assert_eq!(gate["verdict"], "INVALID");
}

#[test]
fn arms_of_different_suites_are_not_compared() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let build = |name: &str, questions: &str, golds: &str, track: &str| {
        let arguments = ["--questions", questions, "--golds", golds, "--track", track];
        bench.run(&[&["suite", "build", name], &arguments[..]].concat()).ok();
    };
    build("calls", "recorded/toolcall_azure", "toolcall/train", "toolcall");
    build("json", "recorded/structured_phi", "structured/train", "structured");
    let eval = |suite: &str, source: &str| {
        let said = bench.run(&["eval", "--suite", suite, "--recorded", source]).ok();
        said.json()["run"].as_str().unwrap().to_owned()
    };
    let (calls, json) =
        (eval("calls", "recorded/toolcall_azure"), eval("json", "recorded/structured_azure"));
    let error =
        bench.run(&["compare", "--suite", "calls", "--run", &calls, "--run", &json]).fails(7);
    assert!(text(&error, "message").contains("suite"), "{error}");
}

#[test]
fn nothing_to_promote_and_nothing_to_serve() {
    let bench = Bench::with_notebook();
    bench.run(&["promote", "--alias", "canary"]).fails(7);
    bench.run(&["serve", "canary"]).fails(3);
    bench.run(&["why", "adapter"]).fails(3);
    bench.run(&["replay", "train-none"]).fails(3);
    bench.run(&["show", "99"]).fails(3);
    bench.run(&["search", "colour:red"]).fails(2);
    bench.run(&["gate", "--policy", "canary"]).fails(3);
}
