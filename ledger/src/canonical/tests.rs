#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::*;

fn canonical<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(canonical_json(value).unwrap()).unwrap()
}

/// The examples of RFC 8785, sections 3.2.2 and 3.2.3.
#[test]
fn the_examples_of_the_rfc() {
    let text = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let value: Value = serde_json::from_str(text).unwrap();
    let wanted = [
        r#"{"literals":[null,true,false],"#,
        r#""numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
        r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#,
    ];
    assert_eq!(canonical(&value), wanted.concat());
    let keys = ["\u{20ac}", "\r", "\u{fb33}", "1", "\u{1f600}", "\u{80}", "\u{f6}"];
    let object: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), json!(0))).collect();
    let sorted = ["\\r", "1", "\u{80}", "\u{f6}", "\u{20ac}", "\u{1f600}", "\u{fb33}"];
    let members = sorted.map(|key| format!("\"{key}\":0"));
    assert_eq!(canonical(&object), format!("{{{}}}", members.join(",")));
}

#[derive(Serialize)]
enum Every {
    Unit,
    Newtype(u8),
    Tuple(u8, &'static str),
    Struct { z: Option<u8>, a: () },
}

#[derive(Serialize)]
struct Flat {
    y: i8,
    #[serde(flatten)]
    more: BTreeMap<&'static str, Every>,
    #[serde(skip_serializing_if = "Option::is_none")]
    none: Option<u8>,
}

/// All that serde can say has the form that the reference gives it.
#[test]
fn every_shape_is_written_as_the_reference_writes_it() {
    let more = BTreeMap::from([
        ("a", Every::Unit),
        ("zz", Every::Newtype(7)),
        ("b", Every::Tuple(1, "\u{7f}\u{1}\"")),
        ("c", Every::Struct { z: Some(1), a: () }),
        ("d", Every::Struct { z: None, a: () }),
    ]);
    let flat = Flat { y: -3, more, none: None };
    let numbers = BTreeMap::from([(10_u64, 'x'), (9, 'é')]);
    let value = (&flat, [1.5_f32, -0.0], numbers, BTreeMap::from([(true, b"ab")]), u64::MAX);
    let reference = serde_json_canonicalizer::to_vec(&value).unwrap();
    assert_eq!(canonical(&value), String::from_utf8(reference).unwrap());
    let large = [i128::from(u64::MAX) + 1, -(1 << 53), (1 << 53) + 1, i128::MIN, 0];
    let reference = serde_json_canonicalizer::to_vec(&large).unwrap();
    assert_eq!(canonical(&large), String::from_utf8(reference).unwrap());
}

#[test]
fn numbers_that_are_not_finite_are_null() {
    let values = [f64::NAN, f64::INFINITY, 1.0];
    assert_eq!(canonical(&values), "[null,null,1]");
    assert_eq!(serde_json_canonicalizer::to_vec(&values).unwrap(), b"[null,null,1]");
}

#[test]
fn what_has_no_json_form_is_refused() {
    assert!(canonical_json(&BTreeMap::from([(vec![1], 2)])).is_err());
    assert!(canonical_json(&BTreeMap::from([((), 2)])).is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-c\\\\\"\u{1}\u{7f}é漢\u{1f600}\u{fb33}]{0,4}", "\\PC{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_value_is_written_as_the_reference_writes_it(value in value()) {
        let reference = serde_json_canonicalizer::to_vec(&value).unwrap();
        prop_assert_eq!(canonical(&value), String::from_utf8(reference).unwrap());
    }

    #[test]
    fn writing_again_changes_nothing(value in value()) {
        let once = canonical_json(&value).unwrap();
        let again: Value = serde_json::from_slice(&once).unwrap();
        prop_assert_eq!(canonical_json(&again).unwrap(), once);
    }
}
