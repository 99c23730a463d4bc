//! Inner products with blocks that are unpacked in registers, for a few rows at a time.
//!
//! Scales of a line are widened before its blocks, sixteen at a time. The numbers and the order of
//! sums are those of a line that was unpacked into memory.

use std::arch::x86_64::*;

use super::{Task, four_of_16};
use crate::kernels::Format;
use crate::kernels::stored::registers::{BLOCK, Bf16, F16, Packed, Q4_0, Q4_1, Q8_0};

/// Rows at most.
pub(super) const ROWS: usize = 4;
/// Lines that are read side by side: their sums do not wait for each other.
const SIDE: usize = 4;
/// Bytes that are asked for ahead of those that are read.
const AHEAD: usize = 4096;

/// Computes a task whose weight is packed in a known way; says whether it was.
///
/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn compute(x: &[f32], task: &Task<'_>) -> bool {
    let Some((format, _, _)) = task.w.as_packed() else { return false };
    match format {
        Format::Q4_0 => of_rows::<Q4_0>(x, task),
        Format::Q4_1 => of_rows::<Q4_1>(x, task),
        Format::Q8_0 => of_rows::<Q8_0>(x, task),
        Format::Bf16 => of_rows::<Bf16>(x, task),
        Format::F16 => of_rows::<F16>(x, task),
        _ => false,
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn of_rows<P: Packed>(x: &[f32], task: &Task<'_>) -> bool {
    let k = task.w.cols();
    if !k.is_multiple_of(BLOCK) {
        return false;
    }
    match x.len() / k {
        1 => lines::<P, 1>(x, task),
        2 => lines::<P, 2>(x, task),
        3 => lines::<P, 3>(x, task),
        _ => lines::<P, 4>(x, task),
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw")]
fn lines<P: Packed, const R: usize>(x: &[f32], task: &Task<'_>) {
    let Some((_, bytes, line)) = task.w.as_packed() else { return };
    let blocks = task.w.cols() / BLOCK;
    let mut scales = vec![[[0.0_f32; 2]; SIDE]; blocks.next_multiple_of(16)];
    let line_of = |c: usize| &bytes[(task.first + c) * line..][..line];
    let mut c = 0;
    while c < task.count {
        let count = SIDE.min(task.count - c);
        // Lines that are missing at the end are computed as the first, and not written.
        let of: [&[u8]; SIDE] = std::array::from_fn(|i| line_of(if i < count { c + i } else { c }));
        ask_for(bytes, (task.first + c) * line + AHEAD, SIDE * line);
        if P::SCALES > 0 {
            for (i, line) in of.iter().enumerate() {
                widen::<P>(line, i, &mut scales);
            }
        }
        let sums = tile::<P, R>(x, of, &scales[..blocks]);
        for (r, sums) in sums.into_iter().enumerate() {
            task.put(r, c, &four_of_16(sums)[..count]);
        }
        c += count;
    }
}

/// Asks for bytes that will be read soon: what is streamed once comes late otherwise.
#[inline]
#[target_feature(enable = "avx512f")]
fn ask_for(bytes: &[u8], from: usize, len: usize) {
    for at in (from..(from + len).min(bytes.len())).step_by(64) {
        // SAFETY: asking for memory ahead of time reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(at).cast()) };
    }
}

/// Widens the scales of a line's blocks: d, and m where there is one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen<P: Packed>(line: &[u8], at: usize, scales: &mut [[[f32; 2]; SIDE]]) {
    let counted = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_mullo_epi32(counted, _mm512_set1_epi32(P::BYTES as i32));
    let blocks = line.len() / P::BYTES;
    for (step, scales) in scales.chunks_exact_mut(16).enumerate() {
        let left = blocks - 16 * step;
        let mask = if left >= 16 { u16::MAX } else { (1 << left) - 1 };
        let from = line[16 * step * P::BYTES..].as_ptr();
        let zero = _mm512_setzero_si512();
        // SAFETY: the mask takes 4 bytes of blocks that there are, each longer than that.
        let words = unsafe { _mm512_mask_i32gather_epi32::<1>(zero, mask, places, from.cast()) };
        let of = |words| -> [f32; 16] {
            let wide = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            // SAFETY: both are sixteen numbers.
            unsafe { std::mem::transmute(wide) }
        };
        let (d, m) = (of(words), of(_mm512_srli_epi32::<16>(words)));
        for (scales, (d, m)) in scales.iter_mut().zip(d.into_iter().zip(m)) {
            scales[at] = [d, m];
        }
    }
}

/// Computes the lanes of the sums of R rows and four lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn tile<P: Packed, const R: usize>(
    x: &[f32],
    lines: [&[u8]; SIDE],
    scales: &[[[f32; 2]; SIDE]],
) -> [[__m512; SIDE]; R] {
    let mut sums = [[_mm512_setzero_ps(); SIDE]; R];
    let k = scales.len() * BLOCK;
    assert!(x.len() >= R * k && lines.iter().all(|line| line.len() >= scales.len() * P::BYTES));
    for (b, scales) in scales.iter().enumerate() {
        let mut xs = [[_mm512_setzero_ps(); 2]; R];
        for (r, xs) in xs.iter_mut().enumerate() {
            let from = x[r * k + b * BLOCK..].as_ptr();
            // SAFETY: a row has k numbers, and the block lies among them.
            *xs = unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] };
        }
        for (c, (line, [d, m])) in lines.iter().zip(scales).enumerate() {
            // SAFETY: a line has as many blocks, as was asserted.
            let [low, high] = unsafe { P::unpack(line.as_ptr().add(b * P::BYTES), *d, *m) };
            for (sums, xs) in sums.iter_mut().zip(xs) {
                sums[c] = _mm512_fmadd_ps(xs[0], low, sums[c]);
                sums[c] = _mm512_fmadd_ps(xs[1], high, sums[c]);
            }
        }
    }
    sums
}
