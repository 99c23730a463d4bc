//! Low-rank adapters: which modules, how wide, and their numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::rng;

/// A linear module of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    /// Query projection.
    QProj,
    /// Key projection.
    KProj,
    /// Value projection.
    VProj,
    /// Output projection of attention.
    OProj,
    /// Gate of the feed-forward part.
    GateProj,
    /// Widening projection.
    UpProj,
    /// Narrowing projection.
    DownProj,
}

impl Module {
    /// All seven, in the order of a layer.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Path within a layer of the checkpoint.
    pub fn path(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }

    /// Name as in PEFT's `target_modules`.
    pub fn name(self) -> &'static str {
        self.path().split_once('.').map_or("", |(_, name)| name)
    }

    /// (outputs, inputs) of the module.
    pub fn shape(self, config: &LlamaConfig) -> (usize, usize) {
        let (hidden, kv, wide) = (config.hidden_size, config.kv_dim(), config.intermediate_size);
        match self {
            Self::QProj | Self::OProj => (hidden, hidden),
            Self::KProj | Self::VProj => (kv, hidden),
            Self::GateProj | Self::UpProj => (wide, hidden),
            Self::DownProj => (hidden, wide),
        }
    }
}

/// Shape of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of every update.
    pub r: usize,
    /// The update is scaled by alpha / r.
    pub alpha: f64,
    /// Dropout of the update's input in training.
    pub dropout: f64,
    /// Modules that are adapted.
    pub modules: Vec<Module>,
}

impl LoraConfig {
    /// Returns alpha / r.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.r as f64) as f32
    }
}

/// The two factors of one module's update.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// A, [rank, inputs].
    pub a: Vec<f32>,
    /// B, [outputs, rank].
    pub b: Vec<f32>,
}

/// An adapter: its shape and its numbers, by layer and module.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Shape.
    pub config: LoraConfig,
    /// Factors.
    pub pairs: BTreeMap<(usize, Module), Pair>,
}

impl Adapter {
    /// Makes a fresh adapter: A uniform within sqrt(6 / ((1 + 5) inputs)), as PEFT's default
    /// (Kaiming with a = sqrt 5), B zero, so that it changes nothing yet.
    pub fn fresh(config: &LoraConfig, model: &LlamaConfig, seed: u64) -> Self {
        let mut pairs = BTreeMap::new();
        for layer in 0..model.num_hidden_layers {
            for module in &config.modules {
                let (outputs, inputs) = module.shape(model);
                let index = (layer * Module::ALL.len() + *module as usize) as u64;
                let mut stream = rng::stream(seed, "lora-init", index);
                let bound = 1.0 / (inputs as f32).sqrt();
                let a = rng::uniform(&mut stream, bound, config.r * inputs);
                pairs.insert((layer, *module), Pair { a, b: vec![0.0; outputs * config.r] });
            }
        }
        Self { config: config.clone(), pairs }
    }

    /// Returns the factors of a module, if it is adapted.
    pub fn pair(&self, layer: usize, module: Module) -> Option<&Pair> {
        self.pairs.get(&(layer, module))
    }

    /// Says whether the adapter fits a model of this shape.
    ///
    /// # Errors
    /// Names the first module that does not fit.
    pub fn check(&self, model: &LlamaConfig) -> Result<(), ModelError> {
        for ((layer, module), pair) in &self.pairs {
            let (outputs, inputs) = module.shape(model);
            let r = self.config.r;
            let fits = pair.a.len() == r * inputs && pair.b.len() == outputs * r;
            if *layer >= model.num_hidden_layers || !fits {
                let path = module.path();
                let what = format!("layer {layer} {path} does not fit [{outputs}, {inputs}]");
                return Err(ModelError::Adapter(what));
            }
        }
        Ok(())
    }
}
