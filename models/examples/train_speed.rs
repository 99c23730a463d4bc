//! Trains on fixed ids and prints one line of JSON: tokens per second, seconds of each step, losses
//! and the highest memory. `benches/peers/train_peft.py` does the same with PyTorch and PEFT.
//!
//! `cargo run --release -p models --example train_speed -- MODEL [--kernels NAME] [--rows 4]
//! [--length 256] [--steps 6] [--threads 2] [--start DIR] [--base bf16] [--recompute yes]`
//!
//! MODEL is a GGUF file, a folder as transformers writes it, or `random:SHAPE:FORMAT`, as
//! `random:1b:q4_0`: random weights in a model's shape. `--start` begins with an adapter that PEFT
//! wrote, so that both can be compared step by step; `--base bf16` rounds the frozen weights;
//! `--device twins` computes by stock operations, `--device cuda` does so on a GPU;
//! `--warm 1` counts all steps but the first.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use models::ModelError;
use models::architectures::Architecture;
use models::config::{DecoderConfig, RopeConfig};
use models::gguf::Gguf;
use models::kernels::{self, Format, Isa, Stored};
use models::lora::{Adapter, LoraConfig, Module};
use models::optim::Schedule;
use models::render::TrainingRow;
use models::rng;
use models::trainer::{Target, TrainSpec, Trainer};
use models::weights::{Source, Weights};
use rand_chacha::rand_core::RngCore;

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
    // Steps that do not count.
    let warming = number("--warm", "2")?;
    kernels::set_threads(number("--threads", "2")?);
    let isa = Isa::named(&text("--kernels", kernels::isa().name())).ok_or("no such kernels")?;
    let mut weights = load(&model)?;
    if text("--base", "") == "bf16" {
        weights = Arc::new(weights.rounded());
    }
    let vocabulary = weights.config.vocab_size;
    let batch: Vec<TrainingRow> = (0..rows).map(|i| row(i, length, vocabulary)).collect();
    let modules = weights.config.architecture.modules().to_vec();
    let lora = LoraConfig { r: 16, alpha: 32.0, modules, ..Default::default() };
    let spec = TrainSpec {
        rate: 6e-4,
        schedule: Schedule::Constant,
        warmup: 0,
        steps: (warming + steps) as u64,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        longest: length,
        isa,
        recompute: options.contains_key("--recompute"),
        target: target(&text("--device", "ours"))?,
    };
    let start = match options.get("--start") {
        Some(dir) => read_adapter(Path::new(dir), &weights)?,
        None => Adapter::fresh(&lora, &weights.config, 7),
    };
    let mut trainer = Trainer::new(Arc::clone(&weights), &start, spec)?;
    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..warming + steps {
        let begun = Instant::now();
        let made = trainer.step(&[batch.iter().collect()])?;
        if step >= warming {
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
        "weights_mb": weights.size() >> 20,
        "parameters": weights.config.parameters(weights.is_tied()),
        "losses": losses,
        "gradient_norms": norms,
    });
    println!("{line}");
    Ok(())
}

fn target(name: &str) -> Result<Target, Box<dyn Error>> {
    Ok(match name {
        "ours" => Target::Processor,
        "twins" => Target::Twins,
        "cuda" => Target::Cuda(0),
        _ => return Err("devices: ours, twins, cuda".into()),
    })
}

fn row(row: usize, length: usize, vocabulary: usize) -> TrainingRow {
    TrainingRow {
        ids: (0..length).map(|i| ((row * 7919 + i * 104_729 + 17) % vocabulary) as u32).collect(),
        supervised: vec![true; length],
        truncated: false,
    }
}

fn read_adapter(dir: &Path, weights: &Weights) -> Result<Adapter, Box<dyn Error>> {
    let config = std::fs::read(dir.join("adapter_config.json"))?;
    let tensors = std::fs::read(dir.join("adapter_model.safetensors"))?;
    Ok(models::peft::read(&config, &tensors, &weights.config)?)
}

fn load(model: &str) -> Result<Arc<Weights>, Box<dyn Error>> {
    let path = Path::new(model);
    if let Some(wanted) = model.strip_prefix("random:") {
        let (shape, format) = wanted.split_once(':').ok_or("random:SHAPE:FORMAT")?;
        let mut source = Random { config: shaped(shape)?, format: format.to_uppercase(), drawn: 0 };
        return Ok(Arc::new(Weights::read(source.config.clone(), &mut source)?));
    }
    if path.is_dir() {
        return Ok(Arc::new(Weights::from_folder(path)?));
    }
    let mut file = Gguf::open(path)?;
    Ok(Arc::new(Weights::read(file.config()?, &mut file)?))
}

/// Shapes of models that are published: SmolLM2 135M, 360M and 1.7B, Llama 3.2 1B.
fn shaped(name: &str) -> Result<DecoderConfig, Box<dyn Error>> {
    let (hidden, wide, layers, heads, kv_heads, vocabulary) = match name {
        "135m" => (576, 1536, 30, 9, 3, 49_152),
        "360m" => (960, 2560, 32, 15, 5, 49_152),
        "1b" => (2048, 8192, 16, 32, 8, 128_256),
        "1.7b" => (2048, 8192, 24, 32, 32, 49_152),
        _ => return Err("shapes: 135m, 360m, 1b, 1.7b".into()),
    };
    Ok(DecoderConfig {
        architecture: Architecture::Llama,
        hidden_size: hidden,
        intermediate_size: wide,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: 64,
        vocab_size: vocabulary,
        max_position_embeddings: 8192,
        rope: RopeConfig::plain(100_000.0, 64),
        rms_norm_eps: 1e-5,
    })
}

/// Random weights with embeddings tied.
struct Random {
    config: DecoderConfig,
    format: String,
    drawn: u64,
}

impl Source for Random {
    fn tensor(&mut self, name: &str) -> Result<Option<Stored>, ModelError> {
        let hidden = self.config.hidden_size;
        if name.contains("norm") {
            return Ok(Some(Stored::plain(vec![1.0; hidden], hidden)));
        }
        let module = Module::ALL.into_iter().find(|module| name.contains(module.path()));
        let (rows, cols) = match module {
            Some(module) => module.shape(&self.config),
            None if name.contains("embed") => (self.config.vocab_size, hidden),
            None => return Ok(None),
        };
        self.drawn += 1;
        let mut stream = rng::stream(7, "random-weights", self.drawn);
        let wrong = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
        if self.format == "Q4_0" {
            // The numbers of a block lie from -8 to 7 times its scale.
            let scale = half::f16::from_f32(0.2 / (cols as f32).sqrt()).to_le_bytes();
            let mut bytes = vec![0; rows * cols / 32 * 18];
            stream.fill_bytes(&mut bytes);
            bytes.chunks_exact_mut(18).for_each(|block| block[..2].copy_from_slice(&scale));
            return Stored::packed(Format::Q4_0, bytes, cols).map(Some).map_err(wrong);
        }
        let numbers = rng::uniform(&mut stream, 1.0 / (cols as f32).sqrt(), rows * cols);
        let stored = Stored::plain(numbers, cols);
        Ok(Some(if self.format == "BF16" { stored.rounded() } else { stored }))
    }
}

fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
}
