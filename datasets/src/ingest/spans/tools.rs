//! The tools on offer, wherever a span tells them.

use serde_json::{Map, Value};

use super::super::chat::{open, tools_of};
use super::super::hermes::tool_of;
use super::indexed::{Fields, get, items};
use super::is_told;
use crate::episode::Tool;

/// Finds the tools on offer; the first place that names any is read.
pub(super) fn of(attributes: &Map<String, Value>, input: &Value) -> Vec<Tool> {
    let inside = |key: &str, members: &[&str]| {
        let whole = attributes.get(key).map(open)?;
        list(&member(&whole, members)?)
    };
    let all = || attributes.iter().map(|(name, value)| (name.as_str(), value));
    let whole = |key: &str| attributes.get(key).and_then(list);
    let indexed = |prefix: &str, read: fn(&Fields<'_>) -> Option<Tool>| {
        let tools: Vec<Tool> = items(all(), prefix).values().filter_map(read).collect();
        (!tools.is_empty()).then_some(tools)
    };
    whole("gen_ai.tool.definitions")
        .or_else(|| whole("ai.prompt.tools"))
        .or_else(|| indexed("llm.tools", of_openinference))
        .or_else(|| indexed("llm.request.functions", of_traceloop))
        .or_else(|| whole("gen_ai.request.tools"))
        .or_else(|| inside("model_request_parameters", &["function_tools"]))
        .or_else(|| inside("llm.invocation_parameters", &["tools", "functions"]))
        .or_else(|| list(&member(&open(input), &["tools", "functions"])?))
        .or_else(|| inside("input.value", &["tools", "functions"]))
        .or_else(|| inside("input", &["tools", "functions"]))
        .unwrap_or_default()
}

/// Finds a member, also in the `config` that requests to Gemini's API have.
fn member(value: &Value, keys: &[&str]) -> Option<Value> {
    let config = value.get("config").map(open).unwrap_or_default();
    let places = [value, &config].into_iter();
    let mut told = places.flat_map(|place| keys.iter().filter_map(|&key| place.get(key)));
    told.find(|value| is_told(value)).cloned()
}

/// Reads a list of tools, or of their names only; none where it names none.
fn list(value: &Value) -> Option<Vec<Tool>> {
    let tools: Vec<Tool> = match open(value) {
        Value::Array(items) => items.iter().flat_map(|item| several(&open(item))).collect(),
        other => tools_of(&other),
    };
    (!tools.is_empty()).then_some(tools)
}

/// Reads an item of a list. Gemini writes several functions into one.
fn several(item: &Value) -> Vec<Tool> {
    let inner = ["function_declarations", "functionDeclarations"].iter();
    match inner.filter_map(|&key| item.get(key)?.as_array()).next() {
        Some(functions) => functions.iter().filter_map(one).collect(),
        None => one(item).into_iter().collect(),
    }
}

fn one(item: &Value) -> Option<Tool> {
    if let Value::String(name) = item {
        let name = name.trim();
        return (!name.is_empty()).then(|| named(name, Value::Null));
    }
    let item = item.get("toolSpec").unwrap_or(item);
    let mut tool = tool_of(item)?;
    if tool.parameters.is_null() {
        let other = item.get("parameters_json_schema").or_else(|| item.get("json_schema"));
        tool.parameters = other.cloned().unwrap_or_default();
    }
    tool.parameters = schema(&tool.parameters);
    Some(tool)
}

fn named(name: &str, parameters: Value) -> Tool {
    Tool { name: name.to_owned(), description: String::new(), parameters }
}

/// Opens a schema: JSON inside a string or, as Bedrock has it, the member `json`.
fn schema(value: &Value) -> Value {
    match open(value) {
        Value::Object(object) if object.len() == 1 => match object.get("json") {
            Some(inner @ Value::Object(_)) => inner.clone(),
            _ => Value::Object(object),
        },
        schema @ Value::Object(_) => schema,
        _ => Value::Null,
    }
}

fn of_openinference(fields: &Fields<'_>) -> Option<Tool> {
    let told = open(&get(fields, &["tool.json_schema"]));
    one(&told).or_else(|| {
        // The schema may be that of the arguments alone.
        let name = fields.get("tool.name")?.as_str()?;
        let description = get(fields, &["tool.description"]);
        let description = description.as_str().unwrap_or_default().to_owned();
        Some(Tool { description, ..named(name, schema(&told)) })
    })
}

fn of_traceloop(fields: &Fields<'_>) -> Option<Tool> {
    let name = fields.get("name")?.as_str()?;
    let description = get(fields, &["description"]).as_str().unwrap_or_default().to_owned();
    let parameters = schema(&get(fields, &["parameters", "input_schema"]));
    Some(Tool { description, ..named(name, parameters) })
}
