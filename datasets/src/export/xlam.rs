//! xLAM: `{id, query, tools, answers}`, tools and answers as JSON strings.

use serde_json::{Map, Value, json};

use crate::episode::{Episode, Gold, Tool, Turn, json_text};
use crate::signature::loose_of_schema;

/// Makes the row of an episode.
pub(super) fn row(episode: &Episode) -> Result<Map<String, Value>, String> {
    let [Turn { role, content, tool_calls }] = episode.turns.as_slice() else {
        return Err("the conversation is not one request alone".to_owned());
    };
    if role != "user" || !tool_calls.is_empty() {
        return Err("the conversation is not one request of a user".to_owned());
    }
    let calls = match &episode.gold {
        Gold::Calls { calls } | Gold::AnyOf { calls, .. } => calls.as_slice(),
        Gold::NoCall => &[],
        Gold::None => return Err("it has no gold".to_owned()),
        Gold::Json { .. } | Gold::Text { .. } => return Err("its gold is no call".to_owned()),
    };
    let answers: Value = calls
        .iter()
        .map(|call| json!({ "name": call.name, "arguments": call.arguments }))
        .collect();
    let tools: Value = episode.tools.iter().map(tool).collect();
    let mut row = Map::new();
    row.insert("id".to_owned(), Value::from(episode.source.external_id.as_str()));
    row.insert("query".to_owned(), Value::from(content.as_str()));
    // Not sorted: required parameters keep their order by standing first.
    row.insert("tools".to_owned(), Value::from(tools.to_string()));
    row.insert("answers".to_owned(), Value::from(json_text(&answers)));
    Ok(row)
}

/// Writes a tool with loose parameters, or with its schema where these cannot say it.
fn tool(tool: &Tool) -> Value {
    let mut written = json!({ "name": tool.name, "description": tool.description });
    if let (Value::Object(written), false) = (&mut written, tool.parameters.is_null()) {
        let loose = loose_of_schema(&tool.parameters).map(Value::Object);
        let parameters = loose.unwrap_or_else(|| tool.parameters.clone());
        written.insert("parameters".to_owned(), parameters);
    }
    written
}
