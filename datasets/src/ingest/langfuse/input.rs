//! What stands in the input of a generation beside its conversation, or in a form of its own.

use serde_json::{Value, json};

use super::super::chat::{LISTS, gemini_system, open, tools_of};
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
    let (mut conversation, tools) = gemini(&input).unwrap_or((input, Value::Null));
    let mut tools = tools_of(&tools);
    if let Some(messages) = messages_in(&mut conversation) {
        let (schemas, rest): (Vec<Value>, Vec<Value>) =
            std::mem::take(messages).into_iter().partition(|message| schema_in(message).is_some());
        if !schemas.is_empty() {
            tools = tools_of(&schemas.iter().filter_map(schema_in).collect());
        }
        *messages = rest;
    }
    Input { conversation, tools }
}

/// Finds the messages of an input: it is a list of them, or a request that has one.
fn messages_in(input: &mut Value) -> Option<&mut Vec<Value>> {
    let list = match input {
        Value::Object(request) => {
            let key = LISTS.into_iter().find(|&key| request.contains_key(key))?;
            let list = request.get_mut(key)?;
            *list = open(list);
            list
        }
        list => list,
    };
    list.as_array_mut()
}

/// Reads a request of Gemini's API: what it is told stands beside what was said.
fn gemini(input: &Value) -> Option<(Value, Value)> {
    let system = gemini_system(input);
    let config = input.get("config").map(open).unwrap_or_default();
    if (system.is_none() && !config.is_object()) || input.get("messages").is_some() {
        return None;
    }
    let user = |text: Value| json!({ "role": "user", "content": text });
    let contents = match open(input.get("contents")?) {
        Value::Array(contents) => contents,
        text @ Value::String(_) => vec![user(text)],
        content @ Value::Object(_) => vec![content],
        _ => return None,
    };
    let system = system.map(|told| json!({ "role": "system", "content": told }));
    let of_tool = |tool: &Value| {
        let names = ["function_declarations", "functionDeclarations"];
        names.iter().find_map(|&name| tool.get(name)?.as_array().cloned())
    };
    let tools = config.get("tools").or_else(|| input.get("tools")).and_then(Value::as_array);
    let tools: Vec<Value> = tools.into_iter().flatten().filter_map(of_tool).flatten().collect();
    let contents = contents.into_iter().map(|content| match content {
        text @ Value::String(_) => user(text),
        content => content,
    });
    Some((system.into_iter().chain(contents).collect(), tools.into()))
}

/// Returns the schema of a tool that stands as a message, as LangChain's tracer writes it: in the
/// form of the provider. What a tool brought says which call it answers.
fn schema_in(message: &Value) -> Option<Value> {
    let is_of_tool = message.get("role")?.as_str()? == "tool";
    if !is_of_tool || message.get("tool_call_id").is_some_and(|id| !id.is_null()) {
        return None;
    }
    let content = message.get("content")?;
    let schema = open(content);
    let is_named = |tool: &Value| tool.get("name").is_some_and(Value::is_string);
    let is_of_openai = schema.get("type").and_then(Value::as_str) == Some("function")
        && schema.get("function").is_some_and(is_named);
    let is_of_anthropic = is_named(content) && content.get("input_schema").is_some();
    (is_of_openai || is_of_anthropic).then_some(schema)
}
