//! BFCL's types of parameters (Python's, Java's and JavaScript's) and JSON Schema, both ways.
//!
//! A type that another one stands for in JSON Schema is kept in `x-bfcl-type`.

use serde_json::{Map, Value};

/// Member of a schema that keeps the type as BFCL writes it.
const KEPT: &str = "x-bfcl-type";

/// Turns the parameters of a BFCL function into JSON Schema.
pub(crate) fn schema_of_bfcl(parameters: &Value) -> Value {
    map(parameters, &|kind, members| {
        let Some(written) = kind.and_then(|kind| kind.as_str().map(str::to_owned)) else {
            return;
        };
        match type_of_bfcl(&written) {
            Some(plain) => members.insert("type".to_owned(), Value::from(plain)),
            None => members.remove("type"),
        };
        if bfcl_type(members.get("type").and_then(Value::as_str)) != written {
            members.insert(KEPT.to_owned(), Value::from(written));
        }
    })
}

/// Writes a JSON Schema as the parameters of a BFCL function.
pub(crate) fn bfcl_of_schema(schema: &Value) -> Value {
    map(schema, &|kind, members| {
        let written = match (members.remove(KEPT), &kind) {
            (Some(kept), _) => kept,
            (None, None) => Value::from(bfcl_type(None)),
            (None, Some(Value::String(plain))) => Value::from(bfcl_type(Some(plain))),
            (None, Some(other)) => other.clone(),
        };
        members.insert("type".to_owned(), written);
    })
}

/// Returns the type in JSON Schema; none for one that allows anything.
fn type_of_bfcl(written: &str) -> Option<&'static str> {
    Some(match written.to_ascii_lowercase().as_str() {
        "dict" | "hashmap" | "hashtable" | "map" | "object" => "object",
        "float" | "double" | "number" => "number",
        "integer" | "int" | "long" | "short" | "byte" | "bigint" => "integer",
        "string" | "char" => "string",
        "boolean" | "bool" => "boolean",
        "array" | "list" | "tuple" | "arraylist" | "set" | "queue" | "stack" => "array",
        "null" => "null",
        _ => return None,
    })
}

/// Returns the type that BFCL writes for one of JSON Schema.
fn bfcl_type(plain: Option<&str>) -> &str {
    match plain {
        Some("object") => "dict",
        Some("number") => "float",
        Some(same) => same,
        None => "any",
    }
}

/// Changes the members of one schema, given the type that it had.
type Change<'a> = &'a dyn Fn(Option<Value>, &mut Map<String, Value>);

/// Changes a schema and all schemas inside it.
fn map(schema: &Value, change: Change<'_>) -> Value {
    let Value::Object(members) = schema else {
        return schema.clone();
    };
    let mut mapped = Map::new();
    for (key, value) in members {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let inner = properties.iter().map(|(name, inner)| (name, map(inner, change)));
                Value::Object(inner.map(|(name, inner)| (name.clone(), inner)).collect())
            }
            ("items" | "additionalProperties", inner @ Value::Object(_)) => map(inner, change),
            (_, value) => value.clone(),
        };
        mapped.insert(key.clone(), value);
    }
    change(members.get("type").cloned(), &mut mapped);
    Value::Object(mapped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_of_three_languages_survive_a_round_trip() {
        let parameters = json!({
            "type": "dict",
            "required": ["a"],
            "properties": {
                "a": { "type": "tuple", "items": { "type": "float" }, "optional": true },
                "b": { "type": "any", "description": "x" },
                "c": { "type": "HashMap", "properties": { "d": { "type": "long" } } },
                "e": { "type": "" },
                "f": { "type": "String" },
                "type": { "type": "integer", "enum": [1] },
                "g": { "type": "object", "additionalProperties": { "type": "double" } },
            },
        });
        let schema = schema_of_bfcl(&parameters);
        assert_eq!(schema["type"], "object");
        assert!(schema.get(KEPT).is_none(), "dict is what object is written as");
        let property = |name: &str| &schema["properties"][name];
        assert_eq!(property("a")["type"], "array");
        assert_eq!(property("a")[KEPT], "tuple");
        assert_eq!(property("a")["items"], json!({ "type": "number" }));
        assert_eq!(*property("b"), json!({ "description": "x" }));
        assert_eq!(property("c")["properties"]["d"]["type"], "integer");
        assert_eq!(*property("e"), json!({ KEPT: "" }));
        assert_eq!(property("type")["enum"], json!([1]));
        assert_eq!(bfcl_of_schema(&schema), parameters);
    }

    #[test]
    fn schemas_of_others_survive_a_round_trip() {
        for schema in [
            json!({}),
            json!({ "type": ["string", "null"] }),
            json!({ "anyOf": [{ "type": "number" }] }),
            json!({ "type": "object", "properties": { "a": true, "b": { "type": "null" } } }),
            Value::Null,
        ] {
            assert_eq!(schema_of_bfcl(&bfcl_of_schema(&schema)), schema, "{schema}");
        }
    }
}
