//! Adapters on disk as PEFT has them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Map, Value, json};

use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::lora::{Adapter, LoraConfig, Module, Pair};

/// Returns the bytes of `adapter_model.safetensors`: A [r, inputs] and B [outputs, r], f32.
///
/// # Errors
/// When the format refuses a tensor.
pub fn weights_bytes(adapter: &Adapter) -> Result<Vec<u8>, ModelError> {
    let mut data = BTreeMap::new();
    for ((layer, module), pair) in &adapter.pairs {
        let r = adapter.config.rank(*module);
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
    let by_name = |module: &Module, number: Value| (module.name().to_owned(), number);
    let ranks: Map<String, Value> =
        config.ranks.iter().map(|(module, rank)| by_name(module, json!(rank))).collect();
    let alphas: Map<String, Value> =
        config.alphas.iter().map(|(module, alpha)| by_name(module, json!(alpha))).collect();
    json!({
        "alpha_pattern": alphas,
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
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    })
}

/// Reads an adapter that PEFT or this crate wrote.
///
/// # Errors
/// When the configuration asks for what is not done here, or a tensor is absent.
pub fn read(config: &[u8], weights: &[u8], model: &DecoderConfig) -> Result<Adapter, ModelError> {
    let config = read_config(config, model)?;
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

/// What PEFT's configuration may ask for that changes what an adapter computes and is not done
/// here, with the values that ask for nothing.
const NOT_DONE: [&str; 8] = [
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
];

fn read_config(bytes: &[u8], model: &DecoderConfig) -> Result<LoraConfig, ModelError> {
    let wrong = |what: String| ModelError::Adapter(format!("adapter_config.json: {what}"));
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    for key in NOT_DONE {
        let asks = match &value[key] {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if asks {
            return Err(wrong(format!("{key} is not supported")));
        }
    }
    if value["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(wrong("a bias is not supported".to_owned()));
    }
    let modules = target_modules(&value["target_modules"], model).map_err(wrong)?;
    let number = |key: &str| value[key].as_f64().ok_or_else(|| wrong(format!("no number {key}")));
    let ranks = pattern(&value["rank_pattern"], &modules).map_err(wrong)?;
    let config = LoraConfig {
        r: number("r")? as usize,
        alpha: number("lora_alpha")?,
        dropout: number("lora_dropout").unwrap_or(0.0),
        rslora: value["use_rslora"].as_bool() == Some(true),
        ranks: ranks.into_iter().map(|(module, rank)| (module, rank as usize)).collect(),
        alphas: pattern(&value["alpha_pattern"], &modules).map_err(wrong)?,
        modules,
    };
    if config.modules.iter().any(|module| config.rank(*module) == 0) {
        return Err(wrong("a rank of zero".to_owned()));
    }
    Ok(config)
}

fn target_modules(value: &Value, model: &DecoderConfig) -> Result<Vec<Module>, String> {
    let all = model.architecture.modules();
    match value {
        Value::String(text) if text == "all-linear" => Ok(all.to_vec()),
        Value::Array(names) => {
            let named = |name: &Value| {
                let name = name.as_str().unwrap_or_default();
                let module =
                    all.iter().find(|module| [module.name(), module.path()].contains(&name));
                module.copied().ok_or_else(|| {
                    format!("target_modules names {name:?}, which is not adapted here")
                })
            };
            let mut modules = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
            modules.sort_unstable();
            modules.dedup();
            if modules.is_empty() {
                Err("target_modules names none".to_owned())
            } else {
                Ok(modules)
            }
        }
        other => Err(format!("target_modules is {other}; a list or \"all-linear\" is read")),
    }
}

/// Reads numbers by module; PEFT's patterns for single layers are not done here.
fn pattern(value: &Value, modules: &[Module]) -> Result<BTreeMap<Module, f64>, String> {
    let mut numbers = BTreeMap::new();
    for (name, number) in value.as_object().into_iter().flatten() {
        let is_named = |module: &&Module| [module.name(), module.path()].contains(&name.as_str());
        let module = modules.iter().find(is_named);
        let number = number.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        let (Some(module), Some(number)) = (module, number) else {
            return Err(format!("the pattern {name:?} is not a target module's name and number"));
        };
        numbers.insert(*module, number);
    }
    Ok(numbers)
}
