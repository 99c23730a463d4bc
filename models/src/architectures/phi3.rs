//! Phi-3, 3.5 and 4(-mini) (Abdin et al., 2024): q, k and v in one module, gate and up in another;
//! a part of each head turns.
//!
//! The models for long contexts ("longrope") have two sets of rotary factors: one for texts up to
//! the context of their first training, one beyond. Here texts up to that context are taken, with
//! the first set; longer ones are refused.

use super::{Architecture, Json};
use crate::config::{DecoderConfig, RopeConfig};
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::lora::Module;

pub(super) const MODULES: [Module; 4] =
    [Module::QkvProj, Module::OProj, Module::GateUpProj, Module::DownProj];

pub(super) fn read_json(json: &Json<'_>) -> Result<DecoderConfig, String> {
    let mut config = json.base(Architecture::Phi3)?;
    let share = json.of_rope("partial_rotary_factor").unwrap_or(1.0);
    config.rope.dims = (config.head_dim as f64 * share) as usize;
    match json.rope_kind() {
        "default" => {}
        "longrope" | "su" => {
            let context = json.number("max_position_embeddings")?;
            // Where both places name it, transformers takes the outer one.
            let key = "original_max_position_embeddings";
            let first = json.optional(key)?.or(json.of_rope(key).map(|v| v as usize));
            let first = first.ok_or("longrope without original_max_position_embeddings")?;
            let factors = json.rope_list("short_factor").ok_or("longrope without short_factor")?;
            let magnitude = json.of_rope("attention_factor").map(|v| v as f32);
            let wider = json.of_rope("factor").unwrap_or(context as f64 / first as f64);
            let magnitude = magnitude.unwrap_or_else(|| magnitude_of(wider, first));
            set_long(&mut config, factors, first, magnitude);
        }
        other => return Err(format!("rotary scaling {other:?} is not computed here")),
    }
    Ok(config)
}

/// sqrt(1 + ln(wider) / ln(first)), and 1 where the context was not widened.
fn magnitude_of(wider: f64, first: usize) -> f32 {
    if wider <= 1.0 {
        return 1.0;
    }
    (1.0 + wider.ln() / (first as f64).ln()).sqrt() as f32
}

fn set_long(config: &mut DecoderConfig, factors: Vec<f32>, first: usize, magnitude: f32) {
    config.max_position_embeddings = config.max_position_embeddings.min(first);
    config.rope = RopeConfig { divisors: factors, magnitude, ..config.rope.clone() };
}

pub(super) fn read_gguf(file: &mut Gguf, config: &mut DecoderConfig) -> Result<(), ModelError> {
    if file.has("phi3.attention.sliding_window") {
        let window = file.number("phi3.attention.sliding_window")?;
        if window > 0 {
            config.max_position_embeddings = config.max_position_embeddings.min(window);
        }
    }
    let Some(factors) = file.plain("rope_factors_short.weight")? else {
        return super::refuse_scaling(file, "phi3");
    };
    let context = file.number("phi3.context_length")?;
    let first = file.number("phi3.rope.scaling.original_context_length")?;
    let magnitude = if file.has("phi3.rope.scaling.attn_factor") {
        file.float("phi3.rope.scaling.attn_factor")?
    } else {
        magnitude_of(context as f64 / first as f64, first)
    };
    set_long(config, factors, first, magnitude);
    Ok(())
}
