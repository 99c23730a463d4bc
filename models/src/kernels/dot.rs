//! The product for decoding: every output is one inner product, summed in one order.
//!
//! A tile of six rows by four weights keeps twenty-four running sums in registers; the rows stay in
//! the first-level cache while the weights of a block stream past. Each sum runs over
//! the same lanes in the same order whatever tile it falls in, so that a row's result does not
//! depend on what else is in the batch.

use rayon::prelude::*;

use super::{Isa, Stored, isa};

/// Weights that one task takes: 64 rows of 576 floats stay in the second-level cache.
const BLOCK: usize = 64;

/// Computes `x w^T`: x [m, k], w [n, k] -> [m, n].
///
/// # Panics
/// When the slices do not have these shapes: a fault of the caller.
pub fn matmul_nt(x: &[f32], w: &Stored) -> Vec<f32> {
    let (n, k) = (w.rows(), w.cols());
    assert!(k > 0 && x.len().is_multiple_of(k));
    let m = x.len() / k;
    let mut columns = vec![0.0_f32; m * n];
    let blocks = columns.par_chunks_mut(BLOCK * m.max(1)).enumerate();
    if let Some(w) = w.as_plain() {
        blocks.zip(w.par_chunks(BLOCK * k)).for_each(|((_, out), w)| block(x, w, k, out));
    } else {
        blocks.for_each_init(Vec::new, |unpacked, (at, out)| {
            unpacked.resize(out.len() / m.max(1) * k, 0.0);
            for (i, line) in unpacked.chunks_exact_mut(k).enumerate() {
                w.read(at * BLOCK + i, 0, line);
            }
            block(x, unpacked, k, out);
        });
    }
    if m == 1 {
        return columns;
    }
    let mut out = vec![0.0_f32; m * n];
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (j, v) in row.iter_mut().enumerate() {
            *v = columns[j * m + i];
        }
    });
    out
}

/// Fills `out` [rows of w, rows of x].
fn block(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    match isa().exact() {
        // SAFETY: `isa` returns a path only after the processor was asked for it.
        Isa::Avx512 => return unsafe { avx512::block(x, w, k, out) },
        // SAFETY: as above.
        Isa::Avx2 => return unsafe { avx2::block(x, w, k, out) },
        _ => {}
    }
    scalar_block(x, w, k, out);
}

fn scalar_block(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let m = x.len() / k;
    for (w, out) in w.chunks_exact(k).zip(out.chunks_exact_mut(m.max(1))) {
        for (x, out) in x.chunks_exact(k).zip(out) {
            *out = super::dot(x, w);
        }
    }
}

/// Writes one path: its vector type, width and intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! path {
    ($name:ident, $feature:literal, $width:literal, $vec:ty, $zero:ident, $load:ident, $fma:ident,
     $store:ident) => {
        mod $name {
            use std::arch::x86_64::*;

            #[target_feature(enable = $feature)]
            fn tile<const R: usize, const C: usize>(
                x: &[f32],
                w: &[f32],
                k: usize,
            ) -> [[f32; R]; C] {
                assert!(x.len() >= R * k && w.len() >= C * k);
                let mut sums = [[$zero(); R]; C];
                let whole = k / $width * $width;
                let mut at = 0;
                while at < whole {
                    let mut xs = [$zero(); R];
                    for (r, xv) in xs.iter_mut().enumerate() {
                        // SAFETY: r * k + at + width <= R * k <= x.len(), asserted above.
                        *xv = unsafe { $load(x.as_ptr().add(r * k + at)) };
                    }
                    for c in 0..C {
                        // SAFETY: c * k + at + width <= C * k <= w.len(), asserted above.
                        let wv = unsafe { $load(w.as_ptr().add(c * k + at)) };
                        for r in 0..R {
                            sums[c][r] = $fma(xs[r], wv, sums[c][r]);
                        }
                    }
                    at += $width;
                }
                let mut out = [[0.0_f32; R]; C];
                for c in 0..C {
                    for r in 0..R {
                        let mut rest = 0.0;
                        for i in whole..k {
                            rest += x[r * k + i] * w[c * k + i];
                        }
                        let mut lanes = [0.0_f32; $width];
                        let sum: $vec = sums[c][r];
                        // SAFETY: the array holds as many floats as the vector that is stored.
                        unsafe { $store(lanes.as_mut_ptr(), sum) };
                        out[c][r] = super::pairwise(lanes) + rest;
                    }
                }
                out
            }

            #[target_feature(enable = $feature)]
            fn columns<const R: usize>(r: usize, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
                let m = x.len() / k;
                let n = w.len() / k;
                let x = &x[r * k..];
                let mut c = 0;
                while c < n {
                    let (w, out) = (&w[c * k..], &mut out[c * m..]);
                    if n - c >= 4 {
                        put(&tile::<R, 4>(x, w, k), r, m, out);
                        c += 4;
                    } else {
                        put(&tile::<R, 1>(x, w, k), r, m, out);
                        c += 1;
                    }
                }
            }

            fn put<const R: usize, const C: usize>(
                tile: &[[f32; R]; C],
                r: usize,
                m: usize,
                out: &mut [f32],
            ) {
                for (c, column) in tile.iter().enumerate() {
                    out[c * m + r..c * m + r + R].copy_from_slice(column);
                }
            }

            #[target_feature(enable = $feature)]
            pub(super) fn block(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
                let m = x.len() / k;
                let mut r = 0;
                while r < m {
                    match m - r {
                        1 => columns::<1>(r, x, w, k, out),
                        2 => columns::<2>(r, x, w, k, out),
                        3 => columns::<3>(r, x, w, k, out),
                        4 => columns::<4>(r, x, w, k, out),
                        5 => columns::<5>(r, x, w, k, out),
                        _ => columns::<6>(r, x, w, k, out),
                    }
                    r += 6;
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
path!(
    avx512,
    "avx512f",
    16,
    __m512,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);

#[cfg(target_arch = "x86_64")]
path!(
    avx2,
    "avx2,fma",
    8,
    __m256,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);

/// Adds the lanes in a tree of neighbours, the same on every path of one width.
#[inline(always)]
fn pairwise<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut left = N;
    while left > 1 {
        left /= 2;
        for i in 0..left {
            lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn matches_the_scalar_reference() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (4, 64, 576), (9, 67, 40), (50, 130, 33)] {
            let (x, w) = (filled(m * k, 0.13), filled(n * k, 0.57));
            let got = matmul_nt(&x, &Stored::plain(w.clone(), k));
            let mut want = vec![0.0; m * n];
            scalar_block(&x, &w, k, &mut want);
            for i in 0..m {
                for j in 0..n {
                    let (got, want) = (got[i * n + j], want[j * m + i]);
                    assert!((got - want).abs() < 1e-4, "{m} {n} {k} at {i},{j}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it() {
        let (n, k) = (70, 129);
        let (x, w) = (filled(11 * k, 0.13), filled(n * k, 0.57));
        let w = Stored::plain(w, k);
        let all = matmul_nt(&x, &w);
        for i in 0..11 {
            let one = matmul_nt(&x[i * k..(i + 1) * k], &w);
            assert!(one.iter().zip(&all[i * n..]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
