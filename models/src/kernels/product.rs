//! Matrix products for training, on the path that is asked for.
//!
//! Every number of a product is summed in one order: the same on any number of threads, and
//! whatever else is computed beside it.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::matrix::Shared;
use super::{Isa, Mat, MatMut, Stored, panels};

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone.
    One,
    /// All threads of the pool. The bits are the same.
    All,
}

/// How a product is computed: `out = scale * a b`, or that added to `out`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Path to take, which must be one that this machine has.
    pub isa: Isa,
    /// Add to what stands in the output.
    pub add: bool,
    /// Factor of the product.
    pub scale: f32,
    /// Who computes it.
    pub threads: Threads,
}

impl Product {
    /// Computes with all threads, and overwrites.
    pub fn new(isa: Isa) -> Self {
        Self { isa, add: false, scale: 1.0, threads: Threads::All }
    }

    /// Computes on the calling thread alone.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { threads: Threads::One, ..self }
    }

    /// Adds to what stands in the output.
    #[must_use]
    pub fn added(self) -> Self {
        Self { add: true, ..self }
    }

    /// Multiplies by a factor.
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Computes it. Shapes: a [m, k], b [k, n], out [m, n].
    ///
    /// # Panics
    /// When the shapes do not fit each other, or the machine lacks the path: a fault of the caller.
    pub fn run<'a>(self, out: MatMut<'_>, a: Mat<'_>, b: impl Into<Factor<'a>>) {
        let term = Term { out, b: b.into(), add: self.add, scale: self.scale };
        run_all(self.isa, self.threads, a, vec![term]);
    }
}

/// A second factor: numbers in memory, or a frozen matrix that is unpacked as it is read.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// Numbers in memory.
    Plain(Mat<'a>),
    /// A frozen matrix.
    Frozen(&'a Stored),
    /// The transpose of a frozen matrix.
    Turned(&'a Stored),
}

impl<'a> From<Mat<'a>> for Factor<'a> {
    fn from(mat: Mat<'a>) -> Self {
        Self::Plain(mat)
    }
}

impl<'a> From<&'a Stored> for Factor<'a> {
    fn from(stored: &'a Stored) -> Self {
        match stored.as_plain() {
            Some(data) => Self::Plain(Mat::new(data, stored.cols())),
            None => Self::Frozen(stored),
        }
    }
}

impl<'a> Factor<'a> {
    /// Takes the transpose of a frozen matrix.
    pub fn turned(stored: &'a Stored) -> Self {
        match Self::from(stored) {
            Self::Plain(mat) => Self::Plain(mat.t()),
            _ => Self::Turned(stored),
        }
    }

    /// Returns (rows, columns).
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(mat) => (mat.rows(), mat.cols()),
            Self::Frozen(stored) => (stored.rows(), stored.cols()),
            Self::Turned(stored) => (stored.cols(), stored.rows()),
        }
    }

    /// Returns `depth` rows and `width` columns from (row, col) on, as far as there are any: a view
    /// that holds them, and where in it they begin. What was packed is unpacked into `memory`.
    pub(super) fn window<'m>(
        self,
        isa: Isa,
        (row, depth): (usize, usize),
        (col, width): (usize, usize),
        memory: &'m mut Vec<f32>,
    ) -> (Mat<'m>, (usize, usize))
    where
        'a: 'm,
    {
        let (rows, cols) = self.shape();
        let (depth, width) = (depth.min(rows - row), width.min(cols - col));
        let (stored, (first, lines), (from, line)) = match self {
            Self::Plain(mat) => return (mat, (row, col)),
            Self::Frozen(stored) => (stored, (row, depth), (col, width)),
            Self::Turned(stored) => (stored, (col, width), (row, depth)),
        };
        // A vector more than is used, so that rows begin in different sets of the cache.
        let stride = line + 16;
        memory.resize(lines * stride, 0.0);
        for (i, to) in memory.chunks_exact_mut(stride).enumerate() {
            stored.read_by(isa, first + i, from, &mut to[..line]);
        }
        let mat = Mat::strided(memory, lines, line, stride);
        let mat = if matches!(self, Self::Turned(_)) { mat.t() } else { mat };
        (mat, (0, 0))
    }
}

/// One of several products with the same first factor: `out = scale * a b`, or that added.
pub struct Term<'a> {
    /// Where it goes, [m, n].
    pub out: MatMut<'a>,
    /// The second factor, [k, n].
    pub b: Factor<'a>,
    /// Add to what stands in the output.
    pub add: bool,
    /// Factor of the product.
    pub scale: f32,
}

impl<'a> Term<'a> {
    /// Overwrites the output.
    pub fn new(out: MatMut<'a>, b: impl Into<Factor<'a>>) -> Self {
        Self { out, b: b.into(), add: false, scale: 1.0 }
    }

    fn lend(&mut self) -> Lent<'_> {
        Lent { out: self.out.shared(), b: self.b, add: self.add, scale: self.scale }
    }
}

/// A term on its way: its output is lent to the threads.
#[derive(Clone, Copy)]
pub(super) struct Lent<'a> {
    pub(super) out: Shared<'a>,
    pub(super) b: Factor<'a>,
    pub(super) add: bool,
    pub(super) scale: f32,
}

/// Computes several products with the same first factor `a` [m, k], which is made ready once.
///
/// # Panics
/// As [`Product::run`].
pub fn run_all(isa: Isa, threads: Threads, a: Mat<'_>, mut terms: Vec<Term<'_>>) {
    assert!(isa.is_here(), "this machine lacks the path {}", isa.name());
    for term in &terms {
        let (depth, width) = term.b.shape();
        let shape = (term.out.shape().0, term.out.shape().1, depth);
        assert_eq!((a.rows(), width, a.cols()), shape, "shapes of a product");
    }
    if a.rows() == 0 {
        return;
    }
    let lent: Vec<Lent<'_>> = terms.iter_mut().map(Term::lend).collect();
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => amx::run(threads, a, &lent),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => panels::run::<panels::Avx512>(threads, a, &lent),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => panels::run::<panels::Avx2>(threads, a, &lent),
        _ => panels::run::<panels::Scalar>(threads, a, &lent),
    }
}

/// A part of a product that one task computes: a term, columns of it, and rows of them.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) term: usize,
    pub(super) panel: usize,
    /// First and last block of rows.
    pub(super) blocks: (usize, usize),
}

/// Cuts terms into parts, panels of `width` columns and blocks of `height` rows: where there are
/// few panels, rows are shared among the threads too.
pub(super) fn parts_of(
    terms: &[Lent<'_>],
    threads: Threads,
    (height, width): (usize, usize),
) -> Vec<Part> {
    /// Parts for each thread, so that none waits long for the last.
    const PARTS: usize = 4;
    let panels = |term: &Lent<'_>| term.out.cols.div_ceil(width);
    let all: usize = terms.iter().map(panels).sum();
    let wanted = if threads == Threads::One { 1 } else { PARTS * super::threads() };
    let blocks = terms.first().map_or(0, |term| term.out.rows.div_ceil(height));
    let cuts = wanted.div_ceil(all.max(1)).clamp(1, blocks.max(1));
    let step = blocks.div_ceil(cuts).max(1);
    let mut parts = Vec::with_capacity(all * cuts);
    for (at, term) in terms.iter().enumerate() {
        for panel in 0..panels(term) {
            let of = |from: usize| (from, (from + step).min(blocks));
            let part = |blocks| Part { term: at, panel, blocks };
            parts.extend((0..blocks).step_by(step).map(of).map(part));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Rounds to bf16, as the factors of products on tiles are.
    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
    }

    fn here() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_here())
    }

    const SHAPES: [(usize, usize, usize); 7] = [
        (1, 1, 1),
        (5, 7, 9),
        (16, 32, 32),
        (33, 40, 31),
        (64, 100, 65),
        (131, 96, 700),
        (50, 33, 2100),
    ];

    #[test]
    fn products_match_the_definition_on_every_path() {
        for (m, n, k) in SHAPES {
            let (a, b) = (filled(m * k, 0.3), filled(n * k, 0.7));
            for isa in here() {
                let is_rounded = isa == Isa::Amx;
                let (ra, rb) =
                    if is_rounded { (rounded(&a), rounded(&b)) } else { (a.clone(), b.clone()) };
                for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                    let view_a = if ta { Mat::new(&a, m).t() } else { Mat::new(&a, k) };
                    let view_b = if tb { Mat::new(&b, k).t() } else { Mat::new(&b, n) };
                    let mut out = vec![1.0; m * n];
                    let product = Product::new(isa).added().scaled(2.0);
                    product.run(MatMut::new(&mut out, n), view_a, view_b);
                    let mut plain = vec![f32::NAN; m * n];
                    Product::new(isa).run(MatMut::new(&mut plain, n), view_a, view_b);
                    for i in 0..m {
                        for j in 0..n {
                            let at_a = |c: usize| if ta { ra[c * m + i] } else { ra[i * k + c] };
                            let at_b = |c: usize| if tb { rb[j * k + c] } else { rb[c * n + j] };
                            let sum: f64 =
                                (0..k).map(|c| f64::from(at_a(c)) * f64::from(at_b(c))).sum();
                            let what = format!("{isa:?} {m} {n} {k} {ta} {tb} at {i},{j}");
                            let off = (f64::from(out[i * n + j]) - (1.0 + 2.0 * sum)).abs();
                            assert!(off < 2e-4 * (1.0 + sum.abs()), "{what}: off by {off}");
                            let off = (f64::from(plain[i * n + j]) - sum).abs();
                            assert!(off < 1e-4 * (1.0 + sum.abs()), "{what}: plain off by {off}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn strided_views_leave_what_lies_between_alone() {
        let (m, n, k) = (35, 9, 40);
        let (a, b) = (filled(m * k * 2, 0.3), filled(n * k, 0.7));
        for isa in here() {
            let dense: Vec<f32> = a.chunks(2 * k).flat_map(|row| row[3..3 + k].to_vec()).collect();
            let mut want = vec![0.0; m * n];
            Product::new(isa).run(MatMut::new(&mut want, n), Mat::new(&dense, k), Mat::new(&b, n));
            let mut out = vec![7.0; m * 2 * n];
            let view = Mat::strided(&a[3..], m, k, 2 * k);
            let to = MatMut::strided(&mut out[n..], m, n, 2 * n);
            Product::new(isa).alone().run(to, view, Mat::new(&b, n));
            for i in 0..m {
                assert_eq!(out[2 * i * n..(2 * i + 1) * n], vec![7.0; n]);
                assert_eq!(out[(2 * i + 1) * n..(2 * i + 2) * n], want[i * n..(i + 1) * n]);
            }
        }
    }

    #[test]
    fn neither_threads_nor_other_rows_change_the_bits() {
        let (m, n, k) = (130, 96, 1300);
        let (a, b) = (filled(m * k, 0.3), filled(n * k, 0.7));
        let b = Mat::new(&b, k).t();
        for isa in here() {
            let run = |product: Product, a: &[f32]| {
                let mut out = vec![0.3; a.len() / k * n];
                product.added().run(MatMut::new(&mut out, n), Mat::new(a, k), b);
                product.run(MatMut::new(&mut out, n), Mat::new(a, k), b);
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let all = run(Product::new(isa), &a);
            assert_eq!(run(Product::new(isa).alone(), &a), all);
            for i in [0, 63, 129] {
                let one = run(Product::new(isa), &a[i * k..(i + 1) * k]);
                assert_eq!(one, all[i * n..(i + 1) * n]);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for isa in here() {
            let mut out = [0.0; 4];
            let a = [f32::NAN, 1.0, f32::INFINITY, 1.0];
            Product::new(isa).run(
                MatMut::new(&mut out, 2),
                Mat::new(&a, 2),
                Mat::new(&[1.0; 4], 2),
            );
            assert!(
                out[..2].iter().all(|v| v.is_nan()) && out[2..].iter().all(|v| v.is_infinite())
            );
        }
    }
}
