//! Products for decoding: every output is one inner product, summed in one order.
//!
//! Each sum runs over the same lanes in the same order whatever is computed beside it, so that a
//! row's result does not depend on what else is in the batch. Weights are read in the precision
//! that they are stored in: for a few rows they are unpacked in registers, for more into a buffer
//! that stays in the cache, to the same numbers.

#[cfg(target_arch = "x86_64")]
mod packed;

use std::cell::Cell;

use super::matrix::Shared;
use super::{Isa, MatMut, Stored};

/// Lines of a weight that one task takes at most.
const LINES: usize = 64;
/// Numbers of lines that stay close at hand.
const CLOSE: usize = 6 * 1024;
/// Tasks for each thread, so that none waits long for the last.
const TASKS: usize = 4;

/// One of several products with the same rows x: `out = x w^T`, or that added to `out`.
pub struct Dots<'a> {
    /// A frozen weight, [outputs, inputs].
    pub w: &'a Stored,
    /// Where it goes, [rows, outputs].
    pub out: &'a mut [f32],
    /// Add to what stands there.
    pub add: bool,
}

/// Lines of one product that a task computes.
#[derive(Clone, Copy)]
struct Task<'a> {
    w: &'a Stored,
    out: Shared<'a>,
    add: bool,
    first: usize,
    count: usize,
}

thread_local! {
    static UNPACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Computes `x w^T`: x [m, k], w [n, k] -> [m, n].
///
/// # Panics
/// When the slices do not have these shapes: a fault of the caller.
pub fn matmul_nt(isa: Isa, x: &[f32], w: &Stored) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / w.cols().max(1) * w.rows()];
    dots_all(isa, x, &mut [Dots { w, out: &mut out, add: false }]);
    out
}

/// Computes several products with the same rows x, [m, k].
///
/// # Panics
/// As [`matmul_nt`], or when the machine lacks the path.
pub fn dots_all(isa: Isa, x: &[f32], products: &mut [Dots<'_>]) {
    assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
    let Some(k) = products.first().map(|product| product.w.cols()) else { return };
    assert!(k > 0 && x.len().is_multiple_of(k), "rows of inputs");
    let m = x.len() / k;
    let lines: usize = products.iter().map(|product| product.w.rows()).sum();
    let share = lines.div_ceil(TASKS * super::threads()).next_multiple_of(8).clamp(16, LINES);
    let mut tasks = Vec::with_capacity(lines / share + products.len());
    let views = products.iter_mut().map(|Dots { w, out, add }| {
        assert_eq!((w.cols(), m * w.rows()), (k, out.len()), "shapes of a product");
        (*w, MatMut::new(out, w.rows()), *add)
    });
    let mut views: Vec<(&Stored, MatMut<'_>, bool)> = views.collect();
    for (w, out, add) in &mut views {
        let (n, out, add) = (w.rows(), out.shared(), *add);
        let of = |first| Task { w, out, add, first, count: share.min(n - first) };
        tasks.extend((0..n).step_by(share).map(of));
    }
    if m > 0 {
        super::each(tasks.len(), |task| compute(isa.exact(), x, &tasks[task]));
    }
}

fn compute(isa: Isa, x: &[f32], task: &Task<'_>) {
    let k = task.w.cols();
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512
        && x.len() / k <= packed::ROWS
        // SAFETY: the machine has the path, as was asserted; what is written is promised by `Task`.
        && unsafe { packed::compute(x, task) }
    {
        return;
    }
    // So many lines stay in the first-level cache while rows pass over them.
    let some = (CLOSE / k).next_multiple_of(4).clamp(4, LINES);
    let mut memory = UNPACKED.take();
    for from in (0..task.count).step_by(some) {
        let part = Task { first: task.first + from, count: some.min(task.count - from), ..*task };
        if let Some(plain) = task.w.as_plain() {
            block(isa, (x, k), &plain[part.first * k..][..part.count * k], &part);
            continue;
        }
        memory.resize(part.count * k, 0.0);
        for (i, line) in memory.chunks_exact_mut(k).enumerate() {
            task.w.read_by(isa, part.first + i, 0, line);
        }
        block(isa, (x, k), &memory, &part);
    }
    UNPACKED.set(memory);
}

/// Computes all rows with lines of a weight in memory.
fn block(isa: Isa, (x, k): (&[f32], usize), w: &[f32], task: &Task<'_>) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the path, as the caller has seen.
        Isa::Avx512 | Isa::Amx => unsafe { avx512::block(x, w, k, task) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::block(x, w, k, task) },
        _ => {
            for (c, w) in w.chunks_exact(k).enumerate() {
                for (r, x) in x.chunks_exact(k).enumerate() {
                    task.put(r, c, &[scalar(x, w)]);
                }
            }
        }
    }
}

/// Portable code.
fn scalar(x: &[f32], w: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (xs, x_rest) = x.as_chunks::<16>();
    let (ws, w_rest) = w.as_chunks::<16>();
    for (x, w) in xs.iter().zip(ws) {
        for ((lane, x), w) in lanes.iter_mut().zip(x).zip(w) {
            *lane += x * w;
        }
    }
    let rest: f32 = x_rest.iter().zip(w_rest).map(|(x, w)| x * w).sum();
    lanes.iter().sum::<f32>() + rest
}

impl Task<'_> {
    /// Writes outputs of a row, from the task's `c`th on.
    #[inline(always)]
    fn put(&self, row: usize, c: usize, sums: &[f32]) {
        debug_assert!(c + sums.len() <= self.count);
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: the row and the line lie inside the output, and no other task has the line.
            let to = unsafe { &mut *self.out.at(row, self.first + c + i) };
            *to = if self.add { *to + sum } else { *sum };
        }
    }
}

/// Writes one path: its vectors, and how four of them become four sums.
#[cfg(target_arch = "x86_64")]
macro_rules! path {
    ($name:ident, $feature:literal, $rows:literal, $width:literal,
     [$zero:ident, $load:ident, $fma:ident], $four:path) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::Task;
            use crate::kernels::masked::$name::load;

            /// Computes a tile of R rows by C lines, from row `r` and line `c` on.
            #[target_feature(enable = $feature)]
            fn tile<const R: usize, const C: usize>(
                x: &[f32],
                w: &[f32],
                k: usize,
                (r, c): (usize, usize),
                task: &Task<'_>,
            ) {
                let (x, w) = (&x[r * k..(r + R) * k], &w[c * k..(c + C) * k]);
                let mut sums = [[$zero(); R]; 4];
                let whole = k / $width * $width;
                let mut at = 0;
                while at < whole {
                    let mut xs = [$zero(); R];
                    for (r, xv) in xs.iter_mut().enumerate() {
                        // SAFETY: `x` has R lines of k numbers, and `at` + width <= k.
                        *xv = unsafe { $load(x.as_ptr().add(r * k + at)) };
                    }
                    for (c, sums) in sums.iter_mut().enumerate().take(C) {
                        // SAFETY: `w` has C lines of k numbers, and `at` + width <= k.
                        let wv = unsafe { $load(w.as_ptr().add(c * k + at)) };
                        for (sum, xv) in sums.iter_mut().zip(xs) {
                            *sum = $fma(xv, wv, *sum);
                        }
                    }
                    at += $width;
                }
                if whole < k {
                    let bits = (1 << (k - whole)) - 1;
                    for (c, sums) in sums.iter_mut().enumerate().take(C) {
                        for (r, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: bits are set of numbers that there are.
                            let (xv, wv) = unsafe {
                                (
                                    load(x.as_ptr().add(r * k + whole), bits),
                                    load(w.as_ptr().add(c * k + whole), bits),
                                )
                            };
                            *sum = $fma(xv, wv, *sum);
                        }
                    }
                }
                for i in 0..R {
                    let four = $four([sums[0][i], sums[1][i], sums[2][i], sums[3][i]]);
                    task.put(r + i, c, &four[..C]);
                }
            }

            #[target_feature(enable = $feature)]
            fn rows<const R: usize>(x: &[f32], w: &[f32], k: usize, r: usize, task: &Task<'_>) {
                let mut c = 0;
                while c < task.count {
                    if task.count - c >= 4 {
                        tile::<R, 4>(x, w, k, (r, c), task);
                        c += 4;
                    } else {
                        tile::<R, 1>(x, w, k, (r, c), task);
                        c += 1;
                    }
                }
            }

            #[target_feature(enable = $feature)]
            pub(super) fn block(x: &[f32], w: &[f32], k: usize, task: &Task<'_>) {
                let m = x.len() / k;
                let mut r = 0;
                while r < m {
                    // Groups of about the same height.
                    let left = m - r;
                    let height = left.div_ceil(left.div_ceil($rows));
                    match height {
                        1 => rows::<1>(x, w, k, r, task),
                        2 => rows::<2>(x, w, k, r, task),
                        3 => rows::<3>(x, w, k, r, task),
                        4 => rows::<4>(x, w, k, r, task),
                        5 => rows::<5>(x, w, k, r, task),
                        _ => rows::<6>(x, w, k, r, task),
                    }
                    r += height;
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
path!(
    avx512,
    "avx512f",
    6,
    16,
    [_mm512_setzero_ps, _mm512_loadu_ps, _mm512_fmadd_ps],
    super::four_of_16
);

#[cfg(target_arch = "x86_64")]
path!(
    avx2,
    "avx2,fma",
    2,
    8,
    [_mm256_setzero_ps, _mm256_loadu_ps, _mm256_fmadd_ps],
    super::four_of_8
);

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Sums the lanes of four vectors, each in one order.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn four_of_16([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    // Each quarter holds a part of the four sums.
    let quarters = _mm512_add_ps(low, high);
    let halves = _mm256_add_ps(
        _mm512_castps512_ps256(quarters),
        _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(quarters))),
    );
    stored(_mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves)))
}

/// The same for vectors of 8.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn four_of_8([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    stored(_mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves)))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn stored(four: __m128) -> [f32; 4] {
    // SAFETY: both are four numbers.
    unsafe { std::mem::transmute(four) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernels::Format;

    fn filled(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    fn here() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_here())
    }

    /// Blocks with small scales and any quants.
    fn packed(format: Format, rows: usize, cols: usize) -> Stored {
        let (block, size) = format.block();
        let mut bytes: Vec<u8> =
            (0..rows * cols / block * size).map(|i| (i * 37 + i / 7) as u8).collect();
        for block in bytes.chunks_exact_mut(size) {
            // The upper bytes of halves, wherever a format has them: small numbers of both signs.
            block.iter_mut().skip(1).step_by(2).for_each(|byte| *byte &= 0xbb);
        }
        Stored::packed(format, bytes, cols).unwrap()
    }

    #[test]
    fn products_match_the_definition_on_every_path() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (4, 64, 576), (9, 67, 40), (50, 130, 33)] {
            let (x, w) = (filled(m * k, 0.13), filled(n * k, 0.57));
            for isa in here() {
                let mut got = vec![1.0; m * n];
                let stored = Stored::plain(w.clone(), k);
                dots_all(isa, &x, &mut [Dots { w: &stored, out: &mut got, add: true }]);
                for (at, got) in got.iter().enumerate() {
                    let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
                    let term = |(x, w): (&f32, &f32)| f64::from(*x) * f64::from(*w);
                    let want = 1.0 + x.iter().zip(w).map(term).sum::<f64>();
                    assert!((f64::from(*got) - want).abs() < 1e-4, "{isa:?} {m} {n} {k} at {at}");
                }
            }
        }
    }

    #[test]
    fn what_is_packed_gives_the_bits_of_its_numbers() {
        for format in Format::ALL {
            for (n, k) in [(70, 768), (3, 256), (17, 1536)] {
                let w = packed(format, n, k);
                let plain = Stored::plain(w.to_vec(), k);
                for m in [1, 2, 3, 4, 5, 9] {
                    let x = filled(m * k, 0.13);
                    for isa in here() {
                        let got = matmul_nt(isa, &x, &w);
                        let same = got.iter().zip(matmul_nt(isa, &x, &plain));
                        let same = same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{format:?} {isa:?} {m} {n} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it() {
        let (n, k) = (70, 160);
        let x = filled(11 * k, 0.13);
        for w in [Stored::plain(filled(n * k, 0.57), k), packed(Format::Q4_1, n, k)] {
            for isa in here() {
                let all = matmul_nt(isa, &x, &w);
                for i in 0..11 {
                    let one = matmul_nt(isa, &x[i * k..(i + 1) * k], &w);
                    let same = one.iter().zip(&all[i * n..]);
                    assert!(same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?}");
                }
            }
        }
    }
}
