//! Writes small GGUF files: metadata, and tensors in f32.

use super::Value;

/// Where tensors begin.
const ALIGNMENT: usize = 32;

/// A tensor: its name, its shape with the longest stride first, and its numbers.
pub(crate) struct Written<'a> {
    pub(crate) name: String,
    pub(crate) shape: (usize, usize),
    pub(crate) numbers: std::borrow::Cow<'a, [f32]>,
}

/// Returns the bytes of a file. Whole numbers are written as 32 bits, fractions as f32.
pub(crate) fn file(metadata: &[(&str, Value)], tensors: &[Written<'_>]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut out, key);
        out.extend(kind(value).to_le_bytes());
        put(&mut out, value);
    }
    let mut at = 0_u64;
    for tensor in tensors {
        text(&mut out, &tensor.name);
        out.extend(2_u32.to_le_bytes());
        // The shortest stride comes first here.
        out.extend((tensor.shape.1 as u64).to_le_bytes());
        out.extend((tensor.shape.0 as u64).to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(at.to_le_bytes());
        at += (tensor.numbers.len() * 4).next_multiple_of(ALIGNMENT) as u64;
    }
    for tensor in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(tensor.numbers.iter().flat_map(|v| v.to_le_bytes()));
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn kind(value: &Value) -> u32 {
    match value {
        Value::Integer(_) => 4,
        Value::Float(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::List(_) => 9,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Integer(v) => out.extend((*v as u32).to_le_bytes()),
        Value::Float(v) => out.extend((*v as f32).to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Text(v) => text(out, v),
        Value::List(values) => {
            out.extend(values.first().map_or(8, kind).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put(out, value));
        }
    }
}
