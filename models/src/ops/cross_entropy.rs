//! Cross-entropy over supervised tokens only, block by block of the vocabulary, so that the logits
//! of a batch never stand in memory at once.
//!
//! Loss and gradient come of one pass: the sum over the vocabulary runs relative to the greatest
//! logit so far, and so does the gradient, which is scaled down when a greater one comes (as in
//! Milakov and Gimelshein, 2018). The gradient is kept for the backward pass, which multiplies it.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::kernels::{
    Factor, Isa, Mat, MatMut, Product, Stored, add_scaled, exp, exp_row, max_row,
};

/// Supervised tokens that are looked at together.
const TOKENS: usize = 1024;
/// Ids of the vocabulary whose logits are held at once.
const IDS: usize = 2048;

/// Sum of -ln p(target) over the targets. Shapes: hidden [tokens, width] -> [1].
pub struct CrossEntropy {
    head: Stored,
    targets: Arc<[(usize, u32)]>,
    isa: Isa,
    /// Gradient of the loss, [targets, width]; made in the forward pass where it will be needed.
    gradient: Option<OnceLock<Vec<f32>>>,
}

/// What a token's sum over the vocabulary has come to.
#[derive(Clone, Copy)]
struct Sum {
    /// Greatest logit so far.
    top: f32,
    /// Sum of e^(logit - top).
    sum: f32,
    /// Logit of the target.
    target: f32,
}

impl CrossEntropy {
    /// Makes the loss with an output embedding `head` [vocabulary, width] and
    /// (token whose hidden state predicts, id that it should predict).
    pub fn new(head: Stored, targets: Arc<[(usize, u32)]>, isa: Isa) -> Self {
        Self { head, targets, isa, gradient: None }
    }

    fn width(&self) -> usize {
        self.head.cols()
    }

    /// Makes the gradient together with the loss.
    #[must_use]
    pub fn with_gradient(self) -> Self {
        Self { gradient: Some(OnceLock::new()), ..self }
    }

    /// Returns the losses of the targets (nats), in order, and their gradients [targets, width]
    /// where these are wanted.
    fn losses(&self, hidden: &[f32]) -> (Vec<f64>, Vec<f32>) {
        let (mut losses, mut gradients) = (Vec::with_capacity(self.targets.len()), Vec::new());
        let width = self.width();
        for targets in self.targets.chunks(TOKENS) {
            let row = |(at, _): &(usize, u32)| &hidden[at * width..(at + 1) * width];
            let rows: Vec<f32> = targets.iter().flat_map(row).copied().collect();
            let mut gradient = vec![0.0; if self.gradient.is_some() { rows.len() } else { 0 }];
            let sums = self.sums(&rows, targets, &mut gradient);
            losses.extend(sums.iter().map(|Sum { top, sum, target }| {
                f64::from(*top) + f64::from(*sum).ln() - f64::from(*target)
            }));
            let mut of_target = vec![0.0; width];
            let rows = gradient.chunks_exact_mut(width).zip(&sums).zip(targets);
            for ((row, sum), (_, id)) in rows {
                let share = 1.0 / sum.sum;
                self.head.read(*id as usize, 0, &mut of_target);
                row.iter_mut().zip(&of_target).for_each(|(v, e)| *v = *v * share - e);
            }
            gradients.append(&mut gradient);
        }
        (losses, gradients)
    }

    /// Sums over the vocabulary, and e^(logit - top) E into `gradient` where it has room.
    fn sums(&self, rows: &[f32], targets: &[(usize, u32)], gradient: &mut [f32]) -> Vec<Sum> {
        let none = Sum { top: f32::NEG_INFINITY, sum: 0.0, target: f32::NAN };
        let mut sums = vec![none; targets.len()];
        let mut logits = vec![0.0; targets.len() * IDS];
        let product = Product::new(self.isa);
        let width = self.width();
        for (block, from) in (0..self.head.rows()).step_by(IDS).enumerate() {
            let head = self.head.slice(from, IDS);
            let ids = head.rows();
            let logits = &mut logits[..targets.len() * ids];
            product.run(MatMut::new(logits, ids), Mat::new(rows, width), Factor::turned(&head));
            let factors: Vec<f32> = logits
                .par_chunks_exact_mut(ids)
                .zip(sums.par_iter_mut())
                .zip(targets)
                .map(|((row, sum), (_, id))| {
                    sum.take(row, (*id as usize).wrapping_sub(block * IDS))
                })
                .collect();
            if gradient.is_empty() {
                continue;
            }
            for (row, factor) in gradient.chunks_exact_mut(width).zip(factors) {
                if factor != 1.0 {
                    row.iter_mut().for_each(|v| *v *= factor);
                }
            }
            let to = MatMut::new(gradient, width);
            product.added().run(to, Mat::new(logits, ids), &head);
        }
        sums
    }
}

impl Sum {
    /// Takes a block's logits in, and turns them into e^(logit - top). Returns what earlier sums
    /// were multiplied by.
    fn take(&mut self, row: &mut [f32], target: usize) -> f32 {
        if let Some(logit) = row.get(target) {
            self.target = *logit;
        }
        let top = max_row(row).max(self.top);
        let factor = if top > self.top { exp(self.top - top) } else { 1.0 };
        self.top = top;
        self.sum = self.sum * factor + exp_row(row, top);
        factor
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (losses, gradients) = self.losses(elements(storage, layout)?);
        if let Some(gradient) = &self.gradient {
            // Another forward pass over the same states would make the same.
            let _ = gradient.set(gradients);
        }
        let sum: f64 = losses.iter().sum();
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(1)))
    }

    fn bwd(&self, hidden: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(gradient) = self.gradient.as_ref().and_then(OnceLock::get) else {
            candle_core::bail!("a loss that was made without its gradient");
        };
        let upstream = grad.contiguous()?;
        let upstream = with_elements(&upstream, |grad| grad.first().copied().unwrap_or(0.0))?;
        let width = self.width();
        let mut dhidden = vec![0.0; hidden.elem_count()];
        for (row, (at, _)) in gradient.chunks_exact(width).zip(self.targets.iter()) {
            let to = &mut dhidden[at * width..(at + 1) * width];
            add_scaled(to, row, upstream);
        }
        Ok(Some(Tensor::from_vec(dhidden, hidden.shape(), hidden.device())?))
    }
}
