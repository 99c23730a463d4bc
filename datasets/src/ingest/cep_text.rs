//! Context engineering prefixes.

use std::path::Path;

use super::IngestError;
use super::lines::Input;
use crate::episode::Episode;

/// A prefix.
pub struct CepText {
    /// Name.
    pub name: String,
    /// Text.
    pub text: String,
}

/// Reads a prefix.
///
/// # Errors
/// When there is none.
pub fn cep_of(_path: &Path, _bytes: &[u8]) -> Result<CepText, IngestError> {
    Ok(CepText { name: String::new(), text: String::new() })
}

/// Reads a row.
pub(super) fn read(_input: &Input<'_>) -> Result<Vec<Episode>, String> {
    Err("not read yet".to_owned())
}
