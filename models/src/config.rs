//! Shape of a Llama decoder.

use serde::{Deserialize, Serialize};

/// Hyperparameters of a Llama decoder, in the names of its `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Tokens known.
    pub vocab_size: usize,
    /// Most tokens in a context.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Added to the mean square in RMS norm.
    pub rms_norm_eps: f32,
}

impl LlamaConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Width of all key heads together.
    pub fn kv_dim(&self) -> usize {
        self.head_dim() * self.num_key_value_heads
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Says what is wrong with the shape, if anything.
    pub fn check(&self) -> Result<(), String> {
        let heads = self.num_attention_heads;
        let kv = self.num_key_value_heads;
        if heads == 0 || kv == 0 || self.num_hidden_layers == 0 || self.vocab_size == 0 {
            return Err("a count is zero".to_owned());
        }
        if !self.hidden_size.is_multiple_of(heads) || !heads.is_multiple_of(kv) {
            let hidden = self.hidden_size;
            return Err(format!("{hidden} wide with {heads} heads and {kv} key heads"));
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(format!("rotary position needs an even head, got {}", self.head_dim()));
        }
        Ok(())
    }
}
