//! Differentiable operations with hand-written backward passes.
//!
//! Each is a candle custom op on contiguous f32 CPU tensors. Frozen weights live in the op, get no
//! gradient and are shared; the backward pass recomputes what it needs instead of storing it.
//! `twin` composes the same operations from stock candle ops: their reference in tests.

mod attention;
mod block;
mod cross_entropy;
mod lora_linear;
mod rms_norm;
#[cfg(test)]
mod tests;
pub mod twin;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

pub use attention::Rope;
pub use block::{Block, Keep, Kept, Slot, Slots};
pub use cross_entropy::CrossEntropy;
pub use lora_linear::Dropout;
pub use rms_norm::RmsNorm;

/// Frozen numbers, shared by all that read them.
pub type Frozen = std::sync::Arc<[f32]>;

/// Borrows the elements of a contiguous f32 CPU storage.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        (CpuStorage::F32(_), None) => bail!("an operation got a tensor that is not contiguous"),
        _ => bail!("an operation got a tensor that is not f32"),
    }
}

/// Runs `f` on the elements of a contiguous f32 CPU tensor.
fn with_elements<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(elements(storage, layout)?)),
        _ => bail!("an operation got a tensor that is not on the CPU"),
    }
}
