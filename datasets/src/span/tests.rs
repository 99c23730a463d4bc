#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn span(attributes: Value) -> Span {
    Span {
        schema: SPAN_SCHEMA,
        trace_id: "t".to_owned(),
        span_id: "s".to_owned(),
        parent_id: None,
        name: "for a@example.org".to_owned(),
        start_us: 1,
        end_us: Some(2),
        attributes: attributes.as_object().unwrap().clone(),
        events: vec![SpanEvent {
            name: "sent".to_owned(),
            at_us: 1,
            attributes: json!({ "to": "b@example.org" }).as_object().unwrap().clone(),
        }],
        is_error: true,
        status_message: "a@example.org refused".to_owned(),
        resource: json!({ "service.owner": "a@example.org" }).as_object().unwrap().clone(),
        scope: String::new(),
    }
}

#[test]
fn one_value_has_one_placeholder_wherever_it_stands() {
    let inner = json!([{ "to": "b@example.org", "n": 1.50 }]).to_string();
    let outer = json!({ "messages": inner, "cc": "a@example.org" }).to_string();
    let same = "{ \"n\": 1.50 }";
    let mut span = span(json!({ "x": outer, "same": same, "user.id": "a@example.org" }));
    assert_eq!(span.redact(&"email".parse().unwrap()), 6);
    assert_eq!(span.name, "for [EMAIL_2]");
    assert_eq!(span.status_message, "[EMAIL_2] refused");
    assert_eq!(span.resource["service.owner"], "[EMAIL_2]");
    assert_eq!(span.events[0].attributes["to"], "[EMAIL_1]");
    let x: Value = serde_json::from_str(span.attributes["x"].as_str().unwrap()).unwrap();
    assert_eq!(x["cc"], "[EMAIL_2]");
    assert_eq!(x["messages"], "[{\"to\":\"[EMAIL_1]\",\"n\":1.5}]");
    // What holds nothing to take out keeps its bytes, and who it is about keeps the name.
    assert_eq!(span.attributes["same"], same);
    assert_eq!(span.attributes["user.id"], "a@example.org");
    let again = span.clone();
    assert_eq!(span.redact(&"email".parse().unwrap()), 0);
    assert_eq!(span, again);
}

#[test]
fn without_rules_nothing_changes() {
    let mut span = span(json!({ "x": [0, "x"], "y": "{\"a\": 1}" }));
    let before = span.clone();
    assert_eq!(span.redact(&Rules::none()), 0);
    assert_eq!(span, before);
}

#[test]
fn deep_text_within_text_is_read_to_its_end() {
    let mut text = "a@example.org".to_owned();
    for _ in 0..6 {
        text = json!([text]).to_string();
    }
    let mut span = span(json!({ "x": text }));
    span.redact(&"email".parse().unwrap());
    assert!(!span.to_bytes().windows(13).any(|part| part == b"a@example.org"));
}
