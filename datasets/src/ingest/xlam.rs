//! xLAM: `{id, query, tools, answers}`, tools and answers as JSON inside strings, or as values.

use serde_json::Value;

use super::Format;
use super::lines::Input;
use super::make::{id_of, start};
use super::openai::call_of;
use super::prompt_completion::text;
use crate::episode::{Episode, Gold, Tool, Turn};
use crate::export::extra;
use crate::literal::{self, Dialect};
use crate::signature::{is_schema, schema_of_loose};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let query = text(input, "query")?;
    let id = match input.object.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => id_of(query),
    };
    let mut episode = start(input.source, input.location.clone(), Format::Xlam, id);
    episode.track = "toolcall".to_owned();
    episode.turns = vec![Turn::text("user", query)];
    episode.query = query.trim().to_owned();
    let (tools, _) = list(input, "tools")?;
    episode.tools = tools.iter().map(tool).collect::<Result<_, _>>()?;
    let (answers, dialect) = list(input, "answers")?;
    if dialect == Dialect::Python {
        episode.flags.push("gold.python_literal".to_owned());
    }
    let call = |(place, answer): (usize, &Value)| match call_of(answer) {
        Ok((call, _)) => Ok(call),
        Err(why) => Err(format!("answer {}: {why}", place + 1)),
    };
    let calls: Vec<_> = answers.iter().enumerate().map(call).collect::<Result<_, _>>()?;
    // An empty list is an answer: that no tool on offer fits.
    episode.gold = if calls.is_empty() { Gold::NoCall } else { Gold::Calls { calls } };
    extra::settle(vec![episode], &input.object)
}

/// Returns the list in `field`, as it stands or inside a text.
fn list(input: &Input<'_>, field: &str) -> Result<(Vec<Value>, Dialect), String> {
    let read = match input.object.get(field) {
        Some(Value::String(text)) => {
            literal::parse(text).map_err(|error| format!("{field}: {error}"))?
        }
        Some(value) => (value.clone(), Dialect::Json),
        None => return Err(format!("no field {field:?}")),
    };
    match read {
        (Value::Array(items), dialect) => Ok((items, dialect)),
        _ => Err(format!("field {field:?} is no list")),
    }
}

/// Reads a tool. Its parameters are loose ones, or a JSON Schema as in OpenAI's form.
fn tool(item: &Value) -> Result<Tool, String> {
    let mut tool = super::hermes::tool_of(item).ok_or("tools: a tool has no name")?;
    if let Value::Object(parameters) = &tool.parameters
        && !is_schema(parameters)
    {
        tool.parameters = schema_of_loose(parameters);
    }
    Ok(tool)
}

#[cfg(test)]
mod tests;
