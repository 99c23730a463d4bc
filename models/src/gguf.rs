//! Reads a GGUF file: shape, tokenizer, chat template, and weights dequantised to f32.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Files made for llama.cpp
//! hold the rows of q and k in the order of interleaved rotary position; they are put back into
//! the order of the checkpoint, so that adapters trained here fit the original model.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};

use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::weights::Source;

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
}

/// What a GGUF file says of its tokenizer.
pub struct TokenizerData {
    /// Pre-tokenizer, as llama.cpp names it (`smollm`).
    pub pre: String,
    /// Token texts by id.
    pub tokens: Vec<String>,
    /// Merges in order of rank, as "left right".
    pub merges: Vec<String>,
    /// Kind of each token; 3 is a control token.
    pub kinds: Vec<i64>,
    /// Token that ends an answer.
    pub eos: u32,
    /// Token that begins a text.
    pub bos: u32,
}

impl Gguf {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read, is no GGUF file, or ends before its last tensor.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::new(file);
        let malformed = |reason: String| ModelError::Malformed { path: path.to_owned(), reason };
        let content = Content::read(&mut file).map_err(|e| malformed(first_line(&e)))?;
        for (name, info) in &content.tensor_infos {
            let elements = info.shape.elem_count() as u64;
            let dtype = info.ggml_dtype;
            let bytes = elements / dtype.block_size() as u64 * dtype.type_size() as u64;
            let end = content.tensor_data_offset + info.offset + bytes;
            if end > length {
                let reason = format!("tensor {name} ends at byte {end} of {length}");
                return Err(malformed(reason));
            }
        }
        Ok(Self { path: path.to_owned(), file, content })
    }

    fn malformed(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Malformed { path: self.path.clone(), reason: reason.into() }
    }

    fn value(&self, key: &str) -> Result<&Value, ModelError> {
        let absent = || self.malformed(format!("no metadata {key}"));
        self.content.metadata.get(key).ok_or_else(absent)
    }

    fn number(&self, key: &str) -> Result<usize, ModelError> {
        integer(self.value(key)?)
            .and_then(|v| usize::try_from(v).ok())
            .ok_or_else(|| self.malformed(format!("metadata {key} is no count")))
    }

    fn float(&self, key: &str) -> Result<f32, ModelError> {
        self.value(key)?.to_f32().map_err(|e| self.malformed(first_line(&e)))
    }

    /// Returns a text of the metadata, if it is there.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key).and_then(|v| v.to_string().ok()).map(String::as_str)
    }

    /// Reads the shape.
    ///
    /// # Errors
    /// When the architecture is not `llama` or its shape is not whole.
    pub fn config(&self) -> Result<LlamaConfig, ModelError> {
        let architecture = self.text("general.architecture").unwrap_or("unnamed");
        if architecture != "llama" {
            let what = format!("architecture {architecture}; only llama can be run");
            return Err(ModelError::Unsupported(what));
        }
        let vocab_size = match self.content.tensor_infos.get("token_embd.weight") {
            Some(info) => info.shape.dims().first().copied().unwrap_or(0),
            None => return Err(self.malformed("no tensor token_embd.weight")),
        };
        let config = LlamaConfig {
            hidden_size: self.number("llama.embedding_length")?,
            intermediate_size: self.number("llama.feed_forward_length")?,
            num_hidden_layers: self.number("llama.block_count")?,
            num_attention_heads: self.number("llama.attention.head_count")?,
            num_key_value_heads: self.number("llama.attention.head_count_kv")?,
            vocab_size,
            max_position_embeddings: self.number("llama.context_length")?,
            rope_theta: self.float("llama.rope.freq_base")?,
            rms_norm_eps: self.float("llama.attention.layer_norm_rms_epsilon")?,
        };
        config.check().map_err(|reason| self.malformed(reason))?;
        Ok(config)
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// When a part of it is absent.
    pub fn tokenizer(&self) -> Result<TokenizerData, ModelError> {
        let strings = |key: &str| -> Result<Vec<String>, ModelError> {
            let wrong = |e: candle_core::Error| self.malformed(first_line(&e));
            let values = self.value(key)?.to_vec().map_err(wrong)?;
            values.iter().map(|v| v.to_string().cloned().map_err(wrong)).collect()
        };
        let id = |key: &str| -> Result<u32, ModelError> {
            u32::try_from(self.number(key)?).map_err(|_| self.malformed(format!("{key} too large")))
        };
        let kinds = self.value("tokenizer.ggml.token_type")?;
        let kinds = kinds.to_vec().map_err(|e| self.malformed(first_line(&e)))?;
        Ok(TokenizerData {
            pre: self.text("tokenizer.ggml.pre").unwrap_or("default").to_owned(),
            tokens: strings("tokenizer.ggml.tokens")?,
            merges: strings("tokenizer.ggml.merges")?,
            kinds: kinds.iter().map(|v| integer(v).unwrap_or(0)).collect(),
            eos: id("tokenizer.ggml.eos_token_id")?,
            bos: id("tokenizer.ggml.bos_token_id")?,
        })
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::U8(v) => Some(i64::from(*v)),
        Value::I8(v) => Some(i64::from(*v)),
        Value::U16(v) => Some(i64::from(*v)),
        Value::I16(v) => Some(i64::from(*v)),
        Value::U32(v) => Some(i64::from(*v)),
        Value::I32(v) => Some(i64::from(*v)),
        Value::U64(v) => i64::try_from(*v).ok(),
        Value::I64(v) => Some(*v),
        _ => None,
    }
}

/// candle appends a back trace to its messages; people are shown the first line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or("unreadable").to_owned()
}

/// Translates a checkpoint name into GGUF's.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
    let (layer, part) = rest.split_once('.')?;
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.weight"))
}

impl Source for Gguf {
    fn tensor(&mut self, name: &str) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(key) = gguf_name(name) else { return Ok(None) };
        if !self.content.tensor_infos.contains_key(&key) {
            return Ok(None);
        }
        let wrong = |e: candle_core::Error| ModelError::Tensor {
            name: key.clone(),
            reason: first_line(&e),
        };
        let tensor = self.content.tensor(&mut self.file, &key, &Device::Cpu).map_err(wrong)?;
        let data = tensor.dequantize(&Device::Cpu).map_err(wrong)?;
        let (rows, width) = data.dims2().unwrap_or((1, data.elem_count()));
        let data = data.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(wrong)?;
        let heads = match key.as_str() {
            k if k.ends_with("attn_q.weight") => self.number("llama.attention.head_count")?,
            k if k.ends_with("attn_k.weight") => self.number("llama.attention.head_count_kv")?,
            _ => return Ok(Some(data)),
        };
        Ok(Some(uninterleave(&data, rows / heads.max(1), width)))
    }
}

/// Puts the rows of each head from interleaved order (0, h/2, 1, h/2 + 1, ...) back in order.
fn uninterleave(data: &[f32], head: usize, width: usize) -> Vec<f32> {
    let half = head / 2;
    let mut out = Vec::with_capacity(data.len());
    for rows in data.chunks_exact(head * width) {
        for i in 0..head {
            let from = if i < half { 2 * i } else { 2 * (i - half) + 1 };
            out.extend_from_slice(&rows[from * width..(from + 1) * width]);
        }
    }
    out
}
