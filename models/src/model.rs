//! A base model, loaded from a GGUF file or from a folder as transformers writes it.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::gguf::{Gguf, TokenizerData};
use crate::network::Network;
use crate::render::Renderer;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// A base model: network, tokenizer and chat template.
pub struct Model {
    /// SHA-256 of the file; of a folder, of the names and digests of its configuration and weights.
    pub digest: [u8; 32],
    /// What computes it.
    pub network: Network,
    /// The one renderer of prompts.
    pub renderer: Renderer,
}

impl Model {
    /// Loads a GGUF file or a folder whole, in the precision that it has.
    ///
    /// # Errors
    /// When a file cannot be read, is cut short, or holds a model that cannot be run.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            let network = Network::of_folder(path)?;
            let renderer = load_renderer_of_folder(path)?;
            return Ok(Self { digest: folder_digest(path)?, network, renderer });
        }
        let (mut file, renderer, config) = open(path)?;
        let network = Network::Ours(Arc::new(Weights::read(config, &mut file)?));
        Ok(Self { digest: file_digest(path)?, network, renderer })
    }

    /// Returns the weights of a model that is trained here.
    ///
    /// # Errors
    /// When it is evaluated only.
    pub fn weights(&self) -> Result<&Arc<Weights>, ModelError> {
        self.network.weights()
    }
}

/// Lists the files that a model consists of: itself, or of a folder `config.json` and the weights.
///
/// # Errors
/// When the folder holds no model.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, ModelError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Checkpoint::open(path)?.files();
    files.push(path.join("config.json"));
    files.sort();
    Ok(files)
}

/// Hashes the names and digests of a folder's configuration and weights.
fn folder_digest(path: &Path) -> Result<[u8; 32], ModelError> {
    let mut hash = Sha256::new();
    hash.update("ledger/model-folder/1\0");
    for file in files(path)? {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        hash.update(name.unwrap_or_default());
        hash.update([0]);
        hash.update(file_digest(&file)?);
    }
    Ok(hash.finalize().into())
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
    let tokenizer = Tokenizer::new(&data)?;
    let ids = [("bos_token", data.bos), ("eos_token", Some(data.eos))].into_iter();
    let tokens = ids.filter_map(|(name, id)| Some((name.to_owned(), tokenizer.token(id?)?)));
    let template = ChatTemplate::new(template)?.with_tokens(tokens);
    let renderer = Renderer::new(template, tokenizer, vocabulary_digest(&data));
    Ok((file, renderer, config))
}

/// Special tokens that a `tokenizer_config.json` may name, all of which templates may use.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Loads the renderer of a model's folder, as Hugging Face lays it out: `tokenizer.json`, a chat
/// template (`chat_template.jinja`, else in `tokenizer_config.json`), and the token that ends an
/// answer (`generation_config.json`, else `config.json`; of a list, the one in the template).
///
/// # Errors
/// When a file is absent or not whole, or none names a template or an end token.
pub fn load_renderer_of_folder(dir: &Path) -> Result<Renderer, ModelError> {
    let path = dir.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|source| ModelError::Io { path, source })?;
    let settings = settings(dir, "tokenizer_config.json")?;
    let template = folder_template(dir, &settings)?;
    let named = TOKENS.iter().filter_map(|name| {
        let token = &settings[*name];
        let text = token.as_str().or_else(|| token["content"].as_str())?;
        Some(((*name).to_owned(), text.to_owned()))
    });
    let ends = folder_ends(dir)?;
    let named: Vec<(String, String)> = named.collect();
    let any = Tokenizer::from_json(&bytes, ends[0])?;
    let text = |id: &u32| any.token(*id).unwrap_or_default();
    // Of several, the one that the template ends an answer with; then what is called the end.
    let in_template = ends.iter().find(|id| ends.len() > 1 && template.contains(&text(id)));
    let called = named.iter().find(|(name, _)| name == "eos_token").map(|(_, text)| text);
    let called = || ends.iter().find(|id| called == Some(&text(id)));
    let eos = in_template.or_else(called).copied().unwrap_or(ends[0]);
    let tokenizer = Tokenizer::from_json(&bytes, eos)?;
    let template = ChatTemplate::new(&template)?.with_tokens(named);
    let mut vocabulary = Sha256::new();
    vocabulary.update(&bytes);
    vocabulary.update(eos.to_le_bytes());
    Ok(Renderer::new(template, tokenizer, vocabulary.finalize().into()))
}

/// Reads a file of a folder, if it is there.
fn optional(path: &Path) -> Result<Option<String>, ModelError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path: path.to_owned(), source }),
    }
}

/// Reads a JSON file of a folder; one that is not there says nothing.
fn settings(dir: &Path, name: &str) -> Result<Value, ModelError> {
    let path = dir.join(name);
    let Some(text) = optional(&path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text)
        .map_err(|error| ModelError::Malformed { path, reason: error.to_string() })
}

fn folder_template(dir: &Path, settings: &Value) -> Result<String, ModelError> {
    if let Some(text) = optional(&dir.join("chat_template.jinja"))? {
        return Ok(text);
    }
    let template = &settings["chat_template"];
    let named = template.as_array().into_iter().flatten();
    let default =
        named.filter(|one| one["name"] == "default").find_map(|one| one["template"].as_str());
    template.as_str().or(default).map(str::to_owned).ok_or_else(|| {
        let (dir, files) = (dir.display(), "chat_template.jinja nor tokenizer_config.json");
        ModelError::Template(format!("neither {files} of {dir} holds a chat template"))
    })
}

/// Returns the tokens that end an answer, at least one.
fn folder_ends(dir: &Path) -> Result<Vec<u32>, ModelError> {
    for name in ["generation_config.json", "config.json"] {
        let settings = settings(dir, name)?;
        let eos = &settings["eos_token_id"];
        let listed = eos.as_array().cloned().unwrap_or_else(|| vec![eos.clone()]);
        if listed.iter().all(Value::is_null) {
            continue;
        }
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| {
                ModelError::Tokenizer(format!("eos_token_id of {name} is no token: {value}"))
            })
        };
        return listed.iter().map(id).collect();
    }
    let (dir, files) = (dir.display(), "generation_config.json nor config.json");
    Err(ModelError::Tokenizer(format!("neither {files} of {dir} names eos_token_id")))
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
