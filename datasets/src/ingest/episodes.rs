//! Our own export: canonical episodes, one a line. They keep their source.

use serde_json::Value;

use super::lines::Input;
use crate::episode::Episode;
use crate::manifest::Stored;

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let row = Value::Object(input.object.clone()).to_string();
    let episode = Episode::from_stored(row.as_bytes()).map_err(|error| {
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    })?;
    Ok(vec![episode])
}
