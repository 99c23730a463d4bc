//! Operations on single rows, written so that the compiler vectorises them on every path.
//!
//! Sums run over 16 lanes that are added at the end, so that the order of additions is the same
//! for 128, 256 and 512-bit vectors. No operation is fused here: all paths give equal bits.

use super::{Isa, isa};

const LANES: usize = 16;

/// Compiles one body for each instruction set and calls the one that this machine has.
macro_rules! dispatched {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident : $ty:ty),*) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            match isa().exact() {
                // SAFETY: `isa` returns a path only after the processor was asked for it.
                Isa::Avx512 => return unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                Isa::Avx2 => return unsafe { avx2($($arg),*) },
                _ => {}
            }
            body($($arg),*)
        }
    };
}

/// Computes e^x to about two units in the last place, by range reduction and a polynomial
/// (coefficients of Cephes `expf`). Values below -87.3 give the smallest normal number.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-87.3, 88.3);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    // The integer stands in the last bits of the sum: no conversion, which vectors do one by one.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    p * f32::from_bits(n.wrapping_add(127) << 23)
}

/// Computes 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn lanes_sum(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The inner product, to be compiled into whichever path calls it.
#[inline(always)]
fn inner(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes_sum(lanes) + rest
}

/// e^(x - shift) of a row and its sum, to be compiled into whichever path calls it.
#[inline(always)]
fn exps(row: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            chunk[l] = exp(chunk[l] - shift);
            lanes[l] += chunk[l];
        }
    }
    let mut sum = lanes_sum(lanes);
    for v in rest {
        *v = exp(*v - shift);
        sum += *v;
    }
    sum
}

/// Softmax of a row, to be compiled into whichever path calls it.
#[inline(always)]
fn softmax(row: &mut [f32]) {
    let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum = exps(row, top);
    let scale = 1.0 / sum;
    for v in row {
        *v *= scale;
    }
}

dispatched! {
    /// Computes the inner product of two rows of equal length.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        inner(a, b)
    }
}

/// Tokens whose scores are computed side by side.
const TOKENS: usize = 64;

dispatched! {
    /// Computes the scores of a query, [head], with 64 keys that stand column by column,
    /// [head, 64]: inner products times `scale`.
    pub fn page_scores(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
        let mut sums = [0.0_f32; TOKENS];
        for (q, keys) in q.iter().zip(keys.as_chunks::<TOKENS>().0) {
            for t in 0..TOKENS {
                sums[t] += q * keys[t];
            }
        }
        scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = sum * scale);
    }
}

dispatched! {
    /// Adds weighted values, [tokens, head], to `out`, [head].
    pub fn page_values(weights: &[f32], values: &[f32], out: &mut [f32]) {
        let head = out.len();
        let (chunks, rest) = out.as_chunks_mut::<TOKENS>();
        let whole = chunks.len() * TOKENS;
        for (at, out) in chunks.iter_mut().enumerate() {
            let mut sums = *out;
            for (weight, values) in weights.iter().zip(values.chunks_exact(head)) {
                for (sum, v) in sums.iter_mut().zip(&values[at * TOKENS..][..TOKENS]) {
                    *sum += weight * v;
                }
            }
            *out = sums;
        }
        for (weight, values) in weights.iter().zip(values.chunks_exact(head)) {
            rest.iter_mut().zip(&values[whole..]).for_each(|(out, v)| *out += weight * v);
        }
    }
}

dispatched! {
    /// Turns a row of scores into probabilities in place.
    pub fn softmax_row(row: &mut [f32]) {
        softmax(row);
    }
}

dispatched! {
    /// Writes x * weight / rms(x) into `out` and returns 1 / rms(x).
    pub fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
        let inverse = 1.0 / (inner(x, x) / x.len() as f32 + eps).sqrt();
        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * inverse * w;
        }
        inverse
    }
}

dispatched! {
    /// Writes silu(gate) * up into `out`.
    pub fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
            *out = g * sigmoid(*g) * u;
        }
    }
}

dispatched! {
    /// Returns the greatest number of a row.
    pub fn max_row(row: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for l in 0..LANES {
                lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |top, v| top.max(*v))
    }
}

dispatched! {
    /// Turns a row into e^(x - shift) and returns the sum.
    pub fn exp_row(row: &mut [f32], shift: f32) -> f32 {
        exps(row, shift)
    }
}

dispatched! {
    /// Adds a multiple of a row to another.
    pub fn add_scaled(to: &mut [f32], from: &[f32], scale: f32) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += scale * from;
        }
    }
}

dispatched! {
    /// Turns probabilities into gradients of their scores: p * (upstream - shift) * scale.
    pub fn softmax_back_row(row: &mut [f32], upstream: &[f32], shift: f32, scale: f32) {
        for (p, upstream) in row.iter_mut().zip(upstream) {
            *p *= (upstream - shift) * scale;
        }
    }
}

dispatched! {
    /// Writes the gradient of an RMS norm: with r = 1 / rms and g = upstream * weight,
    /// r * (g - x * r^2 * mean(g * x)).
    pub fn rms_norm_back_row(
        x: &[f32],
        weight: &[f32],
        upstream: &[f32],
        eps: f32,
        out: &mut [f32]
    ) {
        let width = x.len() as f32;
        let r = 1.0 / (inner(x, x) / width + eps).sqrt();
        for ((out, upstream), w) in out.iter_mut().zip(upstream).zip(weight) {
            *out = upstream * w;
        }
        let shift = inner(out, x) / width * r * r;
        for (out, x) in out.iter_mut().zip(x) {
            *out = r * (*out - x * shift);
        }
    }
}

dispatched! {
    /// Writes the gradients of silu(gate) * up: with s = sigmoid(gate), upstream * gate * s for
    /// `up`, and upstream * up * s * (1 + gate * (1 - s)) for `gate`.
    pub fn swiglu_back_row(
        gate: &[f32],
        up: &[f32],
        upstream: &[f32],
        dgate: &mut [f32],
        dup: &mut [f32]
    ) {
        let inputs = gate.iter().zip(up).zip(upstream);
        for (((g, u), dy), (dg, du)) in inputs.zip(dgate.iter_mut().zip(dup)) {
            let s = sigmoid(*g);
            *du = dy * g * s;
            *dg = dy * u * s * (1.0 + g * (1.0 - s));
        }
    }
}

/// Returns where the greatest number stands; of equal ones the first.
pub fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_range() {
        for i in -8_700..8_800 {
            let x = i as f32 * 0.01;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn dot_matches_a_double_sum_at_odd_lengths() {
        for len in [1, 15, 16, 17, 64, 577] {
            let a: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..len).map(|i| (i as f32 * 0.11).cos()).collect();
            let want: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - want).abs() < 1e-4);
        }
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut row: Vec<f32> = (0..37).map(|i| (i as f32).sin() * 9.0).collect();
        softmax_row(&mut row);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
