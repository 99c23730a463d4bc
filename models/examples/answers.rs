//! Answers prompts with the likeliest tokens, or says how well a text is foretold, and prints one
//! line of JSON; `benches/peers/answers.py` holds both against transformers and llama.cpp.
//!
//! `cargo run --release -p models --example answers -- MODEL IDS.json [--mode answers|perplexity]
//! [--kernels NAME] [--threads 2] [--new 64] [--rows 32] [--end ID]`
//!
//! IDS.json is a list of prompts, each a list of ids; for `perplexity`, of texts. Of each new token
//! the distance of the likeliest logit to the next is told; of texts the mean of the negative
//! natural logarithms of the probabilities of all ids but the first.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use models::decode::{Decoder, Request};
use models::gguf::Gguf;
use models::kernels::{self, Isa};
use models::weights::Weights;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: answers MODEL IDS.json [--option value]...";
    let (model, ids) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        options.insert(name, value);
    }
    let text = |name: &str, default: &str| {
        options.get(name).map_or_else(|| default.to_owned(), String::clone)
    };
    kernels::set_threads(text("--threads", "2").parse()?);
    let isa = text("--kernels", kernels::isa().exact().name());
    let isa = Isa::named(&isa).ok_or("no such kernels")?;
    let texts: Vec<Vec<u32>> = serde_json::from_str(&std::fs::read_to_string(ids)?)?;
    let weights = load(&model)?;
    let context = weights.config.max_position_embeddings;
    let decoder = Decoder::new(weights, context).by(isa).within(8 << 30);
    let mut made = match text("--mode", "answers").as_str() {
        "answers" => {
            let (new, rows) = (text("--new", "64").parse()?, text("--rows", "32").parse()?);
            answers(&decoder, texts, (new, rows), text("--end", "-1").parse().ok())?
        }
        "perplexity" => perplexity(&decoder, &texts)?,
        _ => return Err("modes: answers, perplexity".into()),
    };
    made["variant"] = json!(format!("ledger {}", isa.name()));
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

fn answers(
    decoder: &Decoder,
    prompts: Vec<Vec<u32>>,
    (new, rows): (usize, usize),
    end: Option<u32>,
) -> Result<Value, Box<dyn Error>> {
    let request = |prompt| Request {
        prompt,
        max_new: new,
        ends: end.into_iter().collect(),
        logprobs: Some(2),
        ..Default::default()
    };
    let requests = prompts.into_iter().map(request).collect();
    let made = decoder.answer(requests, rows, &mut |_| ControlFlow::Continue(()))?;
    let ids: Vec<&Vec<u32>> = made.iter().map(|answer| &answer.ids).collect();
    let gaps: Vec<Vec<f32>> = made
        .iter()
        .map(|answer| answer.logprobs.iter().map(|p| p.top[0].1 - p.top[1].1).collect())
        .collect();
    Ok(json!({ "answers": ids, "gaps": gaps }))
}

fn perplexity(decoder: &Decoder, texts: &[Vec<u32>]) -> Result<Value, Box<dyn Error>> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for text in texts {
        let mut targets = text.iter().skip(1);
        let width = decoder.vocabulary();
        decoder.each_logits(text, &mut |logits| {
            for (logits, target) in logits.chunks_exact(width).zip(&mut targets) {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let all: f64 = logits.iter().map(|v| f64::from(v - top).exp()).sum();
                sum += f64::from(top) + all.ln() - f64::from(logits[*target as usize]);
                count += 1;
            }
        })?;
    }
    let mean = sum / count as f64;
    Ok(json!({ "mean_nll": mean, "perplexity": mean.exp(), "tokens": count }))
}
