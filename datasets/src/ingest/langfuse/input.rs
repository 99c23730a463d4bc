//! What stands in the input of a generation beside its conversation, or in a form of its own.

use serde_json::{Map, Value, json};

use super::super::chat::{is_of_results, open, tools_of};
use crate::episode::Tool;

/// The input of a generation, taken apart.
pub(super) struct Input {
    /// Its conversation, in forms that `turns_of` reads.
    pub(super) conversation: Value,
    /// Tools that stand in it.
    pub(super) tools: Vec<Tool>,
}

/// Takes an input apart.
pub(super) fn apart(input: Value) -> Input {
    let (messages, tools) = match gemini(&input) {
        Some(found) => found,
        None => (input, Value::Null),
    };
    let Value::Array(messages) = messages else {
        return Input { conversation: messages, tools: tools_of(&tools) };
    };
    let (schemas, messages): (Vec<Value>, Vec<Value>) =
        messages.into_iter().partition(|message| schema_in(message).is_some());
    let schemas: Vec<Value> = schemas.iter().filter_map(schema_in).collect();
    let tools = if schemas.is_empty() { tools_of(&tools) } else { tools_of(&schemas.into()) };
    let conversation = messages.into_iter().flat_map(results_apart).collect();
    Input { conversation, tools }
}

/// Reads a request of Gemini's API: what it is told stands beside what was said.
fn gemini(input: &Value) -> Option<(Value, Value)> {
    let (config, contents) = (input.get("config")?, open(input.get("contents")?));
    let contents = match contents {
        Value::Array(contents) => contents,
        text @ Value::String(_) => vec![json!({ "role": "user", "content": text })],
        _ => return None,
    };
    let told = config.get("system_instruction").or_else(|| config.get("systemInstruction"));
    let system = told.filter(|told| !told.is_null()).map(|told| match told {
        Value::Object(told) => json!({ "role": "system", "parts": told.get("parts") }),
        text => json!({ "role": "system", "content": text }),
    });
    let of_tool = |tool: &Value| {
        let names = ["function_declarations", "functionDeclarations"];
        names.iter().find_map(|&name| tool.get(name)?.as_array().cloned())
    };
    let tools = config.get("tools").and_then(Value::as_array).into_iter().flatten();
    let tools: Vec<Value> = tools.filter_map(of_tool).flatten().collect();
    Some((system.into_iter().chain(contents).collect(), tools.into()))
}

/// Returns the schema of a tool that stands as a message, as LangChain's tracer writes it.
fn schema_in(message: &Value) -> Option<Value> {
    if message.get("role")?.as_str()? != "tool" {
        return None;
    }
    let schema = open(message.get("content")?);
    let function = schema.get("function").filter(|function| function.get("name").is_some());
    let is_schema = schema.get("type").and_then(Value::as_str) == Some("function");
    (is_schema && function.is_some()).then_some(schema)
}

/// Makes a message of each result where a message brings nothing but results of tools.
fn results_apart(message: Value) -> Vec<Value> {
    let Some(object) = message.as_object().filter(|object| is_of_results(object)) else {
        return vec![message];
    };
    let parts = ["content", "parts"].iter().find_map(|&key| object.get(key)?.as_array());
    parts.into_iter().flatten().map(result_of).collect()
}

fn result_of(part: &Value) -> Value {
    let keys = ["function_response", "functionResponse"];
    let of_gemini = keys.iter().find_map(|&key| part.get(key)?.get("response"));
    let keys = ["content", "result", "output", "response"];
    let result = of_gemini.or_else(|| keys.iter().find_map(|&key| part.get(key)));
    let mut message = Map::new();
    message.insert("role".to_owned(), "tool".into());
    message.insert("content".to_owned(), result.cloned().unwrap_or_default());
    Value::Object(message)
}
