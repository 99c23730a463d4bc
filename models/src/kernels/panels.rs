//! Products in f32: factors are copied into panels that lie as a microkernel reads them.
//!
//! A microkernel keeps a tile of the output in registers while it passes over `DEPTH` numbers of
//! both factors (Goto and van de Geijn, 2008). The output is the sum over such passes, in order.

use std::cell::Cell;

use rayon::prelude::*;

use super::product::{Lent, Part, parts_of};
use super::{Isa, Mat, Threads, spacious};

/// Numbers that a tile is summed over in one pass: a block of `a` stays in the first-level cache, a
/// panel of `b` in the second.
const DEPTH: usize = 640;

/// A tile of the output, and how it is computed.
pub(super) trait Tile {
    /// The path.
    const ISA: Isa;
    /// Rows.
    const ROWS: usize;
    /// Columns.
    const COLS: usize;

    /// Computes `out[ROWS * COLS]` from panels a [depth, ROWS] and b [depth, COLS].
    ///
    /// # Safety
    /// The machine has the path, and the slices have these lengths.
    unsafe fn compute(a: &[f32], b: &[f32], out: &mut [f32]);

    /// Writes the part of a tile that lies inside the output.
    ///
    /// # Safety
    /// The machine has the path, (row, col) lies inside the output, and no other thread has the
    /// tile's place.
    unsafe fn put(tile: &[f32], term: Lent<'_>, at: (usize, usize));

    /// Copies columns of a factor: see [`copy`].
    ///
    /// # Safety
    /// The machine has the path.
    unsafe fn copy(from: Mat<'_>, at: (usize, usize), width: usize, to: &mut [f32]);
}

/// Memory of a thread: a panel of `b`, a tile, and numbers of `b` that were unpacked.
#[derive(Default)]
struct Scratch {
    of_b: Vec<f32>,
    tile: Vec<f32>,
    unpacked: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    /// The rows of `a` of the product that this thread has begun.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Computes products whose shapes were checked, on a path that the machine has.
pub(super) fn run<T: Tile>(threads: Threads, a: Mat<'_>, terms: &[Lent<'_>]) {
    // Work that waits for others may begin another product on this thread, with other memory.
    let mut memory = ROWS.take();
    let packed = &*pack_a::<T>(threads, a, &mut memory);
    let task = |part: Part| {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.of_b.resize(DEPTH * T::COLS, 0.0);
        scratch.tile.resize(T::ROWS * T::COLS, 0.0);
        columns::<T>(terms[part.term], packed, part, &mut scratch);
        SCRATCH.set(Some(scratch));
    };
    let parts = parts_of(terms, threads, (T::ROWS, T::COLS));
    match threads {
        Threads::One => parts.into_iter().for_each(task),
        Threads::All => parts.into_par_iter().for_each(task),
    }
    ROWS.set(memory);
}

/// Computes rows of the columns of a panel.
fn columns<T: Tile>(term: Lent<'_>, a: &[f32], part: Part, scratch: &mut Scratch) {
    let Scratch { of_b, tile, unpacked } = scratch;
    let inner = a.len() / term.out.rows.next_multiple_of(T::ROWS);
    let col = part.panel * T::COLS;
    // Passes of equal length, so that the last is not a short one.
    let pass = inner.div_ceil(inner.div_ceil(DEPTH).max(1)).max(1);
    for from in (0..inner.max(1)).step_by(pass) {
        let depth = pass.min(inner - from);
        let of_b = &mut of_b[..depth * T::COLS];
        let (b, at) = term.b.window(T::ISA, (from, depth), (col, T::COLS), unpacked);
        // SAFETY: the caller has asked for the path.
        unsafe { T::copy(b, at, T::COLS, of_b) };
        for block in part.blocks.0..part.blocks.1 {
            term.out.ask_for((block * T::ROWS, col), T::ROWS);
            let at = (block * inner + from) * T::ROWS;
            // SAFETY: the caller has asked for the path, and both slices are `depth` deep.
            unsafe { T::compute(&a[at..at + depth * T::ROWS], of_b, tile) };
            let term = Lent { add: term.add || from > 0, ..term };
            // SAFETY: as above; the block and the panel lie inside the output, and no other part
            // has both.
            unsafe { T::put(tile, term, (block * T::ROWS, col)) };
        }
    }
}

/// Copies `a` into blocks of rows: [block][inner][ROWS], with zeros behind its last row.
fn pack_a<'m, T: Tile>(threads: Threads, a: Mat<'_>, packed: &'m mut Vec<f32>) -> &'m mut [f32] {
    let inner = a.cols();
    let len = a.rows().next_multiple_of(T::ROWS) * inner;
    if packed.len() < len {
        *packed = spacious(len, 0.0);
    }
    let packed = &mut packed[..len];
    let fill = |(block, to): (usize, &mut [f32])| {
        // SAFETY: the caller has asked for the path.
        unsafe { T::copy(a.t(), (0, block * T::ROWS), T::ROWS, to) };
    };
    let size = (T::ROWS * inner).max(1);
    match threads {
        Threads::One => packed.chunks_exact_mut(size).enumerate().for_each(fill),
        Threads::All => packed.par_chunks_exact_mut(size).enumerate().for_each(fill),
    }
    packed
}

/// Copies `width` columns of `from` from (row, col) on into `to` [depth, width], with zeros behind
/// its last column.
#[inline(always)]
fn copy(from: Mat<'_>, (row, col): (usize, usize), width: usize, to: &mut [f32]) {
    if from.is_by_rows() {
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            let piece = from.piece(row + i, col, width);
            if piece.len() == width {
                to.iter_mut().zip(piece).for_each(|(to, v)| *to = *v);
            } else {
                to[..piece.len()].copy_from_slice(piece);
                to[piece.len()..].fill(0.0);
            }
        }
        return;
    }
    // Sixteen numbers of each line at a time, so that what is written stays in the cache.
    for (step, to) in to.chunks_mut(width * 16).enumerate() {
        for j in 0..width {
            let piece = from.piece(col + j, row + step * 16, to.len() / width);
            let places = to[j..].iter_mut().step_by(width);
            if piece.is_empty() {
                places.for_each(|to| *to = 0.0);
            } else {
                places.zip(piece).for_each(|(to, v)| *to = *v);
            }
        }
    }
}

/// The same for 512-bit vectors, which turn squares of 16 x 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn copy_turned(from: Mat<'_>, (row, col): (usize, usize), width: usize, to: &mut [f32]) {
    if from.is_by_rows() {
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            super::turn::ask_for(from.piece(row + i + 12, col, width));
            super::turn::copy(from.piece(row + i, col, width), to);
        }
        return;
    }
    for (step, to) in to.chunks_mut(width * 16).enumerate() {
        let depth = to.len() / width;
        for j in (0..width).step_by(16) {
            let lanes = (width - j).min(16);
            for i in 0..lanes {
                super::turn::ask_for(from.piece(col + j + i, row + step * 16 + 64, 16));
            }
            let line = |i: usize| -> &[f32] {
                if i < lanes { from.piece(col + j + i, row + step * 16, depth) } else { &[] }
            };
            let lines = std::array::from_fn(line);
            if lines.iter().all(|line| line.is_empty()) {
                to.chunks_exact_mut(width).for_each(|to| to[j..j + lanes].fill(0.0));
            } else {
                super::turn::turn(lines, &mut to[j..], (lanes, width));
            }
        }
    }
}

/// Writes the part of a tile that lies inside the output.
///
/// # Safety
/// As [`Tile::put`].
#[inline(always)]
unsafe fn put(cols: usize, tile: &[f32], term: Lent<'_>, (row, col): (usize, usize)) {
    let (out, scale) = (term.out, term.scale);
    let width = cols.min(out.cols - col);
    for (i, line) in tile.chunks_exact(cols).enumerate().take(out.rows - row) {
        // SAFETY: the row and `width` columns from `col` on lie inside the output, and nobody else
        // has them, as the caller promises.
        let to = unsafe { std::slice::from_raw_parts_mut(out.at(row + i, col), width) };
        if term.add {
            to.iter_mut().zip(line).for_each(|(to, v)| *to += scale * v);
        } else {
            to.iter_mut().zip(line).for_each(|(to, v)| *to = scale * v);
        }
    }
}

/// Portable code.
pub(super) struct Scalar;

impl Tile for Scalar {
    const ISA: Isa = Isa::Scalar;
    const ROWS: usize = 4;
    const COLS: usize = 16;

    unsafe fn compute(a: &[f32], b: &[f32], out: &mut [f32]) {
        let mut sums = [[0.0_f32; 16]; 4];
        for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<16>().0) {
            for (sums, a) in sums.iter_mut().zip(a) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
        out.copy_from_slice(sums.as_flattened());
    }

    unsafe fn put(tile: &[f32], term: Lent<'_>, at: (usize, usize)) {
        // SAFETY: the caller promises the same.
        unsafe { put(Self::COLS, tile, term, at) };
    }

    unsafe fn copy(from: Mat<'_>, at: (usize, usize), width: usize, to: &mut [f32]) {
        copy(from, at, width, to);
    }
}

/// Writes one path: its rows, the vectors of a row, and its intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! path {
    ($(#[$doc:meta])* $name:ident, $feature:literal, $rows:literal, $width:literal,
     [$zero:ident, $load:ident, $one:ident, $fma:ident, $store:ident], $copy:ident) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Tile for $name {
            const ISA: Isa = Isa::$name;
            const ROWS: usize = $rows;
            const COLS: usize = 2 * $width;

            unsafe fn compute(a: &[f32], b: &[f32], out: &mut [f32]) {
                use std::arch::x86_64::*;

                #[target_feature(enable = $feature)]
                fn compute(a: &[f32], b: &[f32], out: &mut [f32]) {
                    let mut sums = [[$zero(); 2]; $rows];
                    let b = b.as_chunks::<{ 2 * $width }>().0;
                    for (a, b) in a.as_chunks::<$rows>().0.iter().zip(b) {
                        // SAFETY: `b` holds two vectors.
                        let (b0, b1) =
                            unsafe { ($load(b.as_ptr()), $load(b.as_ptr().add($width))) };
                        for (sums, a) in sums.iter_mut().zip(a) {
                            let a = $one(*a);
                            sums[0] = $fma(a, b0, sums[0]);
                            sums[1] = $fma(a, b1, sums[1]);
                        }
                    }
                    let out = out.as_chunks_mut::<{ 2 * $width }>().0;
                    for (out, sums) in out.iter_mut().zip(sums) {
                        // SAFETY: `out` holds two vectors.
                        unsafe {
                            $store(out.as_mut_ptr(), sums[0]);
                            $store(out.as_mut_ptr().add($width), sums[1]);
                        }
                    }
                }
                // SAFETY: the caller promises that the machine has the path.
                unsafe { compute(a, b, out) }
            }

            unsafe fn put(tile: &[f32], term: Lent<'_>, at: (usize, usize)) {
                #[target_feature(enable = $feature)]
                fn put_all(tile: &[f32], term: Lent<'_>, at: (usize, usize)) {
                    // SAFETY: the caller promises the same.
                    unsafe { put(2 * $width, tile, term, at) };
                }
                // SAFETY: the caller promises that the machine has the path.
                unsafe { put_all(tile, term, at) }
            }

            unsafe fn copy(from: Mat<'_>, at: (usize, usize), width: usize, to: &mut [f32]) {
                #[target_feature(enable = $feature)]
                fn copy_all(from: Mat<'_>, at: (usize, usize), width: usize, to: &mut [f32]) {
                    $copy(from, at, width, to);
                }
                // SAFETY: the caller promises that the machine has the path.
                unsafe { copy_all(from, at, width, to) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
path!(
    /// 512-bit vectors: 28 sums, two vectors of `b` and one of `a` fill the registers.
    Avx512,
    "avx512f",
    14,
    16,
    [_mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps],
    copy_turned
);

#[cfg(target_arch = "x86_64")]
path!(
    /// 256-bit vectors: 12 sums, two vectors of `b` and one of `a`.
    Avx2,
    "avx2,fma",
    6,
    8,
    [_mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps],
    copy
);
