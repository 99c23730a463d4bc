//! Against PyTorch, transformers and PEFT: see `golden/README.md` for how the files were made.
//!
//! The tests over the real model need its file. They look for it where `ledger model pull` puts
//! it and, where it is absent, say so and check nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use models::decode::Decoder;
use models::kernels::{Isa, isa};
use models::lora::Adapter;
use models::optim::Schedule;
use models::peft;
use models::render::TrainingRow;
use models::template::{ChatTemplate, Message};
use models::trainer::{Target, TrainSpec, Trainer};
use models::weights::Weights;
use models::{Model, ModelError};
use serde_json::Value;

#[path = "golden/architectures.rs"]
mod architectures;
#[path = "golden/decoding.rs"]
mod decoding;
#[path = "golden/hostile.rs"]
mod hostile;
#[path = "golden/templates.rs"]
mod templates;
#[path = "golden/vocabularies.rs"]
mod vocabularies;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

fn golden(name: &str) -> Value {
    let text = std::fs::read_to_string(here("golden").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| u32::try_from(v.as_u64().unwrap()).unwrap()).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!((got - want).abs() <= tolerance, "{what}: {got} instead of {want}");
}

/// Loads the real model, or says aloud that it is not there.
fn real_model() -> Option<Model> {
    let digest = golden("logits.json")["gguf_sha256"].as_str().unwrap().to_owned();
    let cache = std::env::var_os("LEDGER_CACHE").map(PathBuf::from).or_else(|| {
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/ledger"))
    })?;
    let path = cache.join("models").join(format!("{digest}.gguf"));
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent; `ledger model pull` brings it", path.display());
        return None;
    }
    Some(Model::load(&path).unwrap())
}

fn tiny(norms: bool) -> Weights {
    let mut weights = Weights::from_folder(&here("fixtures/tiny-random-llama")).unwrap();
    if norms {
        let file = here("fixtures/tiny-random-llama-norms.safetensors");
        let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
        let take = |name: String| -> Arc<[f32]> {
            tensors[&name].flatten_all().unwrap().to_vec1::<f32>().unwrap().into()
        };
        for (i, layer) in weights.layers.iter_mut().enumerate() {
            let path = |part: &str| format!("model.layers.{i}.{part}.weight");
            layer.input_layernorm = take(path("input_layernorm"));
            layer.post_attention_layernorm = take(path("post_attention_layernorm"));
        }
        weights.norm = take("model.norm.weight".to_owned());
    }
    weights
}

fn adapter(name: &str, weights: &Weights) -> Adapter {
    let dir = here("fixtures").join(name);
    let config = std::fs::read(dir.join("adapter_config.json")).unwrap();
    let data = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    peft::read(&config, &data, &weights.config).unwrap()
}

#[test]
fn tiny_logits_match_transformers_without_and_with_adapters() {
    let golden = golden("lora.json");
    let fixed = ids(&golden["fixed_indices"]);
    for case in list(&golden["logits"]) {
        let mut weights = tiny(case["norms"].as_bool().unwrap());
        if let Some(name) = case["adapter"].as_str() {
            weights = weights.merged(&adapter(name, &weights)).unwrap();
        }
        let vocabulary = weights.config.vocab_size;
        let decoder = Decoder::new(Arc::new(weights), 64);
        for (sequence, want) in list(&golden["sequences"]).iter().zip(list(&case["sequences"])) {
            let logits = decoder.text_logits(&ids(sequence)).unwrap();
            for (row, want) in logits.chunks(vocabulary).zip(list(&want["fixed_values"])) {
                for (at, want) in fixed.iter().zip(floats(want)) {
                    close(f64::from(row[*at as usize]), want, 3e-5, &case["adapter"].to_string());
                }
            }
        }
    }
}

fn batch(golden: &Value) -> Vec<TrainingRow> {
    let rows = list(&golden["batch"]["input_ids"]).iter();
    let labels = list(&golden["batch"]["labels"]).iter();
    let masks = list(&golden["batch"]["attention_mask"]).iter();
    rows.zip(labels)
        .zip(masks)
        .map(|((row, labels), mask)| {
            let len = list(mask).iter().filter(|v| v.as_u64() == Some(1)).count();
            let supervised = list(labels)[..len].iter().map(|v| v.as_i64() != Some(-100));
            TrainingRow {
                ids: ids(row)[..len].to_vec(),
                supervised: supervised.collect(),
                truncated: false,
            }
        })
        .collect()
}

#[test]
fn three_steps_of_training_match_peft() {
    let golden = golden("lora.json");
    let rows = batch(&golden);
    for case in list(&golden["training"]) {
        let weights = Arc::new(tiny(case["norms"].as_bool().unwrap()));
        let mut start = adapter(case["adapter"].as_str().unwrap(), &weights);
        start.config.dropout = 0.0;
        let spec = TrainSpec {
            rate: 1e-3,
            schedule: Schedule::Constant,
            warmup: 0,
            steps: 3,
            weight_decay: 0.0,
            clip: 1.0,
            seed: 0,
            longest: 64,
            isa: isa().exact(),
            recompute: false,
            target: Target::default(),
        };
        let mut trainer = Trainer::new(weights, &start, spec).unwrap();
        for want in list(&case["steps"]) {
            // One micro-batch or two: the step is the same up to rounding.
            let micro: Vec<Vec<&TrainingRow>> = vec![rows.iter().collect()];
            let step = trainer.step(&micro).unwrap();
            assert_eq!(step.supervised, 10);
            close(step.loss, want["loss"].as_f64().unwrap(), 2e-5, "loss");
            close(step.gradient_norm, want["grad_norm"].as_f64().unwrap(), 2e-5, "norm");
        }
        let after = trainer.adapter().unwrap();
        let bytes = peft::weights_bytes(&after).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for want in list(&case["tensors"]) {
            let name = want["name"].as_str().unwrap();
            let view = file.tensor(name).unwrap();
            for (word, want) in view.data().chunks(4).zip(floats(&want["after"])) {
                let got = f32::from_le_bytes(word.try_into().unwrap());
                close(f64::from(got), want, 3e-6, name);
            }
        }
        let loss = trainer.mean_loss(&rows, 1).unwrap();
        close(loss, case["loss_after"].as_f64().unwrap(), 2e-5, "loss after");
    }
}

#[test]
fn a_resumed_run_ends_in_the_same_bytes_on_every_path() {
    Isa::ALL.into_iter().filter(|isa| isa.is_here()).for_each(resume_on);
}

fn resume_on(isa: Isa) {
    let rows = batch(&golden("lora.json"));
    let weights = Arc::new(tiny(true));
    let mut start = adapter("tiny-random-llama-lora-all", &weights);
    start.config.dropout = 0.25;
    let spec = TrainSpec {
        rate: 1e-2,
        schedule: Schedule::Cosine,
        warmup: 1,
        steps: 6,
        weight_decay: 0.01,
        clip: 1.0,
        seed: 7,
        longest: 64,
        isa,
        recompute: false,
        target: Target::default(),
    };
    let micro: Vec<Vec<&TrainingRow>> = rows.iter().map(|row| vec![row]).collect();
    let mut whole = Trainer::new(Arc::clone(&weights), &start, spec.clone()).unwrap();
    let mut cut = Trainer::new(Arc::clone(&weights), &start, spec.clone()).unwrap();
    for _ in 0..3 {
        assert_eq!(whole.step(&micro).unwrap(), cut.step(&micro).unwrap());
    }
    let (saved, state) = (cut.adapter().unwrap(), cut.optimiser_bytes().unwrap());
    let mut resumed = Trainer::new(weights, &start, spec).unwrap();
    resumed.resume(&saved, &state, 3).unwrap();
    for _ in 0..3 {
        assert_eq!(whole.step(&micro).unwrap(), resumed.step(&micro).unwrap());
    }
    let bytes = |trainer: &Trainer| peft::weights_bytes(&trainer.adapter().unwrap()).unwrap();
    assert_eq!(bytes(&whole), bytes(&resumed), "{isa:?}");
}

#[test]
fn a_row_is_answered_the_same_alone_and_in_a_batch() {
    let weights = Arc::new(tiny(true));
    let decoder = Decoder::new(weights, 64);
    let prompts: Vec<Vec<u32>> =
        (0..7).map(|i| (1..6 + i).map(|v| v * 37 % 500).collect()).collect();
    let run =
        |prompts: &[Vec<u32>], batch| decoder.generate(prompts, 20, 2, batch, &mut |_| {}).unwrap();
    let together = run(&prompts, 7);
    assert_eq!(together, run(&prompts, 3));
    for (prompt, answer) in prompts.iter().zip(&together) {
        assert_eq!(&run(std::slice::from_ref(prompt), 1)[0], answer);
    }
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let decoder = Decoder::new(Arc::new(tiny(false)), 16);
    let refused = decoder.generate(&[vec![1; 10]], 7, 2, 1, &mut |_| {});
    assert!(matches!(refused, Err(ModelError::Context { tokens: 10, new: 7, context: 16 })));
    assert!(decoder.generate(&[vec![]], 1, 2, 1, &mut |_| {}).is_err());
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let golden = golden("template.json");
    let template = ChatTemplate::new(golden["template"].as_str().unwrap()).unwrap();
    for case in list(&golden["cases"]) {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let open = case["add_generation_prompt"].as_bool().unwrap();
        assert_eq!(template.render(&messages, open).unwrap(), case["text"].as_str().unwrap());
    }
    for case in list(&golden["errors"]) {
        let messages = serde_json::from_value::<Vec<Message>>(case["messages"].clone());
        let refused = messages.is_err() || template.render(&messages.unwrap(), true).is_err();
        assert!(refused, "{case}");
    }
}

#[test]
fn real_tokens_match() {
    let Some(model) = real_model() else { return };
    let golden = golden("tokens.json");
    for case in list(&golden["cases"]) {
        let text = case["text"].as_str().unwrap();
        let got = model.renderer.tokenizer().encode(text).unwrap();
        assert_eq!(got, ids(&case["ids"]), "{text:?}");
        let back = model.renderer.tokenizer().decode(&got).unwrap();
        let want = case["without_special"].as_str().unwrap_or(text);
        assert_eq!(back, want, "{text:?}");
    }
}

#[test]
fn real_logits_and_greedy_answers_match_transformers() {
    let Some(model) = real_model() else { return };
    let golden = golden("logits.json");
    let fixed = ids(&golden["fixed_indices"]);
    let vocabulary = model.weights().unwrap().config.vocab_size;
    let decoder = Decoder::new(Arc::clone(model.weights().unwrap()), 512);
    let mut prompts = Vec::new();
    for case in list(&golden["prompts"]) {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let prompt = model.renderer.prompt(&messages).unwrap();
        assert_eq!(prompt, ids(&case["ids"]));
        let logits = decoder.text_logits(&prompt).unwrap();
        let last = &logits[logits.len() - vocabulary..];
        for (at, want) in fixed.iter().zip(floats(&case["fixed_values"])) {
            close(f64::from(last[*at as usize]), want, 2e-3, &case["name"].to_string());
        }
        prompts.push(prompt);
    }
    // The golden run goes on past the end token, so the end is set out of reach here.
    let answers = decoder.generate(&prompts, 24, u32::MAX, 4, &mut |_| {}).unwrap();
    for (answer, case) in answers.iter().zip(list(&golden["prompts"])) {
        assert_eq!(answer.ids, ids(&case["greedy_ids"]), "{}", case["name"]);
    }
    let text = ids(&golden["loss"]["ids"]);
    let row = TrainingRow { supervised: vec![true; text.len()], ids: text, truncated: false };
    let mean = golden["loss"]["mean_loss"].as_f64().unwrap();
    close(loss_of(&model, row), mean, 1e-4, "mean loss of the text");
}

/// Returns the loss of a row through the training path with an adapter that changes nothing.
fn loss_of(model: &Model, row: TrainingRow) -> f64 {
    let lora = models::lora::LoraConfig {
        r: 4,
        alpha: 8.0,
        dropout: 0.0,
        modules: model.weights().unwrap().config.architecture.modules().to_vec(),
        ..Default::default()
    };
    let spec = TrainSpec {
        rate: 0.0,
        schedule: Schedule::Constant,
        warmup: 0,
        steps: 1,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 0,
        longest: 512,
        isa: isa().exact(),
        recompute: false,
        target: Target::default(),
    };
    let fresh = Adapter::fresh(&lora, &model.weights().unwrap().config, 1);
    let trainer = Trainer::new(Arc::clone(model.weights().unwrap()), &fresh, spec).unwrap();
    trainer.mean_loss(&[row], 1).unwrap()
}
