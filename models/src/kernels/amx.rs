//! Products on the tiles of AMX: factors rounded to bf16, sums in f32.
//!
//! A tile holds 16 lines of 64 bytes (Intel's Software Developer's Manual, volume 1, chapter 18).
//! `tdpbf16ps c, a, b` adds to c [16, 16] in f32 the product of a [16, 32] in bf16 and b [32, 16],
//! of which a line holds the pairs of two rows: b[2p][j], b[2p + 1][j]. Both factors are copied
//! into such tiles of 1 KiB, one for each 32 numbers that are summed over; the output is computed
//! in squares of 32 x 32, so that each tile that is loaded is used twice.
//!
//! Numbers that are no longer normal are taken for zero, and so are such results (ibid.).

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::sync::OnceLock;
use std::thread::LocalKey;

use rayon::prelude::*;

use super::product::{Lent, Part, parts_of};
use super::turn::turned;
use super::{Isa, Mat, Threads, spacious};

/// Rows or columns of a tile of numbers, and numbers that one tile is summed over.
const SIDE: usize = 16;
const DEPTH: usize = 32;
/// Tiles that a square is summed over in one pass: its columns of `b` stay in the second-level
/// cache.
const PASS: usize = 18;

/// A line of a tile.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u16; DEPTH]);

/// A tile as it lies in memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([Line; SIDE]);

const EMPTY: Tile = Tile([Line([0; DEPTH]); SIDE]);

/// Says whether the processor has tiles of bf16 and the system lets this process use them.
pub(super) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        let has_vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        has_vectors && has_tiles() && may_use_tiles()
    })
}

fn has_tiles() -> bool {
    /// Bits of leaf 7, EDX: bf16 and tiles.
    const TILES: u32 = 1 << 22 | 1 << 24;
    /// Leaf 1, ECX: the system has set up which registers it keeps.
    const OSXSAVE: u32 = 1 << 27;
    __cpuid(0).eax >= 7 && __cpuid(1).ecx & OSXSAVE != 0 && __cpuid_count(7, 0).edx & TILES == TILES
}

/// Asks Linux for the tiles, which it gives to those that ask (`arch_prctl`).
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes nothing but this process's permission; the kernel overwrites the
    // registers named here and no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

thread_local! {
    /// The columns of `b` that this thread is at: [tile of the sum][left, right].
    static COLUMNS: Cell<Vec<[Tile; 2]>> = const { Cell::new(Vec::new()) };
    /// Numbers of `b` that this thread has unpacked.
    static UNPACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The rows of `a` of the product that this thread has begun.
    static ROWS: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
}

/// Lends this thread's memory of a kind: made once, and used for one product after another. What
/// stands in it is of no meaning.
fn lent<T: Copy, R>(
    kept: &'static LocalKey<Cell<Vec<T>>>,
    (len, empty): (usize, T),
    work: impl FnOnce(&mut [T]) -> R,
) -> R {
    // Work that waits for others may begin another product on this thread, with other memory.
    let mut memory = kept.take();
    if memory.len() < len {
        memory = spacious(len, empty);
    }
    let made = work(&mut memory[..len]);
    kept.set(memory);
    made
}

/// Computes products whose shapes were checked, on a machine that has tiles.
pub(super) fn run(threads: Threads, a: Mat<'_>, terms: &[Lent<'_>]) {
    let depth = a.cols().div_ceil(DEPTH);
    let tiles = a.rows().div_ceil(2 * SIDE) * 2 * depth;
    lent(&ROWS, (tiles, EMPTY), |packed| {
        pack_a(threads, a, packed);
        let packed: &[Tile] = packed;
        let task = |part: Part| {
            lent(&COLUMNS, (PASS.min(depth), [EMPTY; 2]), |of_b| {
                let mut unpacked = UNPACKED.take();
                // SAFETY: `is_here` holds for whoever asks for this path.
                unsafe { columns(terms[part.term], packed, part, (of_b, &mut unpacked)) };
                UNPACKED.set(unpacked);
            });
        };
        let parts = parts_of(terms, threads, (2 * SIDE, 2 * SIDE));
        match threads {
            Threads::One => parts.into_iter().for_each(task),
            Threads::All => parts.into_par_iter().for_each(task),
        }
    });
}

/// Copies `a` into tiles: [block of 16 rows][tile of the sum], an even number of blocks.
fn pack_a(threads: Threads, a: Mat<'_>, packed: &mut [Tile]) {
    let depth = a.cols().div_ceil(DEPTH);
    let fill = |(block, tiles): (usize, &mut [Tile])| {
        // SAFETY: `is_here` holds for whoever asks for this path.
        unsafe { pack_block(a, block * SIDE, tiles) };
    };
    let size = depth.max(1);
    match threads {
        Threads::One => packed.chunks_exact_mut(size).enumerate().for_each(fill),
        Threads::All => packed.par_chunks_exact_mut(size).enumerate().for_each(fill),
    }
}

/// Copies 16 rows of `a` into tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_block(a: Mat<'_>, row: usize, tiles: &mut [Tile]) {
    for (step, tile) in tiles.iter_mut().enumerate() {
        let from = step * DEPTH;
        if a.is_by_rows() {
            put(tile, lines(a, row, from));
        } else {
            put(tile, turned(pairs(a, from, row)));
        }
    }
}

/// Where the numbers of pairs stand when two vectors were rounded into one: the low half holds the
/// first of each pair, the high half the second.
const ORDER: [u16; DEPTH] = {
    let mut order = [0; DEPTH];
    let mut i = 0;
    while i < DEPTH {
        order[i] = (i / 2 + i % 2 * SIDE) as u16;
        i += 1;
    }
    order
};

/// The lines of a tile, in registers.
type Lines = [__m512i; SIDE];

#[inline]
#[target_feature(enable = "avx512f")]
fn put(tile: &mut Tile, lines: Lines) {
    for (to, line) in tile.0.iter_mut().zip(lines) {
        // SAFETY: a line is as long as the vector, and aligned as it must be.
        unsafe { _mm512_store_si512(to.0.as_mut_ptr().cast(), line) };
    }
}

/// Reads 16 lines, from `line` on, of 32 numbers each, from `from` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn lines(from: Mat<'_>, line: usize, at: usize) -> Lines {
    let mut read = [_mm512_setzero_si512(); SIDE];
    for (i, to) in read.iter_mut().enumerate() {
        let piece = from.piece(line + i, at, DEPTH);
        let (low, high) = piece.split_at(piece.len().min(SIDE));
        *to = rounded(vector(low), vector(high));
    }
    read
}

/// Reads 32 lines, from `line` on, of 16 numbers each, and pairs those of neighbours.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs(from: Mat<'_>, line: usize, at: usize) -> Lines {
    // SAFETY: the array is as long as the vector.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    let mut read = [_mm512_setzero_si512(); SIDE];
    for (i, to) in read.iter_mut().enumerate() {
        let first = vector(from.piece(line + 2 * i, at, SIDE));
        let second = vector(from.piece(line + 2 * i + 1, at, SIDE));
        *to = _mm512_permutexvar_epi16(order, rounded(first, second));
    }
    read
}

/// Loads up to 16 numbers, with zeros behind them.
#[inline]
#[target_feature(enable = "avx512f")]
fn vector(piece: &[f32]) -> __m512 {
    let mask = if piece.len() >= SIDE { u16::MAX } else { (1_u16 << piece.len()) - 1 };
    // SAFETY: the mask takes no more numbers than the slice has.
    unsafe { _mm512_maskz_loadu_ps(mask, piece.as_ptr()) }
}

/// Rounds 32 numbers to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Computes rows of 32 columns of the output.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn columns(
    term: Lent<'_>,
    a: &[Tile],
    part: Part,
    (of_b, unpacked): (&mut [[Tile; 2]], &mut Vec<f32>),
) {
    let depth = a.len() / (2 * term.out.rows.div_ceil(2 * SIDE));
    let first = part.panel * 2 * SIDE;
    configure();
    for from in (0..depth.max(1)).step_by(PASS) {
        let steps = PASS.min(depth - from);
        let rows = (from * DEPTH, steps * DEPTH);
        let (b, (row, col)) = term.b.window(Isa::Amx, rows, (first, 2 * SIDE), unpacked);
        for (step, tiles) in of_b[..steps].iter_mut().enumerate() {
            for (half, tile) in tiles.iter_mut().enumerate() {
                let (row, col) = (row + step * DEPTH, col + half * SIDE);
                if b.is_by_rows() {
                    put(tile, pairs(b, row, col));
                } else {
                    put(tile, turned(lines(b, col, row)));
                }
            }
        }
        let add = term.add || from > 0;
        for block in part.blocks.0..part.blocks.1 {
            let at = |half: usize| (2 * block + half) * depth + from;
            let of_a = [&a[at(0)..at(0) + steps], &a[at(1)..at(1) + steps]];
            square(Lent { add, ..term }, (block * 2 * SIDE, first), of_a, &of_b[..steps]);
        }
    }
    release();
}

/// Computes a square of the output from (row, col) on.
#[target_feature(enable = "avx512f")]
fn square(term: Lent<'_>, (row, col): (usize, usize), a: [&[Tile]; 2], b: &[[Tile; 2]]) {
    let out = term.out;
    let (height, width) = ((out.rows - row).min(2 * SIDE), (out.cols - col).min(2 * SIDE));
    if height == 2 * SIDE && width == 2 * SIDE && term.scale == 1.0 {
        // SAFETY: 32 rows of 32 numbers from here on lie inside the output, and no other panel has
        // these columns.
        unsafe { accumulate(term.add, a, b, out.at(row, col), out.stride) };
        return;
    }
    // As in a whole square, sums go on from what stands there, so that a number does not depend on
    // where it lies.
    let goes_on = term.add && term.scale == 1.0;
    // SAFETY: the rows and `width` columns from `col` on lie inside the output, and no other panel
    // has these columns.
    let line = |i: usize| unsafe { std::slice::from_raw_parts_mut(out.at(row + i, col), width) };
    let mut sums = [[0.0_f32; 2 * SIDE]; 2 * SIDE];
    if goes_on {
        for (i, sums) in sums.iter_mut().enumerate().take(height) {
            sums[..width].copy_from_slice(line(i));
        }
    }
    // SAFETY: the array holds 32 rows of 32 numbers.
    unsafe { accumulate(goes_on, a, b, sums.as_mut_ptr().cast(), 2 * SIDE) };
    for (i, sums) in sums.iter().enumerate().take(height) {
        let (to, scale) = (line(i), term.scale);
        if term.add && !goes_on {
            to.iter_mut().zip(sums).for_each(|(to, v)| *to += scale * v);
        } else {
            to.iter_mut().zip(sums).for_each(|(to, v)| *to = scale * v);
        }
    }
}

/// Sets the tiles of this thread up: eight, each of 16 lines of 64 bytes.
fn configure() {
    let mut set = Line([0; DEPTH]);
    // Byte 0 is the palette; lengths of lines stand from byte 16 on, numbers of lines from 48 on.
    set.0[0] = 1;
    set.0[8..16].fill(64);
    set.0[24..28].fill(SIDE as u16 * 0x101);
    // SAFETY: the processor has tiles and the system lets us use them, as whoever asked for this
    // path has seen; the operand is 64 bytes long.
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &set, options(nostack, readonly)) };
}

/// Gives the tiles back, so that the system need not keep them.
fn release() {
    // SAFETY: as in `configure`.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Computes a square: tiles 0 to 3 hold it, 4 and 5 what comes of `a`, 6 and 7 what comes of `b`.
///
/// # Safety
/// The tiles are set up, the slices are equally long, and `out` has 32 rows of 32 numbers, `stride`
/// apart, that nobody else uses.
#[inline]
unsafe fn accumulate(add: bool, a: [&[Tile]; 2], b: &[[Tile; 2]], out: *mut f32, stride: usize) {
    debug_assert!(a[0].len() == b.len() && a[1].len() == b.len());
    // SAFETY: the loop reads as many tiles as there are, of 1 KiB each; those of `b` lie in twos.
    // What it writes is promised by the caller.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            "tileloadd tmm0, [{out} + {stride}]",
            "tileloadd tmm1, [{out} + {stride} + 64]",
            "tileloadd tmm2, [{below} + {stride}]",
            "tileloadd tmm3, [{below} + {stride} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "test {steps}, {steps}",
            "jz 5f",
            "4:",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm4, [{a0} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 4b",
            "5:",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            "tilestored [{below} + {stride}], tmm2",
            "tilestored [{below} + {stride} + 64], tmm3",
            add = in(reg) u32::from(add),
            out = in(reg) out,
            below = in(reg) out.wrapping_add(SIDE * stride),
            stride = in(reg) stride * size_of::<f32>(),
            line = in(reg) size_of::<Line>(),
            a0 = inout(reg) a[0].as_ptr() => _,
            a1 = inout(reg) a[1].as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            steps = inout(reg) b.len() => _,
            options(nostack),
        );
    }
}
