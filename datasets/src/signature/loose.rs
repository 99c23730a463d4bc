//! JSON Schema back to loose parameters, where these can say it.

use serde_json::{Map, Value};

use super::schema_of_loose;

/// Writes a schema as loose parameters; none where reading them would give another schema.
///
/// Required parameters come first, in the order in which the schema names them.
pub(crate) fn loose_of_schema(schema: &Value) -> Option<Map<String, Value>> {
    let properties = schema.get("properties")?.as_object()?;
    let required: Option<Vec<&str>> =
        schema.get("required")?.as_array()?.iter().map(Value::as_str).collect();
    let required = required?;
    let optional = properties.keys().map(String::as_str).filter(|name| !required.contains(name));
    let mut loose = Map::new();
    for name in required.iter().copied().chain(optional) {
        let property = properties.get(name)?;
        let mut written = Map::new();
        let kind = type_of_schema(property)?;
        let optional = if required.contains(&name) { "" } else { ", optional" };
        written.insert("type".to_owned(), Value::from(format!("{kind}{optional}")));
        for key in ["description", "default"] {
            if let Some(value) = property.get(key) {
                written.insert(key.to_owned(), value.clone());
            }
        }
        loose.insert(name.to_owned(), Value::Object(written));
    }
    // Key order aside, reading it again must give the same.
    (schema_of_loose(&loose) == *schema).then_some(loose)
}

/// Writes the type of a schema as Python does.
fn type_of_schema(schema: &Value) -> Option<String> {
    let list = |key: &str| -> Option<String> {
        let kinds = schema.get(key)?.as_array()?.iter().map(type_of_schema);
        Some(kinds.collect::<Option<Vec<_>>>()?.join(", "))
    };
    let Some(kind) = schema.get("type") else {
        return match list("anyOf") {
            Some(kinds) => Some(format!("Union[{kinds}]")),
            None => Some("Any".to_owned()),
        };
    };
    let plain = match kind.as_str()? {
        "integer" => "int",
        "number" => "float",
        "string" => "str",
        "boolean" => "bool",
        "object" => "dict",
        "array" => {
            let items = schema.get("items").map(type_of_schema);
            return match (items, list("prefixItems")) {
                (Some(items), _) => Some(format!("List[{}]", items?)),
                (None, Some(kinds)) => Some(format!("Tuple[{kinds}]")),
                (None, None) => Some("list".to_owned()),
            };
        }
        _ => return None,
    };
    Some(plain.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn loose_parameters_survive_a_round_trip_through_a_schema() {
        let loose = json!({
            "z": { "type": "List[Tuple[int, str]]", "description": "Pairs." },
            "a": { "type": "Union[int, float]" },
            "b": { "type": "dict, optional", "default": {}, "description": "" },
            "c": { "type": "Callable, optional" },
            "d": { "type": "set" },
        });
        let schema = schema_of_loose(loose.as_object().unwrap());
        assert_eq!(schema["required"], json!(["z", "a", "d"]));
        let written = loose_of_schema(&schema).unwrap();
        assert_eq!(schema_of_loose(&written), schema);
        assert_eq!(written["z"]["type"], "List[Tuple[int, str]]");
        assert_eq!(written["b"]["type"], "dict, optional");
    }

    #[test]
    fn what_loose_parameters_cannot_say_is_not_written_so() {
        for schema in [
            json!({ "type": "object", "properties": {} }),
            json!({ "type": "object", "properties": { "a": { "enum": [1] } }, "required": [] }),
            json!({ "type": "object", "properties": { "a": { "type": "null" } }, "required": [] }),
            json!({ "type": "object", "properties": {}, "required": ["a"] }),
            json!({ "type": "object", "properties": {}, "required": [], "title": "x" }),
            Value::Null,
        ] {
            assert_eq!(loose_of_schema(&schema), None, "{schema}");
        }
    }
}
