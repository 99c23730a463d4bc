//! TRL: `{messages, tools}`, arguments as objects, as chat templates want them.
//!
//! Weights are written too, but TRL does not read them: a trainer there that takes the loss of
//! every answer also takes that of earlier ones.

use serde_json::{Map, Value};

use super::openai::{Style, messages, tools};
use crate::episode::Episode;

/// Makes the row of an episode.
pub(super) fn row(episode: &Episode) -> Result<Map<String, Value>, String> {
    let mut row = Map::new();
    row.insert("messages".to_owned(), messages(episode, Style::Trl)?);
    // Rows of one file need the same members to be read as one table.
    row.insert("tools".to_owned(), tools(&episode.tools));
    row.insert("id".to_owned(), Value::from(episode.source.external_id.as_str()));
    Ok(row)
}
