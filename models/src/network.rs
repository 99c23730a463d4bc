//! What computes a model: our own decoder, or one of candle's.

use std::path::Path;
use std::sync::Arc;

use crate::architectures::Architecture;
use crate::checkpoint::Checkpoint;
use crate::error::ModelError;
use crate::foreign::Foreign;
use crate::weights::Weights;

/// A network, ready to be read with.
#[derive(Clone)]
pub enum Network {
    /// One that is trained here.
    Ours(Arc<Weights>),
    /// One that is evaluated only.
    Foreign(Arc<Foreign>),
}

impl Network {
    /// Loads a folder as transformers writes it.
    ///
    /// # Errors
    /// When a file is absent or malformed, or the architecture is not known.
    pub fn of_folder(dir: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::open(dir)?;
        let name = checkpoint.json()["model_type"].as_str().unwrap_or("unnamed");
        if Architecture::named(name).is_none() && crate::foreign::FAMILIES.contains(&name) {
            return Ok(Self::Foreign(Arc::new(Foreign::load(&checkpoint)?)));
        }
        let config = checkpoint.config()?;
        Ok(Self::Ours(Arc::new(Weights::read(config, &mut checkpoint)?)))
    }

    /// Returns the weights of a model that is trained here.
    ///
    /// # Errors
    /// When it is evaluated only.
    pub fn weights(&self) -> Result<&Arc<Weights>, ModelError> {
        match self {
            Self::Ours(weights) => Ok(weights),
            Self::Foreign(foreign) => {
                let ours: Vec<&str> = Architecture::ALL.iter().map(|one| one.name()).collect();
                let (family, ours) = (foreign.family(), ours.join(", "));
                let what = format!("{family} is evaluated here, not trained; trained are {ours}");
                Err(ModelError::Unsupported(what))
            }
        }
    }

    /// Name of the architecture.
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Ours(weights) => weights.config.architecture.name(),
            Self::Foreign(foreign) => foreign.family(),
        }
    }
}
