//! RMS norm: y = x * w / sqrt(mean(x^2) + eps), row by row (Zhang and Sennrich, 2019).

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Frozen, elements, with_elements};
use crate::kernels::{rms_norm_back_row, rms_norm_row};

/// RMS norm with frozen weight. Shapes: x [tokens, width] -> [tokens, width].
pub struct RmsNorm {
    /// Weight, [width].
    pub weight: Frozen,
    /// Added to the mean square.
    pub eps: f32,
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(storage, layout)?;
        let width = self.weight.len();
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(out, x)| {
            rms_norm_row(x, &self.weight, self.eps, out);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let width = self.weight.len();
        let mut dx = vec![0.0_f32; x.elem_count()];
        with_elements(x, |x| {
            with_elements(&grad, |dy| {
                let rows = dx.par_chunks_mut(width).zip(x.par_chunks(width));
                rows.zip(dy.par_chunks(width)).for_each(|((dx, x), dy)| {
                    rms_norm_back_row(x, &self.weight, dy, self.eps, dx);
                });
            })
        })??;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
