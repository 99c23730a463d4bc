//! Frozen weights of a decoder, in the precision of their file and in the row order and names of
//! the checkpoint.

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::kernels::{Mat, MatMut, Product, Stored, isa, side_by_side};
use crate::lora::{Adapter, Module};
use crate::ops::Frozen;

/// A frozen linear module.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Weight, [outputs, inputs].
    pub weight: Stored,
    /// Added to the outputs, [outputs].
    pub bias: Option<Frozen>,
}

/// Weights of one layer.
#[derive(Clone)]
pub struct Layer {
    /// RMS norm before attention, [hidden].
    pub input_layernorm: Frozen,
    /// RMS norm before the feed-forward part, [hidden].
    pub post_attention_layernorm: Frozen,
    /// Linear modules of the architecture, in its order.
    pub linears: Vec<(Module, Linear)>,
}

impl Layer {
    /// Returns a linear module that the architecture has.
    ///
    /// # Panics
    /// When it has none such: a fault of the caller.
    pub fn linear(&self, module: Module) -> &Linear {
        let at = self.linears.iter().position(|(one, _)| *one == module);
        &self.linears[at.unwrap_or(self.linears.len())].1
    }
}

/// Weights of a whole decoder.
#[derive(Clone)]
pub struct Weights {
    /// Shape.
    pub config: DecoderConfig,
    /// Input embedding, [vocabulary, hidden].
    pub embed_tokens: Stored,
    /// Layers in order.
    pub layers: Vec<Layer>,
    /// Last RMS norm, [hidden].
    pub norm: Frozen,
    /// Output embedding, [vocabulary, hidden]; the input embedding where they are tied.
    pub lm_head: Stored,
}

/// Gives the tensors of a checkpoint by their Hugging Face names.
pub trait Source {
    /// Returns a tensor, or none where it is absent; one of one dimension is a single row.
    ///
    /// # Errors
    /// When the tensor is there but cannot be read.
    fn tensor(&mut self, name: &str) -> Result<Option<Stored>, ModelError>;
}

/// Takes tensors of a source and checks them.
struct Taker<'a>(&'a mut dyn Source);

impl Taker<'_> {
    /// Takes a tensor [rows, cols].
    fn matrix(&mut self, name: &str, shape: (usize, usize)) -> Result<Stored, ModelError> {
        let found = self.optional(name, shape)?;
        found.ok_or_else(|| wrong(name, "absent".to_owned()))
    }

    fn optional(
        &mut self,
        name: &str,
        (rows, cols): (usize, usize),
    ) -> Result<Option<Stored>, ModelError> {
        let Some(found) = self.0.tensor(name)? else { return Ok(None) };
        if (found.rows(), found.cols()) != (rows, cols) {
            let (r, c) = (found.rows(), found.cols());
            return Err(wrong(name, format!("[{r}, {c}] instead of [{rows}, {cols}]")));
        }
        if let Some(row) = found.not_finite() {
            return Err(wrong(name, format!("row {row} holds what is no finite number")));
        }
        Ok(Some(found))
    }

    fn line(&mut self, name: &str, len: usize) -> Result<Frozen, ModelError> {
        Ok(self.matrix(name, (1, len))?.to_vec().into())
    }
}

fn wrong(name: &str, reason: String) -> ModelError {
    ModelError::Tensor { name: name.to_owned(), reason }
}

impl Weights {
    /// Reads all weights from `source` and checks their sizes and that they are numbers.
    ///
    /// # Errors
    /// When a tensor is absent, has another size, or holds what is no number.
    pub fn read(config: DecoderConfig, source: &mut dyn Source) -> Result<Self, ModelError> {
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let mut take = Taker(source);
        let embed_tokens = take.matrix("model.embed_tokens.weight", (vocabulary, hidden))?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers.min(1024));
        for i in 0..config.num_hidden_layers {
            let path = |part: &str, kind: &str| format!("model.layers.{i}.{part}.{kind}");
            let mut linears = Vec::new();
            for module in config.architecture.modules() {
                let shape = module.shape(&config);
                let weight = take.matrix(&path(module.path(), "weight"), shape)?;
                let bias = match config.architecture.has_bias(*module) {
                    true => Some(take.line(&path(module.path(), "bias"), shape.0)?),
                    false => None,
                };
                linears.push((*module, Linear { weight, bias }));
            }
            layers.push(Layer {
                input_layernorm: take.line(&path("input_layernorm", "weight"), hidden)?,
                post_attention_layernorm: take
                    .line(&path("post_attention_layernorm", "weight"), hidden)?,
                linears,
            });
        }
        let linears = layers.iter_mut().flat_map(|layer| &mut layer.linears);
        side_by_side(linears.map(|(_, linear)| &mut linear.weight).collect());
        let norm = take.line("model.norm.weight", hidden)?;
        let lm_head = take.optional("lm_head.weight", (vocabulary, hidden))?;
        let lm_head = lm_head.unwrap_or_else(|| embed_tokens.clone());
        Ok(Self { config, embed_tokens, layers, norm, lm_head })
    }

    /// Reads a folder with `config.json` and safetensors, in one file or sharded, as transformers
    /// writes it.
    ///
    /// # Errors
    /// When a file is absent or malformed.
    pub fn from_folder(dir: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::open(dir)?;
        Self::read(checkpoint.config()?, &mut checkpoint)
    }

    /// Adds an adapter to the frozen weights: W + scale * B A, in f32.
    ///
    /// # Errors
    /// When the adapter does not fit.
    pub fn merged(&self, adapter: &Adapter) -> Result<Self, ModelError> {
        adapter.check(&self.config)?;
        let mut merged = self.clone();
        for (i, layer) in merged.layers.iter_mut().enumerate() {
            for (module, linear) in &mut layer.linears {
                let Some(pair) = adapter.pair(i, *module) else { continue };
                let inputs = linear.weight.cols();
                let mut weight = linear.weight.to_vec();
                let (rank, scale) = (adapter.config.rank(*module), adapter.config.scale(*module));
                let product = Product::new(isa().exact()).added().scaled(scale);
                let (b, a) = (Mat::new(&pair.b, rank), Mat::new(&pair.a, inputs));
                product.run(MatMut::new(&mut weight, inputs), b, a);
                linear.weight = Stored::plain(weight, inputs);
            }
        }
        Ok(merged)
    }

    /// Rounds all matrices to bf16.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let is_tied = self.is_tied();
        let mut rounded = self.clone();
        rounded.embed_tokens = self.embed_tokens.rounded();
        rounded.lm_head =
            if is_tied { rounded.embed_tokens.clone() } else { self.lm_head.rounded() };
        for (_, linear) in rounded.layers.iter_mut().flat_map(|layer| &mut layer.linears) {
            linear.weight = linear.weight.rounded();
        }
        rounded
    }

    /// Says whether any linear module is packed.
    pub fn is_packed(&self) -> bool {
        let mut linears = self.layers.iter().flat_map(|layer| &layer.linears);
        linears.any(|(_, linear)| linear.weight.as_plain().is_none())
    }

    /// Says whether the output embedding is the input embedding.
    pub fn is_tied(&self) -> bool {
        self.lm_head.is_same(&self.embed_tokens)
    }

    /// Returns the bytes that the weights take in memory.
    pub fn size(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| &layer.linears);
        let linears: usize = linears.map(|(_, linear)| linear.weight.size()).sum();
        let head = if self.is_tied() { 0 } else { self.lm_head.size() };
        linears + self.embed_tokens.size() + head
    }
}
