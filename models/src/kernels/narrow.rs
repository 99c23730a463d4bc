//! Products `a^T b` whose result has few rows: the gradients of an adapter's factors, sums over all
//! tokens. Both factors are read where they stand; copying them would cost more than the sums.
//!
//! Sums are in f32 on every path. Each number is summed in one order: over the lines from the first
//! to the last.

use rayon::prelude::*;

use super::matrix::Shared;
use super::{Isa, Mat, MatMut, Seen};

/// Computes `out = scale * a^T b` over what counts of b. Shapes: a [lines, rows], b [lines, cols]
/// -> [rows, cols].
///
/// # Panics
/// When the shapes do not fit each other: a fault of the caller.
pub fn product_of_lines<'a>(
    isa: Isa,
    scale: f32,
    a: Mat<'a>,
    b: impl Into<Seen<'a>>,
    mut out: MatMut<'_>,
) {
    let b = b.into();
    let (lines, cols) = (b.numbers.rows(), b.numbers.cols());
    assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
    assert_eq!((a.cols(), cols, a.rows()), (out.shape().0, out.shape().1, lines));
    assert!(a.is_by_rows() && b.numbers.is_by_rows(), "lines lie side by side");
    let out = out.shared();
    let width = match isa {
        Isa::Scalar => SCALAR_COLS,
        Isa::Avx2 => 24,
        Isa::Avx512 | Isa::Amx => 48,
    };
    let panels = out.cols.div_ceil(width);
    (0..panels).into_par_iter().for_each(|panel| {
        let task = Panel { out, a, b, scale, col: panel * width };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the path, as was asserted.
            Isa::Avx512 | Isa::Amx => unsafe { avx512::panel(&task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::panel(&task) },
            _ => scalar(&task),
        }
    });
}

/// A few columns of a product.
struct Panel<'a> {
    out: Shared<'a>,
    a: Mat<'a>,
    b: Seen<'a>,
    scale: f32,
    col: usize,
}

impl Panel<'_> {
    /// Writes a line of the result.
    fn put(&self, row: usize, sums: &[f32]) {
        let width = sums.len().min(self.out.cols - self.col);
        // SAFETY: the row and `width` columns from `col` on lie inside the output, and no other
        // panel has these columns.
        let to = unsafe { std::slice::from_raw_parts_mut(self.out.at(row, self.col), width) };
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = self.scale * sum);
    }
}

const SCALAR_COLS: usize = 16;

fn scalar(task: &Panel<'_>) {
    for row in 0..task.out.rows {
        let mut sums = [0.0_f32; SCALAR_COLS];
        for line in 0..task.a.rows() {
            let factor = task.a.piece(line, row, 1)[0];
            let piece = task.b.numbers.piece(line, task.col, SCALAR_COLS);
            let bits = task.b.bits(line, task.col);
            for (at, (sum, b)) in sums.iter_mut().zip(piece).enumerate() {
                *sum += if bits >> at & 1 == 1 { factor * b } else { 0.0 };
            }
        }
        task.put(row, &sums);
    }
}

/// Writes one path: three vectors of columns, and as many rows as the registers hold.
#[cfg(target_arch = "x86_64")]
macro_rules! path {
    ($name:ident, $feature:literal, $rows:literal, $width:literal,
     [$zero:ident, $one:ident, $fma:ident, $store:ident]) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::Panel;
            use crate::kernels::masked::$name::load;

            const COLS: usize = 3 * $width;
            /// Lines ahead that are asked for: they lie too far apart for the processor to guess.
            const AHEAD: usize = 12;

            #[target_feature(enable = $feature)]
            pub(super) fn panel(task: &Panel<'_>) {
                let rows = task.out.rows;
                let mut row = 0;
                while row < rows {
                    if rows - row >= $rows {
                        block::<$rows>(task, row);
                        row += $rows;
                    } else if rows - row >= 4 {
                        block::<4>(task, row);
                        row += 4;
                    } else {
                        block::<1>(task, row);
                        row += 1;
                    }
                }
            }

            #[target_feature(enable = $feature)]
            fn block<const ROWS: usize>(task: &Panel<'_>, row: usize) {
                let lines = task.a.rows();
                let mut sums = [[$zero(); 3]; ROWS];
                for line in 0..lines {
                    let ahead = task.b.numbers.piece(line + AHEAD, task.col, COLS).as_ptr();
                    for at in (0..COLS).step_by(16) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at).cast::<i8>());
                    }
                    let numbers = task.b.numbers.piece(line, task.col, COLS).as_ptr();
                    let mut b = [$zero(); 3];
                    for (j, b) in b.iter_mut().enumerate() {
                        let at = j * $width;
                        // SAFETY: bits are set of columns that there are.
                        let bits = task.b.bits(line, task.col + at);
                        *b = unsafe { load(numbers.wrapping_add(at), bits) };
                    }
                    let a = task.a.piece(line, row, ROWS);
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = $one(*a);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = $fma(a, b, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    let mut line = [0.0_f32; COLS];
                    for (j, sum) in sums.iter().enumerate() {
                        // SAFETY: the array holds three vectors.
                        unsafe { $store(line.as_mut_ptr().add(j * $width), *sum) };
                    }
                    task.put(row + i, &line);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
path!(
    avx512,
    "avx512f",
    8,
    16,
    [_mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps]
);

#[cfg(target_arch = "x86_64")]
path!(
    avx2,
    "avx2,fma",
    4,
    8,
    [_mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_lines_match_the_definition() {
        for (lines, rows, cols) in [(1, 1, 1), (40, 16, 96), (7, 3, 50), (130, 13, 49), (0, 4, 5)] {
            let filled = |len: usize, step: f32| -> Vec<f32> {
                (0..len).map(|i| (i as f32 * step).sin()).collect()
            };
            let (a, b) = (filled(lines * rows, 0.3), filled(lines * cols, 0.7));
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
                let mut out = vec![f32::NAN; rows * cols];
                let (a_of, b_of) =
                    (Mat::strided(&a, lines, rows, rows), Mat::strided(&b, lines, cols, cols));
                product_of_lines(isa, 2.0, a_of, b_of, MatMut::new(&mut out, cols));
                for (at, got) in out.iter().enumerate() {
                    let (i, j) = (at / cols, at % cols);
                    let term = |t: usize| f64::from(a[t * rows + i]) * f64::from(b[t * cols + j]);
                    let want = 2.0 * (0..lines).map(term).sum::<f64>();
                    let off = (f64::from(*got) - want).abs();
                    assert!(off < 1e-4, "{isa:?} {lines} {rows} {cols} at {at}: off by {off}");
                }
            }
        }
    }
}
