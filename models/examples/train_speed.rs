//! Trains on fixed ids and prints one line of JSON: tokens per second, seconds of each step, losses
//! and the highest memory. `benches/peers/train_peft.py` does the same with PyTorch and PEFT.
//!
//! `cargo run --release -p models --example train_speed -- MODEL [--kernels NAME] [--rows 4]
//! [--length 256] [--steps 6] [--threads 2] [--start DIR]`
//!
//! `--start` begins with an adapter that PEFT wrote, so that both can be compared step by step.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use models::kernels::{self, Isa};
use models::lora::{Adapter, LoraConfig, Module};
use models::optim::Schedule;
use models::render::TrainingRow;
use models::trainer::{TrainSpec, Trainer};
use models::weights::Weights;

/// Steps that do not count.
const WARMING: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("usage: train_speed MODEL [--option value]...")?;
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        options.insert(name, value);
    }
    let text = |name: &str, default: &str| {
        options.get(name).map_or_else(|| default.to_owned(), String::clone)
    };
    let number = |name: &str, default: &str| text(name, default).parse::<usize>();
    let (rows, length, steps) =
        (number("--rows", "4")?, number("--length", "256")?, number("--steps", "6")?);
    kernels::set_threads(number("--threads", "2")?);
    let isa = Isa::named(&text("--kernels", kernels::isa().name())).ok_or("no such kernels")?;
    let weights = load(Path::new(&model))?;
    let vocabulary = weights.config.vocab_size;
    let row = |row: usize| TrainingRow {
        ids: (0..length).map(|i| ((row * 7919 + i * 104_729 + 17) % vocabulary) as u32).collect(),
        supervised: vec![true; length],
        truncated: false,
    };
    let batch: Vec<TrainingRow> = (0..rows).map(row).collect();
    let lora = LoraConfig { r: 16, alpha: 32.0, dropout: 0.0, modules: Module::ALL.to_vec() };
    let spec = TrainSpec {
        rate: 6e-4,
        schedule: Schedule::Constant,
        warmup: 0,
        steps: (WARMING + steps) as u64,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        longest: length,
        isa,
    };
    let start = match options.get("--start") {
        Some(dir) => read_adapter(Path::new(dir), &weights)?,
        None => Adapter::fresh(&lora, &weights.config, 7),
    };
    let mut trainer = Trainer::new(weights, &start, spec)?;
    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..WARMING + steps {
        let begun = Instant::now();
        let made = trainer.step(&[batch.iter().collect()])?;
        if step >= WARMING {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        losses.push(made.loss);
        norms.push(made.gradient_norm);
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let line = serde_json::json!({
        "variant": format!("ledger {}", isa.name()),
        "tokens_per_second": (rows * length) as f64 / median,
        "step_seconds": seconds,
        "peak_rss_mb": peak_rss_mb(),
        "losses": losses,
        "gradient_norms": norms,
    });
    println!("{line}");
    Ok(())
}

fn read_adapter(dir: &Path, weights: &Weights) -> Result<Adapter, Box<dyn Error>> {
    let config = std::fs::read(dir.join("adapter_config.json"))?;
    let tensors = std::fs::read(dir.join("adapter_model.safetensors"))?;
    Ok(models::peft::read(&config, &tensors, &weights.config)?)
}

fn load(path: &Path) -> Result<Arc<Weights>, Box<dyn Error>> {
    if path.is_dir() {
        return Ok(Arc::new(Weights::from_folder(path)?));
    }
    Ok(models::Model::load(path)?.weights)
}

fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
}
