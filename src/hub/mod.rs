//! Base models: known names, the cache, and the ways to fetch a file.

mod fetch;
mod known;

pub use fetch::{Fetched, cache_dir, pull};
pub use known::{KNOWN, KnownModel, find};

use std::path::{Path, PathBuf};

use ledger::Digest;
use ledger::catalogue::ModelImported;
use models::Model;

use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// A base model at hand.
pub struct Base {
    /// Name in tables and recipes.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Its file.
    pub path: PathBuf,
}

/// Loads a model by known name (from the cache) or by the path of a GGUF file or folder, and
/// records it.
///
/// # Errors
/// When it is not at hand, or its file is damaged.
pub fn load(lab: &Lab<'_>, name: &str) -> Result<Base, AppError> {
    let base = read(name)?;
    let licence = locate(name)?.2;
    record(lab, &base, licence)?;
    Ok(base)
}

/// Loads a model as [`load`] does, without recording it.
///
/// # Errors
/// When it is not at hand, or its file is damaged.
pub fn read(name: &str) -> Result<Base, AppError> {
    let (label, path, _) = locate(name)?;
    let base = Base { name: label, model: Model::load(&path)?, path };
    if let Ok(known) = find(name) {
        check_digest(&base.path, Digest::from_bytes(base.model.digest), known)?;
    }
    Ok(base)
}

/// Finds the file of a model without loading it: (name, path, licence).
///
/// # Errors
/// When it is not at hand.
pub fn locate(name: &str) -> Result<(String, PathBuf, String), AppError> {
    if let Ok(known) = find(name) {
        let path = cached(known);
        if !path.exists() {
            return Err(AppError::hinted(
                Kind::NotFound,
                format!("model {name} is not at hand ({})", path.display()),
                format!("`ledger model pull {name}` fetches it"),
            ));
        }
        return Ok((known.name.to_owned(), path, known.licence.to_owned()));
    }
    let path = PathBuf::from(name);
    if !path.exists() {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("no model {name:?}"),
            format!("name a GGUF file, a folder with config.json, or one of: {}", names.join(", ")),
        ));
    }
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = stem.map(|stem| stem.to_string_lossy().into_owned());
    Ok((stem.unwrap_or_else(|| name.to_owned()), path, "unknown".to_owned()))
}

/// Returns where a known model lies in the cache.
pub fn cached(known: &KnownModel) -> PathBuf {
    cache_dir().join("models").join(format!("{}.gguf", known.sha256))
}

pub(crate) fn check_digest(path: &Path, found: Digest, known: &KnownModel) -> Result<(), AppError> {
    if found.to_string() == known.sha256 {
        return Ok(());
    }
    Err(AppError::hinted(
        Kind::Damaged,
        format!("{} is not {}: its SHA-256 is {found}", path.display(), known.name),
        format!("remove it; `ledger model pull {}` fetches it again", known.name),
    ))
}

fn record(lab: &Lab<'_>, base: &Base, licence: String) -> Result<u64, AppError> {
    let mut length = 0;
    for file in models::model::files(&base.path)? {
        length += std::fs::metadata(&file).map_err(AppError::file(&file))?.len();
    }
    let facts = ModelImported {
        name: base.name.clone(),
        architecture: base.model.network.architecture().to_owned(),
        weights: Digest::from_bytes(base.model.digest),
        length,
        template: Digest::from_bytes(base.model.renderer.digest()),
        licence,
    };
    let id = format!("model/{}/{}/{}", facts.name, facts.weights, facts.template);
    lab.record(&format!("model/{}", facts.name), &id, &facts, Place::default())
}
