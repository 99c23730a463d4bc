//! Training through the binary: its plan, its means, its replicates, and what it writes out.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use models::decode::Decoder;
use models::gguf::Gguf;
use models::kernels::Isa;
use models::weights::Weights;
use serde_json::Value;

use crate::support::{Bench, TINY_RECIPE, said, samples, tiny_model};

/// A notebook with a small dataset, made once.
fn bench() -> Bench {
    static MADE: OnceLock<Bench> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let bench = Bench::with_notebook();
        // As many rows as it takes: a tiny model reads bytes, and its rows are long.
        let from = Path::new(&samples()).join("fledgling/toolcall/train.jsonl");
        let rows = fs::read_to_string(from).unwrap();
        let rows: Vec<&str> = rows.lines().take(48).collect();
        fs::create_dir_all(bench.path("toolcall")).unwrap();
        fs::write(bench.path("toolcall/train.jsonl"), rows.join("\n")).unwrap();
        bench.run(&["ingest", bench.path("toolcall").to_str().unwrap()]).ok();
        let split = ["split", "d", "--source", "toolcall/train", "--dev-fraction", "0.1"];
        bench.run(&split).ok();
        bench
    });
    made.copy()
}

fn train(bench: &Bench, more: &[&str]) -> crate::support::Said {
    train_on(bench, more, None)
}

/// Trains on so many threads.
fn train_on(bench: &Bench, more: &[&str], threads: Option<&str>) -> crate::support::Said {
    let recipe = bench.path("recipe.toml");
    fs::write(&recipe, TINY_RECIPE).unwrap();
    let (recipe, model) = (recipe.to_str().unwrap(), tiny_model().to_str().unwrap());
    let train = ["train", "--dataset", "d", "--recipe", recipe, "--model", model];
    let quick = ["--set", "epochs=1", "--set", "rates=[0.01]"];
    let mut command = bench.command(&[&train[..], &quick[..], more].concat());
    threads.map(|threads| command.env("RAYON_NUM_THREADS", threads));
    said(command.output().unwrap())
}

fn events(bench: &Bench, kind: &str) -> Vec<Value> {
    let all = bench.run(&["log"]).ok().lines();
    all.into_iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_plan_says_what_training_takes_and_trains_nothing() {
    let bench = bench();
    let plan = train(&bench, &["--plan", "--memory", "300"]).ok().json();
    assert!(events(&bench, "run.requested").is_empty());
    let number = |key: &str| plan[key].as_f64().unwrap_or_else(|| panic!("{key}: {plan}"));
    assert!(number("tokens") > number("supervised") && number("supervised") > 0.0);
    assert!(number("steps") > 0.0 && number("minutes") > 0.0);
    let memory = &plan["memory"];
    assert!(memory["keeping_mib"].as_u64() > memory["recomputing_mib"].as_u64(), "{plan}");
    assert_eq!(memory["available_mib"], 300);
    let trained = train(&bench, &[]).ok().json();
    let steps = events(&bench, "step.completed").len();
    assert_eq!(steps as f64, number("steps"), "{trained}");
    let read: u64 = events(&bench, "step.completed")
        .iter()
        .map(|s| s["facts"]["tokens"].as_u64().unwrap())
        .sum();
    assert_eq!(read as f64, number("tokens"));
}

#[test]
fn memory_that_is_too_small_is_told_before_the_first_step() {
    let bench = bench();
    let error = train(&bench, &["--memory", "50"]).fails(7);
    assert!(error["message"].as_str().unwrap().contains("50 can be had"), "{error}");
    assert!(events(&bench, "run.requested").is_empty());
    // Where only computing again fits, the bytes are those of keeping.
    let plan = train(&bench, &["--plan"]).ok().json();
    let between = plan["memory"]["recomputing_mib"].as_u64().unwrap() + 1;
    assert!(between < plan["memory"]["keeping_mib"].as_u64().unwrap(), "{plan}");
    let tight = train(&bench, &["--memory", &between.to_string()]).ok().json();
    let roomy = train(&self::bench(), &[]).ok().json();
    assert_eq!(tight["outcome"], roomy["outcome"]);
}

#[test]
fn kernels_are_named_recorded_and_taken_by_a_replay() {
    let bench = bench();
    let error = train(&bench, &["--kernels", "abacus"]).fails(2);
    assert!(error["hint"].as_str().unwrap().contains("scalar"), "{error}");
    let mut adapters = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        let bench = self::bench();
        let trained = train(&bench, &["--kernels", isa.name(), "--set", "seed=9"]).ok().json();
        let started = &events(&bench, "run.started")[0];
        assert_eq!(started["measured"]["kernels"], isa.name());
        let (run, model) = (trained["run"].as_str().unwrap(), tiny_model().to_str().unwrap());
        let replay = bench.run(&["replay", run, "--model", model, "--steps", "3"]).ok().json();
        assert!(replay["divergence"].is_null(), "{replay}");
        adapters.push(trained["adapter"].clone());
    }
    adapters.dedup();
    assert!(adapters.len() > 1 || adapters.len() == 1 && !Isa::Avx2.is_here());
}

#[test]
fn an_adapter_has_the_same_bytes_on_any_number_of_threads() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        let adapters = ["1", "2", "3"].map(|threads| {
            let bench = bench();
            let trained = train_on(&bench, &["--kernels", isa.name()], Some(threads)).ok().json();
            let started = &events(&bench, "run.started")[0];
            assert_eq!(started["measured"]["threads"].to_string(), threads);
            trained["adapter"].clone()
        });
        assert!(adapters.iter().all(|one| *one == adapters[0]), "{isa:?}: {adapters:?}");
    }
}

#[test]
fn a_device_is_named_recorded_and_taken_by_a_replay() {
    let bench = bench();
    let error = train(&bench, &["--device", "abacus"]).fails(2);
    assert!(error["hint"].as_str().unwrap().contains("cuda"), "{error}");
    if !cfg!(feature = "cuda") {
        let error = train(&bench, &["--device", "cuda"]).fails(2);
        assert!(error["message"].as_str().unwrap().contains("without the feature"), "{error}");
    }
    assert!(events(&bench, "run.requested").is_empty());
    let stock = train(&bench, &["--device", "stock"]).ok().json();
    assert_eq!(events(&bench, "run.started")[0]["measured"]["device"], "stock");
    let (run, model) = (stock["run"].as_str().unwrap(), tiny_model().to_str().unwrap());
    let replay = bench.run(&["replay", run, "--model", model, "--steps", "3"]).ok().json();
    assert!(replay["divergence"].is_null(), "{replay}");
    // The same numbers in other bits.
    let ours = train(&self::bench(), &["--kernels", "scalar"]).ok().json();
    assert_ne!(ours["adapter"], stock["adapter"]);
    let loss = |of: &Value| of["outcome"]["dev_loss"].as_f64().unwrap();
    assert!((loss(&ours) - loss(&stock)).abs() < 1e-3, "{ours} {stock}");
}

#[test]
fn replicates_differ_by_seed_alone() {
    let bench = bench();
    let trained = train(&bench, &["--seeds", "3"]).ok().json();
    assert_eq!(trained["replicates"].as_array().unwrap().len(), 2);
    assert!(trained["dev_loss_deviation"].as_f64().unwrap() > 0.0, "{trained}");
    let requested = events(&bench, "run.requested");
    let seeds: Vec<String> = requested
        .iter()
        .map(|e| e["facts"]["request"]["recipe"]["seed"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seeds, ["7", "8", "9"]);
    // Asked again, the record has them.
    let events = events(&bench, "run.finished").len();
    train(&bench, &["--seeds", "3"]).ok();
    assert_eq!(self::events(&bench, "run.finished").len(), events);
}

#[test]
fn training_stops_when_the_dev_loss_no_longer_falls() {
    let bench = bench();
    // A rate at which nothing is learnt well.
    let wild = ["--set", "epochs=12", "--set", "rates=[3.0]", "--set", "patience=1"];
    let wild = [&wild[..], &["--set", "schedule=constant", "--set", "warmup=0.0"]].concat();
    let trained = train(&bench, &wild).ok().json();
    let saved = events(&bench, "checkpoint.saved");
    assert!(saved.len() < 12, "{} epochs", saved.len());
    let losses: Vec<f64> = saved.iter().map(|s| s["facts"]["dev_loss"].as_f64().unwrap()).collect();
    let (last, before) = losses.split_last().unwrap();
    assert!(before.iter().any(|loss| loss <= last), "{losses:?}");
    let (run, model) = (trained["run"].as_str().unwrap(), tiny_model().to_str().unwrap());
    let replay = bench.run(&["replay", run, "--model", model]).ok().json();
    assert!(replay["divergence"].is_null(), "{replay}");
}

#[test]
fn an_adapter_is_written_for_peft_for_llama_cpp_and_added_to_its_base() {
    let bench = bench();
    let special = ["--set", "rslora=true", "--set", "ranks={\"k_proj\":3}"];
    let trained = train(&bench, &special).ok().json();
    let id = trained["adapter"].as_str().unwrap();
    assert_eq!(bench.run(&["adapter", "list"]).ok().lines()[0]["adapter"], id);
    let out = bench.path("out");
    let model = tiny_model().to_str().unwrap();
    let export = ["adapter", "export", &id[..9], "--model", model, "--out", out.to_str().unwrap()];
    let export = |form: &str| bench.run(&[&export[..], &["--form", form]].concat()).ok();
    export("peft");
    let config: Value =
        serde_json::from_slice(&fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["use_rslora"], &config["rank_pattern"]["k_proj"]),
        (&true.into(), &3.into())
    );
    let base = models::Model::load(tiny_model()).unwrap();
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    let shape = &base.weights().unwrap().config;
    let adapter =
        models::peft::read(&read("adapter_config.json"), &read("adapter_model.safetensors"), shape);
    let added = base.weights().unwrap().merged(&adapter.unwrap()).unwrap();
    export("merged");
    let merged = Weights::from_folder(&out).unwrap();
    let text: Vec<u32> = (3..60).collect();
    let logits = |weights: &Weights| {
        Decoder::new(std::sync::Arc::new(weights.clone()), 64).text_logits(&text).unwrap()
    };
    assert_eq!(logits(&added), logits(&merged));
    assert_ne!(logits(base.weights().unwrap()), logits(&merged));
    export("gguf");
    let mut file = Gguf::open(&out.join("adapter.gguf")).unwrap();
    assert_eq!(file.text("adapter.type"), Some("lora"));
    assert_eq!(file.rows("blk.1.attn_k.weight.lora_a").unwrap(), 3);
    assert_eq!(file.plain("blk.0.ffn_down.weight.lora_b").unwrap().unwrap().len() % 32, 0);
    // Another base is another model.
    let other = bench.path("other.gguf");
    models::tiny::write(&other, 99).unwrap();
    let wrong = ["adapter", "export", &id[..9], "--out", out.to_str().unwrap(), "--form", "gguf"];
    let error = bench.run(&[&wrong[..], &["--model", other.to_str().unwrap()]].concat()).fails(7);
    assert!(error["message"].as_str().unwrap().contains("was trained on base"), "{error}");
}
