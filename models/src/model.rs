//! A base model, loaded from one GGUF file.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::gguf::{Gguf, TokenizerData};
use crate::render::Renderer;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// A base model: weights, tokenizer and chat template of one file.
pub struct Model {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// Frozen weights.
    pub weights: Arc<Weights>,
    /// The one renderer of prompts.
    pub renderer: Renderer,
}

impl Model {
    /// Loads a GGUF file whole: in the precision of the file.
    ///
    /// # Errors
    /// When the file cannot be read, is cut short, or holds a model that cannot be run.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (mut file, renderer, config) = open(path)?;
        let weights = Arc::new(Weights::read(config, &mut file)?);
        Ok(Self { digest: file_digest(path)?, weights, renderer })
    }
}

/// Loads the renderer of a GGUF file alone, without its weights.
///
/// # Errors
/// When the file cannot be read, is cut short, or has no tokenizer known here.
pub fn load_renderer(path: &Path) -> Result<Renderer, ModelError> {
    Ok(open(path)?.1)
}

fn open(path: &Path) -> Result<(Gguf, Renderer, DecoderConfig), ModelError> {
    let mut file = Gguf::open(path)?;
    let config = file.config()?;
    let data = file.tokenizer()?;
    let Some(template) = file.text("tokenizer.chat_template") else {
        return Err(ModelError::Template("the file carries no chat template".to_owned()));
    };
    let template = ChatTemplate::new(template)?;
    let renderer = Renderer::new(template, Tokenizer::new(&data)?, vocabulary_digest(&data));
    Ok((file, renderer, config))
}

/// Hashes the tokenizer's data, each part behind its length.
fn vocabulary_digest(data: &TokenizerData) -> [u8; 32] {
    let mut hash = Sha256::new();
    for list in [&data.tokens, &data.merges] {
        hash.update((list.len() as u64).to_le_bytes());
        for text in list {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    hash.update(data.pre.as_bytes());
    data.kinds.iter().for_each(|kind| hash.update(kind.to_le_bytes()));
    hash.update(data.eos.to_le_bytes());
    hash.finalize().into()
}

/// Hashes a file in constant memory.
///
/// # Errors
/// When the file cannot be read.
pub fn file_digest(path: &Path) -> Result<[u8; 32], ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(io)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..read]);
    }
}
