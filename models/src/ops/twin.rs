//! The same operations composed of stock candle ops: slow, differentiable, easy to check.

use candle_core::{D, DType, Result, Tensor};

/// RMS norm of x [tokens, width] with weight [width].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// x W^T + scale * x A^T B^T, without dropout.
pub fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    ab: (&Tensor, &Tensor),
    scale: f64,
) -> Result<Tensor> {
    let (a, b) = ab;
    x.matmul(&weight.t()?)? + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * scale)?
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

/// Rotary position and causal attention of one row: q [tokens, heads * head], k and v
/// [tokens, key heads * head].
pub fn attention(
    qkv: [&Tensor; 3],
    heads: (usize, usize),
    head: usize,
    base: f64,
) -> Result<Tensor> {
    let [q, k, v] = qkv;
    let (query_heads, kv_heads) = heads;
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
    let q = rope(&split(q, query_heads)?, base)?;
    let k = widen(rope(&split(k, kv_heads)?, base)?)?;
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
fn rope(x: &Tensor, base: f64) -> Result<Tensor> {
    let (_, tokens, head) = x.dims3()?;
    let half = head / 2;
    let angle = |at: usize| {
        let (position, i) = (at / half, at % half);
        position as f64 / base.powf(2.0 * i as f64 / head as f64)
    };
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = (0..tokens * half).map(|at| f(angle(at))).collect();
        Tensor::from_vec(values, (tokens, half), x.device())?.to_dtype(DType::F32)
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
    Tensor::cat(&[turned_low, turned_high], 2)
}
