//! Times decoding and prints one line of JSON; `benches/peers/llama_speed.py` does the same with
//! llama.cpp.
//!
//! `cargo run --release -p models --example decode_speed -- MODEL [--mode single|workload|growth]
//! [--kernels NAME] [--threads 2] [--repeat 3] [--new 128] [--prompts 200] [--length 256]
//! [--rows 32]`
//!
//! `single` reads a prompt of 512 tokens, and says tokens at a depth of 0 and of 512, one row
//! alone. `workload` answers many prompts, `--rows` at once; end tokens are ignored. `growth` says
//! tokens of 1 to 64 rows, and at depths of 128 to 8,192.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use models::decode::{Decoder, Progress, Request};
use models::gguf::Gguf;
use models::kernels::{self, Isa};
use models::weights::Weights;
use serde_json::{Value, json};

struct Options(BTreeMap<String, String>);

impl Options {
    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Box<dyn Error>> {
        Ok(self.0.get(name).map_or(Ok(default), |text| text.parse())?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = BTreeMap::new();
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("usage: decode_speed MODEL [--option value]...")?;
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        options.insert(name, value);
    }
    let options = Options(options);
    kernels::set_threads(options.number("--threads", 2)?);
    let default = kernels::isa().exact();
    let isa = Isa::named(options.text("--kernels", default.name())).ok_or("no such kernels")?;
    let weights = load(&model)?;
    let context = weights.config.max_position_embeddings;
    let decoder = Decoder::new(weights, context).by(isa).within(8 << 30);
    let mut made = match options.text("--mode", "single") {
        "single" => single(&decoder, &options)?,
        "workload" => workload(&decoder, &options)?,
        "growth" => growth(&decoder, &options)?,
        _ => return Err("modes: single, workload, growth".into()),
    };
    made["variant"] = json!(format!("ledger {}", isa.name()));
    made["peak_rss_mb"] = json!(peak_rss_mb());
    println!("{made}");
    Ok(())
}

fn load(model: &str) -> Result<Arc<Weights>, Box<dyn Error>> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(Arc::new(Weights::from_folder(path)?));
    }
    let mut file = Gguf::open(path)?;
    Ok(Arc::new(Weights::read(file.config()?, &mut file)?))
}

/// Ids of a prompt: the same in the peer's script.
fn prompt(i: usize, length: usize) -> Vec<u32> {
    (0..length).map(|j| ((i * 7919 + j * 104_729 + 17) % 40_000) as u32).collect()
}

/// Seconds until all prompts were read, and from then on until the last token.
struct Timed {
    read: f64,
    said: f64,
}

/// Answers `rows` prompts of `length` tokens at once with `new` tokens each.
fn timed(
    decoder: &Decoder,
    (rows, length): (usize, usize),
    new: usize,
) -> Result<Timed, Box<dyn Error>> {
    let request = |i| Request { prompt: prompt(i, length), max_new: new, ..Default::default() };
    let began = Instant::now();
    let (mut read, mut left) = (0.0, rows);
    decoder.answer((0..rows).map(request).collect(), rows, &mut |what| {
        if matches!(what, Progress::Read { .. }) {
            left -= 1;
            if left == 0 {
                read = began.elapsed().as_secs_f64();
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(Timed { read, said: began.elapsed().as_secs_f64() - read })
}

fn single(decoder: &Decoder, options: &Options) -> Result<Value, Box<dyn Error>> {
    let new = options.number("--new", 128)?;
    timed(decoder, (1, 512), 8)?;
    let (mut prompts, mut shallow, mut deep) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.number("--repeat", 3)? {
        prompts.push(512.0 / timed(decoder, (1, 512), 1)?.read);
        // The first token comes with the prompt.
        shallow.push((new - 1) as f64 / timed(decoder, (1, 1), new)?.said);
        deep.push((new - 1) as f64 / timed(decoder, (1, 512), new)?.said);
    }
    Ok(json!({ "prompt_512": prompts, "decode_0": shallow, "decode_512": deep }))
}

fn workload(decoder: &Decoder, options: &Options) -> Result<Value, Box<dyn Error>> {
    let (prompts, length) = (options.number("--prompts", 200)?, options.number("--length", 256)?);
    let (new, rows) = (options.number("--new", 64)?, options.number("--rows", 32)?);
    timed(decoder, (1, 64), 4)?;
    let request = |i| Request { prompt: prompt(i, length), max_new: new, ..Default::default() };
    let began = Instant::now();
    let answers = decoder
        .answer((0..prompts).map(request).collect(), rows, &mut |_| ControlFlow::Continue(()))?;
    let said: usize = answers.iter().map(|answer| answer.ids.len()).sum();
    Ok(json!({
        "rows": rows,
        "seconds": began.elapsed().as_secs_f64(),
        "prompt_tokens": prompts * length,
        "new_tokens": said,
    }))
}

fn growth(decoder: &Decoder, options: &Options) -> Result<Value, Box<dyn Error>> {
    let new = options.number("--new", 32)?;
    let (mut batches, mut depths) = (Vec::new(), Vec::new());
    timed(decoder, (1, 64), 4)?;
    for rows in [1, 2, 4, 8, 16, 32, 64] {
        let made = timed(decoder, (rows, 128), new)?;
        let rate = (rows * (new - 1)) as f64 / made.said;
        batches.push(json!({ "rows": rows, "depth": 128, "tokens_per_second": rate }));
    }
    for depth in [128, 512, 2048, 8192 - new] {
        let made = timed(decoder, (1, depth), new)?;
        depths.push(json!({
            "depth": depth,
            "prompt_tokens_per_second": depth as f64 / made.read,
            "tokens_per_second": (new - 1) as f64 / made.said,
        }));
    }
    Ok(json!({ "batches": batches, "depths": depths }))
}

fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
}
