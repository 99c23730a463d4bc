//! How much memory training will take, told before it begins.

use crate::config::DecoderConfig;
use crate::lora::LoraConfig;
use crate::weights::Weights;

/// Bytes of a number.
const F32: usize = 4;
/// Numbers held for each number of an adapter: itself, its gradient in the graph, summed over
/// micro-batches and taken out of the graph, two moments, and a copy while it is updated.
const OF_ADAPTER: usize = 7;
/// What a process takes beside its tensors.
const BASE: usize = 48 << 20;
/// Ids of the vocabulary whose logits are held at once.
const IDS: usize = 2048;

/// What training will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Frozen weights, in bytes: they are in memory before training begins.
    pub weights: usize,
    /// The adapter with its gradients and moments.
    pub adapter: usize,
    /// What a micro-batch leaves for the backward pass, and what its largest operation takes.
    pub batch: usize,
    /// The process.
    pub base: usize,
}

impl Estimate {
    /// Estimates training with micro-batches of up to `tokens` tokens, of which `supervised` count.
    pub fn of(
        weights: &Weights,
        lora: &LoraConfig,
        (tokens, supervised): (usize, usize),
        recompute: bool,
    ) -> Self {
        let config = &weights.config;
        let parameters = parameters(config, lora) * config.num_hidden_layers;
        Self {
            weights: weights.size(),
            adapter: parameters * OF_ADAPTER * F32,
            batch: batch(config, lora, (tokens, supervised), recompute),
            base: BASE,
        }
    }

    /// Returns the sum, in bytes.
    pub fn total(&self) -> usize {
        self.weights + self.adapter + self.batch + self.base
    }
}

/// Returns the numbers of a layer's adapters.
fn parameters(config: &DecoderConfig, lora: &LoraConfig) -> usize {
    let of = |module: &crate::lora::Module| {
        let (outputs, inputs) = module.shape(config);
        lora.rank(*module) * (outputs + inputs)
    };
    lora.modules.iter().map(of).sum()
}

fn batch(
    config: &DecoderConfig,
    lora: &LoraConfig,
    (tokens, supervised): (usize, usize),
    recompute: bool,
) -> usize {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.q_dim(), config.kv_dim());
    let downs: usize = lora.modules.iter().map(|module| lora.rank(*module)).sum();
    // q, k, v and the attention's output; the states between; gate and up.
    let layer = 2 * q + 2 * kv + hidden + 2 * wide + downs;
    let kept = if recompute { layer } else { layer * config.num_hidden_layers };
    let states = hidden * (config.num_hidden_layers + 2);
    // In the widest operation: what was activated, its gradient, those of gate and up, and factors
    // that were copied for a product.
    let passing = 5 * wide + 4 * hidden;
    // The loss: states, their gradient twice, and a block of logits with what is copied of it.
    let loss = (3 * hidden + 2 * IDS) * supervised.min(1024) + hidden * supervised;
    (tokens * (kept + states + passing.max(hidden)) + loss) * F32
}
