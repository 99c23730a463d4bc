//! Blocks of 32 numbers, unpacked into two registers of AVX-512.
//!
//! A block of four bits has sixteen numbers that it can hold: they are made once, and a permutation
//! looks each up. The numbers are those of `blocks`, to the bit.

use std::arch::x86_64::*;

use super::Format;

/// Numbers of a block.
pub(in crate::kernels) const BLOCK: usize = 32;

/// How 32 numbers are packed.
pub(in crate::kernels) trait Packed {
    /// Bytes of 32 numbers.
    const BYTES: usize;
    /// Bytes of scales at their beginning.
    const SCALES: usize;

    /// Unpacks 32 numbers.
    ///
    /// # Safety
    /// The machine has AVX-512, and `block` can be read.
    unsafe fn unpack(block: *const u8, d: f32, m: f32) -> [__m512; 2];
}

pub(in crate::kernels) struct Q4_0;
pub(in crate::kernels) struct Q4_1;
pub(in crate::kernels) struct Q8_0;
pub(in crate::kernels) struct Bf16;
pub(in crate::kernels) struct F16;

/// Sixteen numbers by four bits each, low halves of bytes first.
///
/// # Safety
/// 16 bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn looked_up(numbers: __m512, quants: *const u8) -> [__m512; 2] {
    // SAFETY: the caller promises it.
    let bytes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(quants.cast()) });
    // Only the lowest four bits of each place are looked at.
    [
        _mm512_permutexvar_ps(bytes, numbers),
        _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), numbers),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn counted(from: f32) -> __m512 {
    let from_0 =
        _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
    _mm512_add_ps(from_0, _mm512_set1_ps(from))
}

impl Packed for Q4_0 {
    const BYTES: usize = 18;
    const SCALES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(block: *const u8, d: f32, _: f32) -> [__m512; 2] {
        let numbers = _mm512_mul_ps(_mm512_set1_ps(d), counted(-8.0));
        // SAFETY: quants follow the scale.
        unsafe { looked_up(numbers, block.add(2)) }
    }
}

impl Packed for Q4_1 {
    const BYTES: usize = 20;
    const SCALES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(block: *const u8, d: f32, m: f32) -> [__m512; 2] {
        let numbers = _mm512_mul_ps(_mm512_set1_ps(d), counted(0.0));
        let numbers = _mm512_add_ps(numbers, _mm512_set1_ps(m));
        // SAFETY: quants follow the scales.
        unsafe { looked_up(numbers, block.add(4)) }
    }
}

impl Packed for Q8_0 {
    const BYTES: usize = 34;
    const SCALES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(block: *const u8, d: f32, _: f32) -> [__m512; 2] {
        let d = _mm512_set1_ps(d);
        // SAFETY: 32 quants follow the scale.
        let (low, high) = unsafe {
            (_mm_loadu_si128(block.add(2).cast()), _mm_loadu_si128(block.add(18).cast()))
        };
        [
            _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low))),
            _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high))),
        ]
    }
}

impl Packed for Bf16 {
    const BYTES: usize = 64;
    const SCALES: usize = 0;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(block: *const u8, _: f32, _: f32) -> [__m512; 2] {
        // SAFETY: there are 64 bytes.
        let halves =
            unsafe { [_mm256_loadu_si256(block.cast()), _mm256_loadu_si256(block.add(32).cast())] };
        halves.map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))))
    }
}

impl Packed for F16 {
    const BYTES: usize = 64;
    const SCALES: usize = 0;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(block: *const u8, _: f32, _: f32) -> [__m512; 2] {
        // SAFETY: there are 64 bytes.
        let halves =
            unsafe { [_mm256_loadu_si256(block.cast()), _mm256_loadu_si256(block.add(32).cast())] };
        halves.map(|half| _mm512_cvtph_ps(half))
    }
}

/// Unpacks numbers of a line from the `from`th on, if they are packed in a known way and begin and
/// end with blocks; says whether it did.
///
/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,f16c")]
pub(super) fn unpack(format: Format, line: &[u8], from: usize, out: &mut [f32]) -> bool {
    if !from.is_multiple_of(BLOCK) || !out.len().is_multiple_of(BLOCK) {
        return false;
    }
    match format {
        Format::Q4_0 => each::<Q4_0>(line, from, out),
        Format::Q4_1 => each::<Q4_1>(line, from, out),
        Format::Q8_0 => each::<Q8_0>(line, from, out),
        Format::Bf16 => each::<Bf16>(line, from, out),
        Format::F16 => each::<F16>(line, from, out),
        _ => return false,
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn each<P: Packed>(line: &[u8], from: usize, out: &mut [f32]) {
    let blocks = line[from / BLOCK * P::BYTES..].chunks_exact(P::BYTES);
    for (block, out) in blocks.zip(out.as_chunks_mut::<BLOCK>().0) {
        let word = u32::from_le_bytes(*block.first_chunk().unwrap_or(&[0; 4]));
        let halves = _mm_cvtph_ps(_mm_cvtsi32_si128(word.cast_signed()));
        let (d, m) = (_mm_cvtss_f32(halves), _mm_cvtss_f32(_mm_movehdup_ps(halves)));
        // SAFETY: the block and the output are as long as is read and written.
        unsafe {
            let [low, high] = P::unpack(block.as_ptr(), d, m);
            _mm512_storeu_ps(out.as_mut_ptr(), low);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), high);
        }
    }
}
