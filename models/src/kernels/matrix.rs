//! Views of matrices, as products read and write them.

/// A view of a matrix: `rows` x `cols`.
///
/// It stands in memory row by row, or, as a transpose, column by column; numbers of one such line
/// lie side by side.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    /// Lines in memory, and numbers in each.
    lines: usize,
    line: usize,
    stride: usize,
    /// Lines are columns.
    is_transposed: bool,
}

impl<'a> Mat<'a> {
    /// Views `data` as a dense row-major matrix of `cols` columns.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        Self::strided(data, data.len() / cols.max(1), cols, cols)
    }

    /// Views `rows` x `cols` numbers from `data[0]`, rows `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, lines: rows, line: cols, stride: row_stride, is_transposed: false }
    }

    /// Views the transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { is_transposed: !self.is_transposed, ..self }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        if self.is_transposed { self.line } else { self.lines }
    }

    /// Returns the number of columns.
    pub fn cols(&self) -> usize {
        if self.is_transposed { self.lines } else { self.line }
    }

    /// Says whether the numbers of a row lie side by side.
    pub(super) fn is_by_rows(&self) -> bool {
        !self.is_transposed
    }

    /// Returns numbers of a line, from the `from`th on; as many as there are, at most `len`. Lines
    /// behind the last are empty.
    #[inline(always)]
    pub(super) fn piece(&self, line: usize, from: usize, len: usize) -> &'a [f32] {
        if line >= self.lines || from >= self.line {
            return &[];
        }
        let at = line * self.stride + from;
        &self.data[at..at + len.min(self.line - from)]
    }
}

/// A matrix to write to: `rows` x `cols`, rows `row_stride` numbers apart.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> MatMut<'a> {
    /// Views `data` as a dense row-major matrix of `cols` columns.
    pub fn new(data: &'a mut [f32], cols: usize) -> Self {
        let rows = data.len() / cols.max(1);
        Self::strided(data, rows, cols, cols)
    }

    /// Views `rows` x `cols` numbers from `data[0]`, rows `row_stride` apart.
    ///
    /// # Panics
    /// When they do not fit: a fault of the caller.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride || rows <= 1, "rows of an output lie apart");
        let end = rows.saturating_sub(1) * row_stride + cols;
        assert!(rows == 0 || end <= data.len(), "an output lies inside its slice");
        Self { data, rows, cols, stride: row_stride }
    }

    /// Returns (rows, columns).
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Lends the output to threads that each write columns of their own.
    pub(super) fn shared<'b>(&'b mut self) -> Shared<'b> {
        let Self { rows, cols, stride, .. } = *self;
        Shared { data: self.data.as_mut_ptr(), rows, cols, stride, lent: std::marker::PhantomData }
    }
}

/// An output that several threads write to, each to places of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    data: *mut f32,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    lent: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is used by `at` only, whose callers promise that no two threads use one
// place.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    /// Asks for lines that will be written soon, each of two lines of the cache.
    #[inline(always)]
    pub(super) fn ask_for(self, (row, col): (usize, usize), lines: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in row..(row + lines).min(self.rows) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let at = self.data.wrapping_add(line * self.stride + col).cast::<i8>();
            // SAFETY: asking for memory ahead of time reads nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(at);
                _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(64));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (row, col, lines);
    }

    /// Returns the place of a number.
    ///
    /// # Safety
    /// `row` and `col` lie inside the output, and no other thread uses what the caller writes.
    pub(super) unsafe fn at(self, row: usize, col: usize) -> *mut f32 {
        debug_assert!(row < self.rows && col < self.cols);
        // SAFETY: the output lies inside its slice (`MatMut::strided`), and so does this place.
        unsafe { self.data.add(row * self.stride + col) }
    }
}
