//! Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on q, k and v.

use super::{Architecture, Json, llama};
use crate::config::DecoderConfig;
use crate::lora::Module;

pub(super) const MODULES: [Module; 7] = llama::MODULES;

pub(super) fn has_bias(module: Module) -> bool {
    matches!(module, Module::QProj | Module::KProj | Module::VProj)
}

pub(super) fn read_json(json: &Json<'_>) -> Result<DecoderConfig, String> {
    let kind = json.rope_kind();
    if kind != "default" {
        return Err(format!("rotary scaling {kind:?} is not computed here"));
    }
    if json.is_set("use_sliding_window") {
        return Err("use_sliding_window is set; Qwen2 is computed here without".to_owned());
    }
    json.base(Architecture::Qwen2)
}
