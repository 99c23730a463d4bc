//! Low-rank adapters: which modules, how wide, and their numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::architectures::Architecture;
use crate::config::DecoderConfig;
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
    /// Query, key and value projections in one.
    QkvProj,
    /// Gate and widening projection in one.
    GateUpProj,
}

impl Module {
    /// Number of modules.
    pub const COUNT: usize = 9;
    /// All modules.
    pub const ALL: [Self; Self::COUNT] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
        Self::QkvProj,
        Self::GateUpProj,
    ];

    /// Place of the module in its layer, by which random streams are told apart. What holds several
    /// in one has the place of the first.
    pub fn place(self) -> u64 {
        match self {
            Self::QkvProj => Self::QProj as u64,
            Self::GateUpProj => Self::GateProj as u64,
            other => other as u64,
        }
    }

    /// Places in a layer.
    pub const PLACES: u64 = 7;

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
            Self::QkvProj => "self_attn.qkv_proj",
            Self::GateUpProj => "mlp.gate_up_proj",
        }
    }

    /// Name in GGUF.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Self::QProj => "attn_q",
            Self::KProj => "attn_k",
            Self::VProj => "attn_v",
            Self::OProj => "attn_output",
            Self::GateProj => "ffn_gate",
            // Phi-3's files hold gate and up in what others call up.
            Self::UpProj | Self::GateUpProj => "ffn_up",
            Self::DownProj => "ffn_down",
            Self::QkvProj => "attn_qkv",
        }
    }

    /// Name as in PEFT's `target_modules`.
    pub fn name(self) -> &'static str {
        self.path().split_once('.').map_or("", |(_, name)| name)
    }

    /// (outputs, inputs) of the module.
    pub fn shape(self, config: &DecoderConfig) -> (usize, usize) {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.q_dim(), config.kv_dim());
        match self {
            Self::QProj => (q, hidden),
            Self::KProj | Self::VProj => (kv, hidden),
            Self::QkvProj => (q + 2 * kv, hidden),
            Self::OProj => (hidden, q),
            Self::GateProj | Self::UpProj => (wide, hidden),
            Self::GateUpProj => (2 * wide, hidden),
            Self::DownProj => (hidden, wide),
        }
    }
}

/// Shape of an adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of an update.
    pub r: usize,
    /// The update is scaled by alpha / r.
    pub alpha: f64,
    /// Dropout of the update's input in training.
    pub dropout: f64,
    /// Modules that are adapted.
    pub modules: Vec<Module>,
    /// The update is scaled by alpha / sqrt(r) instead (Kalajdzievski, 2023).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
    /// Ranks of modules that have another than `r`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<Module, usize>,
    /// Alphas of modules that have another than `alpha`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alphas: BTreeMap<Module, f64>,
}

impl LoraConfig {
    /// Returns the rank of a module's update.
    pub fn rank(&self, module: Module) -> usize {
        self.ranks.get(&module).copied().unwrap_or(self.r)
    }

    /// Returns the scale of a module's update.
    pub fn scale(&self, module: Module) -> f32 {
        let alpha = self.alphas.get(&module).copied().unwrap_or(self.alpha);
        let rank = self.rank(module) as f64;
        (alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    /// Returns the shape for a family of decoders: see [`Architecture::adapted`].
    ///
    /// # Errors
    /// Says which module the family does not have.
    pub fn of_family(&self, family: Architecture) -> Result<Self, ModelError> {
        let wrong = |reason: String| ModelError::Adapter(reason);
        let modules = family.adapted(&self.modules).map_err(wrong)?;
        for named in self.ranks.keys().chain(self.alphas.keys()) {
            if !modules.contains(named) {
                let what = format!("{} has a rank or alpha but is not adapted", named.name());
                return Err(ModelError::Adapter(what));
            }
        }
        Ok(Self { modules, ..self.clone() })
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
    pub fn fresh(config: &LoraConfig, model: &DecoderConfig, seed: u64) -> Self {
        let mut pairs = BTreeMap::new();
        for layer in 0..model.num_hidden_layers {
            for module in &config.modules {
                let (outputs, inputs) = module.shape(model);
                let index = layer as u64 * Module::PLACES + module.place();
                let mut stream = rng::stream(seed, "lora-init", index);
                let bound = 1.0 / (inputs as f32).sqrt();
                let rank = config.rank(*module);
                let a = rng::uniform(&mut stream, bound, rank * inputs);
                pairs.insert((layer, *module), Pair { a, b: vec![0.0; outputs * rank] });
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
    pub fn check(&self, model: &DecoderConfig) -> Result<(), ModelError> {
        for ((layer, module), pair) in &self.pairs {
            let path = module.path();
            if !model.architecture.modules().contains(module) {
                let what = format!("{path} is no module of {}", model.architecture.name());
                return Err(ModelError::Adapter(what));
            }
            let (outputs, inputs) = module.shape(model);
            let r = self.config.rank(*module);
            let fits = pair.a.len() == r * inputs && pair.b.len() == outputs * r;
            if *layer >= model.num_hidden_layers || !fits {
                let what = format!("layer {layer} {path} does not fit [{outputs}, {inputs}]");
                return Err(ModelError::Adapter(what));
            }
            if !pair.a.iter().chain(&pair.b).all(|v| v.is_finite()) {
                let what = format!("layer {layer} {path} holds what is no number");
                return Err(ModelError::Adapter(what));
            }
        }
        Ok(())
    }
}
