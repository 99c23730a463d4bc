//! A frozen linear layer with a low-rank update (Hu et al., 2021):
//! y = x W^T + s * drop(x) A^T B^T.

use rand_chacha::rand_core::RngCore;

use crate::buffers::Buffer;
use crate::kernels::{
    Factor, Isa, Mask, Mat, MatMut, Product, Seen, Stored, Term, Threads, add_product,
    product_of_kept, product_of_lines, run_all,
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

    /// Draws what is kept of [rows, cols]; each row has a stream of its own.
    fn mask(&self, isa: Isa, rows: usize, cols: usize) -> Mask {
        let key = rng::stream(self.seed, "dropout", self.index);
        Mask::draw(isa, (rows, cols), self.below, |row, bytes| {
            let mut stream = key.clone();
            stream.set_word_pos((row * cols.next_multiple_of(64) / 4) as u128);
            stream.fill_bytes(bytes);
        })
    }

    /// By what a number that is kept is multiplied, so that the mean stays: 1 / (1 - rate).
    fn scale(&self) -> f32 {
        256.0 / (256.0 - f32::from(self.below))
    }

    /// Returns by what each of [rows, cols] is multiplied: 0 where it is dropped.
    pub(super) fn factors(&self, rows: usize, cols: usize) -> Vec<f32> {
        let mask = self.mask(Isa::Scalar, rows, cols);
        let factor = |at| if mask.keeps(at / cols, at % cols) { self.scale() } else { 0.0 };
        (0..rows * cols).map(factor).collect()
    }
}

/// What a layer's update is made of, kept for the backward pass.
pub(super) struct Branch {
    /// drop(x) A^T, [tokens, rank].
    down: Buffer,
    /// What was kept of x; all where there is none.
    mask: Option<Mask>,
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
    /// there. Returns what the backward pass needs of the update of each that has one.
    pub(super) fn forward(
        isa: Isa,
        x: &[f32],
        add: bool,
        layers: &mut [(&Self, &mut [f32])],
    ) -> Vec<Option<Branch>> {
        let Some(inputs) = layers.first().map(|(layer, _)| layer.inputs()) else {
            return Vec::new();
        };
        let tokens = x.len() / inputs;
        let mut branches: Vec<_> =
            layers.iter().map(|(layer, _)| layer.branch(isa, tokens)).collect();
        let mut terms = Vec::with_capacity(2 * layers.len());
        for ((layer, out), branch) in layers.iter_mut().zip(&mut branches) {
            let (outputs, rank) = (layer.outputs(), layer.rank());
            let frozen = Factor::turned(layer.weight);
            terms.push(Term { add, ..Term::new(MatMut::new(out, outputs), frozen) });
            if let (Some((a, _)), Some(Branch { down, mask: None })) = (layer.pair, branch) {
                terms.push(Term::new(MatMut::new(down, rank), Mat::new(a, inputs).t()));
            }
        }
        run_all(isa, Threads::All, Mat::new(x, inputs), terms);
        for ((layer, out), branch) in layers.iter_mut().zip(&mut branches) {
            layer.add_bias(out);
            let (Some((_, b)), Some(branch)) = (layer.pair, branch) else { continue };
            let (outputs, rank) = (layer.outputs(), layer.rank());
            layer.fill_dropped(isa, x, branch);
            let update = Product::new(isa).added().scaled(layer.scale);
            let down = Mat::new(&branch.down, rank);
            update.run(MatMut::new(out, outputs), down, Mat::new(b, rank).t());
        }
        branches
    }

    /// Takes memory for what the update is made of, and draws what it sees.
    fn branch(&self, isa: Isa, tokens: usize) -> Option<Branch> {
        self.pair?;
        let mask = self.drops().map(|dropout| dropout.mask(isa, tokens, self.inputs()));
        Some(Branch { down: Buffer::new(tokens * self.rank()), mask })
    }

    /// Computes drop(x) A^T where something is dropped.
    fn fill_dropped(&self, isa: Isa, x: &[f32], branch: &mut Branch) {
        let (Some((a, _)), Some(dropout), Some(mask)) =
            (self.pair, self.drops(), branch.mask.as_ref())
        else {
            return;
        };
        let inputs = self.inputs();
        let seen = Seen { numbers: Mat::new(x, inputs), mask: Some(mask) };
        product_of_kept(isa, dropout.scale(), seen, Mat::new(a, inputs), &mut branch.down);
    }

    /// Computes what the update is made of, without the layer's outputs.
    pub(super) fn down(&self, isa: Isa, x: &[f32]) -> Option<Branch> {
        let (inputs, rank) = (self.inputs(), self.rank());
        let mut branch = self.branch(isa, x.len() / inputs)?;
        match (self.pair, &branch.mask) {
            (Some((a, _)), None) => {
                let to = MatMut::new(&mut branch.down, rank);
                Product::new(isa).run(to, Mat::new(x, inputs), Mat::new(a, inputs).t());
            }
            _ => self.fill_dropped(isa, x, &mut branch),
        }
        Some(branch)
    }

    fn add_bias(&self, out: &mut [f32]) {
        let Some(bias) = self.bias else { return };
        for row in out.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }

    /// With u = s * dy B: dA = u^T drop(x), dB = s * dy^T down, dx = dy W + drop(u A); `branch` is
    /// what the forward pass returned.
    ///
    /// Writes dx, or adds it to what stands there, and writes dA and dB.
    pub(super) fn backward(
        &self,
        isa: Isa,
        (x, branch, dy): (&[f32], Option<&Branch>, &[f32]),
        (dx, add): (&mut [f32], bool),
        (da, db): (&mut [f32], &mut [f32]),
    ) {
        let (inputs, outputs, rank) = (self.inputs(), self.outputs(), self.rank());
        let tokens = x.len() / inputs;
        let dy = Mat::new(dy, outputs);
        let of_x = Term { add, ..Term::new(MatMut::new(dx, inputs), self.weight) };
        let (Some((a, b)), Some(Branch { down, mask })) = (self.pair, branch) else {
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
        let kept = self.drops().map_or(1.0, Dropout::scale);
        let (a, u) = (Mat::new(a, inputs), Mat::new(&u, rank));
        let seen = Seen { numbers: Mat::new(x, inputs), mask: mask.as_ref() };
        product_of_lines(isa, kept, u, seen, MatMut::new(da, inputs));
        match mask {
            None => Product::new(isa).added().run(MatMut::new(dx, inputs), u, a),
            Some(mask) => add_product(isa, kept, (u, a), Some(mask), dx),
        }
    }
}
