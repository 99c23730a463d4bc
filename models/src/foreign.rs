//! Models of families that are not ours, evaluated through candle-transformers in f32.
//!
//! Where its code leaves out what a model's `config.json` asks for, the model is refused: a score
//! of something else would be worse than none.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma, gemma2, gemma3, granite, mistral, qwen3};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::ModelError;
use crate::kernels::argmax;

/// Families that are evaluated, by their name in `config.json`.
pub const FAMILIES: [&str; 6] = ["gemma", "gemma2", "gemma3_text", "granite", "mistral", "qwen3"];

/// A model that is evaluated only.
pub struct Foreign {
    family: &'static str,
    context: usize,
    vocabulary: usize,
    // candle's models carry their cache in themselves.
    inner: Mutex<Inner>,
}

enum Inner {
    Gemma(gemma::Model),
    Gemma2(gemma2::Model),
    Gemma3(gemma3::Model),
    Granite(granite::Granite, granite::Config),
    Mistral(mistral::Model),
    Qwen3(qwen3::ModelForCausalLM),
}

/// A model while it reads a text.
struct Reading<'a> {
    inner: &'a mut Inner,
    cache: Option<granite::Cache>,
    read: usize,
}

fn unsupported(what: impl Into<String>) -> ModelError {
    ModelError::Unsupported(what.into())
}

impl Foreign {
    /// Loads a folder of one of [`FAMILIES`].
    ///
    /// # Errors
    /// When the family is not known, or the model asks for what is not computed.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let json = checkpoint.json();
        let name = json["model_type"].as_str().unwrap_or("unnamed");
        let Some(family) = FAMILIES.into_iter().find(|family| *family == name) else {
            return Err(unsupported(format!("architecture {name:?}")));
        };
        let json = lifted(json);
        refuse(family, &json)?;
        let number = |key: &str| json[key].as_u64().and_then(|v| usize::try_from(v).ok());
        let missing = |key: &str| unsupported(format!("config.json: no {key}"));
        let context = number("max_position_embeddings").unwrap_or(4096);
        // Whether a token sees as many others as the window says differs by one between
        // implementations: no text may reach it.
        let window = number("sliding_window").filter(|_| json["use_sliding_window"] != false);
        let context = window.map_or(context, |window| context.min(window.saturating_sub(1)));
        let vocabulary = number("vocab_size").ok_or_else(|| missing("vocab_size"))?;
        let vb = tensors(checkpoint)?;
        let inner = match family {
            "gemma" => Inner::Gemma(gemma::Model::new(false, &config(&json)?, vb)?),
            "gemma2" => Inner::Gemma2(gemma2::Model::new(false, &config(&json)?, vb)?),
            "gemma3_text" => Inner::Gemma3(gemma3::Model::new(false, &config(&json)?, vb)?),
            "granite" => {
                let config = config::<granite::GraniteConfig>(&json)?.into_config(false);
                Inner::Granite(granite::Granite::load(vb, &config)?, config)
            }
            "mistral" => Inner::Mistral(mistral::Model::new(&config(&json)?, vb)?),
            _ => Inner::Qwen3(qwen3::ModelForCausalLM::new(&config(&json)?, vb)?),
        };
        Ok(Self { family, context, vocabulary, inner: Mutex::new(inner) })
    }

    /// Name of the family.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// Most tokens of a text.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens known.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Answers a prompt greedily; returns the new ids, and whether the end token was said.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn answer(
        &self,
        prompt: &[u32],
        max_new: usize,
        eos: u32,
        said: &mut dyn FnMut(u32),
    ) -> Result<(Vec<u32>, bool), ModelError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = Reading::new(&mut inner)?;
        let mut logits = reading.read(prompt)?;
        let mut ids = Vec::new();
        while ids.len() < max_new {
            let next = argmax(&logits);
            if next == eos {
                return Ok((ids, true));
            }
            ids.push(next);
            said(next);
            if ids.len() < max_new {
                logits = reading.read(&[next])?;
            }
        }
        Ok((ids, false))
    }

    /// Returns the logits [tokens, vocabulary] behind each token of a text.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn text_logits(&self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reading = Reading::new(&mut inner)?;
        let mut all = Vec::with_capacity(ids.len() * self.vocabulary);
        for id in ids {
            all.extend(reading.read(&[*id])?);
        }
        Ok(all)
    }
}

impl<'a> Reading<'a> {
    fn new(inner: &'a mut Inner) -> Result<Self, ModelError> {
        let mut cache = None;
        match inner {
            Inner::Gemma(model) => model.clear_kv_cache(),
            Inner::Gemma2(model) => model.clear_kv_cache(),
            Inner::Gemma3(model) => model.clear_kv_cache(),
            Inner::Mistral(model) => model.clear_kv_cache(),
            Inner::Qwen3(model) => model.clear_kv_cache(),
            Inner::Granite(_, config) => {
                cache = Some(granite::Cache::new(true, DType::F32, config, &Device::Cpu)?);
            }
        }
        Ok(Self { inner, cache, read: 0 })
    }

    /// Reads on; returns the logits behind the last token.
    fn read(&mut self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        // candle's cache of Gemma 3 takes single tokens only.
        if let (Inner::Gemma3(_), [first @ .., last]) = (&*self.inner, ids)
            && !first.is_empty()
        {
            for id in first {
                self.read(&[*id])?;
            }
            return self.read(&[*last]);
        }
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let at = self.read;
        let logits = match (&mut *self.inner, &mut self.cache) {
            (Inner::Gemma(model), _) => model.forward(&input, at),
            (Inner::Gemma2(model), _) => model.forward(&input, at),
            (Inner::Gemma3(model), _) => model.forward(&input, at),
            (Inner::Mistral(model), _) => model.forward(&input, at),
            (Inner::Qwen3(model), _) => model.forward(&input, at),
            (Inner::Granite(model, _), Some(cache)) => model.forward(&input, at, cache),
            (Inner::Granite(..), None) => {
                return Err(unsupported("a granite model without its cache"));
            }
        }?;
        self.read += ids.len();
        Ok(logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }
}

fn config<T: DeserializeOwned>(json: &Value) -> Result<T, ModelError> {
    serde_json::from_value(json.clone()).map_err(|e| unsupported(format!("config.json: {e}")))
}

/// Puts what transformers 5 moved or leaves out back where candle looks for it.
fn lifted(json: &Value) -> Value {
    let mut lifted = json.clone();
    let rope = &json["rope_parameters"];
    let places = [
        ("rope_theta", [&rope["rope_theta"], &rope["full_attention"]["rope_theta"]]),
        ("rope_local_base_freq", [&rope["sliding_attention"]["rope_theta"], &Value::Null]),
        ("sliding_window_pattern", [&json["_sliding_window_pattern"], &Value::Null]),
    ];
    for (key, found) in places {
        let found = found.into_iter().find(|value| !value.is_null());
        if let (true, Some(value)) = (lifted[key].is_null(), found) {
            lifted[key] = value.clone();
        }
    }
    // Gemma's own files name its activation twice; the newer name is the right one.
    if !lifted["hidden_activation"].is_null()
        && let Some(map) = lifted.as_object_mut()
    {
        map.remove("hidden_act");
    }
    lifted
}

/// Refuses models that ask for what candle's code leaves out.
fn refuse(family: &str, json: &Value) -> Result<(), ModelError> {
    let number = |key: &str| json[key].as_f64();
    let wrong = |key: &str| {
        let value = &json[key];
        Err(unsupported(format!("{family} with {key} {value}, which is not computed here")))
    };
    let scaling = [&json["rope_parameters"], &json["rope_scaling"]];
    let kinds = scaling.iter().flat_map(|place| {
        let inner = ["full_attention", "sliding_attention"].map(|key| &place[key]);
        [*place, inner[0], inner[1]].map(|place| place["rope_type"].as_str())
    });
    if let Some(kind) = kinds.flatten().find(|kind| *kind != "default") {
        return Err(unsupported(format!("{family} with rotary scaling {kind:?}")));
    }
    let biases = ["attention_bias", "mlp_bias"];
    let is_dropped = matches!(family, "granite" | "mistral");
    if let Some(key) = biases.into_iter().find(|key| is_dropped && json[*key] == true) {
        return wrong(key);
    }
    let heads = number("num_attention_heads").unwrap_or(1.0).max(1.0);
    let head = number("head_dim").unwrap_or(number("hidden_size").unwrap_or(0.0) / heads);
    match family {
        "granite" => {
            for key in ["embedding_multiplier", "logits_scaling", "residual_multiplier"] {
                if number(key).is_some_and(|v| v != 1.0) {
                    return wrong(key);
                }
            }
            let multiplier = number("attention_multiplier");
            if multiplier.is_some_and(|v| (v - 1.0 / head.sqrt()).abs() > 1e-6) {
                return wrong("attention_multiplier");
            }
        }
        "gemma2" | "gemma3_text" if number("query_pre_attn_scalar") != Some(head) => {
            return wrong("query_pre_attn_scalar");
        }
        _ => {}
    }
    Ok(())
}

fn tensors(checkpoint: &Checkpoint) -> Result<VarBuilder<'static>, ModelError> {
    let mut tensors = HashMap::new();
    for name in checkpoint.names() {
        let (stored, shape) = checkpoint.shaped(&name)?;
        if let Some(row) = stored.not_finite() {
            let reason = format!("row {row} holds what is no finite number");
            return Err(ModelError::Tensor { name, reason });
        }
        tensors.insert(name, Tensor::from_vec(stored.to_vec(), shape, &Device::Cpu)?);
    }
    let embedding = tensors.get("model.embed_tokens.weight").cloned();
    if let (false, Some(tied)) = (tensors.contains_key("lm_head.weight"), embedding) {
        tensors.insert("lm_head.weight".to_owned(), tied);
    }
    Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}
