//! Our own export: canonical episodes, one a line. They keep their source.

use serde_json::{Map, Value};

use super::lines::Input;
use super::make::subject_of;
use crate::episode::Episode;
use crate::manifest::{ManifestError, Stored};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let row = Value::Object(input.object.clone()).to_string();
    let mut episode = Episode::from_stored(row.as_bytes()).map_err(|error| match &error {
        ManifestError::Form { source, .. } => format!("{error}: {}", unquoted(source)),
        ManifestError::Newer { .. } => error.to_string(),
    })?;
    episode.subject = episode.subject.filter(|name| !name.trim().is_empty());
    Ok(vec![episode])
}

/// Says whether a row names a subject, whether or not the rest of it can be read.
pub(super) fn is_personal(object: &Map<String, Value>) -> bool {
    subject_of(object.get("subject")).is_some()
}

/// Says what serde says without what it quotes of the row: the row may be somebody's, and the
/// reason stays in the log.
fn unquoted(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The only quotation that cannot come from the row.
    if text.starts_with("missing field") {
        return text;
    }
    // What the row has stands before what was expected, and is quoted or follows a colon.
    let (what, expected) = text.rsplit_once(", expected ").unwrap_or((&text, "another form"));
    let what = what.split([':', '`', '"']).next().unwrap_or_default().trim_end();
    format!("{what}, expected {expected}")
}
