//! The header of a GGUF file: metadata and where each tensor lies.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every length is held
//! against what is left of the file before memory is asked for.

use std::collections::BTreeMap;
use std::io::Read;

use crate::kernels::Format;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any whole number.
    Integer(i128),
    /// Any number with a fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one kind.
    List(Vec<Value>),
}

/// Where a tensor lies, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Number of lines, and numbers in each.
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) format: Format,
    /// First byte in the file, and how many there are.
    pub(super) start: u64,
    pub(super) bytes: usize,
}

/// A header.
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

/// Most values of a list.
const LONGEST_LIST: u64 = 1 << 22;

/// Reads what a file begins with.
struct Reader<R> {
    from: R,
    at: u64,
    length: u64,
}

type Result<T> = std::result::Result<T, String>;

impl<R: Read> Reader<R> {
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>> {
        if count > self.length - self.at {
            let (at, length) = (self.at, self.length);
            return Err(format!("{count} bytes are promised at byte {at} of {length}"));
        }
        let mut bytes = vec![0; usize::try_from(count).map_err(|e| e.to_string())?];
        self.from.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        self.at += count;
        Ok(bytes)
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N]> {
        if N as u64 > self.length - self.at {
            return Err(format!("it ends at byte {} inside a number", self.length));
        }
        let mut word = [0; N];
        self.from.read_exact(&mut word).map_err(|e| e.to_string())?;
        self.at += N as u64;
        Ok(word)
    }

    fn u32(&mut self) -> Result<u32> {
        self.word().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.word().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(self.word::<1>().map(u8::from_le_bytes)?.into()),
            1 => Value::Integer(self.word::<1>().map(i8::from_le_bytes)?.into()),
            2 => Value::Integer(self.word::<2>().map(u16::from_le_bytes)?.into()),
            3 => Value::Integer(self.word::<2>().map(i16::from_le_bytes)?.into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(self.word::<4>().map(i32::from_le_bytes)?.into()),
            6 => Value::Float(self.word::<4>().map(f32::from_le_bytes)?.into()),
            7 => Value::Bool(self.word::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 => Value::List(self.list(depth)?),
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(self.word::<8>().map(i64::from_le_bytes)?.into()),
            12 => Value::Float(self.word::<8>().map(f64::from_le_bytes)?),
            other => return Err(format!("metadata of the unknown kind {other}")),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>> {
        if depth > 2 {
            return Err("lists in lists in lists".to_owned());
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        // Each value takes a byte at least, and no vocabulary is as long as the limit.
        if count > (self.length - self.at).min(LONGEST_LIST) {
            return Err(format!("a list of {count} values in a file of {} bytes", self.length));
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(values)
    }

    /// Reads the description of a tensor; its first byte is told from where the data begin.
    fn tensor(&mut self) -> Result<(String, Tensor)> {
        let name = self.text()?;
        let wrong = |what: String| format!("tensor {name}: {what}");
        let dims = self.u32()?;
        if !(1..=4).contains(&dims) {
            return Err(wrong(format!("{dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(usize::try_from(self.u64()?).map_err(|e| wrong(e.to_string()))?);
        }
        let kind = self.u32()?;
        let format = format_of(kind).ok_or_else(|| wrong(format!("the unknown type {kind}")))?;
        let start = self.u64()?;
        let rows = shape[1..].iter().try_fold(1_usize, |all, one| all.checked_mul(*one));
        let cols = shape[0];
        let line = format.bytes(cols).filter(|line| *line > 0);
        let line = line.ok_or_else(|| wrong(format!("{cols} columns of {}", format.name())))?;
        let size = rows.and_then(|rows| Some((rows, rows.checked_mul(line)?)));
        let (rows, bytes) = size.ok_or_else(|| wrong(format!("the shape {shape:?}")))?;
        Ok((name, Tensor { rows, cols, format, start, bytes }))
    }
}

/// Finds a format by its number in ggml.
fn format_of(kind: u32) -> Option<Format> {
    Some(match kind {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        7 => Format::Q5_1,
        8 => Format::Q8_0,
        10 => Format::Q2K,
        11 => Format::Q3K,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        30 => Format::Bf16,
        _ => return None,
    })
}

/// Where tensors begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;

/// Reads the header of a file of `length` bytes. The whole of each tensor lies inside the file.
pub(super) fn read(from: impl Read, length: u64) -> Result<Header> {
    let mut reader = Reader { from, at: 0, length };
    if reader.word::<4>()? != *b"GGUF" {
        return Err("it does not begin with GGUF".to_owned());
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("version {version} of GGUF; 2 and 3 are read"));
    }
    let (tensors, values) = (reader.u64()?, reader.u64()?);
    let mut header = Header { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
    for _ in 0..values {
        let key = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind, 0).map_err(|e| format!("metadata {key}: {e}"))?;
        header.metadata.insert(key, value);
    }
    for _ in 0..tensors {
        let (name, tensor) = reader.tensor()?;
        header.tensors.insert(name, tensor);
    }
    let alignment = match header.metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(v)) if (1..=1 << 20).contains(v) => *v as u64,
        Some(other) => return Err(format!("metadata general.alignment is {other:?}")),
    };
    let begin = reader.at.next_multiple_of(alignment);
    for (name, tensor) in &mut header.tensors {
        let start = begin.checked_add(tensor.start);
        let end = start.and_then(|start| start.checked_add(tensor.bytes as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= length => tensor.start = start,
            (_, Some(end)) => return Err(format!("tensor {name} ends at byte {end} of {length}")),
            _ => return Err(format!("tensor {name} begins at byte {}", tensor.start)),
        }
    }
    Ok(header)
}
