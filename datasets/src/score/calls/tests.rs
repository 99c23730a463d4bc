#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::gold::tests::{any_call, any_json};
use crate::gold::write_wrapper;
use crate::score::{CaseScore, Expected, first_choice, score};
use crate::suite::tests::shared;

fn call(name: &str, arguments: Value) -> Call {
    Call { name: name.to_owned(), arguments: arguments.as_object().unwrap().clone() }
}

fn text(calls: &[Call]) -> String {
    calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n")
}

fn ordered(calls: &[Call]) -> Expected {
    Expected::Calls { calls: calls.to_vec(), options: None, in_order: true }
}

fn unordered(calls: &[Call]) -> Expected {
    Expected::Calls { calls: calls.to_vec(), options: None, in_order: false }
}

/// Makes what is expected of options in BFCL's notation: `[{name: {argument: [values]}}]`.
fn any_of(truth: &Value, in_order: bool) -> Expected {
    let (mut calls, mut all) = (Vec::new(), Vec::new());
    for item in truth.as_array().unwrap() {
        let (name, arguments) = item.as_object().unwrap().iter().next().unwrap();
        let options: Options = arguments
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, options)| (name.clone(), options.as_array().unwrap().clone()))
            .collect();
        calls.push(chosen(name, &options));
        all.push(options);
    }
    Expected::Calls { calls, options: Some(all), in_order }
}

fn chosen(name: &str, options: &Options) -> Call {
    let first = |(name, options): (&String, &Vec<Value>)| {
        first_choice(options).map(|value| (name.clone(), value))
    };
    Call { name: name.to_owned(), arguments: options.iter().filter_map(first).collect() }
}

fn of(expected: &Expected, answer: &str) -> CaseScore {
    score("calls", expected, Some(answer))
}

#[test]
fn all_calls_must_be_there_in_order() {
    let (f, g) = (call("f", json!({ "a": 1 })), call("g", json!({})));
    let gold = ordered(&[f.clone(), g.clone()]);
    let right = of(&gold, &format!(" {}\n\n{}\n", write_wrapper(&f), write_wrapper(&g)));
    assert!(right.strict.exact && right.strict.name && right.issues.is_empty());
    assert_eq!((right.strict.true_positives, right.strict.false_negatives), (3, 0));
    let turned = of(&gold, &text(&[g.clone(), f.clone()]));
    assert!(!turned.strict.exact && !turned.strict.name && turned.strict.valid);
    assert_eq!(turned.issues, ["wrong_order"]);
    assert!(of(&unordered(&[f.clone(), g.clone()]), &text(&[g.clone(), f.clone()])).strict.exact);
    let first = of(&gold, &text(std::slice::from_ref(&f)));
    assert_eq!(first.issues, ["missing_call", "wrong_count"]);
    assert_eq!((first.strict.true_positives, first.strict.false_negatives), (2, 1));
    let more = of(&gold, &text(&[f.clone(), g.clone(), g.clone()]));
    assert_eq!(more.issues, ["extra_call", "wrong_count"]);
    assert_eq!((more.strict.false_positives, more.strict.false_negatives), (1, 0));
    let other = of(&gold, &text(&[call("f", json!({ "a": 2 })), call("h", json!({}))]));
    assert_eq!(other.issues, ["arguments_mismatch", "tool_name_mismatch"]);
    assert_eq!(other.strict.true_positives, 1);
}

#[test]
fn strict_wants_wrappers_only_and_lenient_finds_the_calls() {
    let (f, g) = (call("f", json!({ "a": 1 })), call("g", json!({ "b": "x" })));
    let gold = ordered(&[f.clone(), g.clone()]);
    let answers = [
        format!("Sure: {} and {}", write_wrapper(&f), write_wrapper(&g)),
        format!("{}{}", write_wrapper(&f), write_wrapper(&g)),
        "```json\n[{\"name\": \"f\", \"arguments\": {\"a\": 1}},\n \
         {\"name\": \"g\", \"arguments\": {\"b\": \"x\"}}]\n```"
            .to_owned(),
        "<tool_call>[{'name': 'f', 'arguments': {'a': 1}}, \
         {'name': 'g', 'arguments': {'b': 'x'}}]</tool_call>"
            .to_owned(),
        "<tool_call name=\"f\" arguments='{\"a\": 1}' />\n<tool_call name=\"g\">{'b': 'x'}"
            .to_owned(),
    ];
    for answer in &answers {
        let scored = of(&gold, answer);
        assert!(!scored.strict.valid && scored.lenient.exact, "{answer}");
        assert!(scored.issues.contains(&"invalid_tool_call_format".to_owned()), "{answer}");
        assert!(!scored.issues.contains(&"several_calls".to_owned()), "{answer}");
        assert_eq!(scored.strict.false_negatives, 4);
    }
    let none = of(&gold, "I would call f.");
    assert_eq!(
        none.issues,
        ["invalid_tool_call_format", "missing_call", "missing_closing_tag", "missing_opening_tag"]
    );
    assert_eq!(none.lenient.false_negatives, 4);
    let missing = score("calls", &gold, None);
    assert_eq!(missing.issues, ["answer_missing"]);
    assert_eq!(missing.strict.false_negatives, 4);
    assert!(of(&gold, "").issues.contains(&"empty_answer".to_owned()));
}

#[test]
fn no_call_is_right_where_nothing_can_be_decoded() {
    let gold = Expected::NoCall;
    for answer in ["None of these tools can do that.", "{\"a\": 1}"] {
        let scored = of(&gold, answer);
        assert!(scored.strict.exact && scored.lenient.exact, "{answer}");
    }
    let issues = of(&gold, "<tool_call name=\"f\">{x").issues;
    assert_eq!(issues, ["invalid_tool_call_format", "unexpected_call"]);
    assert_eq!(of(&gold, " ").issues, ["empty_answer"]);
    for answer in ["<tool_call name=\"f\">{}</tool_call>", "Well, {'name': 'f', 'arguments': {}}"] {
        let scored = of(&gold, answer);
        assert!(!scored.strict.exact && !scored.lenient.exact, "{answer}");
        // A call without arguments is one leaf too many: no mean counts it as right.
        assert_eq!(
            (scored.strict.false_positives, scored.issues),
            (1, vec!["unexpected_call".to_owned()])
        );
    }
    let failed = score("calls", &gold, None);
    assert!(!failed.strict.exact && !failed.strict.valid, "no answer is a failure");
    assert!(of(&gold, &gold.text()).issues.is_empty());
}

#[test]
fn options_are_values_that_count_and_arguments_that_may_be_left_out() {
    let truth = json!([{ "f": { "a": [1, "one"], "unit": ["", "m"], "n": ["", 0] } }]);
    let gold = any_of(&truth, true);
    assert_eq!(gold.text(), "<tool_call name=\"f\">{\"a\":1}</tool_call>");
    let exact = |arguments: Value| of(&gold, &text(&[call("f", arguments)])).strict.exact;
    for right in [
        json!({ "a": 1 }),
        json!({ "a": 1.0 }),
        json!({ "a": "one", "unit": "m" }),
        json!({ "a": 1, "unit": "", "n": 0 }),
    ] {
        assert!(exact(right.clone()), "{right}");
    }
    for wrong in [
        json!({}),
        json!({ "a": 2 }),
        json!({ "a": true }),
        json!({ "a": "One" }),
        json!({ "a": 1, "unit": "km" }),
        // Beside a number, "" only says that the argument may be left out.
        json!({ "a": 1, "n": "" }),
        json!({ "a": 1, "n": false }),
        json!({ "a": 1, "b": 1 }),
    ] {
        assert!(!exact(wrong.clone()), "{wrong}");
    }
    // An argument that may be left out counts only where it is wrong.
    let reading = |arguments: Value| of(&gold, &text(&[call("f", arguments)])).strict;
    let counts = |r: Reading| (r.true_positives, r.false_positives, r.false_negatives);
    assert_eq!(counts(reading(json!({ "a": 1, "unit": "m" }))), (2, 0, 0));
    assert_eq!(counts(reading(json!({ "a": 2, "unit": "km", "b": [1, 2] }))), (1, 4, 1));
}

#[test]
fn nested_options_are_held_without_the_quirks_of_bfcl() {
    let truth = json!([{ "order": {
        "drink": [{ "size": ["large", "L"], "milk": ["", "oat"], "at": [{ "shop": [3] }] }],
        "items": [[{ "item": ["fries", "chips"], "n": [2] }, { "item": ["cola"], "n": [1] }]],
        "tags": [["a", "b"], []],
        "none": [],
        "plain": [{ "format": "epoch" }],
    } }]);
    let gold = any_of(&truth, true);
    assert_eq!(of(&gold, &gold.text()).issues, Vec::<String>::new());
    let good = json!({
        "drink": { "size": "L", "milk": "oat", "at": { "shop": 3.0 } },
        "items": [{ "item": "chips", "n": 2 }, { "item": "cola", "n": 1 }],
        "tags": [], "none": [], "plain": { "format": "epoch" },
    });
    let exact = |arguments: &Value| of(&gold, &text(&[call("order", arguments.clone())])).strict;
    assert!(exact(&good).exact);
    for (path, value) in [
        ("/drink/size", json!("small")),
        ("/drink/at/shop", json!([3])),
        ("/drink", json!({ "size": "L", "at": {} })),
        ("/drink", json!({ "size": "L", "at": { "shop": 3 }, "ice": true })),
        // BFCL lets an empty list stand for any list.
        ("/items", json!([])),
        ("/items/1/n", json!(true)),
        ("/items/0/item", json!(["chips"])),
        ("/tags", json!(["b", "a"])),
        ("/none", json!(["x"])),
        ("/plain/format", json!(["epoch"])),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(path).unwrap() = value.clone();
        let reading = exact(&wrong);
        assert!(!reading.exact, "{path} {value}");
        assert!(
            reading.false_positives + reading.false_negatives > 0 || path == "/none",
            "{path} {value}"
        );
    }
    let mut lacking = good.clone();
    lacking.as_object_mut().unwrap().remove("none");
    assert!(!exact(&lacking).exact, "an empty list is asked for, not nothing");
}

#[test]
fn texts_are_loose_in_the_lenient_reading_of_options_only() {
    let truth = json!([{ "f": { "city": ["San Francisco, CA"], "d": [{ "k": ["it's"] }] } }]);
    let answer = text(&[call("f", json!({ "city": "san francisco ca", "d": { "k": "IT\"S" } }))]);
    let scored = of(&any_of(&truth, true), &answer);
    assert!(scored.strict.valid && !scored.strict.exact && scored.lenient.exact);
    assert_eq!(scored.issues, ["arguments_mismatch"]);
    let plain = ordered(&[call("f", json!({ "city": "San Francisco, CA" }))]);
    let answer = text(&[call("f", json!({ "city": "san francisco ca" }))]);
    assert!(!of(&plain, &answer).lenient.exact);
}

#[test]
fn matching_is_not_greedy() {
    // The first call fits both golds, the second only the first of them.
    let truth = json!([{ "f": { "a": [1, 2] } }, { "f": { "a": [1] } }]);
    let answer = text(&[call("f", json!({ "a": 1 })), call("f", json!({ "a": 2 }))]);
    assert!(of(&any_of(&truth, false), &answer).strict.exact);
    assert!(!of(&any_of(&truth, true), &answer).strict.exact);
}

#[test]
fn the_scorer_has_an_identity_of_its_own_that_stays() {
    let digest = crate::score::scorer_digest("calls");
    assert_ne!(digest, crate::score::scorer_digest("structured"));
    assert_eq!(digest.to_string(), DIGEST);
}

/// Scores under this digest stand in records: rules that change take another version.
const DIGEST: &str = "948d1e597a8e157fa54ea15c88f6691c6b14bd5c07abda02558104a8b5247953";

#[test]
fn golds_of_the_leaderboard_are_right_against_themselves() {
    let Some(folder) = shared("bfcl/possible_answer") else { return };
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut rows, mut calls) = (0, 0);
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let truth = &row["ground_truth"];
            if !truth.as_array().is_some_and(|calls| calls.iter().all(Value::is_object)) {
                continue;
            }
            let gold = any_of(truth, !name.contains("parallel"));
            let scored = of(&gold, &gold.text());
            assert!(scored.strict.exact && scored.strict.name && scored.lenient.exact, "{line}");
            assert_eq!(scored.strict.false_positives + scored.strict.false_negatives, 0, "{line}");
            assert!(scored.issues.is_empty(), "{line}");
            assert!(!of(&gold, "no").strict.exact);
            rows += 1;
            calls += gold.calls_scored();
        }
    }
    assert_eq!((rows, calls), BFCL);
}

/// Rows of BFCL whose golds are calls, and their calls.
const BFCL: (usize, usize) = (2501, 3302);

fn any_options() -> impl Strategy<Value = Vec<Value>> {
    let member = prop::collection::vec(any_json(), 0..3).prop_map(Value::from);
    let nested = prop::collection::btree_map("[a-c]{1,2}", member, 0..3)
        .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
        .boxed();
    let items = prop::collection::vec(nested.clone(), 0..3).prop_map(Value::from);
    let option = prop_oneof![
        any_json(),
        nested,
        items,
        Just(Value::from("")),
        (0..3_i32).prop_map(Value::from),
    ];
    prop::collection::vec(option, 0..4)
}

fn any_gold() -> impl Strategy<Value = Expected> {
    let arguments = prop::collection::btree_map("[a-d]{1,2}", any_options(), 0..4);
    let options = prop::collection::vec(("[f-h]", arguments), 1..6);
    let of_options = (options, any::<bool>()).prop_map(|(named, in_order)| {
        let calls = named.iter().map(|(name, options)| chosen(name, options)).collect();
        let options = Some(named.into_iter().map(|(_, options)| options).collect());
        Expected::Calls { calls, options, in_order }
    });
    let of_calls = (prop::collection::vec(any_call(), 1..6), any::<bool>())
        .prop_map(|(calls, in_order)| Expected::Calls { calls, options: None, in_order });
    prop_oneof![of_options, of_calls, Just(Expected::NoCall)]
}

/// Calls of few names and values, so that they often fit the golds of [`few_gold`] in part.
fn few_calls(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Call>> {
    let arguments = prop::collection::btree_map("[ab]", 0..3_i32, 0..3).prop_map(|map| {
        map.into_iter().map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>()
    });
    let call = ("[fg]", arguments).prop_map(|(name, arguments)| Call { name, arguments });
    prop::collection::vec(call, size)
}

fn few_gold() -> impl Strategy<Value = Expected> {
    let values = prop_oneof![
        3 => (0..3_i32).prop_map(Value::from),
        1 => Just(Value::from("")),
        1 => Just(json!([0, 1])),
    ];
    let arguments = prop::collection::btree_map("[ab]", prop::collection::vec(values, 0..3), 0..3);
    let options = prop::collection::vec(("[fg]", arguments), 1..5).prop_map(|named| {
        let calls = named.iter().map(|(name, options)| chosen(name, options)).collect();
        let options = Some(named.into_iter().map(|(_, options)| options).collect());
        Expected::Calls { calls, options, in_order: false }
    });
    let plain = few_calls(1..5).prop_map(|calls| unordered(&calls));
    prop_oneof![options, plain]
}

fn with_order(expected: &Expected, order: bool) -> Expected {
    match expected.clone() {
        Expected::Calls { calls, options, .. } => {
            Expected::Calls { calls, options, in_order: order }
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn gold_against_gold_is_exact(expected in any_gold()) {
        let scored = of(&expected, &expected.text());
        prop_assert!(scored.strict.exact && scored.strict.name && scored.strict.valid);
        prop_assert_eq!(scored.strict, scored.lenient);
        prop_assert_eq!(scored.strict.false_positives + scored.strict.false_negatives, 0);
        prop_assert!(scored.issues.is_empty());
        let bytes = serde_json::to_vec(&expected).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Expected>(&bytes).unwrap(), expected);
    }

    #[test]
    fn order_of_the_answer_is_nothing_where_any_order_will_do(
        gold in few_gold(),
        (calls, turned) in few_calls(1..6).prop_flat_map(|calls| {
            (Just(calls.clone()), Just(calls).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(of(&gold, &text(&calls)), of(&gold, &text(&turned)));
    }

    #[test]
    fn leaving_a_call_out_never_raises_what_is_found(
        gold in few_gold(),
        calls in few_calls(1..6),
        place in 0_usize..6,
        order: bool,
    ) {
        let gold = with_order(&gold, order);
        let all = of(&gold, &text(&calls)).strict;
        let mut fewer = calls.clone();
        fewer.remove(place % calls.len());
        let less = of(&gold, &text(&fewer)).strict;
        prop_assert!(less.true_positives <= all.true_positives);
        // The gold has the same leaves whatever the answer: recall cannot rise either.
        let size = |reading: &Reading| reading.true_positives + reading.false_negatives;
        prop_assert_eq!(size(&less), size(&all));
    }

    #[test]
    fn leaving_a_call_of_the_gold_out_is_never_exact(gold in any_gold(), place in 0_usize..6) {
        if let Expected::Calls { calls, .. } = &gold {
            let mut fewer = calls.clone();
            fewer.remove(place % calls.len());
            let less = of(&gold, &text(&fewer));
            prop_assert!(!less.strict.exact && !less.strict.name && !less.lenient.exact);
            prop_assert!(less.strict.false_negatives > 0);
        }
    }

    #[test]
    fn pieces_add_up(gold in few_gold(), calls in few_calls(1..6)) {
        let reading = of(&gold, &text(&calls)).strict;
        let answered: u32 = calls.iter().map(|call| 1 + call.arguments.len() as u32).sum();
        // A right argument counts with the leaves of the first option.
        if let Expected::Calls { options: None, .. } = gold {
            prop_assert_eq!(reading.true_positives + reading.false_positives, answered);
        }
        let exact = reading.exact;
        prop_assert!(!exact || reading.false_positives + reading.false_negatives == 0);
        prop_assert!(!exact || reading.name);
    }

    #[test]
    fn one_call_is_read_as_on_the_track_toolcall(calls in few_calls(2..3)) {
        let one = score("toolcall", &Expected::Call { call: calls[0].clone() },
            Some(&write_wrapper(&calls[1])));
        let all = of(&ordered(&calls[..1]), &write_wrapper(&calls[1]));
        prop_assert_eq!(one.strict.exact && one.strict.name, all.strict.exact);
        prop_assert_eq!(one.strict.name, all.strict.name);
        let name = u32::from(one.strict.name);
        prop_assert_eq!(one.strict.true_positives + name, all.strict.true_positives);
    }
}

#[test]
fn what_may_be_a_call_is_not_right_where_none_is() {
    let call = write_wrapper(&call("f", json!({ "a": 1 })));
    let braces = format!("{}{call}", "{".repeat(1_001));
    for answer in ["<tool_call name=\"f\">{x", "I do <tool_call", &braces, &"{ ".repeat(1_001)] {
        let scored = of(&Expected::NoCall, answer);
        for reading in [scored.strict, scored.lenient] {
            assert!(!reading.exact && !reading.name && reading.false_positives > 0);
        }
        assert!(scored.issues.contains(&"unexpected_call".to_owned()));
    }
    // Many objects of a JSON value are read as a whole, and few braces are searched.
    let list = json!(vec![json!({ "x": 1 }); 1_500]).to_string();
    for answer in ["No tool fits.", "{}", "a { b", &list, ""] {
        assert!(of(&Expected::NoCall, answer).lenient.exact);
    }
}
