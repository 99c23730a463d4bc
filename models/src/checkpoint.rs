//! Reads a folder as transformers writes it: `config.json`, and safetensors in one file or sharded.
//!
//! Format of the shards: `model.safetensors.index.json` names the file of each tensor in
//! `weight_map`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use crate::architectures;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::kernels::{Format, Stored, spacious};
use crate::weights::Source;

/// Longest header of a safetensors file (the limit of the format's own library).
const LONGEST_HEADER: u64 = 100_000_000;

/// An open folder.
pub struct Checkpoint {
    /// What `config.json` says.
    json: Value,
    /// Where each tensor lies.
    places: BTreeMap<String, Arc<Shard>>,
}

/// A safetensors file, of which the header was read.
struct Shard {
    path: PathBuf,
    metadata: Metadata,
    /// First byte of the tensors.
    begin: u64,
}

impl Checkpoint {
    /// Opens a folder and reads the headers of its files.
    ///
    /// # Errors
    /// When a file is absent or malformed.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let json = read_json(&dir.join("config.json"))?;
        let whole = dir.join("model.safetensors");
        let mut places = BTreeMap::new();
        if whole.exists() {
            let shard = Arc::new(Shard::open(&whole)?);
            let names = shard.metadata.offset_keys();
            places.extend(names.into_iter().map(|name| (name, Arc::clone(&shard))));
            return Ok(Self { json, places });
        }
        let path = dir.join("model.safetensors.index.json");
        let index = read_json(&path)?;
        let malformed = |reason: String| ModelError::Malformed { path: path.clone(), reason };
        let Some(map) = index["weight_map"].as_object() else {
            return Err(malformed("no weight_map".to_owned()));
        };
        let mut shards: BTreeMap<&str, Arc<Shard>> = BTreeMap::new();
        for (name, file) in map {
            // A name with folders in it could lead out of this one.
            let file = file.as_str().filter(|file| !file.contains(['/', '\\']));
            let file = file.ok_or_else(|| malformed(format!("no file name for {name}")))?;
            if !shards.contains_key(file) {
                shards.insert(file, Arc::new(Shard::open(&dir.join(file))?));
            }
            let shard = &shards[file];
            if shard.metadata.info(name).is_none() {
                return Err(malformed(format!("{file} does not hold {name}")));
            }
            places.insert(name.clone(), Arc::clone(shard));
        }
        Ok(Self { json, places })
    }

    /// Reads the shape.
    ///
    /// # Errors
    /// When the architecture is not one of ours, or its shape makes no sense.
    pub fn config(&self) -> Result<DecoderConfig, ModelError> {
        architectures::read_json(&self.json)
    }

    /// Returns `config.json`.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Lists the names of the tensors.
    pub fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    /// Returns a tensor and its shape.
    ///
    /// # Errors
    /// When it is absent or cannot be read.
    pub fn shaped(&self, name: &str) -> Result<(Stored, Vec<usize>), ModelError> {
        let absent = || ModelError::Tensor { name: name.to_owned(), reason: "absent".to_owned() };
        let shard = self.places.get(name).ok_or_else(absent)?;
        let shape = shard.metadata.info(name).map(|info| info.shape.clone());
        Ok((shard.stored(name)?, shape.unwrap_or_default()))
    }

    /// Lists the files that hold the tensors.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            self.places.values().map(|shard| shard.path.clone()).collect();
        files.sort();
        files.dedup();
        files
    }
}

fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text)
        .map_err(|e| ModelError::Malformed { path: path.to_owned(), reason: e.to_string() })
}

impl Shard {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let malformed = |reason: String| ModelError::Malformed { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut word = [0; 8];
        if length < 8 {
            return Err(malformed(format!("it has {length} bytes")));
        }
        file.read_exact(&mut word).map_err(io)?;
        let header = u64::from_le_bytes(word);
        if header > LONGEST_HEADER || header > length - 8 {
            return Err(malformed(format!("a header of {header} bytes in a file of {length}")));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        // The library checks that tensors follow each other and are as long as their shapes say.
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        let end = 8 + header + metadata.data_len() as u64;
        if end != length {
            return Err(malformed(format!("its tensors end at byte {end} of {length}")));
        }
        Ok(Self { path: path.to_owned(), metadata, begin: 8 + header })
    }

    fn stored(&self, name: &str) -> Result<Stored, ModelError> {
        let wrong = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
        let Some(info) = self.metadata.info(name) else { return Err(wrong("absent".to_owned())) };
        let format = match info.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::Bf16,
            other => return Err(wrong(format!("{other:?}; F32, F16 and BF16 are read"))),
        };
        let Some(cols) = info.shape.last().copied().filter(|cols| *cols > 0) else {
            return Err(wrong(format!("the shape {:?}", info.shape)));
        };
        let io = |source| ModelError::Io { path: self.path.clone(), source };
        let (start, end) = info.data_offsets;
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(self.begin + start as u64)).map_err(io)?;
        let mut bytes = spacious(end - start, 0);
        file.read_exact(&mut bytes).map_err(io)?;
        Stored::packed(format, bytes, cols).map_err(wrong)
    }
}

impl Source for Checkpoint {
    fn tensor(&mut self, name: &str) -> Result<Option<Stored>, ModelError> {
        self.places.get(name).map(|shard| shard.stored(name)).transpose()
    }
}
