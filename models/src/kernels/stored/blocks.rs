//! Blocks of ggml's quantised formats, unpacked 32 numbers at a time.
//!
//! Formats: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h> (layouts) and
//! `ggml-quants.c` there (what the numbers mean). A block has one f16 scale `d`, or also a least
//! value `m`, for 32 numbers; blocks of 256 ("K") have finer scales for each 16 or 32 of them.

use super::Format;
use crate::kernels::Isa;

/// Numbers that are unpacked together.
const STEP: usize = 32;

/// Reads numbers of a line of blocks, from the `from`th on.
pub(super) fn unpack(isa: Isa, format: Format, line: &[u8], from: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    match isa.exact() {
        // SAFETY: paths are asked for only where the machine has them (`Isa::is_here`).
        Isa::Avx512 => return unsafe { avx512(format, line, from, out) },
        // SAFETY: as above.
        Isa::Avx2 => return unsafe { avx2(format, line, from, out) },
        _ => {}
    }
    let _ = isa;
    numbers(format, line, from, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn avx512(format: Format, line: &[u8], from: usize, out: &mut [f32]) {
    if super::registers::unpack(format, line, from, out) {
        return;
    }
    numbers(format, line, from, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(format: Format, line: &[u8], from: usize, out: &mut [f32]) {
    numbers(format, line, from, out);
}

#[inline(always)]
fn numbers(format: Format, line: &[u8], from: usize, out: &mut [f32]) {
    match format {
        Format::F32 => words(line, from, out, f32::from_le_bytes),
        Format::F16 => words(line, from, out, f16),
        Format::Bf16 => {
            words(line, from, out, |word| f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16))
        }
        Format::Q4_0 => steps::<18>(line, from, out, |block, _, out| {
            let (d, quants) = (scale(block, 0), bytes::<16>(block, 2));
            nibbles(quants, out, |q| d * (f32::from(q) - 8.0));
        }),
        Format::Q4_1 => steps::<20>(line, from, out, |block, _, out| {
            let (d, m, quants) = (scale(block, 0), scale(block, 2), bytes::<16>(block, 4));
            nibbles(quants, out, |q| d * f32::from(q) + m);
        }),
        Format::Q5_0 => steps::<22>(line, from, out, |block, _, out| {
            let (d, high) = (scale(block, 0), u32::from_le_bytes(*bytes::<4>(block, 2)));
            fives(bytes::<16>(block, 6), high, out, |q| d * (f32::from(q) - 16.0));
        }),
        Format::Q5_1 => steps::<24>(line, from, out, |block, _, out| {
            let (d, m) = (scale(block, 0), scale(block, 2));
            let high = u32::from_le_bytes(*bytes::<4>(block, 4));
            fives(bytes::<16>(block, 8), high, out, |q| d * f32::from(q) + m);
        }),
        Format::Q8_0 => steps::<34>(line, from, out, |block, _, out| {
            let (d, quants) = (scale(block, 0), bytes::<32>(block, 2));
            out.iter_mut().zip(quants).for_each(|(out, q)| *out = d * f32::from(q.cast_signed()));
        }),
        Format::Q2K => steps::<84>(line, from, out, q2_k),
        Format::Q3K => steps::<110>(line, from, out, q3_k),
        Format::Q4K => steps::<144>(line, from, out, q4_k),
        Format::Q5K => steps::<176>(line, from, out, q5_k),
        Format::Q6K => steps::<210>(line, from, out, q6_k),
    }
}

/// Reads words of `N` bytes.
#[inline(always)]
fn words<const N: usize>(line: &[u8], from: usize, out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    let words = line.as_chunks::<N>().0[from..].iter();
    out.iter_mut().zip(words).for_each(|(out, word)| *out = read(*word));
}

/// Reads blocks of `BYTES` bytes, 32 numbers at a time; `read` is given the block and which 32 of
/// its numbers are wanted.
#[inline(always)]
fn steps<const BYTES: usize>(
    line: &[u8],
    from: usize,
    out: &mut [f32],
    read: impl Fn(&[u8; BYTES], usize, &mut [f32; STEP]),
) {
    let blocks = line.as_chunks::<BYTES>().0;
    // Those of 32 numbers have fewer bytes than any of 256.
    let parts = if BYTES < 64 { 1 } else { 8 };
    let one = |step: usize, out: &mut [f32; STEP]| {
        if let Some(block) = blocks.get(step / parts) {
            read(block, step % parts, out);
        }
    };
    if from.is_multiple_of(STEP) {
        let (whole, rest) = out.as_chunks_mut::<STEP>();
        let first = from / STEP;
        whole.iter_mut().enumerate().for_each(|(i, out)| one(first + i, out));
        if !rest.is_empty() {
            let mut last = [0.0; STEP];
            one(first + whole.len(), &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
        }
        return;
    }
    let mut done = 0;
    while done < out.len() {
        let mut made = [0.0; STEP];
        let at = from + done;
        one(at / STEP, &mut made);
        let made = &made[at % STEP..];
        let len = made.len().min(out.len() - done);
        out[done..done + len].copy_from_slice(&made[..len]);
        done += len;
    }
}

#[inline(always)]
fn bytes<const N: usize>(block: &[u8], from: usize) -> &[u8; N] {
    const { assert!(N > 0) };
    // Offsets are constants inside the block, so that nothing is left of this check.
    block[from..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    f16(*bytes::<2>(block, at))
}

/// Widens an f16: its exponent is moved to where f32 has it, by a product that is exact. Of what is
/// no number the bits are widened.
#[inline(always)]
fn f16(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, rest) = ((bits & 0x8000) << 16, bits & 0x7fff);
    let finite = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
    let infinite = f32::from_bits(0x7f80_0000 | (rest & 0x3ff) << 13);
    let value = if rest >= 0x7c00 { infinite } else { finite };
    f32::from_bits(value.to_bits() | sign)
}

/// The low halves of bytes come first, then the high ones.
#[inline(always)]
fn nibbles(quants: &[u8; 16], out: &mut [f32; STEP], number: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    low.iter_mut().zip(quants).for_each(|(out, q)| *out = number(q & 15));
    high.iter_mut().zip(quants).for_each(|(out, q)| *out = number(q >> 4));
}

/// The same with a fifth bit, of which `high` has one for each number.
#[inline(always)]
fn fives(quants: &[u8; 16], high: u32, out: &mut [f32; STEP], number: impl Fn(u8) -> f32) {
    let bit = |i: usize| ((high >> i & 1) as u8) << 4;
    let (low, upper) = out.split_at_mut(16);
    low.iter_mut().zip(quants).enumerate().for_each(|(i, (out, q))| {
        *out = number(q & 15 | bit(i));
    });
    upper.iter_mut().zip(quants).enumerate().for_each(|(i, (out, q))| {
        *out = number(q >> 4 | bit(i + 16));
    });
}

/// Two bits each; a byte of scales for each 16 numbers: factor below, least value above.
#[inline(always)]
fn q2_k(block: &[u8; 84], step: usize, out: &mut [f32; STEP]) {
    let (d, least) = (scale(block, 80), scale(block, 82));
    let quants = &block[16 + step / 4 * 32..][..32];
    let shift = step % 4 * 2;
    for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let fine = block[2 * step + half];
        let (d, m) = (d * f32::from(fine & 15), least * f32::from(fine >> 4));
        let quants = &quants[half * 16..];
        out.iter_mut().zip(quants).for_each(|(out, q)| *out = d * f32::from(q >> shift & 3) - m);
    }
}

/// Three bits each, the third in `mask`; six bits of scale for each 16 numbers.
#[inline(always)]
fn q3_k(block: &[u8; 110], step: usize, out: &mut [f32; STEP]) {
    let d = scale(block, 108);
    let (mask, fine) = (bytes::<32>(block, 0), bytes::<12>(block, 96));
    let quants = &block[32 + step / 4 * 32..][..32];
    let shift = step % 4 * 2;
    for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let i = 2 * step + half;
        let low = if i < 8 { fine[i] & 15 } else { fine[i - 8] >> 4 };
        let high = fine[8 + i % 4] >> (2 * (i / 4)) & 3;
        let d = d * (f32::from(low | high << 4) - 32.0);
        let numbers = quants[half * 16..].iter().zip(&mask[half * 16..]);
        out.iter_mut().zip(numbers).for_each(|(out, (q, mask))| {
            let third = mask >> step & 1;
            *out = d * (f32::from(q >> shift & 3 | third << 2) - 4.0);
        });
    }
}

/// Six bits of factor and of least value for each 32 numbers (`get_scale_min_k4`).
#[inline(always)]
fn fine_scale(fine: &[u8; 12], i: usize) -> (f32, f32) {
    let (factor, least) = if i < 4 {
        (fine[i] & 63, fine[i + 4] & 63)
    } else {
        (fine[i + 4] & 15 | fine[i - 4] >> 6 << 4, fine[i + 4] >> 4 | fine[i] >> 6 << 4)
    };
    (f32::from(factor), f32::from(least))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], step: usize, out: &mut [f32; STEP]) {
    let (factor, least) = fine_scale(bytes::<12>(block, 4), step);
    let (d, m) = (scale(block, 0) * factor, scale(block, 2) * least);
    let quants = &block[16 + step / 2 * 32..][..32];
    let shift = step % 2 * 4;
    out.iter_mut().zip(quants).for_each(|(out, q)| *out = d * f32::from(q >> shift & 15) - m);
}

#[inline(always)]
fn q5_k(block: &[u8; 176], step: usize, out: &mut [f32; STEP]) {
    let (factor, least) = fine_scale(bytes::<12>(block, 4), step);
    let (d, m) = (scale(block, 0) * factor, scale(block, 2) * least);
    let quants = &block[48 + step / 2 * 32..][..32];
    let shift = step % 2 * 4;
    let high = bytes::<32>(block, 16);
    out.iter_mut().zip(quants.iter().zip(high)).for_each(|(out, (q, high))| {
        let q = q >> shift & 15 | (high >> step & 1) << 4;
        *out = d * f32::from(q) - m;
    });
}

/// Six bits each, two of them apart; a signed byte of scale for each 16 numbers.
#[inline(always)]
fn q6_k(block: &[u8; 210], step: usize, out: &mut [f32; STEP]) {
    let d = scale(block, 208);
    let (half, part) = (step / 4, step % 4);
    let low = &block[half * 64 + part % 2 * 32..][..32];
    let high = &block[128 + half * 32..][..32];
    let (shift_low, shift_high) = (part / 2 * 4, part * 2);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let d = d * f32::from(block[192 + step * 2 + i].cast_signed());
        let numbers = low[i * 16..].iter().zip(&high[i * 16..]);
        out.iter_mut().zip(numbers).for_each(|(out, (low, high))| {
            let q = low >> shift_low & 15 | (high >> shift_high & 3) << 4;
            *out = d * (f32::from(q) - 32.0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
            assert!(got == want || got.is_nan() && want.is_nan(), "{bits:#x}: {got} {want}");
            assert_eq!(got.is_sign_negative(), want.is_sign_negative());
        }
    }
}
