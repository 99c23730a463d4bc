//! Squares of 16 x 16 words, turned in the registers of AVX-512.

use std::arch::x86_64::*;

/// Turns a square of 16 x 16 words: line i of the result holds the i-th word of every line.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn turned(lines: [__m512i; 16]) -> [__m512i; 16] {
    // Squares of two, then of four within the quarters of the vectors, then the quarters.
    let (mut v, mut w) = (lines, lines);
    for i in 0..8 {
        w[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        w[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for i in 0..4 {
        let [a, b, c, d] = [w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]];
        v[4 * i] = _mm512_unpacklo_epi64(a, c);
        v[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        v[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        v[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for i in 0..4 {
        // v[4 r + i] holds column 4 q + i of rows 4 r to 4 r + 3 in its q-th quarter.
        let [a, b, c, d] = [v[i], v[4 + i], v[8 + i], v[12 + i]];
        w[i] = _mm512_shuffle_i32x4::<0x88>(a, b);
        w[4 + i] = _mm512_shuffle_i32x4::<0xdd>(a, b);
        w[8 + i] = _mm512_shuffle_i32x4::<0x88>(c, d);
        w[12 + i] = _mm512_shuffle_i32x4::<0xdd>(c, d);
    }
    for i in 0..4 {
        let [a, b, c, d] = [w[i], w[4 + i], w[8 + i], w[12 + i]];
        v[i] = _mm512_shuffle_i32x4::<0x88>(a, c);
        v[4 + i] = _mm512_shuffle_i32x4::<0x88>(b, d);
        v[8 + i] = _mm512_shuffle_i32x4::<0xdd>(a, c);
        v[12 + i] = _mm512_shuffle_i32x4::<0xdd>(b, d);
    }
    v
}

/// Turns up to 16 lines of up to 16 numbers, and writes as many lines as the longest has numbers,
/// each of `lanes` numbers and `stride` apart. What is missing is zero.
///
/// # Panics
/// When they do not fit: a fault of the caller.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn turn(lines: [&[f32]; 16], to: &mut [f32], (lanes, stride): (usize, usize)) {
    let mut read = [_mm512_setzero_si512(); 16];
    let mut longest = 0;
    for (read, line) in read.iter_mut().zip(lines) {
        let mask = if line.len() >= 16 { u16::MAX } else { (1_u16 << line.len()) - 1 };
        // SAFETY: the mask takes no more numbers than the slice has.
        *read = _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(mask, line.as_ptr()) });
        longest = longest.max(line.len().min(16));
    }
    let mask = if lanes >= 16 { u16::MAX } else { (1_u16 << lanes) - 1 };
    let lanes = lanes.min(16);
    assert!(longest == 0 || (longest - 1) * stride + lanes <= to.len(), "lines fit");
    for (i, line) in turned(read).into_iter().enumerate().take(longest) {
        // SAFETY: the mask writes `lanes` numbers, which fit, as was asserted.
        unsafe {
            let to = to.as_mut_ptr().add(i * stride);
            _mm512_mask_storeu_ps(to, mask, _mm512_castsi512_ps(line));
        }
    }
}

/// Asks for what will be read soon: lines that lie too far apart for the processor to guess.
#[inline(always)]
pub(super) fn ask_for(ahead: &[f32]) {
    let at = ahead.as_ptr().cast::<i8>();
    // SAFETY: asking for memory ahead of time reads nothing.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at);
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(64));
    }
}

/// Copies a few numbers, with zeros behind them: a call for each would cost more than the copy.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    let mask = |left: usize| if left >= 16 { u16::MAX } else { (1_u16 << left) - 1 };
    for at in (0..to.len()).step_by(16) {
        let (there, room) = (from.len().saturating_sub(at), to.len() - at);
        // SAFETY: the masks take no more numbers than the slices have.
        unsafe {
            let read = _mm512_maskz_loadu_ps(mask(there), from.as_ptr().wrapping_add(at));
            _mm512_mask_storeu_ps(to.as_mut_ptr().add(at), mask(room), read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_columns_whatever_their_length() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        for (count, len, lanes) in [(16, 16, 16), (14, 16, 14), (16, 5, 16), (3, 1, 14), (0, 0, 16)]
        {
            let numbers: Vec<f32> = (0..count * len).map(|v| v as f32 + 1.0).collect();
            let mut lines: [&[f32]; 16] = [&[]; 16];
            for (i, line) in lines.iter_mut().enumerate().take(count) {
                *line = &numbers[i * len..(i + 1) * len];
            }
            let stride = 20;
            let mut to = vec![-1.0; 16 * stride];
            // SAFETY: the machine has the instructions.
            unsafe { turn(lines, &mut to, (lanes, stride)) };
            for (i, line) in to.chunks_exact(stride).enumerate() {
                for (j, v) in line.iter().enumerate() {
                    let want = match (i < len && count > 0, j < count, j < lanes) {
                        (true, true, true) => numbers[j * len + i],
                        (true, false, true) => 0.0,
                        _ => -1.0,
                    };
                    assert_eq!(*v, want, "{count} {len} {lanes} at {i}, {j}");
                }
            }
        }
    }
}
