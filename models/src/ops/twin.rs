//! The same operations composed of stock candle ops: slow, differentiable, easy to check.

use candle_core::{D, DType, Device, Result, Tensor, bail};

use super::{Dropout, Slot, Slots};
use crate::config::DecoderConfig;
use crate::kernels::Stored;
use crate::lora::Module;
use crate::weights;

/// RMS norm of x [tokens, width] with weight [width].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// silu(gate) * up.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Sum of -ln p(target) for hidden [tokens, width] and output embedding [vocabulary, width].
pub fn cross_entropy(hidden: &Tensor, head: &Tensor, targets: &[(usize, u32)]) -> Result<Tensor> {
    let at: Vec<u32> = targets.iter().map(|(at, _)| *at as u32).collect();
    let ids: Vec<u32> = targets.iter().map(|(_, id)| *id).collect();
    let device = hidden.device();
    let rows = hidden.index_select(&Tensor::new(at, device)?, 0)?;
    let logits = rows.matmul(&head.t()?)?;
    let top = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&top)?;
    let sums = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let ids = Tensor::new(ids, device)?.unsqueeze(1)?;
    (sums - shifted.gather(&ids, 1)?)?.sum_all()
}

/// Frozen weights of a layer as tensors on a device, in f32.
pub struct FrozenLayer {
    input_layernorm: Tensor,
    post_attention_layernorm: Tensor,
    linears: Vec<(Module, Tensor, Option<Tensor>)>,
}

impl FrozenLayer {
    /// Copies a layer to a device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(layer: &weights::Layer, device: &Device) -> Result<Self> {
        let line = |line: &[f32]| Tensor::from_slice(line, line.len(), device);
        let mut linears = Vec::with_capacity(layer.linears.len());
        for (module, linear) in &layer.linears {
            let bias = linear.bias.as_deref().map(line).transpose()?;
            linears.push((*module, matrix(&linear.weight, device)?, bias));
        }
        Ok(Self {
            input_layernorm: line(&layer.input_layernorm)?,
            post_attention_layernorm: line(&layer.post_attention_layernorm)?,
            linears,
        })
    }
}

fn matrix(stored: &Stored, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(stored.to_vec(), (stored.rows(), stored.cols()), device)
}

/// Frozen weights of a decoder as tensors on a device, in f32.
pub struct FrozenDecoder {
    config: DecoderConfig,
    embed_tokens: Tensor,
    layers: Vec<FrozenLayer>,
    norm: Tensor,
    lm_head: Tensor,
}

/// A layer's adapters in a forward pass.
pub struct Adapted<'a> {
    /// Numbers of its adapters.
    pub numbers: Tensor,
    /// Where the factors of each module stand among them.
    pub slots: Slots,
    /// Dropout of its first module.
    pub dropout: Option<Dropout>,
    /// Tokens of each packed row.
    pub rows: &'a [usize],
}

impl FrozenDecoder {
    /// Copies a decoder to a device.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(weights: &weights::Weights, device: &Device) -> Result<Self> {
        let embed_tokens = matrix(&weights.embed_tokens, device)?;
        let lm_head = match weights.is_tied() {
            true => embed_tokens.clone(),
            false => matrix(&weights.lm_head, device)?,
        };
        let layers = weights.layers.iter().map(|layer| FrozenLayer::new(layer, device));
        Ok(Self {
            config: weights.config.clone(),
            embed_tokens,
            layers: layers.collect::<Result<_>>()?,
            norm: Tensor::from_slice(&weights.norm, weights.norm.len(), device)?,
            lm_head,
        })
    }

    /// Computes the summed loss over targets of packed rows, as a tensor [1]; `adapted` gives the
    /// adapters of each layer.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn loss<'a>(
        &self,
        ids: &[u32],
        targets: &[(usize, u32)],
        adapted: impl Fn(usize) -> Result<Adapted<'a>>,
    ) -> Result<Tensor> {
        let device = self.embed_tokens.device();
        let mut x = self.embed_tokens.index_select(&Tensor::new(ids, device)?, 0)?;
        for (i, frozen) in self.layers.iter().enumerate() {
            let Adapted { numbers, slots, dropout, rows } = adapted(i)?;
            let config = &self.config;
            let layer = Layer { config, frozen, slots: &slots, dropout: dropout.as_ref() };
            x = layer.forward(&x, &numbers, rows)?;
        }
        let x = rms_norm(&x, &self.norm, f64::from(self.config.rms_norm_eps))?;
        cross_entropy(&x, &self.lm_head, targets)?.reshape(1)
    }
}

/// A layer composed of stock operations: what [`super::Block`] computes, on any device.
pub struct Layer<'a> {
    /// Shape of the model.
    pub config: &'a DecoderConfig,
    /// Frozen weights.
    pub frozen: &'a FrozenLayer,
    /// Where the factors of each module stand among the numbers.
    pub slots: &'a Slots,
    /// Dropout of the first module, as the layer's own operation has it.
    pub dropout: Option<&'a Dropout>,
}

impl Layer<'_> {
    /// x [tokens, hidden] of packed rows, and the numbers of the adapters -> [tokens, hidden].
    pub fn forward(&self, x: &Tensor, numbers: &Tensor, rows: &[usize]) -> Result<Tensor> {
        let config = self.config;
        let (q, kv, wide) = (config.q_dim(), config.kv_dim(), config.intermediate_size);
        let h = self.norm(x, &self.frozen.input_layernorm)?;
        let widths = [(Module::QProj, q), (Module::KProj, kv), (Module::VProj, kv)];
        let qkv = self.parts((&h, numbers), Module::QkvProj, &widths)?;
        let mut start = 0;
        let mut attended = Vec::with_capacity(rows.len());
        for len in rows {
            let row = |i: usize| qkv[i].narrow(0, start, *len)?.contiguous();
            attended.push(attention([&row(0)?, &row(1)?, &row(2)?], config)?);
            start += len;
        }
        let attended = Tensor::cat(&attended, 0)?;
        let middle = (x + self.linear(Module::OProj, &attended, numbers)?)?;
        let h = self.norm(&middle, &self.frozen.post_attention_layernorm)?;
        let widths = [(Module::GateProj, wide), (Module::UpProj, wide)];
        let gated = self.parts((&h, numbers), Module::GateUpProj, &widths)?;
        let active = swiglu(&gated[0], &gated[1])?;
        &middle + self.linear(Module::DownProj, &active, numbers)?
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, f64::from(self.config.rms_norm_eps))
    }

    /// Computes modules that read the same: each for itself, or as parts of `whole`.
    fn parts(
        &self,
        (x, numbers): (&Tensor, &Tensor),
        whole: Module,
        widths: &[(Module, usize)],
    ) -> Result<Vec<Tensor>> {
        if !self.config.architecture.modules().contains(&whole) {
            return widths.iter().map(|(module, _)| self.linear(*module, x, numbers)).collect();
        }
        let all = self.linear(whole, x, numbers)?;
        let mut at = 0;
        let cut = |(_, width): &(Module, usize)| {
            at += width;
            all.narrow(1, at - width, *width)?.contiguous()
        };
        widths.iter().map(cut).collect()
    }

    fn linear(&self, module: Module, x: &Tensor, numbers: &Tensor) -> Result<Tensor> {
        let frozen = self.frozen.linears.iter().find(|(one, ..)| *one == module);
        let Some((_, weight, bias)) = frozen else { bail!("a layer without {}", module.name()) };
        let (outputs, inputs) = module.shape(self.config);
        let device = x.device();
        let mut out = x.matmul(&weight.t()?)?;
        if let Some(bias) = bias {
            out = out.broadcast_add(bias)?;
        }
        let Some(Slot { a, b, end, scale }) = self.slots[module as usize] else { return Ok(out) };
        let rank = (b - a) / inputs;
        let factor_a = numbers.narrow(0, a, b - a)?.reshape((rank, inputs))?;
        let factor_b = numbers.narrow(0, b, end - b)?.reshape((outputs, rank))?;
        let seen = match self.dropout.filter(|dropout| dropout.below > 0) {
            None => x.clone(),
            Some(dropout) => {
                let index = dropout.index + module.place();
                let rows = x.elem_count() / inputs;
                let mask = Dropout { index, ..dropout.clone() }.factors(rows, inputs);
                (x * Tensor::from_vec(mask, x.shape(), device)?)?
            }
        };
        out + (seen.matmul(&factor_a.t()?)?.matmul(&factor_b.t()?)? * f64::from(scale))?
    }
}

/// Rotary position and causal attention of one row: q [tokens, heads * head], k and v
/// [tokens, key heads * head].
pub fn attention(qkv: [&Tensor; 3], config: &DecoderConfig) -> Result<Tensor> {
    let [q, k, v] = qkv;
    let (query_heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let head = config.head_dim;
    let tokens = q.dim(0)?;
    let split = |t: &Tensor, n: usize| t.reshape((tokens, n, head))?.transpose(0, 1)?.contiguous();
    let group = query_heads / kv_heads;
    let widen = |t: Tensor| -> Result<Tensor> {
        t.unsqueeze(1)?.expand((kv_heads, group, tokens, head))?.reshape((
            query_heads,
            tokens,
            head,
        ))
    };
    let q = rope(&split(q, query_heads)?, config)?;
    let k = widen(rope(&split(k, kv_heads)?, config)?)?;
    let v = widen(split(v, kv_heads)?)?;
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * (1.0 / (head as f64).sqrt()))?;
    let hidden = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..tokens * tokens).map(|at| hidden(at / tokens, at % tokens)).collect();
    let mask = Tensor::from_vec(mask, (tokens, tokens), q.device())?;
    let scores = scores.broadcast_add(&mask)?;
    let top = scores.max_keepdim(D::Minus1)?.detach();
    let weights = scores.broadcast_sub(&top)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&v.contiguous()?)?.transpose(0, 1)?.reshape((tokens, query_heads * head))
}

/// Turns x [heads, tokens, head] to positions 0, 1, ...
fn rope(x: &Tensor, config: &DecoderConfig) -> Result<Tensor> {
    let (_, tokens, head) = x.dims3()?;
    let rope = &config.rope;
    let half = rope.dims / 2;
    let angle = |at: usize| {
        let (position, i) = (at / half, at % half);
        let divisor = rope.divisors.get(i).copied().map_or(1.0, f64::from);
        position as f64 / (divisor * f64::from(rope.theta).powf(2.0 * i as f64 / rope.dims as f64))
    };
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let value = |at: usize| f(angle(at)) * f64::from(rope.magnitude);
        let values: Vec<f64> = (0..tokens * half).map(value).collect();
        Tensor::from_vec(values, (tokens, half), &Device::Cpu)?
            .to_dtype(DType::F32)?
            .to_device(x.device())
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    let rest = x.narrow(2, 2 * half, head - 2 * half)?;
    Tensor::cat(&[turned_low, turned_high, rest], 2)
}
