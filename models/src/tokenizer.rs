//! Tokenizers: byte-level BPE over the vocabulary of a GGUF file, or what a `tokenizer.json` says.

use ahash::AHashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Inner};

use crate::error::ModelError;
use crate::gguf::TokenizerData;

/// Kind of a control token in GGUF.
const CONTROL: i64 = 3;
/// Kind of a token that the model's makers added, in GGUF.
const USER_DEFINED: i64 = 4;

/// Where Llama 3 splits a text, as its `tokenizer.json` has it.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Where Qwen 2 does: digits stand alone.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Where GPT-4o does: capitals begin a word.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Turns text into token ids and back.
pub struct Tokenizer {
    inner: Inner,
    eos: u32,
}

fn failed(error: impl ToString) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// When its kind or its pre-tokenizer is not known here, or the vocabulary is inconsistent.
    pub fn new(data: &TokenizerData) -> Result<Self, ModelError> {
        if data.model != "gpt2" {
            let what = "a vocabulary of kind";
            let known = "known: \"gpt2\", byte-level BPE";
            return Err(failed(format!("{what} {:?} is not known ({known})", data.model)));
        }
        let steps = pre_tokenizer(&data.pre)?;
        if data.kinds.len() != data.tokens.len() {
            let (kinds, tokens) = (data.kinds.len(), data.tokens.len());
            return Err(failed(format!("{kinds} kinds for {tokens} tokens")));
        }
        let vocabulary: AHashMap<String, u32> =
            data.tokens.iter().enumerate().map(|(id, text)| (text.clone(), id as u32)).collect();
        let mut merges = Vec::with_capacity(data.merges.len());
        for merge in &data.merges {
            let Some((left, right)) = merge.split_once(' ') else {
                return Err(failed(format!("merge {merge:?} has one part")));
            };
            check_merge(left, right, "", |token| vocabulary.contains_key(token))?;
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(is_llama3(&data.pre))
            .build()
            .map_err(failed)?;
        let mut inner = Inner::new(bpe);
        if data.pre == "qwen2" {
            inner.with_normalizer(Some(NFC)).map_err(failed)?;
        }
        inner.with_pre_tokenizer(Some(Sequence::new(steps)));
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        let of_kind = |wanted: i64| {
            let kinds = data.tokens.iter().zip(&data.kinds);
            let chosen = kinds.filter(move |(_, kind)| **kind == wanted);
            chosen.map(move |(text, _)| {
                AddedToken::from(text.clone(), wanted == CONTROL).normalized(false)
            })
        };
        inner.add_special_tokens(of_kind(CONTROL)).map_err(failed)?;
        inner.add_tokens(of_kind(USER_DEFINED)).map_err(failed)?;
        Self::with_end(inner, data.eos)
    }

    /// Reads a `tokenizer.json`; `eos` is the token that ends an answer.
    ///
    /// # Errors
    /// When the file is not whole or inconsistent, or has no such token.
    pub fn from_json(bytes: &[u8], eos: u32) -> Result<Self, ModelError> {
        check_merges(&serde_json::from_slice(bytes).map_err(failed)?)?;
        let mut inner = Inner::from_bytes(bytes).map_err(failed)?;
        // A conversation is neither cut nor filled up, whatever the file was last used with.
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        Self::with_end(inner, eos)
    }

    fn with_end(inner: Inner, eos: u32) -> Result<Self, ModelError> {
        if inner.id_to_token(eos).is_none() {
            let size = inner.get_vocab_size(true);
            return Err(failed(format!("the end token {eos} is none of the {size} tokens")));
        }
        Ok(Self { inner, eos })
    }

    /// Returns the token that ends an answer.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Returns the text of a token as the vocabulary has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Turns text into ids; names of control tokens in it become those tokens.
    ///
    /// # Errors
    /// When the tokenizer fails, which its byte alphabet should rule out.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(failed)?.get_ids().to_vec())
    }

    /// Turns ids into text, leaving control tokens out.
    ///
    /// # Errors
    /// When an id is not known.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// Returns the tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// When it has no such form.
    pub fn to_json(&self) -> Result<String, ModelError> {
        self.inner.to_string(true).map_err(|e| ModelError::Tokenizer(e.to_string()))
    }

    /// Returns the text of the token that ends an answer.
    pub fn eos_text(&self) -> String {
        self.inner.id_to_token(self.eos).unwrap_or_default()
    }
}

/// Says whether a pre-tokenizer is Llama 3's, whose words may be tokens that no merges lead to.
fn is_llama3(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3")
}

/// Returns the steps of a pre-tokenizer that llama.cpp has a name for.
fn pre_tokenizer(pre: &str) -> Result<Vec<PreTokenizerWrapper>, ModelError> {
    let bytes = |split: bool| PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, split));
    let pattern = match pre {
        "smollm" => {
            return Ok(vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)]);
        }
        "gpt-2" | "default" => return Ok(vec![bytes(true)]),
        pre if is_llama3(pre) => LLAMA3,
        "qwen2" => QWEN2,
        "gpt-4o" => GPT_4O,
        _ => {
            let known = "smollm, gpt-2, default, llama-bpe, llama3, qwen2, gpt-4o";
            return Err(failed(format!("pre-tokenizer {pre:?} is not known (known: {known})")));
        }
    };
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    Ok(vec![PreTokenizerWrapper::Split(split), bytes(false)])
}

/// Checks that a merge and what it makes are tokens, which the builder of a BPE takes for granted.
fn check_merge(
    left: &str,
    right: &str,
    prefix: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let made = right.get(prefix.len()..).map(|right| [left, right].concat());
    if is_known(left) && is_known(right) && made.is_some_and(|made| is_known(&made)) {
        return Ok(());
    }
    Err(failed(format!("merge \"{left} {right}\" names a token that the vocabulary lacks")))
}

/// Checks the merges of a `tokenizer.json`.
fn check_merges(file: &serde_json::Value) -> Result<(), ModelError> {
    let model = &file["model"];
    let (Some(merges), Some(vocabulary)) = (model["merges"].as_array(), model["vocab"].as_object())
    else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for merge in merges {
        let pair = match merge.as_array().map(Vec::as_slice) {
            Some([left, right]) => left.as_str().zip(right.as_str()),
            _ => merge.as_str().and_then(|merge| merge.split_once(' ')),
        };
        let Some((left, right)) = pair else {
            return Err(failed(format!("merge {merge} does not name two tokens")));
        };
        check_merge(left, right, prefix, |token| vocabulary.contains_key(token))?;
    }
    Ok(())
}
