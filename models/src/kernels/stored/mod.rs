//! Frozen matrices in the precision of their file, unpacked to f32 where they are used.
//!
//! Unpacking gives the same numbers on every path: it multiplies and adds in f32, and fuses
//! nothing.

mod blocks;
#[cfg(target_arch = "x86_64")]
pub(super) mod registers;

use std::sync::Arc;

use rayon::prelude::*;

use super::{Isa, isa, spacious};

/// How the numbers of a matrix are written, in the names of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Name as GGUF has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Returns (numbers, bytes) of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Returns the bytes of so many numbers, if they fill whole blocks and memory could hold them.
    pub fn bytes(self, numbers: usize) -> Option<usize> {
        let (block, bytes) = self.block();
        let blocks = numbers.is_multiple_of(block).then_some(numbers / block)?;
        blocks.checked_mul(bytes)
    }
}

/// A frozen matrix: `rows` lines of `cols` numbers.
#[derive(Clone)]
pub struct Stored {
    rows: usize,
    cols: usize,
    /// First row among those that are held.
    first: usize,
    /// Bytes before the first of those, where they are packed.
    start: usize,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Plain(Arc<Vec<f32>>),
    Packed(Format, Arc<Vec<u8>>),
}

impl Stored {
    /// Holds numbers as they are, in lines of `cols`.
    pub fn plain(data: Vec<f32>, cols: usize) -> Self {
        Self {
            rows: data.len() / cols.max(1),
            cols,
            first: 0,
            start: 0,
            data: Data::Plain(data.into()),
        }
    }

    /// Holds little-endian bytes of a format, in lines of `cols` numbers.
    ///
    /// # Errors
    /// Says why the bytes are no such matrix.
    pub fn packed(format: Format, bytes: Vec<u8>, cols: usize) -> Result<Self, String> {
        let line = format.bytes(cols).filter(|line| *line > 0);
        let Some(line) = line else {
            let (block, _) = format.block();
            return Err(format!("{cols} columns are no whole blocks of {block}"));
        };
        if !bytes.len().is_multiple_of(line) {
            return Err(format!("{} bytes are no whole rows of {line}", bytes.len()));
        }
        let rows = bytes.len() / line;
        let data = if format == Format::F32 {
            let (words, _) = bytes.as_chunks::<4>();
            let mut numbers = spacious(words.len(), 0.0);
            numbers.iter_mut().zip(words).for_each(|(v, word)| *v = f32::from_le_bytes(*word));
            Data::Plain(numbers.into())
        } else {
            Data::Packed(format, bytes.into())
        };
        Ok(Self { rows, cols, first: 0, start: 0, data })
    }

    /// Writes the numbers in bf16, each rounded to the nearest.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.rows * self.cols * 2);
        let mut line = vec![0.0; self.cols];
        for row in 0..self.rows {
            self.read(row, 0, &mut line);
            bytes.extend(line.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()));
        }
        let data = Data::Packed(Format::Bf16, bytes.into());
        Self { rows: self.rows, cols: self.cols, first: 0, start: 0, data }
    }

    /// Copies the rows in another order: row i of the result is row `of(i)` of this.
    #[must_use]
    pub fn with_rows(&self, of: impl Fn(usize) -> usize) -> Self {
        let data = match &self.data {
            Data::Plain(data) => {
                let row = |i| &data[(self.first + of(i)) * self.cols..][..self.cols];
                let mut all = spacious(self.rows * self.cols, 0.0);
                let rows = all.chunks_exact_mut(self.cols).enumerate();
                rows.for_each(|(i, to)| to.copy_from_slice(row(i)));
                Data::Plain(all.into())
            }
            Data::Packed(format, bytes) => {
                let line = format.bytes(self.cols).unwrap_or(0);
                let row = |i| &bytes[self.start + (self.first + of(i)) * line..][..line];
                let mut all = spacious(self.rows * line, 0);
                let rows = all.chunks_exact_mut(line).enumerate();
                rows.for_each(|(i, to)| to.copy_from_slice(row(i)));
                Data::Packed(*format, all.into())
            }
        };
        Self { first: 0, start: 0, data, ..self.clone() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Says whether both are the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.data, &other.data) {
            (Data::Plain(a), Data::Plain(b)) => Arc::ptr_eq(a, b),
            (Data::Packed(_, a), Data::Packed(_, b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let place = |of: &Self| (of.start, of.first, of.rows, of.cols);
        same && place(self) == place(other)
    }

    /// How the numbers are written.
    pub fn format(&self) -> Format {
        match &self.data {
            Data::Plain(_) => Format::F32,
            Data::Packed(format, _) => *format,
        }
    }

    /// Returns the bytes that the rows take in memory.
    pub fn size(&self) -> usize {
        self.format().bytes(self.cols).unwrap_or(0) * self.rows
    }

    /// Views up to `count` rows from `from` on.
    #[must_use]
    pub fn slice(&self, from: usize, count: usize) -> Self {
        let from = from.min(self.rows);
        let rows = count.min(self.rows - from);
        Self { rows, first: self.first + from, ..self.clone() }
    }

    /// Returns all numbers where they stand in memory as they are.
    pub fn as_plain(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Plain(data) => Some(&data[self.first * self.cols..][..self.rows * self.cols]),
            Data::Packed(..) => None,
        }
    }

    /// Returns the format, the bytes of all rows and those of a row, where they are packed.
    pub(super) fn as_packed(&self) -> Option<(Format, &[u8], usize)> {
        match &self.data {
            Data::Plain(_) => None,
            Data::Packed(format, bytes) => {
                let line = format.bytes(self.cols)?;
                let first = self.start + self.first * line;
                Some((*format, &bytes[first..][..self.rows * line], line))
            }
        }
    }

    /// Reads numbers of a row, from the `from`th on.
    ///
    /// # Panics
    /// When there are fewer: a fault of the caller.
    pub fn read(&self, row: usize, from: usize, out: &mut [f32]) {
        self.read_by(isa(), row, from, out);
    }

    /// The same on a path.
    pub(super) fn read_by(&self, isa: Isa, row: usize, from: usize, out: &mut [f32]) {
        assert!(row < self.rows && from + out.len() <= self.cols, "numbers of a row");
        let row = self.first + row;
        match &self.data {
            Data::Plain(data) => out.copy_from_slice(&data[row * self.cols + from..][..out.len()]),
            Data::Packed(format, bytes) => {
                let (block, size) = format.block();
                let line = self.cols / block * size;
                let line = &bytes[self.start + row * line..][..line];
                blocks::unpack(isa, *format, line, from, out);
            }
        }
    }

    /// Returns all numbers, row by row.
    pub fn to_vec(&self) -> Vec<f32> {
        if let Some(data) = self.as_plain() {
            return data.to_vec();
        }
        let mut out = vec![0.0; self.rows * self.cols];
        let rows = out.par_chunks_exact_mut(self.cols).enumerate();
        rows.for_each(|(row, out)| self.read(row, 0, out));
        out
    }

    /// Returns the first row with something in it that is no number.
    pub fn not_finite(&self) -> Option<usize> {
        let is_bad = |row: &usize| {
            let mut line = vec![0.0; self.cols];
            self.read(*row, 0, &mut line);
            line.iter().any(|v| !v.is_finite())
        };
        (0..self.rows).into_par_iter().find_first(is_bad)
    }
}

/// Moves packed matrices into common memory, in this order: small ones that are read behind each
/// other become one stream, and lie in large pages.
pub fn side_by_side(matrices: Vec<&mut Stored>) {
    /// Bytes that are moved together at most, which are held twice meanwhile.
    const CHUNK: usize = 64 << 20;
    /// A matrix of so many bytes lies well where it is.
    const LARGE: usize = 8 << 20;
    let is_small = |one: &&mut Stored| one.as_packed().is_some() && one.size() < LARGE;
    let mut small: Vec<&mut Stored> = matrices.into_iter().filter(is_small).collect();
    while !small.is_empty() {
        let mut bytes = 0;
        let mut fits = |one: &&mut Stored| {
            bytes += one.size().next_multiple_of(64);
            bytes <= CHUNK
        };
        let count = small.iter().take_while(|one| fits(one)).count().max(1);
        let rest = small.split_off(count);
        let sizes = small.iter().map(|one| one.size().next_multiple_of(64));
        let mut memory: Vec<u8> = spacious(sizes.sum(), 0);
        let mut at = 0;
        for one in &small {
            let packed = one.as_packed().map(|(_, bytes, _)| bytes).unwrap_or_default();
            memory[at..at + packed.len()].copy_from_slice(packed);
            at += packed.len().next_multiple_of(64);
        }
        let memory = Arc::new(memory);
        let mut at = 0;
        for one in small {
            let (format, size) = (one.format(), one.size());
            one.data = Data::Packed(format, Arc::clone(&memory));
            (one.first, one.start) = (0, at);
            at += size.next_multiple_of(64);
        }
        small = rest;
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {} {}", self.rows, self.cols, self.format().name())
    }
}
