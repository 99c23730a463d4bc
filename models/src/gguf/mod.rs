//! Reads a GGUF file: shape, tokenizer, chat template, and weights in the precision they have.
//!
//! Files made for llama.cpp hold the rows of q and k of a Llama in the order of interleaved rotary
//! position; they are put back into the order of the checkpoint, so that adapters trained here fit
//! the original model.

mod header;
mod write;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub use self::header::Value;
use self::header::{Header, Tensor};
pub(crate) use self::write::{Written, file};
use crate::architectures::{self, Architecture};
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::kernels::{Stored, spacious};
use crate::lora::Module;
use crate::weights::Source;

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    file: File,
    header: Header,
}

/// What a GGUF file says of its tokenizer.
pub struct TokenizerData {
    /// Kind of vocabulary, as llama.cpp names it (`gpt2` is byte-level BPE).
    pub model: String,
    /// Pre-tokenizer, as llama.cpp names it (`smollm`).
    pub pre: String,
    /// Token texts by id.
    pub tokens: Vec<String>,
    /// Merges in order of rank, as "left right"; only byte-level BPE has them.
    pub merges: Vec<String>,
    /// Kind of each token; 3 is a control token, 4 one that the model's makers added.
    pub kinds: Vec<i64>,
    /// Token that ends an answer.
    pub eos: u32,
    /// Token that begins a text, if there is one.
    pub bos: Option<u32>,
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
        let header = header::read(BufReader::new(&file), length)
            .map_err(|reason| ModelError::Malformed { path: path.to_owned(), reason })?;
        Ok(Self { path: path.to_owned(), file, header })
    }

    pub(crate) fn malformed(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Malformed { path: self.path.clone(), reason: reason.into() }
    }

    /// Says whether the metadata have a key.
    pub fn has(&self, key: &str) -> bool {
        self.header.metadata.contains_key(key)
    }

    fn value(&self, key: &str) -> Result<&Value, ModelError> {
        let absent = || self.malformed(format!("no metadata {key}"));
        self.header.metadata.get(key).ok_or_else(absent)
    }

    /// Returns a count of the metadata; of a list, its first.
    ///
    /// # Errors
    /// When it is absent or no count.
    pub fn number(&self, key: &str) -> Result<usize, ModelError> {
        let value = match self.value(key)? {
            Value::List(values) => values.first(),
            value => Some(value),
        };
        match value {
            Some(Value::Integer(v)) => usize::try_from(*v).ok(),
            _ => None,
        }
        .ok_or_else(|| self.malformed(format!("metadata {key} is no count")))
    }

    /// Returns a number of the metadata.
    ///
    /// # Errors
    /// When it is absent or no number.
    pub fn float(&self, key: &str) -> Result<f32, ModelError> {
        match self.value(key)? {
            Value::Float(v) => Ok(*v as f32),
            Value::Integer(v) => Ok(*v as f32),
            _ => Err(self.malformed(format!("metadata {key} is no number"))),
        }
    }

    /// Returns a text of the metadata, if it is there.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.header.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn list(&self, key: &str) -> Result<&[Value], ModelError> {
        match self.value(key)? {
            Value::List(values) => Ok(values),
            _ => Err(self.malformed(format!("metadata {key} is no list"))),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, ModelError> {
        let text = |value: &Value| match value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(self.malformed(format!("metadata {key} is no list of texts"))),
        };
        self.list(key)?.iter().map(text).collect()
    }

    /// Returns the number of lines of a tensor.
    ///
    /// # Errors
    /// When it is absent.
    pub fn rows(&self, name: &str) -> Result<usize, ModelError> {
        let tensor = self.header.tensors.get(name);
        tensor.map(|t| t.rows).ok_or_else(|| self.malformed(format!("no tensor {name}")))
    }

    /// Reads the shape.
    ///
    /// # Errors
    /// When the architecture is not one of ours or its shape is not whole.
    pub fn config(&mut self) -> Result<DecoderConfig, ModelError> {
        architectures::read_gguf(self)
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// When a part of it is absent.
    pub fn tokenizer(&self) -> Result<TokenizerData, ModelError> {
        let id = |key: &str| -> Result<u32, ModelError> {
            u32::try_from(self.number(key)?).map_err(|_| self.malformed(format!("{key} too large")))
        };
        let kind = |value: &Value| match value {
            Value::Integer(v) => i64::try_from(*v).unwrap_or(0),
            _ => 0,
        };
        let eos = "tokenizer.ggml.eos_token_id";
        if !self.has(eos) {
            let what = format!("the file names no end token ({eos})");
            return Err(ModelError::Tokenizer(what));
        }
        let bos = "tokenizer.ggml.bos_token_id";
        let model = self.text("tokenizer.ggml.model").unwrap_or("gpt2").to_owned();
        let merges = "tokenizer.ggml.merges";
        Ok(TokenizerData {
            pre: self.text("tokenizer.ggml.pre").unwrap_or("default").to_owned(),
            tokens: self.texts("tokenizer.ggml.tokens")?,
            merges: if model == "gpt2" { self.texts(merges)? } else { Vec::new() },
            kinds: self.list("tokenizer.ggml.token_type")?.iter().map(kind).collect(),
            eos: id(eos)?,
            bos: if self.has(bos) { Some(id(bos)?) } else { None },
            model,
        })
    }

    fn bytes(&mut self, tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
        let path = self.path.clone();
        let io = |source| ModelError::Io { path: path.clone(), source };
        self.file.seek(SeekFrom::Start(tensor.start)).map_err(io)?;
        let mut bytes = spacious(tensor.bytes, 0);
        self.file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    /// Returns the numbers of a tensor, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn plain(&mut self, name: &str) -> Result<Option<Vec<f32>>, ModelError> {
        Ok(self.stored(name)?.map(|stored| stored.to_vec()))
    }

    fn stored(&mut self, name: &str) -> Result<Option<Stored>, ModelError> {
        let Some(tensor) = self.header.tensors.get(name).cloned() else { return Ok(None) };
        let bytes = self.bytes(&tensor)?;
        let wrong = |reason| ModelError::Tensor { name: name.to_owned(), reason };
        Stored::packed(tensor.format, bytes, tensor.cols).map(Some).map_err(wrong)
    }
}

/// Translates a checkpoint name into GGUF's.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        _ => Module::ALL.into_iter().find(|module| module.path() == part)?.gguf_name(),
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

impl Source for Gguf {
    fn tensor(&mut self, name: &str) -> Result<Option<Stored>, ModelError> {
        let Some(key) = gguf_name(name) else { return Ok(None) };
        let Some(stored) = self.stored(&key)? else { return Ok(None) };
        let architecture = self.text("general.architecture").and_then(Architecture::named);
        if !architecture.is_some_and(Architecture::is_interleaved_in_gguf) {
            return Ok(Some(stored));
        }
        let heads = match key.rsplit('.').nth(1) {
            Some("attn_q") => self.number("llama.attention.head_count")?,
            Some("attn_k") if self.has("llama.attention.head_count_kv") => {
                self.number("llama.attention.head_count_kv")?
            }
            Some("attn_k") => self.number("llama.attention.head_count")?,
            _ => return Ok(Some(stored)),
        };
        let head = stored.rows() / heads.max(1);
        if head == 0 || !head.is_multiple_of(2) || head * heads != stored.rows() {
            let what = format!("tensor {key} has {} rows for {heads} heads", stored.rows());
            return Err(self.malformed(what));
        }
        Ok(Some(stored.with_rows(|row| row / head * head + interleaved(row % head, head))))
    }
}

/// Returns where row `i` of a head stands in interleaved order (0, h/2, 1, h/2 + 1, ...).
pub(crate) fn interleaved(i: usize, head: usize) -> usize {
    let half = head / 2;
    if i < half { 2 * i } else { 2 * (i - half) + 1 }
}
