//! Matrix products for training, through the `gemm` crate (f32, AVX-512 where it is).

use gemm::Parallelism;

/// A view of a matrix: `rows` x `cols`, with strides in elements.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Views `data` as a dense row-major matrix of `cols` columns.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Self { data, rows: data.len() / cols, cols, row_stride: cols, col_stride: 1 }
    }

    /// Views `rows` x `cols` elements from `data[0]`, rows `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Views the transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn end(&self) -> usize {
        (self.rows.max(1) - 1) * self.row_stride + (self.cols.max(1) - 1) * self.col_stride + 1
    }
}

/// A matrix to write to: `rows` x `cols`, rows `row_stride` elements apart.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// Views `data` as a dense row-major matrix of `cols` columns.
    pub fn new(data: &'a mut [f32], cols: usize) -> Self {
        let rows = data.len() / cols;
        Self { data, rows, cols, row_stride: cols }
    }

    /// Views `rows` x `cols` elements from `data[0]`, rows `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride }
    }
}

/// Who computes a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone.
    One,
    /// All threads of the pool. The bits are the same.
    All,
}

/// Computes `out = scale * a b`, or adds it to `out` where `add` is set.
///
/// Shapes: a [m, k], b [k, n], out [m, n].
///
/// # Panics
/// When the shapes do not fit each other or their slices: a fault of the caller.
pub fn matmul(out: MatMut<'_>, add: bool, scale: f32, ab: (Mat<'_>, Mat<'_>), threads: Threads) {
    let (a, b) = ab;
    assert_eq!((a.rows, b.cols, a.cols), (out.rows, out.cols, b.rows), "shapes of a product");
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    let last = (out.rows - 1) * out.row_stride + out.cols;
    assert!(last <= out.data.len() && a.end() <= a.data.len() && b.end() <= b.data.len());
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: the assertions above keep every index that the strides can reach inside its slice,
    // and `out` is borrowed mutably, so that it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0_f32,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn products_match_the_definition_with_strides_and_transposes() {
        let (m, n, k) = (5, 7, 9);
        let (a, b) = (filled(m * k, 0.3), filled(n * k, 0.7));
        let mut out = vec![1.0; m * n];
        let b_t = Mat::new(&b, k).t();
        matmul(MatMut::new(&mut out, n), true, 2.0, (Mat::new(&a, k), b_t), Threads::One);
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k).map(|c| a[i * k + c] * b[j * k + c]).sum();
                assert!((out[i * n + j] - (1.0 + 2.0 * sum)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        let (m, n, k) = (130, 96, 64);
        let (a, b) = (filled(m * k, 0.3), filled(n * k, 0.7));
        let run = |threads| {
            let mut out = vec![0.0; m * n];
            let ab = (Mat::new(&a, k), Mat::new(&b, k).t());
            matmul(MatMut::new(&mut out, n), false, 1.0, ab, threads);
            out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(Threads::One), run(Threads::All));
    }
}
