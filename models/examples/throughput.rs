//! Prints tokens per second of training and decoding on this machine:
//! `cargo run --release -p models --example throughput -- <model.gguf> <rows.jsonl>`, where a row
//! is `{"prompt": .., "completion": ..}`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use models::decode::Decoder;
use models::lora::{Adapter, LoraConfig};
use models::optim::Schedule;
use models::template::Message;
use models::trainer::{Target, TrainSpec, Trainer};
use models::{Model, kernels};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(rows)) = (args.next(), args.next()) else {
        return Err("usage: throughput <model.gguf> <rows.jsonl>".into());
    };
    let start = Instant::now();
    let model = Model::load(Path::new(&model))?;
    println!("load {:.2} s, kernels {}", start.elapsed().as_secs_f64(), kernels::isa().name());
    let mut prompts = Vec::new();
    let mut training = Vec::new();
    for line in std::fs::read_to_string(rows)?.lines().take(50) {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let messages = [Message::new("user", text("prompt"))];
        prompts.push(model.renderer.prompt(&messages)?);
        training.push(model.renderer.training_row(&messages, &text("completion"), 1024)?);
    }
    let modules = model.weights()?.config.architecture.modules().to_vec();
    let lora = LoraConfig { r: 16, alpha: 32.0, dropout: 0.05, modules, ..Default::default() };
    let spec = TrainSpec {
        rate: 6e-4,
        schedule: Schedule::Cosine,
        warmup: 2,
        steps: 6,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        longest: 1024,
        isa: kernels::isa(),
        recompute: false,
        target: Target::default(),
    };
    let adapter = Adapter::fresh(&lora, &model.weights()?.config, 7);
    let mut trainer = Trainer::new(Arc::clone(model.weights()?), &adapter, spec)?;
    for rows in training.chunks(8).take(5) {
        let start = Instant::now();
        let micro: Vec<Vec<_>> = rows.chunks(4).map(|rows| rows.iter().collect()).collect();
        let step = trainer.step(&micro)?;
        let rate = step.tokens as f64 / start.elapsed().as_secs_f64();
        println!("train step {}: loss {:.4}, {rate:.0} tokens/s", step.step, step.loss);
    }
    let decoder = Decoder::new(Arc::clone(model.weights()?), 2048);
    let start = Instant::now();
    let mut read = None;
    let answers =
        decoder.generate(&prompts, 128, model.renderer.tokenizer().eos(), 50, &mut |p| {
            if matches!(p, models::decode::Progress::Read { .. }) {
                read = Some(start.elapsed().as_secs_f64());
            }
        })?;
    let tokens: usize = prompts.iter().map(Vec::len).sum();
    let new: usize = answers.iter().map(|a| a.ids.len() + 1).sum();
    let read = read.unwrap_or_default();
    let rest = start.elapsed().as_secs_f64() - read;
    println!("read {tokens} tokens in {read:.1} s, {new} new ones in {rest:.1} s");
    Ok(())
}
