//! Tool signatures as data sets write them, turned into JSON Schema.
//!
//! Two loose notations occur: `name(a:int, b:List[float], optional)` inside a prompt, and objects
//! `{"a": {"type": "int, optional", "description": ..., "default": ...}}`. Neither is JSON Schema.

use serde_json::{Map, Value, json};

use crate::episode::Tool;

mod bfcl;
mod loose;

pub(crate) use bfcl::{bfcl_of_schema, schema_of_bfcl};
pub(crate) use loose::loose_of_schema;

/// Reads `name(a:int, b:str, optional)`. Parameters stay unknown (null) where there are no
/// parentheses.
pub(crate) fn parse_signature(signature: &str) -> Tool {
    let unknown = |name: &str| Tool {
        name: name.trim().to_owned(),
        description: String::new(),
        parameters: Value::Null,
    };
    let Some((name, rest)) = signature.split_once('(') else {
        return unknown(signature);
    };
    let inner = rest.trim_end().strip_suffix(')').unwrap_or(rest);
    let mut properties = Map::new();
    let mut required: Vec<Value> = Vec::new();
    for piece in split_top_level(inner) {
        let piece = piece.trim();
        if let Some((parameter, kind)) = piece.split_once(':') {
            let parameter = parameter.trim();
            properties.insert(parameter.to_owned(), schema_of_type(kind));
            required.push(Value::from(parameter));
        } else if piece == "optional" {
            // Written after the parameter that it belongs to.
            required.pop();
        }
    }
    Tool { parameters: object_schema(properties, required), ..unknown(name) }
}

/// Says whether parameters are a JSON Schema, and not loose ones: a type of its own is a text,
/// where a loose parameter that is called `type` is an object.
pub(crate) fn is_schema(parameters: &Map<String, Value>) -> bool {
    parameters.get("type").is_some_and(|kind| !kind.is_object())
}

/// Turns loose parameter objects into JSON Schema.
pub(crate) fn schema_of_loose(parameters: &Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, loose) in parameters {
        let kind = loose.get("type").and_then(Value::as_str).unwrap_or_default();
        let (kind, optional) = match kind.split_once(", optional") {
            Some((kind, _)) => (kind, true),
            None => (kind, false),
        };
        let mut schema = schema_of_type(kind);
        if let Value::Object(schema) = &mut schema {
            for key in ["description", "default"] {
                if let Some(value) = loose.get(key) {
                    schema.insert(key.to_owned(), value.clone());
                }
            }
        }
        properties.insert(name.clone(), schema);
        if !optional {
            required.push(Value::from(name.as_str()));
        }
    }
    object_schema(properties, required)
}

fn object_schema(properties: Map<String, Value>, required: Vec<Value>) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

/// Turns a Python-like type into a schema; an unknown type allows anything.
fn schema_of_type(kind: &str) -> Value {
    let kind = kind.trim();
    let (head, inner) = match kind.split_once('[') {
        Some((head, inner)) => (head.trim(), inner.strip_suffix(']')),
        None => (kind, None),
    };
    match head.to_ascii_lowercase().as_str() {
        "int" | "integer" => json!({ "type": "integer" }),
        "float" | "number" | "double" => json!({ "type": "number" }),
        "str" | "string" => json!({ "type": "string" }),
        "bool" | "boolean" => json!({ "type": "boolean" }),
        "dict" | "object" => json!({ "type": "object" }),
        "list" | "array" | "set" => match inner {
            Some(inner) => json!({ "type": "array", "items": schema_of_type(inner) }),
            None => json!({ "type": "array" }),
        },
        "tuple" => {
            let kinds: Vec<Value> = inner
                .map(split_top_level)
                .unwrap_or_default()
                .into_iter()
                .map(schema_of_type)
                .collect();
            if kinds.is_empty() {
                json!({ "type": "array" })
            } else {
                json!({ "type": "array", "prefixItems": kinds })
            }
        }
        "union" => {
            let kinds: Vec<Value> = inner
                .map(split_top_level)
                .unwrap_or_default()
                .into_iter()
                .map(schema_of_type)
                .collect();
            json!({ "anyOf": kinds })
        }
        "optional" => inner.map_or_else(|| json!({}), schema_of_type),
        _ => json!({}),
    }
}

/// Splits at commas that stand outside brackets.
fn split_top_level(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                pieces.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(text.get(start..).unwrap_or_default());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_belongs_to_the_parameter_before_it() {
        let tool = parse_signature("f(a:int, b:List[Union[int, float]], optional, c:str)");
        assert_eq!(tool.name, "f");
        assert_eq!(tool.parameters["required"], json!(["a", "c"]));
        let b = &tool.parameters["properties"]["b"];
        assert_eq!(b["items"]["anyOf"], json!([{ "type": "integer" }, { "type": "number" }]));
    }

    #[test]
    fn empty_and_missing_parameter_lists_differ() {
        assert_eq!(parse_signature("f()").parameters["properties"], json!({}));
        assert_eq!(parse_signature("f").parameters, Value::Null);
        assert_eq!(parse_signature("f(").name, "f");
    }

    #[test]
    fn loose_objects_keep_description_and_default() {
        let loose = json!({ "q": { "type": "str, optional", "description": "Text.", "default": "" },
                            "n": { "type": "int" } });
        let schema = schema_of_loose(loose.as_object().unwrap_or(&Map::new()));
        assert_eq!(schema["required"], json!(["n"]));
        assert_eq!(schema["properties"]["q"]["default"], json!(""));
        assert_eq!(schema["properties"]["q"]["type"], json!("string"));
    }
}
