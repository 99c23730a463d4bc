#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::gold::tests::{any_call, any_json};

fn call(arguments: Value) -> Expected {
    let arguments = arguments.as_object().unwrap().clone();
    Expected::Call { call: Call { name: "f".to_owned(), arguments } }
}

#[test]
fn right_answer_in_wrong_form_is_lenient_only() {
    let gold = call(json!({ "a": 1, "b": [1, 2] }));
    let answer = "Here: <tool_call name=\"f\" arguments='{\"a\": 1.0, \"b\": [1, 2]}' />";
    let scored = score("toolcall", &gold, Some(answer));
    assert_eq!(scored.strict, Reading { false_negatives: 3, ..Reading::default() });
    assert!(scored.lenient.valid && scored.lenient.name && scored.lenient.exact);
    assert_eq!(scored.lenient.true_positives, 3);
    let issues = [
        "attribute_arguments",
        "invalid_tool_call_format",
        "missing_closing_tag",
        "missing_opening_tag",
        "self_closing_tag",
    ];
    assert_eq!(scored.issues, issues);
}

#[test]
fn missing_answer_is_a_failure_and_an_empty_one_is_another() {
    let gold = call(json!({ "a": 1 }));
    let missing = score("toolcall", &gold, None);
    assert_eq!(missing.issues, ["answer_missing"]);
    assert_eq!(missing.strict.false_negatives, 1);
    let empty = score("toolcall", &gold, Some("  "));
    assert_eq!(empty.issues, ["empty_answer", "invalid_tool_call_format"]);
    assert_eq!(empty.lenient, missing.lenient);
}

#[test]
fn exact_arguments_do_not_need_the_name() {
    let answer = "<tool_call name=\"g\">{\"a\":1}</tool_call>";
    let scored = score("toolcall", &call(json!({ "a": 1 })), Some(answer));
    assert!(scored.strict.exact && !scored.strict.name);
    assert_eq!(scored.issues, ["tool_name_mismatch"]);
}

#[test]
fn leaves_tell_changed_from_missing_and_extra() {
    let gold = Expected::Json { value: json!({ "a": { "b": [1, "x"] }, "c": true, "e": {} }) };
    let answer = r#"{"a": {"b": [1, "y", 3]}, "c": 1}"#;
    let scored = score("structured", &gold, Some(answer));
    assert_eq!(scored.strict.true_positives, 1);
    assert_eq!(scored.strict.false_positives, 3);
    assert_eq!(scored.strict.false_negatives, 2);
    assert_eq!(scored.issues, ["extra_fields", "value_mismatch"]);
    let other_shape =
        score("structured", &Expected::Json { value: json!({ "e": {} }) }, Some("{}"));
    assert!(!other_shape.strict.exact);
    assert_eq!(other_shape.issues, ["value_mismatch"]);
}

#[test]
fn fenced_json_is_lenient_only() {
    let gold = Expected::Json { value: json!({ "a": 1 }) };
    for answer in ["```json\n{\"a\": 1}\n```", "It is {'a': 1}.", "x {y} {\"a\": 1}"] {
        let scored = score("structured", &gold, Some(answer));
        assert!(!scored.strict.valid && scored.lenient.exact, "{answer}");
    }
}

#[test]
fn nothing_adds_up_to_nothing() {
    let empty = totals(std::iter::empty());
    assert_eq!((empty.n, empty.valid.rate, empty.micro.f1, empty.macro_.f1), (0, None, None, None));
    let failed = totals(std::iter::once(Reading { false_negatives: 2, ..Reading::default() }));
    assert_eq!(failed.valid.rate, Some(0.0));
    // Nothing was answered: precision has no denominator, while recall and F1 are 0.
    assert_eq!(failed.micro, Prf { precision: None, recall: Some(0.0), f1: Some(0.0) });
    assert_eq!(failed.macro_.f1, Some(0.0));
}

#[test]
fn scorers_have_identities_of_their_own() {
    assert_ne!(scorer_digest("toolcall"), scorer_digest("structured"));
    assert_eq!(scorer_digest("toolcall"), scorer_digest("toolcall"));
}

proptest! {
    #[test]
    fn gold_against_gold_is_exact_for_calls(call in any_call()) {
        let expected = Expected::Call { call };
        let scored = score("toolcall", &expected, Some(&expected.text()));
        prop_assert!(scored.strict.exact && scored.strict.name && scored.strict.valid);
        prop_assert_eq!(scored.strict, scored.lenient);
        prop_assert_eq!(scored.strict.false_positives + scored.strict.false_negatives, 0);
        prop_assert!(scored.issues.is_empty());
    }

    #[test]
    fn gold_against_gold_is_exact_for_json(value in any_json()) {
        let expected = Expected::Json { value };
        let scored = score("structured", &expected, Some(&expected.text()));
        prop_assert!(scored.strict.exact && scored.issues.is_empty());
    }

    #[test]
    fn leaves_add_up(gold in any_json(), answer in any_json()) {
        let expected = Expected::Json { value: gold.clone() };
        let scored = score("structured", &expected, Some(&answer.to_string())).strict;
        prop_assert_eq!(scored.true_positives + scored.false_negatives, leaves::count(&gold));
        prop_assert_eq!(scored.true_positives + scored.false_positives, leaves::count(&answer));
    }

    #[test]
    fn lenient_reads_whatever_strict_reads(
        text in "(<tool_call name=\"f\">|\\{\"a\":1\\}|</tool_call>| |x){0,6}",
    ) {
        let scored = score("toolcall", &call(json!({ "a": 1 })), Some(&text));
        prop_assert!(!scored.strict.valid || scored.lenient == scored.strict);
    }
}
