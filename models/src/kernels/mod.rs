//! Products and row operations on f32 slices, with one dispatch at run time.
//!
//! The path is chosen from what the processor has. Paths differ in their last bits, so a run
//! records the one it took. On any path a result depends on its own row alone: not on how many
//! rows are computed beside it, and not on the number of threads.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod crew;
mod dots;
mod masked;
mod matrix;
mod memory;
mod narrow;
mod panels;
mod product;
mod rows;
mod stored;
#[cfg(target_arch = "x86_64")]
mod turn;

use std::sync::OnceLock;

pub use crew::{each, each_chunk, together};
pub use dots::{Dots, dots_all, matmul_nt};
pub use masked::{Mask, Seen, add_product, product_of_kept};
pub use matrix::{Mat, MatMut};
pub use memory::spacious;
pub use narrow::product_of_lines;
pub use product::{Factor, Product, Term, Threads, run_all};
pub use rows::{
    add_scaled, argmax, dot, exp, exp_row, max_row, page_scores, page_values, rms_norm_back_row,
    rms_norm_row, sigmoid, softmax_back_row, softmax_row, swiglu_back_row, swiglu_row,
};
pub use stored::{Format, Stored, side_by_side};

/// Counts changes of what paths compute: runs under another number end in other bits.
pub const ARITHMETIC: u64 = 3;

/// A path of the kernels: the instruction set that they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code: the reference for the others.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// Tiles for products in training, whose factors are rounded to bf16; 512-bit vectors
    /// otherwise.
    Amx,
}

impl Isa {
    /// All paths, the slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// Name under which a run records the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx-bf16",
        }
    }

    /// Finds a path by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Says whether this machine has the path.
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Scalar => true,
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::Amx => amx::is_here(),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Scalar;
    }

    /// Returns the path with the same vectors whose products round no factor.
    #[must_use]
    pub fn exact(self) -> Self {
        if self == Self::Amx { Self::Avx512 } else { self }
    }
}

/// Returns the fastest path that this machine has, looked for once.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let mut here = Isa::ALL.into_iter().rev().filter(|isa| isa.is_here());
        here.next().unwrap_or(Isa::Scalar)
    })
}

/// Returns the threads that products are shared among.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Sets how many threads products are shared among; works once, before the first product.
pub fn set_threads(threads: usize) -> bool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_ok()
}
