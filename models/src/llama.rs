//! The Llama decoder for training: frozen weights, a trainable adapter, candle's autograd.
//!
//! Llama 2 (Touvron et al., 2023) with grouped queries. Rows of a batch are packed behind each
//! other; weight names equal the checkpoint's.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use crate::lora::{Adapter, LoraConfig, Module, Pair};
use crate::ops::{Attention, CrossEntropy, Dropout, LoraLinear, RmsNorm, Rope, SwiGlu};
use crate::render::TrainingRow;
use crate::weights::{Layer, Weights};

/// Variables of an adapter in training.
pub struct LoraVars {
    config: LoraConfig,
    vars: BTreeMap<(usize, Module), (Var, Var)>,
}

impl LoraVars {
    /// Makes variables with the adapter's numbers.
    ///
    /// # Errors
    /// When candle refuses a shape.
    pub fn new(adapter: &Adapter) -> Result<Self> {
        let mut vars = BTreeMap::new();
        let r = adapter.config.r;
        for (key, pair) in &adapter.pairs {
            let a = Var::from_vec(pair.a.clone(), (r, pair.a.len() / r), &Device::Cpu)?;
            let b = Var::from_vec(pair.b.clone(), (pair.b.len() / r, r), &Device::Cpu)?;
            vars.insert(*key, (a, b));
        }
        Ok(Self { config: adapter.config.clone(), vars })
    }

    /// Returns all variables in a fixed order: by layer and module, A before B.
    pub fn all(&self) -> Vec<&Var> {
        self.vars.values().flat_map(|(a, b)| [a, b]).collect()
    }

    /// Copies the numbers out.
    ///
    /// # Errors
    /// When candle refuses a copy.
    pub fn adapter(&self) -> Result<Adapter> {
        let numbers = |var: &Var| var.as_tensor().flatten_all()?.to_vec1::<f32>();
        let mut pairs = BTreeMap::new();
        for (key, (a, b)) in &self.vars {
            pairs.insert(*key, Pair { a: numbers(a)?, b: numbers(b)? });
        }
        Ok(Adapter { config: self.config.clone(), pairs })
    }
}

/// Dropout of one forward pass.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the pass over all steps and micro-batches.
    pub pass: u64,
}

/// Packed rows, ready for a forward pass.
pub struct Packed {
    ids: Vec<u32>,
    rows: Arc<[usize]>,
    targets: Arc<[(usize, u32)]>,
}

impl Packed {
    /// Packs rows behind each other; the loss covers their supervised tokens only.
    pub fn new(rows: &[&TrainingRow]) -> Self {
        let mut ids = Vec::new();
        let mut targets = Vec::new();
        for row in rows {
            let start = ids.len();
            ids.extend_from_slice(&row.ids);
            // The state of token i predicts token i + 1.
            let covered = row.ids.iter().zip(&row.supervised).enumerate().skip(1);
            let covered = covered.filter(|(_, (_, covered))| **covered);
            targets.extend(covered.map(|(i, (id, _))| (start + i - 1, *id)));
        }
        let rows: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        Self { ids, rows: rows.into(), targets: targets.into() }
    }

    /// Returns the tokens that the loss covers.
    pub fn supervised(&self) -> usize {
        self.targets.len()
    }

    /// Returns the tokens read.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// A decoder in training.
pub struct Llama {
    weights: Arc<Weights>,
    rope: Arc<Rope>,
}

impl Llama {
    /// Wraps frozen weights; rows may have up to `longest` tokens.
    pub fn new(weights: Arc<Weights>, longest: usize) -> Self {
        let rope = Arc::new(Rope::of(&weights.config, longest));
        Self { weights, rope }
    }

    /// Computes the last hidden states [tokens, hidden].
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn hidden(
        &self,
        packed: &Packed,
        lora: &LoraVars,
        drop: Option<DropoutKey>,
    ) -> Result<Tensor> {
        let width = self.weights.config.hidden_size;
        let row = |id: &u32| {
            let at = *id as usize * width;
            &self.weights.embed_tokens[at..at + width]
        };
        let embedded: Vec<f32> = packed.ids.iter().flat_map(row).copied().collect();
        let mut x = Tensor::from_vec(embedded, (packed.ids.len(), width), &Device::Cpu)?;
        for (i, layer) in self.weights.layers.iter().enumerate() {
            x = Block { model: self, layer, index: i, lora, drop }.forward(&x, &packed.rows)?;
        }
        self.norm(&x, &self.weights.norm)
    }

    /// Computes the summed loss (nats) over the supervised tokens, as a tensor [1].
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn loss(
        &self,
        packed: &Packed,
        lora: &LoraVars,
        drop: Option<DropoutKey>,
    ) -> Result<Tensor> {
        self.hidden(packed, lora, drop)?.apply_op1(CrossEntropy {
            head: Arc::clone(&self.weights.lm_head),
            width: self.weights.config.hidden_size,
            targets: Arc::clone(&packed.targets),
        })
    }

    fn norm(&self, x: &Tensor, weight: &crate::ops::Frozen) -> Result<Tensor> {
        let eps = self.weights.config.rms_norm_eps;
        x.apply_op1(RmsNorm { weight: Arc::clone(weight), eps })
    }
}

/// One layer in one forward pass.
struct Block<'a> {
    model: &'a Llama,
    layer: &'a Layer,
    index: usize,
    lora: &'a LoraVars,
    drop: Option<DropoutKey>,
}

impl Block<'_> {
    fn forward(&self, x: &Tensor, rows: &Arc<[usize]>) -> Result<Tensor> {
        let config = &self.model.weights.config;
        let h = self.model.norm(x, &self.layer.input_layernorm)?;
        let q = self.linear(Module::QProj, &h)?;
        let k = self.linear(Module::KProj, &h)?;
        let v = self.linear(Module::VProj, &h)?;
        let attention = Attention {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head: config.head_dim(),
            rows: Arc::clone(rows),
            rope: Arc::clone(&self.model.rope),
        };
        let x = (x + self.linear(Module::OProj, &q.apply_op3(&k, &v, attention)?)?)?;
        let h = self.model.norm(&x, &self.layer.post_attention_layernorm)?;
        let gate = self.linear(Module::GateProj, &h)?;
        let up = self.linear(Module::UpProj, &h)?;
        &x + self.linear(Module::DownProj, &gate.apply_op2(&up, SwiGlu)?)?
    }

    fn linear(&self, module: Module, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = module.shape(&self.model.weights.config);
        let below = Dropout::quantise(self.lora.config.dropout);
        let place = (self.index * Module::ALL.len() + module as usize) as u64;
        let dropout =
            self.drop.map(|key| Dropout { below, seed: key.seed, index: key.pass * 4096 + place });
        let op = LoraLinear {
            weight: Arc::clone(self.layer.linear(module)),
            inputs,
            scale: self.lora.config.scale(),
            dropout,
        };
        match self.lora.vars.get(&(self.index, module)) {
            Some((a, b)) => x.apply_op3(a.as_tensor(), b.as_tensor(), op),
            None => {
                // An unadapted module is the same product with an empty update.
                let a = Tensor::zeros((1, inputs), candle_core::DType::F32, &Device::Cpu)?;
                let b = Tensor::zeros((outputs, 1), candle_core::DType::F32, &Device::Cpu)?;
                x.apply_op3(&a, &b, LoraLinear { dropout: None, ..op })
            }
        }
    }
}
