#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;

use super::*;

fn observation() -> Value {
    json!({ "id": "o1", "traceId": "t1", "type": "GENERATION", "name": "chat",
        "startTime": "2026-11-22T10:00:00.5Z", "endTime": "2026-11-22T12:00:01+02:00",
        "updatedAt": "2026-11-23T00:00:00Z", "latency": 0.5, "level": "ERROR",
        "statusMessage": "", "input": "[]", "output": "", "userId": "", "sessionId": "s",
        "usageDetails": { "input": 3 }, "costDetails": {}, "promptVersion": 2, "tags": [] })
}

#[test]
fn an_observation_is_a_span_of_what_does_not_change() {
    let trace = json!({ "userId": "ann", "sessionId": "other", "tags": ["a"], "name": "run" });
    let span = span(&observation(), Some(&trace)).unwrap();
    assert_eq!((span.external_id().as_str(), span.is_error), ("t1/o1", true));
    assert_eq!(span.end_us.unwrap() - span.start_us, 500_000);
    let want = json!({
        "langfuse.observation.type": "GENERATION", "langfuse.observation.level": "ERROR",
        "langfuse.observation.input": "[]", "langfuse.observation.output": "",
        "langfuse.observation.usage_details": { "input": 3 },
        "langfuse.observation.prompt.version": 2, "session.id": "s", "user.id": "ann",
        "langfuse.trace.name": "run", "langfuse.trace.tags": ["a"] });
    assert_eq!(Value::Object(span.attributes), want);
}

#[test]
fn what_is_no_observation_is_said_without_its_words() {
    let without = |key: &str| {
        let mut row = observation();
        row.as_object_mut().unwrap().remove(key);
        span(&row, None).unwrap_err()
    };
    assert_eq!(without("id"), "the observation has no id");
    assert_eq!(without("traceId"), "the observation has no traceId");
    assert_eq!(without("startTime"), "the observation has no startTime");
    assert_eq!(span(&json!("words"), None).unwrap_err(), "the row is no object");
}

fn said(more: Value) -> (String, String, Value) {
    let mut row = json!({ "id": "s1", "name": "n", "subject": { "kind": "trace", "id": "t1" } });
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    match score(&row).unwrap() {
        Score::Said(said) => (said.target, said.name, said.value),
        Score::Elsewhere => panic!("{row}"),
    }
}

#[test]
fn scores_have_the_values_of_their_types() {
    let number = said(json!({ "dataType": "NUMERIC", "value": 0.5 }));
    assert_eq!(number, ("t1".into(), "n".into(), json!(0.5)));
    assert_eq!(said(json!({ "dataType": "BOOLEAN", "value": true })).2, json!(true));
    assert_eq!(said(json!({ "dataType": "BOOLEAN", "value": 0 })).2, json!(false));
    let old = json!({ "dataType": "CATEGORICAL", "value": 3, "stringValue": "good" });
    assert_eq!(said(old).2, json!("good"));
    assert_eq!(said(json!({ "dataType": "TEXT", "value": "fine" })).2, json!("fine"));
    let old = json!({ "dataType": "CORRECTION", "value": 0, "stringValue": "add(1)",
        "name": "output", "subject": null, "traceId": "t2", "observationId": "o2" });
    assert_eq!(said(old), ("t2/o2".into(), CORRECTION.into(), json!("add(1)")));
    let inside =
        json!({ "value": 1, "subject": { "kind": "observation", "id": "o", "traceId": "t" } });
    assert_eq!(said(inside).0, "t/o");
}

#[test]
fn scores_of_sessions_are_elsewhere_and_broken_ones_are_said() {
    for elsewhere in [
        json!({ "name": "n", "value": 1, "subject": { "kind": "session", "id": "s" } }),
        json!({ "name": "n", "value": 1, "sessionId": "s" }),
        json!({ "name": "output", "value": "", "dataType": "CORRECTION", "traceId": "t" }),
    ] {
        assert_eq!(score(&elsewhere), Ok(Score::Elsewhere), "{elsewhere}");
    }
    assert!(score(&json!({ "name": "n", "value": 1 })).is_err());
    assert!(score(&json!({ "name": "n", "traceId": "t", "dataType": "NUMERIC" })).is_err());
    let long = json!({ "name": "n", "traceId": "t", "value": "x".repeat(60_000) });
    assert_eq!(score(&long), Err("the score is longer than an event holds"));
}
