//! Products and row operations on f32 slices, with one dispatch at run time.
//!
//! The path is chosen from what the processor has. Paths differ in their last bits, so a run
//! records the one it took. On any path a result depends on its own row alone: not on how many
//! rows are computed beside it, and not on the number of threads.
#![allow(unsafe_code)]

mod dot;
mod gemm;
mod rows;

use std::sync::OnceLock;

pub use dot::matmul_nt;
pub use gemm::{Mat, MatMut, Threads, matmul};
pub use rows::{attend_head, dot, exp, rms_norm_row, sigmoid, softmax_row, swiglu_row};

/// Instruction set that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code: the reference for the others.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
}

impl Isa {
    /// Name under which a run records the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Returns the path taken in this process, chosen once.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(detect)
}

/// Returns the threads that products are shared among.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Sets how many threads products are shared among; works once, before the first product.
pub fn set_threads(threads: usize) -> bool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().is_ok()
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    if is_x86_feature_detected!("avx512f") {
        Isa::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Isa::Avx2
    } else {
        Isa::Scalar
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}
