//! SwiGLU: y = silu(gate) * up (Shazeer, 2020).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::kernels::{sigmoid, swiglu_row};

/// Elements that one task takes.
const CHUNK: usize = 16_384;

/// SwiGLU. Shapes: gate and up [tokens, width] -> [tokens, width].
pub struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (elements(gate, gate_layout)?, elements(up, up_layout)?);
        let mut out = vec![0.0; gate.len()];
        let parts = out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK));
        parts.zip(up.par_chunks(CHUNK)).for_each(|((out, gate), up)| swiglu_row(gate, up, out));
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    /// With s = sigmoid(g): dup = dy * g * s and dgate = dy * up * s * (1 + g * (1 - s)).
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut dgate = vec![0.0_f32; gate.elem_count()];
        let mut dup = vec![0.0_f32; gate.elem_count()];
        with_elements(gate, |gate| {
            with_elements(up, |up| {
                with_elements(&grad, |dy| {
                    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK));
                    let outputs = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK));
                    let parts = inputs.zip(dy.par_chunks(CHUNK)).zip(outputs);
                    parts.for_each(|(((g, u), dy), (dg, du))| backward(g, u, dy, dg, du));
                })
            })
        })???;
        let shape = gate.shape();
        let dgate = Tensor::from_vec(dgate, shape, gate.device())?;
        let dup = Tensor::from_vec(dup, shape, gate.device())?;
        Ok((Some(dgate), Some(dup)))
    }
}

fn backward(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let inputs = gate.iter().zip(up).zip(dy);
    for (((g, u), dy), (dg, du)) in inputs.zip(dgate.iter_mut().zip(dup)) {
        let s = sigmoid(*g);
        *du = dy * g * s;
        *dg = dy * u * s * (1.0 + g * (1.0 - s));
    }
}
