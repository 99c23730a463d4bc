//! Frozen weights of a Llama decoder, f32, in the row order and names of its checkpoint.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::kernels::{Mat, MatMut, Product, isa};
use crate::lora::{Adapter, Module};
use crate::ops::Frozen;

/// Weights of one layer.
#[derive(Clone)]
pub struct Layer {
    /// RMS norm before attention, [hidden].
    pub input_layernorm: Frozen,
    /// RMS norm before the feed-forward part, [hidden].
    pub post_attention_layernorm: Frozen,
    linears: [Frozen; 7],
}

impl Layer {
    /// Puts a layer together; linear modules in the order of [`Module::ALL`].
    pub fn new(
        input_layernorm: Frozen,
        post_attention_layernorm: Frozen,
        linears: [Frozen; 7],
    ) -> Self {
        Self { input_layernorm, post_attention_layernorm, linears }
    }

    /// Returns the weight of a linear module, [outputs, inputs].
    pub fn linear(&self, module: Module) -> &Frozen {
        &self.linears[module as usize]
    }
}

/// Weights of a whole decoder.
#[derive(Clone)]
pub struct Weights {
    /// Shape.
    pub config: LlamaConfig,
    /// Input embedding, [vocabulary, hidden].
    pub embed_tokens: Frozen,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// Last RMS norm, [hidden].
    pub norm: Frozen,
    /// Output embedding, [vocabulary, hidden]; the input embedding where they are tied.
    pub lm_head: Frozen,
}

/// Gives the tensors of a checkpoint by their Hugging Face names.
pub trait Source {
    /// Returns the elements of a tensor in row-major order, or none where it is absent.
    ///
    /// # Errors
    /// When the tensor is there but cannot be read.
    fn tensor(&mut self, name: &str) -> Result<Option<Vec<f32>>, ModelError>;
}

impl Weights {
    /// Reads all weights from `source` and checks their sizes.
    ///
    /// # Errors
    /// When a tensor is absent or has another size.
    pub fn read(config: LlamaConfig, source: &mut dyn Source) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let mut take = |name: &str, len: usize| -> Result<Frozen, ModelError> {
            let found = source.tensor(name)?;
            checked(name, found, len)
        };
        let embed_tokens = take("model.embed_tokens.weight", config.vocab_size * hidden)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let path = |part: &str| format!("model.layers.{i}.{part}.weight");
            let mut linears = Vec::with_capacity(7);
            for module in Module::ALL {
                let (outputs, inputs) = module.shape(&config);
                linears.push(take(&path(module.path()), outputs * inputs)?);
            }
            let linears = linears.try_into().map_err(|_| {
                ModelError::Unsupported("a layer without seven linear modules".to_owned())
            })?;
            layers.push(Layer {
                input_layernorm: take(&path("input_layernorm"), hidden)?,
                post_attention_layernorm: take(&path("post_attention_layernorm"), hidden)?,
                linears,
            });
        }
        let norm = take("model.norm.weight", hidden)?;
        let lm_head = match source.tensor("lm_head.weight")? {
            Some(data) => checked("lm_head.weight", Some(data), config.vocab_size * hidden)?,
            None => Arc::clone(&embed_tokens),
        };
        Ok(Self { config, embed_tokens, layers, norm, lm_head })
    }

    /// Reads a folder with `config.json` and `model.safetensors`, as transformers writes it.
    ///
    /// # Errors
    /// When a file is absent or malformed.
    pub fn from_folder(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let malformed = |e: serde_json::Error| ModelError::Malformed {
            path: path.clone(),
            reason: e.to_string(),
        };
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(malformed)?;
        // transformers 5 moved the base into `rope_parameters`.
        if value.get("rope_theta").is_none() {
            value["rope_theta"] = value["rope_parameters"]["rope_theta"].clone();
        }
        let config: LlamaConfig = serde_json::from_value(value).map_err(malformed)?;
        config.check().map_err(ModelError::Unsupported)?;
        let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?;
        Self::read(config, &mut Named(tensors))
    }

    /// Adds an adapter to the frozen weights: W + scale * B A.
    ///
    /// # Errors
    /// When the adapter does not fit.
    pub fn merged(&self, adapter: &Adapter) -> Result<Self, ModelError> {
        adapter.check(&self.config)?;
        let mut merged = self.clone();
        for (i, layer) in merged.layers.iter_mut().enumerate() {
            for module in Module::ALL {
                let Some(pair) = adapter.pair(i, module) else { continue };
                let (_, inputs) = module.shape(&self.config);
                let mut weight = layer.linears[module as usize].to_vec();
                let rank = pair.a.len() / inputs;
                let product = Product::new(isa().exact()).added().scaled(adapter.config.scale());
                let (b, a) = (Mat::new(&pair.b, rank), Mat::new(&pair.a, inputs));
                product.run(MatMut::new(&mut weight, inputs), b, a);
                layer.linears[module as usize] = weight.into();
            }
        }
        Ok(merged)
    }
}

fn checked(name: &str, found: Option<Vec<f32>>, len: usize) -> Result<Frozen, ModelError> {
    let wrong = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
    match found {
        None => Err(wrong("absent".to_owned())),
        Some(data) if data.len() != len => {
            Err(wrong(format!("{} elements instead of {len}", data.len())))
        }
        Some(data) => Ok(data.into()),
    }
}

/// Tensors of a safetensors file.
struct Named(HashMap<String, candle_core::Tensor>);

impl Source for Named {
    fn tensor(&mut self, name: &str) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(tensor) = self.0.remove(name) else { return Ok(None) };
        let tensor = tensor.to_dtype(candle_core::DType::F32)?;
        Ok(Some(tensor.flatten_all()?.to_vec1()?))
    }
}
