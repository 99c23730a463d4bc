//! Bodies of JSON: the protobuf's JSON form, with ids in hex, and whole numbers as text or not.

use datasets::span::{Span, SpanEvent};
use serde_json::{Map, Value};

use super::{Common, Export, OtlpError, blank, micros};

/// Status of a span that failed (`STATUS_CODE_ERROR`).
const ERROR: u64 = 2;

/// Reads a body whose parts were counted.
pub(super) fn read(body: &[u8]) -> Result<Export, OtlpError> {
    let document: Value =
        serde_json::from_slice(body).map_err(|error| OtlpError::Malformed(error.to_string()))?;
    let Some(document) = document.as_object() else {
        return Err(OtlpError::Malformed("it is no JSON object".to_owned()));
    };
    let nothing = Map::new();
    let mut export = Export::default();
    for of_resource in list(document, ["resourceSpans", "resource_spans"])? {
        let of_resource = object(of_resource)?;
        let resource = of_resource.get("resource").and_then(Value::as_object).unwrap_or(&nothing);
        let mut common = Common::new(attributes(resource)?);
        for of_scope in list(of_resource, ["scopeSpans", "scope_spans"])? {
            let of_scope = object(of_scope)?;
            let scope = of_scope.get("scope").and_then(Value::as_object).unwrap_or(&nothing);
            common.scoped(text(scope, ["name"; 2]), text(scope, ["version"; 2]));
            for sent in list(of_scope, ["spans"; 2])? {
                put(&mut export, &common, object(sent)?)?;
            }
        }
    }
    Ok(export)
}

fn put(export: &mut Export, common: &Common, sent: &Map<String, Value>) -> Result<(), OtlpError> {
    let id = |keys| unhex(text(sent, keys));
    let ids = [
        id(["traceId", "trace_id"]),
        id(["spanId", "span_id"]),
        id(["parentSpanId", "parent_span_id"]),
    ];
    let [trace, own, parent] = &ids;
    export.put(common, [trace, own, parent], span(sent)?)
}

fn span(sent: &Map<String, Value>) -> Result<Span, OtlpError> {
    let nothing = Map::new();
    let status = sent.get("status").and_then(Value::as_object).unwrap_or(&nothing);
    let code = status.get("code");
    let end = whole(sent, ["endTimeUnixNano", "end_time_unix_nano"]);
    let mut events = Vec::new();
    for event in list(sent, ["events"; 2])? {
        let event = object(event)?;
        events.push(SpanEvent {
            name: text(event, ["name"; 2]).to_owned(),
            at_us: micros(whole(event, ["timeUnixNano", "time_unix_nano"])),
            attributes: attributes(event)?,
        });
    }
    Ok(Span {
        name: text(sent, ["name"; 2]).to_owned(),
        start_us: micros(whole(sent, ["startTimeUnixNano", "start_time_unix_nano"])),
        end_us: (end > 0).then(|| micros(end)),
        attributes: attributes(sent)?,
        events,
        is_error: code.and_then(Value::as_u64) == Some(ERROR)
            || code.and_then(Value::as_str) == Some("STATUS_CODE_ERROR"),
        status_message: text(status, ["message"; 2]).to_owned(),
        ..blank()
    })
}

fn attributes(holder: &Map<String, Value>) -> Result<Map<String, Value>, OtlpError> {
    let mut all = Map::new();
    for pair in list(holder, ["attributes"; 2])? {
        let pair = object(pair)?;
        all.insert(text(pair, ["key"; 2]).to_owned(), value_of(pair.get("value")));
    }
    Ok(all)
}

/// Reads a value, `{"stringValue": "..."}` and its like.
fn value_of(sent: Option<&Value>) -> Value {
    let Some((kind, held)) = sent.and_then(Value::as_object).and_then(|sent| sent.iter().next())
    else {
        return Value::Null;
    };
    match (kind.as_str(), held) {
        ("intValue" | "int_value", Value::String(text)) => {
            text.parse::<i64>().map_or_else(|_| held.clone(), super::whole)
        }
        ("intValue" | "int_value", Value::Number(number)) => {
            number.as_i64().map_or_else(|| held.clone(), super::whole)
        }
        ("arrayValue" | "array_value", Value::Object(inner)) => {
            let values = inner.get("values").and_then(Value::as_array);
            values.into_iter().flatten().map(|value| value_of(Some(value))).collect()
        }
        ("kvlistValue" | "kvlist_value", Value::Object(inner)) => {
            let values = inner.get("values").and_then(Value::as_array).into_iter().flatten();
            let pair = |pair: &Value| {
                Some((pair.get("key")?.as_str()?.to_owned(), value_of(pair.get("value"))))
            };
            values.filter_map(pair).collect()
        }
        _ => held.clone(),
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>, OtlpError> {
    let what = "a part of it is no JSON object";
    value.as_object().ok_or_else(|| OtlpError::Malformed(what.to_owned()))
}

fn list<'a>(holder: &'a Map<String, Value>, keys: [&str; 2]) -> Result<&'a [Value], OtlpError> {
    match keys.iter().find_map(|&key| holder.get(key)) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(OtlpError::Malformed(format!("\"{}\" is no list", keys[0]))),
    }
}

fn text<'a>(holder: &'a Map<String, Value>, keys: [&str; 2]) -> &'a str {
    keys.iter().find_map(|&key| holder.get(key)?.as_str()).unwrap_or_default()
}

/// Reads a whole number, which may stand in a text.
fn whole(holder: &Map<String, Value>, keys: [&str; 2]) -> u64 {
    match keys.iter().find_map(|&key| holder.get(key)) {
        Some(Value::String(text)) => text.trim().parse().unwrap_or_default(),
        Some(number) => number.as_u64().unwrap_or_default(),
        None => 0,
    }
}

/// Reads an id; what is no hex gives one that no span may have.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).unwrap_or_default();
    digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect()
}
