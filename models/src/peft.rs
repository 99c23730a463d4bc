//! Adapters on disk as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::lora::{Adapter, LoraConfig, Module, Pair};

/// Returns the bytes of `adapter_model.safetensors`: A [r, inputs] and B [outputs, r], f32.
///
/// # Errors
/// When the format refuses a tensor.
pub fn weights_bytes(adapter: &Adapter) -> Result<Vec<u8>, ModelError> {
    let r = adapter.config.r;
    let mut data = BTreeMap::new();
    for ((layer, module), pair) in &adapter.pairs {
        let key = |side: &str| key(*layer, *module, side);
        data.insert(key("A"), (vec![r, pair.a.len() / r], bytes(&pair.a)));
        data.insert(key("B"), (vec![pair.b.len() / r, r], bytes(&pair.b)));
    }
    tensors_bytes(&data)
}

fn key(layer: usize, module: Module, side: &str) -> String {
    let path = module.path();
    format!("base_model.model.model.layers.{layer}.{path}.lora_{side}.weight")
}

pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes named f32 tensors as a safetensors file, in order of name.
pub(crate) fn tensors_bytes(
    data: &BTreeMap<String, (Vec<usize>, Vec<u8>)>,
) -> Result<Vec<u8>, ModelError> {
    let failed = |e: safetensors::SafeTensorError| ModelError::Adapter(e.to_string());
    let mut views = Vec::with_capacity(data.len());
    for (name, (shape, bytes)) in data {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?));
    }
    serialize(views, None).map_err(failed)
}

/// Reads an f32 tensor of a safetensors file.
pub(crate) fn numbers(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, ModelError> {
    let wrong = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
    let view = file.tensor(name).map_err(|e| wrong(e.to_string()))?;
    if view.dtype() != Dtype::F32 {
        return Err(wrong(format!("{:?} instead of F32", view.dtype())));
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// Returns `adapter_config.json`; `base` names the base model.
pub fn config_json(config: &LoraConfig, base: &str) -> Value {
    let mut modules: Vec<&str> = config.modules.iter().map(|m| m.name()).collect();
    modules.sort_unstable();
    json!({
        "alpha_pattern": {},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.r,
        "rank_pattern": {},
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

/// Reads an adapter that PEFT or this crate wrote.
///
/// # Errors
/// When the configuration asks for what is not done here, or a tensor is absent.
pub fn read(config: &[u8], weights: &[u8], model: &LlamaConfig) -> Result<Adapter, ModelError> {
    let config = read_config(config)?;
    let failed = |e: safetensors::SafeTensorError| ModelError::Adapter(e.to_string());
    let file = SafeTensors::deserialize(weights).map_err(failed)?;
    let mut pairs = BTreeMap::new();
    for layer in 0..model.num_hidden_layers {
        for module in &config.modules {
            let a = numbers(&file, &key(layer, *module, "A"))?;
            let b = numbers(&file, &key(layer, *module, "B"))?;
            pairs.insert((layer, *module), Pair { a, b });
        }
    }
    if file.len() != 2 * pairs.len() {
        let what = format!("{} tensors where {} are expected", file.len(), 2 * pairs.len());
        return Err(ModelError::Adapter(what));
    }
    let adapter = Adapter { config, pairs };
    adapter.check(model)?;
    Ok(adapter)
}

fn read_config(bytes: &[u8]) -> Result<LoraConfig, ModelError> {
    let wrong = |what: String| ModelError::Adapter(format!("adapter_config.json: {what}"));
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    for key in ["use_dora", "use_rslora"] {
        if value[key].as_bool() == Some(true) {
            return Err(wrong(format!("{key} is not supported")));
        }
    }
    let names = value["target_modules"].as_array().cloned().unwrap_or_default();
    let modules: Vec<Module> = Module::ALL
        .into_iter()
        .filter(|m| names.iter().any(|n| n.as_str() == Some(m.name())))
        .collect();
    if modules.is_empty() || modules.len() != names.len() {
        return Err(wrong("target_modules names a module that is not adapted here".to_owned()));
    }
    let number = |key: &str| value[key].as_f64().ok_or_else(|| wrong(format!("no number {key}")));
    Ok(LoraConfig {
        r: number("r")? as usize,
        alpha: number("lora_alpha")?,
        dropout: number("lora_dropout").unwrap_or(0.0),
        modules,
    })
}
