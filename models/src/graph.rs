//! The Llama decoder for training: frozen weights, a trainable adapter, candle's autograd.
//!
//! Llama 2 (Touvron et al., 2023) with grouped queries. Rows of a batch are packed behind each
//! other; weight names equal the checkpoint's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::kernels::Isa;
use crate::lora::{Adapter, LoraConfig, Module, Pair};
use crate::ops::twin::{Adapted, FrozenDecoder};
use crate::ops::{Block, CrossEntropy, Dropout, Keep, RmsNorm, Rope, Slot, Slots};
use crate::render::TrainingRow;
use crate::weights::{Layer, Weights};

/// Variables of an adapter in training: one for each adapted layer, with the factors of its modules
/// behind each other.
pub struct LoraVars {
    config: LoraConfig,
    layers: BTreeMap<usize, LayerVars>,
}

struct LayerVars {
    var: Var,
    slots: Slots,
}

impl LoraVars {
    /// Makes variables with the adapter's numbers on a device.
    ///
    /// # Errors
    /// When candle refuses a shape.
    pub fn new(adapter: &Adapter, device: &Device) -> Result<Self> {
        type Packed = (Vec<f32>, Slots);
        let mut packed: BTreeMap<usize, Packed> = BTreeMap::new();
        for ((layer, module), pair) in &adapter.pairs {
            let (numbers, slots) = packed.entry(*layer).or_default();
            let a = numbers.len();
            numbers.extend_from_slice(&pair.a);
            let b = numbers.len();
            numbers.extend_from_slice(&pair.b);
            let scale = adapter.config.scale(*module);
            slots[*module as usize] = Some(Slot { a, b, end: numbers.len(), scale });
        }
        let mut layers = BTreeMap::new();
        for (layer, (numbers, slots)) in packed {
            let len = numbers.len();
            let var = Var::from_vec(numbers, len, device)?;
            layers.insert(layer, LayerVars { var, slots });
        }
        Ok(Self { config: adapter.config.clone(), layers })
    }

    /// Returns all variables, by layer.
    pub fn all(&self) -> Vec<&Var> {
        self.layers.values().map(|layer| &layer.var).collect()
    }

    /// Copies the numbers out.
    ///
    /// # Errors
    /// When candle refuses a copy.
    pub fn adapter(&self) -> Result<Adapter> {
        let numbers = self.all().into_iter().map(|var| var.as_tensor().to_vec1::<f32>());
        Ok(self.shaped(&numbers.collect::<Result<Vec<_>>>()?))
    }

    /// Gives numbers, by variable, the shape of the adapter.
    pub fn shaped(&self, numbers: &[Vec<f32>]) -> Adapter {
        let mut pairs = BTreeMap::new();
        for ((at, layer), numbers) in self.layers.iter().zip(numbers) {
            for (module, slot) in Module::ALL.into_iter().zip(&layer.slots) {
                let Some(Slot { a, b, end, .. }) = *slot else { continue };
                let pair = Pair { a: numbers[a..b].to_vec(), b: numbers[b..end].to_vec() };
                pairs.insert((*at, module), pair);
            }
        }
        Adapter { config: self.config.clone(), pairs }
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
pub struct Graph {
    weights: Arc<Weights>,
    rope: Arc<Rope>,
    isa: Isa,
    recompute: bool,
    twins: Option<FrozenDecoder>,
}

impl Graph {
    /// Wraps frozen weights; rows may have up to `longest` tokens. Products take the path `isa`.
    pub fn new(weights: Arc<Weights>, longest: usize, isa: Isa) -> Self {
        let rope = Arc::new(Rope::of(&weights.config, longest));
        Self { weights, rope, isa, recompute: false, twins: None }
    }

    /// Computes by stock operations on a device instead: slower on a processor, and the way to a
    /// GPU. Everything is in f32, and nothing is computed again.
    ///
    /// # Errors
    /// When the device has no room for the weights.
    pub fn on(self, device: &Device) -> Result<Self> {
        let twins = FrozenDecoder::new(&self.weights, device)?;
        Ok(Self { twins: Some(twins), ..self })
    }

    /// Keeps of each layer its input alone, and computes the rest again in the backward pass: the
    /// bits are the same, a third more is computed, and most of the memory is not needed.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
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
        let mut embedded = vec![0.0; packed.ids.len() * width];
        for (id, row) in packed.ids.iter().zip(embedded.chunks_exact_mut(width)) {
            self.weights.embed_tokens.read(*id as usize, 0, row);
        }
        let mut x = Tensor::from_vec(embedded, (packed.ids.len(), width), &Device::Cpu)?;
        for (i, layer) in self.weights.layers.iter().enumerate() {
            let (numbers, block) = self.block((i, layer), packed, lora, drop)?;
            x = x.apply_op2(&numbers, block)?;
        }
        self.norm(&x, &self.weights.norm)
    }

    /// Computes the summed loss (nats) over the supervised tokens, as a tensor [1]. Only with
    /// `drop`, which training has, can it be differentiated.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn loss(
        &self,
        packed: &Packed,
        lora: &LoraVars,
        drop: Option<DropoutKey>,
    ) -> Result<Tensor> {
        if let Some(twins) = &self.twins {
            let adapted = |layer| self.adapted(layer, packed, lora, drop);
            return twins.loss(&packed.ids, &packed.targets, adapted);
        }
        let targets = Arc::clone(&packed.targets);
        let loss = CrossEntropy::new(self.weights.lm_head.clone(), targets, self.isa);
        let loss = if drop.is_some() { loss.with_gradient() } else { loss };
        self.hidden(packed, lora, drop)?.apply_op1(loss)
    }

    /// Returns the adapters of a layer in one forward pass.
    fn adapted<'a>(
        &self,
        index: usize,
        packed: &'a Packed,
        lora: &LoraVars,
        drop: Option<DropoutKey>,
    ) -> Result<Adapted<'a>> {
        let vars = lora.layers.get(&index);
        let numbers = match vars {
            Some(vars) => vars.var.as_tensor().clone(),
            None => Tensor::zeros(0, DType::F32, &Device::Cpu)?,
        };
        let below = Dropout::quantise(lora.config.dropout);
        let first = index as u64 * Module::PLACES;
        let dropout =
            |key: DropoutKey| Dropout { below, seed: key.seed, index: key.pass * 4096 + first };
        let slots = vars.map(|vars| vars.slots).unwrap_or_default();
        Ok(Adapted { numbers, slots, dropout: drop.map(dropout), rows: &packed.rows })
    }

    /// Returns a layer in one forward pass, and the numbers of its adapters.
    fn block(
        &self,
        (index, layer): (usize, &Layer),
        packed: &Packed,
        lora: &LoraVars,
        drop: Option<DropoutKey>,
    ) -> Result<(Tensor, Block)> {
        let Adapted { numbers, slots, dropout, .. } = self.adapted(index, packed, lora, drop)?;
        let block = Block {
            config: self.weights.config.clone(),
            layer: layer.clone(),
            slots,
            dropout,
            rows: Arc::clone(&packed.rows),
            rope: Arc::clone(&self.rope),
            isa: self.isa,
            keep: match (drop, self.recompute) {
                (None, _) => Keep::Nothing,
                (Some(_), true) => Keep::Input,
                (Some(_), false) => Keep::Results(Mutex::default()),
            },
        };
        Ok((numbers, block))
    }

    fn norm(&self, x: &Tensor, weight: &crate::ops::Frozen) -> Result<Tensor> {
        let eps = self.weights.config.rms_norm_eps;
        x.apply_op1(RmsNorm { weight: Arc::clone(weight), eps })
    }
}
