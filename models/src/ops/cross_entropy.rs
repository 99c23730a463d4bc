//! Cross-entropy over supervised tokens only, in chunks, so that the logits of a batch never
//! stand in memory at once.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Frozen, elements, with_elements};
use crate::kernels::{Mat, MatMut, Threads, exp, matmul};

/// Supervised tokens whose logits are held at once.
const CHUNK: usize = 64;

/// Sum of -ln p(target) over the targets. Shapes: hidden [tokens, width] -> [1].
pub struct CrossEntropy {
    /// Output embedding, [vocabulary, width].
    pub head: Frozen,
    /// Width of the hidden states.
    pub width: usize,
    /// (token whose hidden state predicts, id that it should predict).
    pub targets: Arc<[(usize, u32)]>,
}

impl CrossEntropy {
    fn vocabulary(&self) -> usize {
        self.head.len() / self.width
    }

    fn gather(&self, hidden: &[f32], targets: &[(usize, u32)]) -> Vec<f32> {
        let row = |(at, _): &(usize, u32)| hidden[at * self.width..(at + 1) * self.width].to_vec();
        targets.iter().flat_map(row).collect()
    }

    fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let vocabulary = self.vocabulary();
        let mut logits = vec![0.0; rows.len() / self.width * vocabulary];
        let product = (Mat::new(rows, self.width), Mat::new(&self.head, self.width).t());
        matmul(MatMut::new(&mut logits, vocabulary), false, 1.0, product, Threads::All);
        logits
    }

    /// Returns the losses of `targets` (nats), in order.
    pub fn losses(&self, hidden: &[f32]) -> Vec<f64> {
        let mut losses = Vec::with_capacity(self.targets.len());
        for targets in self.targets.chunks(CHUNK) {
            let logits = self.logits(&self.gather(hidden, targets));
            let rows = logits.par_chunks(self.vocabulary()).zip(targets);
            losses.par_extend(rows.map(|(row, (_, id))| {
                let (top, sum) = log_sum(row);
                f64::from(top) + f64::from(sum).ln() - f64::from(row[*id as usize])
            }));
        }
        losses
    }

    /// dlogits = (softmax - onehot) * upstream; dhidden = dlogits E.
    fn backward(&self, hidden: &[f32], upstream: f32) -> Vec<f32> {
        let vocabulary = self.vocabulary();
        let mut dhidden = vec![0.0; hidden.len()];
        for targets in self.targets.chunks(CHUNK) {
            let mut logits = self.logits(&self.gather(hidden, targets));
            logits.par_chunks_mut(vocabulary).zip(targets).for_each(|(row, (_, id))| {
                let (top, sum) = log_sum(row);
                let scale = upstream / sum;
                for v in row.iter_mut() {
                    *v = exp(*v - top) * scale;
                }
                row[*id as usize] -= upstream;
            });
            let mut part = vec![0.0; targets.len() * self.width];
            let product = (Mat::new(&logits, vocabulary), Mat::new(&self.head, self.width));
            matmul(MatMut::new(&mut part, self.width), false, 1.0, product, Threads::All);
            for (row, (at, _)) in part.chunks_exact(self.width).zip(targets) {
                let to = &mut dhidden[at * self.width..(at + 1) * self.width];
                to.iter_mut().zip(row).for_each(|(to, from)| *to += from);
            }
        }
        dhidden
    }
}

/// Returns the greatest value and the sum of e^(value - greatest), in sixteen running sums.
fn log_sum(row: &[f32]) -> (f32, f32) {
    let top = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let mut lanes = [0.0_f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += exp(v - top);
        }
    }
    let rest: f32 = rest.iter().map(|v| exp(v - top)).sum();
    (top, lanes.iter().sum::<f32>() + rest)
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sum: f64 = self.losses(elements(storage, layout)?).iter().sum();
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(1)))
    }

    fn bwd(&self, hidden: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let upstream = grad.contiguous()?.to_vec1::<f32>()?;
        let upstream = upstream.first().copied().unwrap_or(0.0);
        let dhidden = with_elements(hidden, |hidden| self.backward(hidden, upstream))?;
        Ok(Some(Tensor::from_vec(dhidden, hidden.shape(), hidden.device())?))
    }
}
