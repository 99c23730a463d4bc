//! Llama (Touvron et al., 2023), with the rotary scaling of Llama 3.1.

use super::{Architecture, Json};
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::lora::Module;

pub(super) const MODULES: [Module; 7] = [
    Module::QProj,
    Module::KProj,
    Module::VProj,
    Module::OProj,
    Module::GateProj,
    Module::UpProj,
    Module::DownProj,
];

pub(super) fn read_json(json: &Json<'_>) -> Result<DecoderConfig, String> {
    for key in ["attention_bias", "mlp_bias"] {
        if json.is_set(key) {
            return Err(format!("{key} is set; Llama is computed here without"));
        }
    }
    let mut config = json.base(Architecture::Llama)?;
    match json.rope_kind() {
        "default" => {}
        "llama3" => config.rope.divisors = scaled(json, &config.rope.frequencies())?,
        "linear" => {
            let factor = json.of_rope("factor").ok_or("linear rotary scaling without factor")?;
            config.rope.divisors = vec![factor as f32; config.rope.dims / 2];
        }
        other => return Err(format!("rotary scaling {other:?} is not computed here")),
    }
    Ok(config)
}

/// The scaling of Llama 3.1: waves that are long against the first context are stretched by
/// `factor`, short ones stay, and those between are blended (transformers, `llama3`).
fn scaled(json: &Json<'_>, frequencies: &[f32]) -> Result<Vec<f32>, String> {
    let of = |key: &str| json.of_rope(key).ok_or_else(|| format!("rotary scaling without {key}"));
    let (factor, context) = (of("factor")?, of("original_max_position_embeddings")?);
    let (low, high) = (of("low_freq_factor")?, of("high_freq_factor")?);
    let divisor = |frequency: &f32| {
        let wave = 2.0 * std::f64::consts::PI / f64::from(*frequency);
        if wave < context / high {
            return 1.0;
        }
        if wave > context / low {
            return factor;
        }
        let share = (context / wave - low) / (high - low);
        1.0 / ((1.0 - share) / factor + share)
    };
    Ok(frequencies.iter().map(|frequency| divisor(frequency) as f32).collect())
}

/// GGUF holds the divisors of the frequencies as a tensor.
pub(super) fn read_gguf(file: &mut Gguf, config: &mut DecoderConfig) -> Result<(), ModelError> {
    if let Some(divisors) = file.plain("rope_freqs.weight")? {
        config.rope.divisors = divisors;
    }
    let kind = file.text("llama.rope.scaling.type").unwrap_or("none").to_owned();
    if kind == "linear" {
        let factor = file.float("llama.rope.scaling.factor")?;
        config.rope.divisors = vec![factor; config.rope.dims / 2];
    } else if kind != "none" {
        let what = format!("rotary scaling {kind:?} is not computed here");
        return Err(ModelError::Unsupported(what));
    }
    Ok(())
}
