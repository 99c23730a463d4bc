//! Products under dropout: of factors whose numbers are each kept or counted as zero.
//!
//! A mask has one bit for each number and is applied as vectors are loaded, so that no copy of a
//! factor without what was dropped is ever written. One factor of each product is an adapter's, of
//! few rows. Sums are in f32 on every path, each in one order.

use rayon::prelude::*;

use super::{Isa, Mat};

/// Bits of a word of a mask.
const WORD: usize = 64;
/// Rows that one task computes.
const ROWS: usize = 32;

/// Which numbers of a matrix are kept.
pub struct Mask {
    /// [rows][words of a row]; bits behind the last column are not set.
    words: Vec<u64>,
    cols: usize,
}

impl Mask {
    /// Keeps the numbers whose byte is not below `below`; `bytes` writes those of a row.
    pub fn draw(
        isa: Isa,
        (rows, cols): (usize, usize),
        below: u8,
        bytes: impl Fn(usize, &mut [u8]) + Sync,
    ) -> Self {
        assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
        let per_row = cols.div_ceil(WORD).max(1);
        let mut words = vec![0_u64; rows * per_row];
        let tasks = words.par_chunks_mut(per_row).enumerate().with_min_len(8);
        let memory = || vec![[0_u8; WORD]; per_row];
        tasks.for_each_init(memory, |drawn, (row, words)| {
            bytes(row, &mut drawn.as_flattened_mut()[..cols]);
            for (at, (word, drawn)) in words.iter_mut().zip(drawn.iter()).enumerate() {
                let bits = match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the machine has the path, as was asserted.
                    Isa::Avx2 | Isa::Avx512 | Isa::Amx => unsafe { avx2::not_below(drawn, below) },
                    _ => not_below(drawn, below),
                };
                *word = bits & valid(cols, at * WORD);
            }
        });
        Self { words, cols }
    }

    /// Returns the bits from (row, col) on, the first the lowest; `col` is a multiple of 8.
    #[inline(always)]
    pub(super) fn bits(&self, row: usize, col: usize) -> u64 {
        if col >= self.cols {
            return 0;
        }
        self.words[row * self.cols.div_ceil(WORD) + col / WORD] >> (col % WORD)
    }

    /// Says whether a number is kept.
    pub fn keeps(&self, row: usize, col: usize) -> bool {
        self.bits(row, col & !7) >> (col & 7) & 1 == 1
    }
}

/// A factor of which some numbers may count as zero.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The numbers, row by row.
    pub numbers: Mat<'a>,
    /// Those that count; all where there is none.
    pub mask: Option<&'a Mask>,
}

impl<'a> From<Mat<'a>> for Seen<'a> {
    fn from(numbers: Mat<'a>) -> Self {
        Self { numbers, mask: None }
    }
}

impl Seen<'_> {
    /// Returns the bits of the numbers that count, from (row, col) on, at most `WORD`.
    #[inline(always)]
    pub(super) fn bits(&self, row: usize, col: usize) -> u64 {
        match self.mask {
            Some(mask) => mask.bits(row, col),
            None => valid(self.numbers.cols(), col),
        }
    }
}

/// Returns the bits of columns from `col` on that there are.
#[inline(always)]
fn valid(cols: usize, col: usize) -> u64 {
    match cols.saturating_sub(col) {
        0 => 0,
        left if left >= WORD => u64::MAX,
        left => (1 << left) - 1,
    }
}

fn not_below(drawn: &[u8; WORD], below: u8) -> u64 {
    drawn.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(*byte >= below))
}

/// Computes `out = scale * x a^T` over what counts of x. Shapes: x [rows, inner], a [rank, inner]
/// -> [rows, rank].
///
/// # Panics
/// When the shapes do not fit each other: a fault of the caller.
pub fn product_of_kept(isa: Isa, scale: f32, x: Seen<'_>, a: Mat<'_>, out: &mut [f32]) {
    assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
    let (rows, rank) = (x.numbers.rows(), a.rows());
    assert_eq!((x.numbers.cols(), rows * rank), (a.cols(), out.len()), "shapes of a product");
    assert!(x.numbers.is_by_rows() && a.is_by_rows(), "rows lie side by side");
    let tasks = out.par_chunks_mut((ROWS * rank).max(1)).enumerate();
    tasks.for_each(|(at, out)| {
        let task = Down { x, a, scale, row: at * ROWS };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the path, as was asserted.
            Isa::Avx512 | Isa::Amx => unsafe { avx512::down(&task, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::down(&task, out) },
            _ => down(&task, out),
        }
    });
}

/// Adds `scale * u a` to `out`, or to those of its numbers that a mask keeps. Shapes:
/// u [rows, rank], a [rank, cols], out [rows, cols].
///
/// # Panics
/// As [`product_of_kept`].
pub fn add_product(
    isa: Isa,
    scale: f32,
    (u, a): (Mat<'_>, Mat<'_>),
    mask: Option<&Mask>,
    out: &mut [f32],
) {
    assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
    let cols = a.cols();
    assert_eq!((u.cols(), u.rows() * cols), (a.rows(), out.len()), "shapes of a product");
    assert!(mask.is_none_or(|mask| mask.cols == cols), "a mask of as many columns");
    assert!(u.is_by_rows() && a.is_by_rows(), "rows lie side by side");
    let tasks = out.par_chunks_mut((ROWS * cols).max(1)).enumerate();
    tasks.for_each(|(at, out)| {
        let task = Up { u, a, scale, mask, row: at * ROWS };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the path, as was asserted.
            Isa::Avx512 | Isa::Amx => unsafe { avx512::up(&task, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::up(&task, out) },
            _ => up(&task, out),
        }
    });
}

/// Rows of `product_of_kept`, from `row` on.
struct Down<'a> {
    x: Seen<'a>,
    a: Mat<'a>,
    scale: f32,
    row: usize,
}

fn down(task: &Down<'_>, out: &mut [f32]) {
    let (x, rank, inner) = (task.x, task.a.rows(), task.a.cols());
    for (i, out) in out.chunks_exact_mut(rank).enumerate() {
        let numbers = x.numbers.piece(task.row + i, 0, inner);
        for (r, out) in out.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (at, (x, a)) in numbers.iter().zip(task.a.piece(r, 0, inner)).enumerate() {
                let keeps = task.x.mask.is_none_or(|mask| mask.keeps(task.row + i, at));
                sum += if keeps { x * a } else { 0.0 };
            }
            *out = task.scale * sum;
        }
    }
}

/// Rows of `add_product`, from `row` on.
struct Up<'a> {
    u: Mat<'a>,
    a: Mat<'a>,
    scale: f32,
    mask: Option<&'a Mask>,
    row: usize,
}

fn up(task: &Up<'_>, out: &mut [f32]) {
    let (rank, cols) = (task.a.rows(), task.a.cols());
    for (i, out) in out.chunks_exact_mut(cols).enumerate() {
        let mut sums = vec![0.0; cols];
        for (r, u) in task.u.piece(task.row + i, 0, rank).iter().enumerate() {
            let line = task.a.piece(r, 0, cols);
            sums.iter_mut().zip(line).for_each(|(sum, a)| *sum += u * a);
        }
        for (at, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            let keeps = task.mask.is_none_or(|mask| mask.keeps(task.row + i, at));
            *out += if keeps { task.scale * sum } else { 0.0 };
        }
    }
}

/// Writes one path: rows of a tile and vectors of a line, and what its vectors do. `load` takes
/// the numbers whose bits are set, and zeros for others; `store` writes those alone.
#[cfg(target_arch = "x86_64")]
macro_rules! path {
    ($feature:literal, $rows:literal, $width:literal, [$zero:ident, $one:ident, $fma:ident,
     $mul:ident]) => {
        const WIDTH: usize = $width;
        /// Columns of a tile of `up`.
        const COLS: usize = 4 * WIDTH;

        #[target_feature(enable = $feature)]
        pub(super) fn down(task: &Down<'_>, out: &mut [f32]) {
            let rank = task.a.rows();
            let rows = out.len() / rank.max(1);
            let mut row = 0;
            while row < rows {
                let tall = rows - row >= $rows;
                let mut at = 0;
                while at < rank {
                    let wide = rank - at >= 4;
                    let to = &mut out[row * rank..];
                    match (tall, wide) {
                        (true, true) => dots::<$rows, 4>(task, (row, at), to),
                        (true, false) => dots::<$rows, 1>(task, (row, at), to),
                        (false, true) => dots::<1, 4>(task, (row, at), to),
                        (false, false) => dots::<1, 1>(task, (row, at), to),
                    }
                    at += if wide { 4 } else { 1 };
                }
                row += if tall { $rows } else { 1 };
            }
        }

        /// Computes a tile of `down`: from row `row` of the task and row `at` of `a` on.
        #[target_feature(enable = $feature)]
        fn dots<const T: usize, const R: usize>(
            task: &Down<'_>,
            (row, at): (usize, usize),
            out: &mut [f32],
        ) {
            let (inner, rank) = (task.a.cols(), task.a.rows());
            let mut sums = [[$zero(); R]; T];
            let mut x = [std::ptr::null(); T];
            let mut a = [std::ptr::null(); R];
            for (t, x) in x.iter_mut().enumerate() {
                *x = task.x.numbers.piece(task.row + row + t, 0, inner).as_ptr();
            }
            for (r, a) in a.iter_mut().enumerate() {
                *a = task.a.piece(at + r, 0, inner).as_ptr();
            }
            for word in (0..inner).step_by(WORD) {
                let there = valid(inner, word);
                let mut bits = [0; T];
                for (t, bits) in bits.iter_mut().enumerate() {
                    *bits = task.x.bits(task.row + row + t, word);
                }
                for lane in (0..WORD.min(inner - word)).step_by(WIDTH) {
                    let mut xs = [$zero(); T];
                    for (t, x_of) in xs.iter_mut().enumerate() {
                        // SAFETY: bits are set of columns that there are.
                        *x_of = unsafe { load(x[t].wrapping_add(word + lane), bits[t] >> lane) };
                    }
                    for (r, a) in a.iter().enumerate() {
                        // SAFETY: as above.
                        let a = unsafe { load(a.wrapping_add(word + lane), there >> lane) };
                        for (t, x) in xs.iter().enumerate() {
                            sums[t][r] = $fma(*x, a, sums[t][r]);
                        }
                    }
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                for (r, one) in sums.iter().enumerate() {
                    out[t * rank + at + r] = task.scale * sum(*one);
                }
            }
        }

        #[target_feature(enable = $feature)]
        pub(super) fn up(task: &Up<'_>, out: &mut [f32]) {
            let cols = task.a.cols();
            let rows = out.len() / cols.max(1);
            for col in (0..cols).step_by(COLS) {
                let mut row = 0;
                while row < rows {
                    if rows - row >= $rows {
                        lines::<$rows>(task, (row, col), out);
                        row += $rows;
                    } else {
                        lines::<1>(task, (row, col), out);
                        row += 1;
                    }
                }
            }
        }

        /// Computes a tile of `up`, from (row, col) on.
        #[target_feature(enable = $feature)]
        fn lines<const T: usize>(task: &Up<'_>, (row, col): (usize, usize), out: &mut [f32]) {
            let (rank, cols) = (task.a.rows(), task.a.cols());
            let there = valid(cols, col);
            let mut sums = [[$zero(); COLS / WIDTH]; T];
            let mut u = [&[][..]; T];
            for (t, u) in u.iter_mut().enumerate() {
                *u = task.u.piece(task.row + row + t, 0, rank);
            }
            for r in 0..rank {
                let line = task.a.piece(r, col, COLS).as_ptr();
                let mut a = [$zero(); COLS / WIDTH];
                for (j, a) in a.iter_mut().enumerate() {
                    let at = j * WIDTH;
                    // SAFETY: bits are set of columns that there are.
                    *a = unsafe { load(line.wrapping_add(at), there >> at) };
                }
                for (sums, u) in sums.iter_mut().zip(u) {
                    let u = $one(u[r]);
                    for (sum, a) in sums.iter_mut().zip(a) {
                        *sum = $fma(u, a, *sum);
                    }
                }
            }
            let scale = $one(task.scale);
            for (t, sums) in sums.iter().enumerate() {
                let bits = task.mask.map_or(there, |mask| mask.bits(task.row + row + t, col));
                let to = out[(row + t) * cols + col..].as_mut_ptr();
                for (j, sum) in sums.iter().enumerate() {
                    let (to, bits) = (to.wrapping_add(j * WIDTH), bits >> (j * WIDTH));
                    // SAFETY: as above; the row is the task's own.
                    unsafe { add(to, bits, $mul(*sum, scale)) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::{Down, Up, WORD, valid};

    path!("avx512f", 4, 16, [_mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_mul_ps]);

    /// Loads the numbers whose bits are set.
    ///
    /// # Safety
    /// They can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(in crate::kernels) unsafe fn load(from: *const f32, bits: u64) -> __m512 {
        // SAFETY: the caller promises it.
        unsafe { _mm512_maskz_loadu_ps(bits as u16, from) }
    }

    /// Adds to the numbers whose bits are set.
    ///
    /// # Safety
    /// They can be read and written.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn add(to: *mut f32, bits: u64, more: __m512) {
        // SAFETY: the caller promises it.
        unsafe {
            let old = _mm512_maskz_loadu_ps(bits as u16, to);
            _mm512_mask_storeu_ps(to, bits as u16, _mm512_add_ps(old, more));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sum(of: __m512) -> f32 {
        _mm512_reduce_add_ps(of)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{Down, Up, WORD, valid};

    path!("avx2,fma", 2, 8, [_mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_mul_ps]);

    /// Sets the lanes whose bits are set.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes(bits: u64) -> __m256i {
        let of = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), of), of)
    }

    /// As that of AVX-512.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in crate::kernels) unsafe fn load(from: *const f32, bits: u64) -> __m256 {
        // SAFETY: the caller promises it.
        unsafe { _mm256_maskload_ps(from, lanes(bits)) }
    }

    /// As that of AVX-512.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn add(to: *mut f32, bits: u64, more: __m256) {
        let lanes = lanes(bits);
        // SAFETY: the caller promises it.
        unsafe {
            let old = _mm256_maskload_ps(to, lanes);
            _mm256_maskstore_ps(to, lanes, _mm256_add_ps(old, more));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum(of: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(of), _mm256_extractf128_ps::<1>(of));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }

    /// Sets the bits of the bytes that are not below `below`.
    #[target_feature(enable = "avx2")]
    pub(super) fn not_below(drawn: &[u8; WORD], below: u8) -> u64 {
        let least = _mm256_set1_epi8(below as i8);
        let mut bits = 0;
        for (half, bytes) in drawn.as_chunks::<32>().0.iter().enumerate() {
            // SAFETY: there are 32 bytes.
            let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            let is = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, least), bytes);
            bits |= u64::from(_mm256_movemask_epi8(is) as u32) << (32 * half);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    fn drawn(row: usize, bytes: &mut [u8]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = ((row * 131 + i * 37) ^ (i >> 3)) as u8;
        }
    }

    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 1, 1), (3, 7, 2), (35, 64, 16), (70, 100, 5), (33, 576, 9), (5, 129, 64)];

    #[test]
    fn masks_keep_what_was_drawn_on_every_path() {
        for (rows, cols, _) in SHAPES {
            for below in [1, 13, 128, 255] {
                for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
                    let mask = Mask::draw(isa, (rows, cols), below, drawn);
                    for row in 0..rows {
                        let mut bytes = vec![0; cols];
                        drawn(row, &mut bytes);
                        for (col, byte) in bytes.iter().enumerate() {
                            assert_eq!(mask.keeps(row, col), *byte >= below, "{row} {col}");
                        }
                        assert_eq!(mask.bits(row, cols.next_multiple_of(64)), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn products_under_a_mask_match_the_definition_on_every_path() {
        for (rows, cols, rank) in SHAPES {
            let (x, a, u) =
                (filled(rows * cols, 0.3), filled(rank * cols, 0.7), filled(rows * rank, 0.9));
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
                let mask = Mask::draw(isa, (rows, cols), 77, drawn);
                let at = |row, col| if mask.keeps(row, col) { 1.0 } else { 0.0 };
                let mut out = vec![f32::NAN; rows * rank];
                let seen = Seen { numbers: Mat::new(&x, cols), mask: Some(&mask) };
                product_of_kept(isa, 2.0, seen, Mat::new(&a, cols), &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (row, r) = (i / rank, i % rank);
                    let term = |c: usize| {
                        at(row, c) * f64::from(x[row * cols + c]) * f64::from(a[r * cols + c])
                    };
                    let want = 2.0 * (0..cols).map(term).sum::<f64>();
                    assert!((f64::from(*got) - want).abs() < 1e-4, "{isa:?} {row} {r}");
                }
                let mut out = vec![1.0; rows * cols];
                let factors = (Mat::new(&u, rank), Mat::new(&a, cols));
                add_product(isa, 2.0, factors, Some(&mask), &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (row, col) = (i / cols, i % cols);
                    let term =
                        |r: usize| f64::from(u[row * rank + r]) * f64::from(a[r * cols + col]);
                    let sum: f64 = (0..rank).map(term).sum();
                    let want = 1.0 + 2.0 * at(row, col) * sum;
                    assert!((f64::from(*got) - want).abs() < 1e-4, "{isa:?} {row} {col}");
                }
            }
        }
    }

    #[test]
    fn neither_other_rows_nor_what_was_dropped_change_the_bits() {
        let (rows, cols, rank) = (37, 200, 6);
        let (mut x, a) = (filled(rows * cols, 0.3), filled(rank * cols, 0.7));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            let mask = Mask::draw(isa, (rows, cols), 77, drawn);
            let run = |x: &[f32]| {
                let mut out = vec![0.0; x.len() / cols * rank];
                let seen = Seen { numbers: Mat::new(x, cols), mask: Some(&mask) };
                product_of_kept(isa, 1.0, seen, Mat::new(&a, cols), &mut out);
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let all = run(&x);
            assert_eq!(run(&x[..cols]), all[..rank]);
            (0..cols).filter(|col| !mask.keeps(0, *col)).for_each(|col| x[col] = f32::NAN);
            assert_eq!(run(&x), all);
            x[..cols].copy_from_slice(&filled(cols, 0.3));
        }
    }
}
