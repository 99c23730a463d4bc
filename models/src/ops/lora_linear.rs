//! A frozen linear layer with a low-rank update (Hu et al., 2021):
//! y = x W^T + s * drop(x) A^T B^T.

use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;

use super::buffers::Buffer;
use crate::kernels::{
    Factor, Isa, Mat, MatMut, Product, Stored, Term, Threads, product_of_lines, run_all,
};
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

    /// Returns by what each of `len` elements is multiplied: 0 where it is dropped.
    pub(super) fn mask(&self, len: usize, width: usize) -> Vec<f32> {
        let mut mask = vec![0.0; len];
        self.apply(&vec![1.0; len], width, &mut mask);
        mask
    }

    /// Writes drop(x) / (1 - rate) into `out`; rows of `width` have streams of their own.
    fn apply(&self, x: &[f32], width: usize, out: &mut [f32]) {
        self.each(x, width, out, |out, kept| *out = kept);
    }

    /// Adds drop(x) / (1 - rate) to `out`.
    fn add(&self, x: &[f32], width: usize, out: &mut [f32]) {
        self.each(x, width, out, |out, kept| *out += kept);
    }

    fn each(
        &self,
        x: &[f32],
        width: usize,
        out: &mut [f32],
        put: impl Fn(&mut f32, f32) + Send + Sync,
    ) {
        let scale = 256.0 / (256.0 - f32::from(self.below));
        let key = rng::stream(self.seed, "dropout", self.index);
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate();
        rows.for_each(|(row, (out, x))| {
            let mut bytes = vec![0_u8; width];
            let mut stream = key.clone();
            stream.set_word_pos((row * width.next_multiple_of(64) / 4) as u128);
            stream.fill_bytes(&mut bytes);
            for ((out, x), byte) in out.iter_mut().zip(x).zip(&bytes) {
                put(out, if *byte < self.below { 0.0 } else { x * scale });
            }
        });
    }
}

/// A frozen linear layer with a trainable low-rank update, and the numbers of the update.
///
/// Shapes: x [tokens, inputs], A [rank, inputs], B [outputs, rank] -> [tokens, outputs].
#[derive(Clone)]
pub(super) struct Linear<'a> {
    /// Frozen weight, [outputs, inputs].
    pub(super) weight: &'a Stored,
    /// Added to the outputs, [outputs].
    pub(super) bias: Option<&'a [f32]>,
    /// A and B; none where the layer is not adapted.
    pub(super) pair: Option<(&'a [f32], &'a [f32])>,
    /// Scale of the update: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
    pub(super) scale: f32,
    /// Dropout of the update's input, in training.
    pub(super) dropout: Option<Dropout>,
}

impl<'a> Linear<'a> {
    fn inputs(&self) -> usize {
        self.weight.cols()
    }

    fn outputs(&self) -> usize {
        self.weight.rows()
    }

    fn rank(&self) -> usize {
        self.pair.map_or(0, |(a, _)| a.len() / self.inputs())
    }

    fn drops(&self) -> Option<&Dropout> {
        self.dropout.as_ref().filter(|dropout| dropout.below > 0)
    }

    /// Computes the outputs of several layers with the same input; `add` adds them to what stands
    /// there. Returns drop(x) A^T of each, [tokens, rank], which the backward pass needs.
    pub(super) fn forward(
        isa: Isa,
        x: &[f32],
        add: bool,
        layers: &mut [(&Self, &mut [f32])],
    ) -> Vec<Buffer> {
        let Some(inputs) = layers.first().map(|(layer, _)| layer.inputs()) else {
            return Vec::new();
        };
        let tokens = x.len() / inputs;
        let down = |layer: &Self| Buffer::new(tokens * layer.rank());
        let mut downs: Vec<Buffer> = layers.iter().map(|(layer, _)| down(layer)).collect();
        let mut terms = Vec::with_capacity(2 * layers.len());
        for ((layer, out), down) in layers.iter_mut().zip(&mut downs) {
            let (outputs, rank) = (layer.outputs(), layer.rank());
            let frozen = Factor::turned(layer.weight);
            terms.push(Term { add, ..Term::new(MatMut::new(out, outputs), frozen) });
            if let (Some((a, _)), None) = (layer.pair, layer.drops()) {
                terms.push(Term::new(MatMut::new(down, rank), Mat::new(a, inputs).t()));
            }
        }
        run_all(isa, Threads::All, Mat::new(x, inputs), terms);
        for ((layer, out), down) in layers.iter_mut().zip(&mut downs) {
            layer.add_bias(out);
            let Some((_, b)) = layer.pair else { continue };
            let (outputs, rank) = (layer.outputs(), layer.rank());
            if layer.drops().is_some() {
                *down = layer.down(isa, x);
            }
            let update = Product::new(isa).added().scaled(layer.scale);
            update.run(MatMut::new(out, outputs), Mat::new(down, rank), Mat::new(b, rank).t());
        }
        downs
    }

    /// Returns drop(x) A^T, [tokens, rank].
    pub(super) fn down(&self, isa: Isa, x: &[f32]) -> Buffer {
        let (inputs, rank) = (self.inputs(), self.rank());
        let mut down = Buffer::new(x.len() / inputs * rank);
        let Some((a, _)) = self.pair else { return down };
        let mut dropped = Buffer::new(if self.drops().is_some() { x.len() } else { 0 });
        if let Some(dropout) = self.drops() {
            dropout.apply(x, inputs, &mut dropped);
        }
        let seen = Mat::new(if self.drops().is_some() { &dropped } else { x }, inputs);
        Product::new(isa).run(MatMut::new(&mut down, rank), seen, Mat::new(a, inputs).t());
        down
    }

    fn add_bias(&self, out: &mut [f32]) {
        let Some(bias) = self.bias else { return };
        for row in out.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }

    /// With u = s * dy B: dA = u^T drop(x), dB = s * dy^T down, dx = dy W + drop(u A); `down` is
    /// what the forward pass returned.
    ///
    /// Writes dx, or adds it to what stands there, and writes dA and dB.
    pub(super) fn backward(
        &self,
        isa: Isa,
        (x, down, dy): (&[f32], &[f32], &[f32]),
        (dx, add): (&mut [f32], bool),
        (da, db): (&mut [f32], &mut [f32]),
    ) {
        let (inputs, outputs, rank) = (self.inputs(), self.outputs(), self.rank());
        let tokens = x.len() / inputs;
        let dy = Mat::new(dy, outputs);
        let of_x = Term { add, ..Term::new(MatMut::new(dx, inputs), self.weight) };
        let Some((a, b)) = self.pair else {
            return run_all(isa, Threads::All, dy, vec![of_x]);
        };
        let mut u = Buffer::new(tokens * rank);
        let of_u = Term::new(MatMut::new(&mut u, rank), Mat::new(b, rank));
        run_all(isa, Threads::All, dy, vec![of_x, Term { scale: self.scale, ..of_u }]);
        let mut turned = Buffer::new(db.len());
        let to = MatMut::new(&mut turned, outputs);
        product_of_lines(isa, self.scale, Mat::new(down, rank), dy, to);
        for (at, row) in db.chunks_exact_mut(rank).enumerate() {
            row.iter_mut().enumerate().for_each(|(i, v)| *v = turned[i * outputs + at]);
        }
        let mut dropped = Buffer::new(if self.drops().is_some() { x.len() } else { 0 });
        if let Some(dropout) = self.drops() {
            dropout.apply(x, inputs, &mut dropped);
        }
        let seen = Mat::new(if self.drops().is_some() { &dropped } else { x }, inputs);
        let (a, u) = (Mat::new(a, inputs), Mat::new(&u, rank));
        product_of_lines(isa, 1.0, u, seen, MatMut::new(da, inputs));
        let product = Product::new(isa);
        match self.drops() {
            None => product.added().run(MatMut::new(dx, inputs), u, a),
            Some(dropout) => {
                let mut branch = Buffer::new(x.len());
                product.run(MatMut::new(&mut branch, inputs), u, a);
                dropout.add(&branch, inputs, dx);
            }
        }
    }
}
