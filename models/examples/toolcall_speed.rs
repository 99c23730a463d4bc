//! Trains on rows of a track with the loss on answers alone, and prints one line of JSON: seconds,
//! tokens, supervised tokens, losses and the highest memory. `benches/peers/toolcall_trl.py` does
//! the same with trl.
//!
//! `cargo run --release -p models --example toolcall_speed -- MODEL.gguf ROWS WITHOUT [STEPS]`
//!
//! ROWS and WITHOUT are JSON lines of `{"prompt": .., "completion": ..}`; rows whose prompt is in
//! WITHOUT are not trained on. STEPS of 8 rows are made, or those of the whole epoch.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use models::lora::{Adapter, LoraConfig};
use models::optim::Schedule;
use models::render::TrainingRow;
use models::template::Message;
use models::trainer::{Target, TrainSpec, Trainer};
use models::{Model, kernels, rng};
use serde_json::Value;

/// Rows of a step.
const ROWS: usize = 8;
const LONGEST: usize = 1024;

fn lines(path: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn rows(model: &Model, args: &[String]) -> Result<Vec<TrainingRow>, Box<dyn Error>> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let held: BTreeSet<String> = lines(&args[2])?.iter().map(|row| text(row, "prompt")).collect();
    let mut rows = Vec::new();
    for row in lines(&args[1])?.iter().filter(|row| !held.contains(&text(row, "prompt"))) {
        let messages = [Message::new("user", text(row, "prompt"))];
        let answer = text(row, "completion");
        rows.push(model.renderer.training_row(&messages, &answer, LONGEST)?);
    }
    rng::shuffle(&mut rng::stream(7, "epoch-order", 1), &mut rows);
    Ok(rows)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.len() < 3 {
        return Err("usage: toolcall_speed MODEL.gguf ROWS WITHOUT [STEPS]".into());
    }
    let model = Model::load(Path::new(&args[0]))?;
    let rows = rows(&model, &args)?;
    let epoch = rows.len().div_ceil(ROWS);
    let wanted: usize = args.get(3).map_or(Ok(0), |steps| steps.parse())?;
    let steps = if wanted == 0 { epoch } else { wanted.min(epoch) };
    let weights = model.weights()?;
    let modules = weights.config.architecture.modules().to_vec();
    let lora = LoraConfig { r: 16, alpha: 32.0, dropout: 0.05, modules, ..Default::default() };
    let spec = TrainSpec {
        rate: 6e-4,
        schedule: Schedule::Cosine,
        warmup: 10.min(steps as u64 / 2),
        steps: steps as u64,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        longest: LONGEST,
        isa: kernels::isa(),
        recompute: false,
        target: Target::default(),
    };
    let adapter = Adapter::fresh(&lora, &weights.config, 7);
    let mut trainer = Trainer::new(Arc::clone(weights), &adapter, spec)?;
    let first: Vec<&TrainingRow> = rows.iter().take(ROWS).collect();
    // What a process pays when it first touches its memory is not counted, for the peer neither.
    trainer.gradient(&first)?;
    let (mut losses, mut tokens, mut supervised) = (Vec::new(), 0, 0);
    let begun = Instant::now();
    for batch in rows.chunks(ROWS).take(steps) {
        let step = trainer.step(&[batch.iter().collect()])?;
        losses.push(step.loss);
        tokens += step.tokens;
        supervised += step.supervised;
    }
    let line = serde_json::json!({
        "variant": format!("ledger {}", kernels::isa().name()),
        "seconds": begun.elapsed().as_secs_f64(),
        "tokens": tokens,
        "supervised": supervised,
        "steps": steps,
        "losses": losses,
        "peak_rss_mb": peak_rss_mb(),
    });
    println!("{line}");
    Ok(())
}

fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
}
