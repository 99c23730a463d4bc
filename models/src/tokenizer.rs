//! The tokenizer of a GGUF file: byte-level BPE over the file's own vocabulary and merges.

use ahash::AHashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer as Inner};

use crate::error::ModelError;
use crate::gguf::TokenizerData;

/// Kind of a control token in GGUF.
const CONTROL: i64 = 3;

/// Turns text into token ids and back.
pub struct Tokenizer {
    inner: Inner,
    eos: u32,
}

impl Tokenizer {
    /// Builds the tokenizer that a file describes.
    ///
    /// # Errors
    /// When its pre-tokenizer is not known here, or the vocabulary is inconsistent.
    pub fn new(data: &TokenizerData) -> Result<Self, ModelError> {
        if data.pre != "smollm" {
            let what = format!("pre-tokenizer {:?} is not known (known: smollm)", data.pre);
            return Err(ModelError::Tokenizer(what));
        }
        let failed = |e: tokenizers::Error| ModelError::Tokenizer(e.to_string());
        let vocabulary: AHashMap<String, u32> =
            data.tokens.iter().enumerate().map(|(id, text)| (text.clone(), id as u32)).collect();
        let mut merges = Vec::with_capacity(data.merges.len());
        for merge in &data.merges {
            let Some((left, right)) = merge.split_once(' ') else {
                return Err(ModelError::Tokenizer(format!("merge {merge:?} has one part")));
            };
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).build().map_err(failed)?;
        let mut inner = Inner::new(bpe);
        let steps = vec![
            PreTokenizerWrapper::Digits(Digits::new(true)),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ];
        inner.with_pre_tokenizer(Some(Sequence::new(steps)));
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        let control = data.tokens.iter().zip(&data.kinds).filter(|(_, kind)| **kind == CONTROL);
        let special: Vec<_> =
            control.map(|(text, _)| AddedToken::from(text.clone(), true)).collect();
        inner.add_special_tokens(special).map_err(failed)?;
        Ok(Self { inner, eos: data.eos })
    }

    /// Returns the token that ends an answer.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Turns text into ids; names of control tokens in it become those tokens.
    ///
    /// # Errors
    /// When the tokenizer fails, which its byte alphabet should rule out.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Turns ids into text, leaving control tokens out.
    ///
    /// # Errors
    /// When an id is not known.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(ids, true).map_err(|e| ModelError::Tokenizer(e.to_string()))
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
