#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn event(seq: u64, kind: &str, facts: Value) -> Envelope {
    Envelope {
        seq,
        id: format!("id-{seq}"),
        stream: "run/r".to_owned(),
        version: seq,
        kind: kind.to_owned(),
        schema: 1,
        at: chrono::DateTime::UNIX_EPOCH,
        actor: "tester".to_owned(),
        cause: None,
        run: None,
        prev: None,
        facts,
        measured: json!({ "seconds": seq }),
    }
}

fn again(kind: &str, facts: Value) -> Replayed {
    Replayed { kind: kind.to_owned(), schema: 1, facts }
}

#[test]
fn equal_facts_do_not_diverge() {
    let facts = json!({ "step": 1, "loss": 0.1, "nested": { "b": [1, 2], "a": null } });
    let other = json!({ "nested": { "a": null, "b": [1, 2] }, "loss": 0.1, "step": 1 });
    let recorded = [event(9, "step.completed", facts)];
    assert_eq!(compare(&recorded, &[again("step.completed", other)]), None);
    assert_eq!(compare(&[], &[]), None);
}

#[test]
fn the_first_difference_is_named_with_both_values() {
    let recorded = [
        event(9, "step.completed", json!({ "step": 1, "loss": 0.1 })),
        event(10, "step.completed", json!({ "step": 2, "loss": 0.25, "x": [{ "y": 1 }] })),
    ];
    let first = again("step.completed", recorded[0].facts.clone());
    let differing = |facts: Value| {
        let found = compare(&recorded, &[first.clone(), again("step.completed", facts)]).unwrap();
        (found.seq, found.path, found.recorded, found.replayed)
    };
    assert_eq!(
        differing(json!({ "step": 2, "loss": 0.250_000_000_000_000_06, "x": [{ "y": 1 }] })),
        (10, "loss".to_owned(), json!(0.25), json!(0.250_000_000_000_000_06))
    );
    assert_eq!(
        differing(json!({ "step": 2, "loss": 0.25, "x": [{ "y": 2 }] })),
        (10, "x[0].y".to_owned(), json!(1), json!(2))
    );
    assert_eq!(
        differing(json!({ "step": 2, "loss": 0.25, "x": [] })),
        (10, "x[0]".to_owned(), json!({ "y": 1 }), Value::Null)
    );
    assert_eq!(differing(json!({ "step": 2, "loss": 0.25 })).1, "x");
    assert_eq!(
        differing(json!({ "step": 2, "loss": 0.25, "more": 1, "x": [{ "y": 1 }] })).1,
        "more"
    );
}

#[test]
fn bits_count() {
    let differ = |a: Value, b: Value| {
        compare(&[event(0, "k", json!({ "v": a }))], &[again("k", json!({ "v": b }))]).is_some()
    };
    assert!(differ(json!(0.0), json!(-0.0)));
    assert!(differ(json!(1), json!(1.0)), "a whole number and a float are stored differently");
    assert!(!differ(json!(f64::MIN_POSITIVE), json!(f64::MIN_POSITIVE)));
    assert!(!differ(json!(u64::MAX), json!(u64::MAX)));
    assert!(differ(json!(u64::MAX), json!(u64::MAX - 1)));
}

#[test]
fn kind_schema_and_number_of_events_count() {
    let recorded = [event(3, "a", json!({})), event(4, "b", json!({}))];
    let found = compare(&recorded, &[again("a", json!({})), again("c", json!({}))]).unwrap();
    assert_eq!((found.seq, found.path.as_str(), found.replayed), (4, "kind", json!("c")));
    let newer = Replayed { schema: 2, ..again("a", json!({})) };
    assert_eq!(compare(&recorded, &[newer]).unwrap().path, "schema");
    let short = compare(&recorded, &[again("a", json!({}))]).unwrap();
    assert_eq!((short.seq, short.recorded, short.replayed), (4, json!("b"), Value::Null));
    let both = [again("a", json!({})), again("b", json!({})), again("b", json!({ "x": 1 }))];
    let long = compare(&recorded, &both).unwrap();
    assert_eq!((long.seq, long.recorded, long.replayed), (4, Value::Null, json!({ "x": 1 })));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn only_equal_values_do_not_differ(a in value(), b in value()) {
        prop_assert_eq!(first_difference("", &a, &a), None);
        // Minus zero is not drawn, so that equality is what is meant.
        prop_assert_eq!(first_difference("", &a, &b).is_none(), a == b);
    }
}
