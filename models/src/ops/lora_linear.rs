//! A frozen linear layer with a low-rank update (Hu et al., 2021):
//! y = x W^T + s * drop(x) A^T B^T.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;

use super::{Frozen, elements, with_elements};
use crate::kernels::{Mat, MatMut, Threads, matmul};
use crate::rng;

/// Which elements of the input the low-rank branch sees, recomputed from its key when needed.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// An element is dropped where its random byte lies below this: the rate in 1/256.
    pub below: u8,
    /// Seed of the run.
    pub seed: u64,
    /// Key of this use: micro-batch, layer and module.
    pub index: u64,
}

impl Dropout {
    /// Rounds a rate to 1/256.
    pub fn quantise(rate: f64) -> u8 {
        (rate * 256.0).round().clamp(0.0, 255.0) as u8
    }

    /// Writes drop(x) / (1 - rate) into `out`; rows of `width` have streams of their own.
    fn apply(&self, x: &[f32], width: usize, out: &mut [f32]) {
        let scale = 256.0 / (256.0 - f32::from(self.below));
        let key = rng::stream(self.seed, "dropout", self.index);
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate();
        rows.for_each(|(row, (out, x))| {
            let mut bytes = vec![0_u8; width];
            let mut stream = key.clone();
            stream.set_word_pos((row * width.next_multiple_of(64) / 4) as u128);
            stream.fill_bytes(&mut bytes);
            for ((out, x), byte) in out.iter_mut().zip(x).zip(&bytes) {
                *out = if *byte < self.below { 0.0 } else { x * scale };
            }
        });
    }
}

/// A frozen linear layer with a trainable low-rank update.
///
/// Shapes: x [tokens, inputs], A [rank, inputs], B [outputs, rank] -> [tokens, outputs].
pub struct LoraLinear {
    /// Frozen weight, [outputs, inputs].
    pub weight: Frozen,
    /// Width of the input.
    pub inputs: usize,
    /// Scale of the update: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
    pub scale: f32,
    /// Dropout of the update's input, in training.
    pub dropout: Option<Dropout>,
}

impl LoraLinear {
    fn outputs(&self) -> usize {
        self.weight.len() / self.inputs
    }

    /// Returns the input of the low-rank branch.
    fn branch_input<'a>(&self, x: &'a [f32], scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match &self.dropout {
            Some(dropout) if dropout.below > 0 => {
                scratch.resize(x.len(), 0.0);
                dropout.apply(x, self.inputs, scratch);
                scratch
            }
            _ => x,
        }
    }

    fn forward(&self, x: &[f32], a: &[f32], b: &[f32]) -> Vec<f32> {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let (tokens, rank) = (x.len() / inputs, a.len() / inputs);
        let mut out = vec![0.0; tokens * outputs];
        let frozen = Mat::new(&self.weight, inputs).t();
        let ab = (Mat::new(x, inputs), frozen);
        matmul(MatMut::new(&mut out, outputs), false, 1.0, ab, Threads::All);
        let mut scratch = Vec::new();
        let seen = self.branch_input(x, &mut scratch);
        let mut down = vec![0.0; tokens * rank];
        let ab = (Mat::new(seen, inputs), Mat::new(a, inputs).t());
        matmul(MatMut::new(&mut down, rank), false, 1.0, ab, Threads::All);
        let ab = (Mat::new(&down, rank), Mat::new(b, rank).t());
        matmul(MatMut::new(&mut out, outputs), true, self.scale, ab, Threads::All);
        out
    }

    /// With u = s * dy B: dA = u^T drop(x), dB = s * dy^T (drop(x) A^T), dx = dy W + drop(u A).
    fn backward(&self, x: &[f32], ab: (&[f32], &[f32]), dy: &[f32]) -> [Vec<f32>; 3] {
        let (a, b) = ab;
        let (inputs, outputs) = (self.inputs, self.outputs());
        let (tokens, rank) = (x.len() / inputs, a.len() / inputs);
        let mut scratch = Vec::new();
        let seen = self.branch_input(x, &mut scratch);
        let dy_mat = Mat::new(dy, outputs);

        let mut down = vec![0.0; tokens * rank];
        let product = (Mat::new(seen, inputs), Mat::new(a, inputs).t());
        matmul(MatMut::new(&mut down, rank), false, 1.0, product, Threads::All);
        let mut db = vec![0.0; b.len()];
        let product = (dy_mat.t(), Mat::new(&down, rank));
        matmul(MatMut::new(&mut db, rank), false, self.scale, product, Threads::All);

        let mut u = vec![0.0; tokens * rank];
        let product = (dy_mat, Mat::new(b, rank));
        matmul(MatMut::new(&mut u, rank), false, self.scale, product, Threads::All);
        let mut da = vec![0.0; a.len()];
        let product = (Mat::new(&u, rank).t(), Mat::new(seen, inputs));
        matmul(MatMut::new(&mut da, inputs), false, 1.0, product, Threads::All);

        let mut dx = vec![0.0; x.len()];
        let back = (Mat::new(&u, rank), Mat::new(a, inputs));
        let mut add = false;
        if let Some(dropout) = self.dropout.as_ref().filter(|d| d.below > 0) {
            let mut branch = vec![0.0; x.len()];
            matmul(MatMut::new(&mut branch, inputs), false, 1.0, back, Threads::All);
            dropout.apply(&branch, inputs, &mut dx);
            add = true;
        }
        let frozen = (dy_mat, Mat::new(&self.weight, inputs));
        matmul(MatMut::new(&mut dx, inputs), add, 1.0, frozen, Threads::All);
        if !add {
            matmul(MatMut::new(&mut dx, inputs), true, 1.0, back, Threads::All);
        }
        [dx, da, db]
    }
}

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "lora-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, x_layout)?;
        let out = self.forward(x, elements(a, a_layout)?, elements(b, b_layout)?);
        let shape = Shape::from((x.len() / self.inputs, self.outputs()));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [dx, da, db] = with_elements(x, |xs| {
            with_elements(a, |a| {
                with_elements(b, |b| with_elements(&grad, |dy| self.backward(xs, (a, b), dy)))
            })
        })????;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(da, a.shape(), device)?),
            Some(Tensor::from_vec(db, b.shape(), device)?),
        ))
    }
}
