//! Trained adapters: finding them in the record, and writing them out for others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ledger::catalogue::{RunFinished, RunInputs, RunOutcome, RunStarted};
use ledger::{BodyRef, Digest, Facts as _};
use models::export::{self, Precision};
use models::lora::Adapter;
use models::peft;

use crate::error::{AppError, Kind};
use crate::hub::Base;
use crate::rows::View;

/// An adapter that a run made.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its identity.
    pub id: Digest,
    /// Run that made it.
    pub run: String,
    /// Name of its base model.
    pub model: String,
    /// SHA-256 of its base model.
    pub base: Digest,
    /// Prefix that it was trained under, or `none`.
    pub cep: String,
    /// Loss on the held-out rows.
    pub dev_loss: Option<f64>,
    config: BodyRef,
    weights: BodyRef,
}

/// Lists the adapters of the record, in the order in which they were made.
///
/// # Errors
/// When the record cannot be read.
pub fn list(view: &View) -> Result<Vec<Found>, AppError> {
    let mut begun = BTreeMap::new();
    let mut found = Vec::new();
    for event in view.events()? {
        let event = event?;
        if event.kind == RunStarted::KIND {
            let facts: RunStarted = event.facts()?;
            if let RunInputs::Train { model, base, cep, .. } = facts.inputs {
                begun.insert(facts.run, (model, base, cep));
            }
        }
        if event.kind != RunFinished::KIND {
            continue;
        }
        let RunFinished { run, outcome } = event.facts()?;
        let RunOutcome::Train { adapter, config, weights, dev_loss, .. } = outcome else {
            continue;
        };
        // One without its start could be held against no base; `verify` says what is missing.
        let Some((model, base, cep)) = begun.get(&run).cloned() else { continue };
        found.push(Found { id: adapter, run, model, base, cep, dev_loss, config, weights });
    }
    Ok(found)
}

/// Finds an adapter by its identity, the start of it, or the run that made it.
///
/// # Errors
/// When none or several are meant.
pub fn find(view: &View, name: &str) -> Result<Found, AppError> {
    let mut found = list(view)?;
    found
        .retain(|one| one.run == name || (name.len() >= 4 && one.id.to_string().starts_with(name)));
    found.dedup_by_key(|one| one.id);
    let hint = "`ledger adapter list` names them";
    match found.len() {
        0 => Err(AppError::hinted(Kind::NotFound, format!("no run made adapter {name}"), hint)),
        1 => Ok(found.remove(0)),
        n => Err(AppError::hinted(Kind::Usage, format!("{n} adapters begin with {name}"), hint)),
    }
}

impl Found {
    /// Reads the adapter for the base that it was made for.
    ///
    /// # Errors
    /// When the base is another, or bodies are missing or damaged.
    pub fn read(&self, view: &View, base: &Base) -> Result<Adapter, AppError> {
        self.check_base(base)?;
        let blobs = view.blobs();
        let (config, weights) = (blobs.get(&self.config)?, blobs.get(&self.weights)?);
        Ok(peft::read(&config, &weights, &base.model.weights()?.config)?)
    }

    /// Holds the base's digest against that of the training.
    ///
    /// # Errors
    /// When they differ: the same update on other weights is another model.
    pub fn check_base(&self, base: &Base) -> Result<(), AppError> {
        let found = Digest::from_bytes(base.model.digest);
        if found == self.base {
            return Ok(());
        }
        let what = format!("adapter {} was trained on base {}, not on {found}", self.id, self.base);
        Err(AppError::said(Kind::Refused, what))
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors`, as PEFT has them.
    ///
    /// # Errors
    /// When a body is missing or damaged, or a file cannot be written.
    pub fn write_peft(&self, view: &View, folder: &Path) -> Result<Vec<PathBuf>, AppError> {
        let blobs = view.blobs();
        let files =
            [("adapter_config.json", &self.config), ("adapter_model.safetensors", &self.weights)];
        let mut written = Vec::new();
        for (name, body) in files {
            written.push(write(folder, name, &blobs.get(body)?)?);
        }
        Ok(written)
    }

    /// Writes the adapter as a GGUF file for llama.cpp.
    ///
    /// # Errors
    /// As [`Found::read`], or when the file cannot be written.
    pub fn write_gguf(&self, view: &View, base: &Base, folder: &Path) -> Result<PathBuf, AppError> {
        let adapter = self.read(view, base)?;
        let name = format!("{}-{}", self.model, self.id.short());
        let bytes = export::gguf_adapter(&adapter, &base.model.weights()?.config, &name)?;
        write(folder, "adapter.gguf", &bytes)
    }

    /// Writes the base with the adapter added, as transformers reads a model.
    ///
    /// # Errors
    /// As [`Found::read`], or when a file cannot be written.
    pub fn write_merged(
        &self,
        view: &View,
        base: &Base,
        (folder, precision): (&Path, Precision),
    ) -> Result<Vec<PathBuf>, AppError> {
        let adapter = self.read(view, base)?;
        let weights = base.model.weights()?;
        if folder.exists() && folder.canonicalize().ok() == base.path.canonicalize().ok() {
            let what = format!("{} is the base's own folder", folder.display());
            return Err(AppError::hinted(Kind::Usage, what, "name another with --out"));
        }
        let eos = base.model.renderer.tokenizer().eos();
        let config = export::config_json(weights, eos, precision)?;
        let mut written = vec![write(folder, "config.json", &serde_json::to_vec_pretty(&config)?)?];
        for (name, text) in base.model.renderer.files()? {
            written.push(write(folder, name, text.as_bytes())?);
        }
        let path = folder.join("model.safetensors");
        let unfinished = folder.join("model.safetensors.unfinished");
        export::write_merged(&unfinished, weights, &adapter, precision)?;
        // The library writes a file that only its owner may read; the others show what is meant.
        let like = std::fs::metadata(folder.join("config.json")).map_err(AppError::file(folder))?;
        std::fs::set_permissions(&unfinished, like.permissions())
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .map_err(AppError::file(&path))?;
        written.push(path);
        Ok(written)
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, AppError> {
    std::fs::create_dir_all(folder).map_err(AppError::file(folder))?;
    let path = folder.join(name);
    // Under its name the file is whole, or what was there before is still there.
    let unfinished = folder.join(format!("{name}.unfinished"));
    std::fs::write(&unfinished, bytes).map_err(AppError::file(&unfinished))?;
    std::fs::rename(&unfinished, &path).map_err(AppError::file(&path))?;
    Ok(path)
}
