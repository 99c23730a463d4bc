//! A tiny random model in a GGUF file, for tests and dry runs: it knows single bytes and says
//! nothing sensible, but takes every path that a real model takes.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::architectures::Architecture;
use crate::config::{DecoderConfig, RopeConfig};
use crate::error::ModelError;
use crate::rng;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}\
<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Control tokens, with the ids 0, 1 and 2.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Returns the model's shape.
pub fn config() -> DecoderConfig {
    DecoderConfig {
        architecture: Architecture::Llama,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: CONTROL.len() + 256,
        max_position_embeddings: 8192,
        rope: RopeConfig::plain(10_000.0, 8),
        rms_norm_eps: 1e-5,
    }
}

/// Writes the model with random weights of `seed`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, seed: u64) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    let tensors = tensors(seed)?;
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let metadata = metadata();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, v)| (*key, v)).collect();
    Ok(gguf_file::write(&mut out, &metadata, &tensors)?)
}

fn metadata() -> Vec<(&'static str, Value)> {
    let config = config();
    let number = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let tokens = CONTROL.iter().map(|token| (*token).to_owned());
    let tokens: Vec<Value> =
        tokens.chain((0..=255).map(|b| byte_char(b).to_string())).map(Value::String).collect();
    let kinds = (0..config.vocab_size).map(|id| if id < CONTROL.len() { 3 } else { 1 });
    vec![
        ("general.architecture", Value::String("llama".to_owned())),
        ("llama.embedding_length", number(config.hidden_size)),
        ("llama.feed_forward_length", number(config.intermediate_size)),
        ("llama.block_count", number(config.num_hidden_layers)),
        ("llama.attention.head_count", number(config.num_attention_heads)),
        ("llama.attention.head_count_kv", number(config.num_key_value_heads)),
        ("llama.context_length", number(config.max_position_embeddings)),
        ("llama.rope.freq_base", Value::F32(config.rope.theta)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
        ("tokenizer.ggml.pre", Value::String("smollm".to_owned())),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds.map(Value::I32).collect())),
        ("tokenizer.ggml.merges", Value::Array(vec![])),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.chat_template", Value::String(TEMPLATE.to_owned())),
    ]
}

/// The printable stand-in of a byte in byte-level BPE (Radford et al., 2019): printable Latin-1
/// stands for itself, the others follow from U+0100 on.
fn byte_char(byte: u8) -> char {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if plain(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|b| !plain(*b)).count() as u32;
    char::from_u32(0x100 + place).unwrap_or('?')
}

fn tensors(seed: u64) -> Result<Vec<(String, QTensor)>, ModelError> {
    let c = config();
    let (hidden, kv, wide) = (c.hidden_size, c.kv_dim(), c.intermediate_size);
    let mut shapes = vec![("token_embd.weight".to_owned(), vec![c.vocab_size, hidden])];
    for layer in 0..c.num_hidden_layers {
        let parts = [
            ("attn_q", vec![hidden, hidden]),
            ("attn_k", vec![kv, hidden]),
            ("attn_v", vec![kv, hidden]),
            ("attn_output", vec![hidden, hidden]),
            ("ffn_gate", vec![wide, hidden]),
            ("ffn_up", vec![wide, hidden]),
            ("ffn_down", vec![hidden, wide]),
            ("attn_norm", vec![hidden]),
            ("ffn_norm", vec![hidden]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("blk.{layer}.{part}.weight"), shape)));
    }
    shapes.push(("output_norm.weight".to_owned(), vec![hidden]));
    let mut tensors = Vec::with_capacity(shapes.len());
    for (index, (name, shape)) in shapes.into_iter().enumerate() {
        let count = shape.iter().product();
        let values = if shape.len() == 1 {
            vec![1.0; count]
        } else {
            rng::uniform(&mut rng::stream(seed, "tiny-model", index as u64), 0.3, count)
        };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        tensors.push((name, QTensor::quantize(&tensor, GgmlDType::F32)?));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::Model;
    use crate::error::ModelError;

    #[test]
    fn the_file_loads_and_keeps_every_byte_of_a_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        super::write(&path, 1).unwrap();
        let model = Model::load(&path).unwrap();
        assert_eq!(model.weights().unwrap().config, super::config());
        let text = "a 1\n\u{e9}\u{4e16}\u{1f600}";
        let ids = model.renderer.tokenizer().encode(text).unwrap();
        assert_eq!(ids.len(), text.len());
        assert_eq!(model.renderer.tokenizer().decode(&ids).unwrap(), text);
    }

    #[test]
    fn a_file_cut_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        super::write(&path, 1).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for keep in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let error = Model::load(&path).err().unwrap();
            assert!(matches!(error, ModelError::Malformed { .. }), "{keep} bytes: {error}");
        }
    }
}
