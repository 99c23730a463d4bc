//! Shape of a decoder.

use crate::architectures::Architecture;

/// Hyperparameters of a decoder, in the names of its `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Family.
    pub architecture: Architecture,
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
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens known.
    pub vocab_size: usize,
    /// Most tokens in a context.
    pub max_position_embeddings: usize,
    /// Rotary position.
    pub rope: RopeConfig,
    /// Added to the mean square in RMS norm.
    pub rms_norm_eps: f32,
}

/// Rotary position (Su et al., 2021): pair i of `dims / 2` turns by
/// position / (theta^(2 i / dims) * divisors[i]).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Numbers of a head that turn, from its first on; even.
    pub dims: usize,
    /// By what each frequency is divided; none where all stay as they are.
    pub divisors: Vec<f32>,
    /// Factor of sine and cosine.
    pub magnitude: f32,
}

/// No model that we could hold has a count beyond this; products of any two stay in range.
const MOST: usize = 1 << 28;

impl DecoderConfig {
    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.head_dim * self.num_attention_heads
    }

    /// Width of all key heads together.
    pub fn kv_dim(&self) -> usize {
        self.head_dim * self.num_key_value_heads
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Numbers of all frozen linear modules and of the embeddings, told apart or tied.
    pub fn parameters(&self, is_tied: bool) -> usize {
        let modules = self.architecture.modules().iter();
        let layer: usize = modules.map(|module| module.shape(self)).map(|(n, k)| n * k).sum();
        let embeddings = self.vocab_size * self.hidden_size * if is_tied { 1 } else { 2 };
        layer * self.num_hidden_layers + embeddings
    }

    /// Says what is wrong with the shape, if anything.
    pub fn check(&self) -> Result<(), String> {
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        let counts = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, count) in counts {
            if count == 0 || count > MOST {
                return Err(format!("{name} is {count}"));
            }
        }
        if !heads.is_multiple_of(kv) {
            return Err(format!("{heads} heads do not share {kv} key heads evenly"));
        }
        if self.q_dim() > MOST {
            return Err(format!("{heads} heads of {} numbers", self.head_dim));
        }
        self.rope.check(self.head_dim)?;
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return Err(format!("rms_norm_eps is {}", self.rms_norm_eps));
        }
        Ok(())
    }
}

impl RopeConfig {
    /// Turns a whole head, with frequencies as they are.
    pub fn plain(theta: f32, head: usize) -> Self {
        Self { theta, dims: head, divisors: Vec::new(), magnitude: 1.0 }
    }

    fn check(&self, head: usize) -> Result<(), String> {
        let dims = self.dims;
        if !dims.is_multiple_of(2) || dims == 0 || dims > head {
            return Err(format!("rotary position of {dims} numbers in a head of {head}"));
        }
        if !self.divisors.is_empty() && self.divisors.len() != dims / 2 {
            let found = self.divisors.len();
            return Err(format!("{found} rotary factors where {} are expected", dims / 2));
        }
        let numbers = self.divisors.iter().chain([&self.theta, &self.magnitude]);
        if !numbers.clone().all(|v| v.is_finite() && *v > 0.0) {
            return Err("a rotary base or factor is no positive number".to_owned());
        }
        Ok(())
    }

    /// Returns the frequency of each pair.
    pub fn frequencies(&self) -> Vec<f32> {
        let dims = self.dims as f32;
        let frequency = |i: usize| {
            let divisor = self.divisors.get(i).copied().unwrap_or(1.0);
            1.0 / (divisor * self.theta.powf(2.0 * i as f32 / dims))
        };
        (0..self.dims / 2).map(frequency).collect()
    }
}
