#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::literal::steps;

fn call(name: &str, arguments: Value) -> Call {
    Call { name: name.to_owned(), arguments: arguments.as_object().unwrap().clone() }
}

#[test]
fn strict_reading_wants_exactly_one_wrapper() {
    let good = " <tool_call name=\"f\">{\"a\": 1}</tool_call>\n";
    assert_eq!(strict_call(good), Some(call("f", json!({ "a": 1 }))));
    let bad = [
        "",
        "Sure. <tool_call name=\"f\">{}</tool_call>",
        "<tool_call name=\"f\">{}\"</tool_call>",
        "<tool_call name=\"f\">{}</tool_call> done",
        "<tool_call name=\"f\">{'a': 1}</tool_call>",
        "<tool_call name=\"f\">[]</tool_call>",
        "<tool_call name=\"\">{}</tool_call>",
        "<tool_call name=\"f\">{}</tool_call><tool_call name=\"g\">{}</tool_call>",
        "<tool_call name=\"f\" arguments={} />",
    ];
    for text in bad {
        assert_eq!(strict_call(text), None, "{text}");
    }
}

#[test]
fn first_call_is_found_in_every_form() {
    use CallForm::{Attribute, Object, Tag, Wrapper};
    let cases = [
        ("We do.<tool_call name=\"f\">{\"a\":1}</tool_call>", Wrapper),
        ("<tool_call name=\"f\">{\"a\":1}\"</tool_call>", Wrapper),
        ("<tool_call name=\"f\">{\"a\":1}", Wrapper),
        (
            "<tool_call name=\"f\">{...}</tool_call>: <tool_call name=\"f\">{\"a\":1}</tool_call>",
            Wrapper,
        ),
        ("<tool_call name=\"f\">{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>", Wrapper),
        ("<tool_call name=\"f\" arguments={\"a\": 1} />", Attribute),
        ("~<tool_call name=\"f\" arguments='{\"a\": 1}'>~", Attribute),
        ("~<tool_call name=\"f\" args=\"{'a': 1}\">{}</tool_call>~", Attribute),
        ("<tool_call name=\"f\" arguments=\"{\\\"a\\\": 1}\"/>", Attribute),
        ("<tool_call name=\"f\" arguments=\"{&#34;a&#34;: 1}\"/>", Attribute),
        ("<tool_call name=\"f\" arguments=\"{&quot;a&quot;:1}\"/>", Attribute),
        ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>", Tag),
        ("{ \"tool_call\": \"f\", \"arguments\": { \"a\": 1 } }", Object),
        ("/beta\n[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", Object),
        (r#"{"type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}"#, Object),
        ("Input: {\"a\": 2}\nOutput: <tool_call name=\"f\">{ \"a\": 1 }</tool_call>", Wrapper),
    ];
    for (text, form) in cases {
        let found = first_call(text).map(|found| (found.call, found.form));
        assert_eq!(found, Some((call("f", json!({ "a": 1 })), form)), "{text}");
    }
}

#[test]
fn what_holds_no_call_gives_none() {
    let texts = [
        "",
        "7.5\n}",
        "{\"a\": 1}",
        "[tool_call name=\"f\" arguments={\"a\": 1}]",
        "<tool_call name=\"f\" q=\"x\"></tool_call>",
        "f(a=1)",
        "<tool_call name=\"f\">{...}</tool_call>",
    ];
    for text in texts {
        assert_eq!(first_call(text), None, "{text}");
    }
}

#[test]
fn hermes_golds_in_python() {
    let text = "Sure.\n\
                <tool_call>\n{'arguments': {'on': True, 'n': None}, 'name': 'f'}\n</tool_call>\n\
                <tool_call>\n{'arguments': {}, 'name': 'g'}\n</tool_call>";
    let golds = read_golds(text).unwrap();
    assert_eq!(golds.calls, [call("f", json!({ "on": true, "n": null })), call("g", json!({}))]);
    assert_eq!(golds.flags, ["gold.python_literal"]);
}

#[test]
fn astray_brace_and_escaped_line_breaks_are_mended_and_told() {
    let text = "<tool_call>\\n{\"arguments\": {\"q\": ['it\\'s'], \"name\": \"E\"}}\\n</tool_call>";
    let golds = read_golds(text).unwrap();
    assert_eq!(golds.calls, [call("E", json!({ "q": ["it's"] }))]);
    assert_eq!(
        golds.flags,
        ["gold.escaped_line_breaks", "gold.name_lifted", "gold.python_literal"]
    );
    // No model's answer is mended that far.
    assert_eq!(first_call("<tool_call>{\"arguments\": {\"name\": \"E\"}}</tool_call>"), None);
}

#[test]
fn one_bad_call_spoils_the_gold() {
    let text =
        "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><tool_call>{x}</tool_call>";
    let error = read_golds(text).unwrap_err();
    assert!(matches!(&error, GoldError::Call { number: 2, .. }), "{error}");
    assert!(matches!(read_calls("hello"), Err(GoldError::NoCall { .. })));
    assert!(matches!(read_calls("[]"), Err(GoldError::NoCall { .. })));
    assert!(matches!(read_calls("[{\"name\": \"f\"}]"), Err(GoldError::Call { number: 1, .. })));
}

#[test]
fn arrays_and_fences_are_read() {
    let text =
        "```json\n[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]\n```";
    let names: Vec<String> = read_calls(text).unwrap().into_iter().map(|call| call.name).collect();
    assert_eq!(names, ["f", "g"]);
}

#[test]
fn closing_tag_inside_a_string() {
    let call = call("f", json!({ "a": "</tool_call><tool_call name=\"g\">{}</tool_call>" }));
    let text = write_wrapper(&call);
    assert_eq!(strict_call(&text), Some(call.clone()));
    assert_eq!(first_call(&text).unwrap().call, call);
    assert_eq!(read_calls(&text).unwrap(), [call]);
}

#[test]
fn strict_reading_of_several_wants_white_space_between_wrappers() {
    let (f, g) = (call("f", json!({ "a": 1 })), call("g", json!({})));
    let (wf, wg) = (write_wrapper(&f), write_wrapper(&g));
    for good in [format!("{wf}\n{wg}"), format!(" {wf} \r\n\n {wg}\n")] {
        assert_eq!(strict_calls(&good), Some(vec![f.clone(), g.clone()]), "{good}");
    }
    let bad = [
        String::new(),
        format!("{wf}{wg}"),
        format!("{wf}, {wg}"),
        format!("{wf}\n{wg} done"),
        format!("{wf}\n<tool_call name=\"g\">{{}}"),
        format!("{wf}\n<tool_call name=\"\">{{}}</tool_call>"),
        format!("{wf}\n<tool_call>{{\"name\": \"g\", \"arguments\": {{}}}}</tool_call>"),
    ];
    for text in bad {
        assert_eq!(strict_calls(&text), None, "{text}");
    }
    assert_eq!(strict_calls(&vec![wg.clone(); CALLS_MAX].join("\n")).unwrap().len(), CALLS_MAX);
    assert_eq!(strict_calls(&vec![wg; CALLS_MAX + 1].join("\n")), None);
}

#[test]
fn all_calls_are_found_in_order_whatever_their_form() {
    let text = "First <tool_call name=\"f\">{\"a\":1}</tool_call>, then {\"b\": 2} and\n\
        {\"name\": \"g\", \"arguments\": {\"q\": {\"name\": \"x\", \"arguments\": {}}}}\n\
        <tool_call>[{'name': 'h', 'arguments': {}}, {'name': 'i', 'arguments': {}}]</tool_call>\n\
        <tool_call name=\"j\">{x}</tool_call> <tool_call name=\"k\" arguments={\"a\": 1} />\n\
        <tool_call name=\"l\">{\"t\": \"<tool_call name='m'>{}\"}</tool_call>";
    let names: Vec<String> = all_calls(text).into_iter().map(|found| found.call.name).collect();
    assert_eq!(names, ["f", "g", "h", "i", "k", "l"]);
    assert_eq!(all_calls("nothing {here} <tool_call"), []);
    let many = "<tool_call name=\"f\">{}</tool_call>".repeat(CALLS_MAX + 5);
    assert_eq!(all_calls(&many).len(), CALLS_MAX);
}

type Reader = fn(&str);

/// Texts that a reader might look at again and again, about `size` bytes of each.
fn hostile(size: usize) -> Vec<(&'static str, String)> {
    let units = [
        "{",
        "[",
        "<",
        "<tool_call",
        "<tool_call>",
        "<tool_call ",
        "<tool_call a=",
        "<tool_call a=\"",
        "<tool_call a='",
        "<tool_call name=\"f\">",
        "<tool_call name=\"f\">{}",
        "<tool_call name=\"f\">{\"a\":\"<tool_call\"}",
        "<tool_call name=\"f\">{\"a\":[",
        "<tool_call name=\"f\">{'a':\"<tool_call>",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
        "<tool_call>[",
        "{\"a\":",
        "{\"a\":[",
        "{\"a\":[{\"b\":0},",
        "{'a':'",
        "{\":",
        "{\":1,'{'\"{\":",
        "{\"\\",
        "a=b",
        "a=\"",
        "aaaa",
        "1",
        "\\n",
        " ",
    ];
    let mut texts = Vec::new();
    for unit in units {
        let body = unit.repeat(size / unit.len());
        texts.push((unit, body.clone()));
        // The same inside a tag, with an end that every search runs to, and inside a string.
        texts.push((unit, format!("<tool_call {body}")));
        texts.push((unit, format!("<tool_call {body}>")));
        texts.push((unit, format!("{body}</tool_call>")));
        texts.push((unit, format!("{{\"a\":\"{body}")));
        texts.push((unit, format!("<tool_call name='f'>{{'a':[\"{body}</tool_call>")));
    }
    texts
}

#[test]
fn hostile_texts_are_looked_at_a_bounded_number_of_times() {
    let readers: [(&str, Reader); 4] = [
        ("first_call", |text| drop(first_call(text))),
        ("all_calls", |text| drop(all_calls(text))),
        ("read_golds", |text| drop(read_golds(text))),
        ("strict_calls", |text| drop(strict_calls(text))),
    ];
    let size = 1 << 14;
    for ((unit, text), (_, twice)) in hostile(size).iter().zip(&hostile(2 * size)) {
        for (name, reader) in readers {
            let (once, more) = (steps::of(|| reader(text)), steps::of(|| reader(twice)));
            // Twice the text is at most twice the work, and a bit; and no byte is looked at more
            // often than the nesting of values and the limits of the reader allow.
            assert!(more <= 2 * once + 4_096, "{name} of {unit:?}: {once}, then {more}");
            assert!(once <= 2_000 * size, "{name} of {unit:?}: {once}");
        }
    }
}

/// Any JSON value of modest size, with whole numbers and short decimals.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1_000_000_i64..1_000_000).prop_map(Value::from),
        (-1e6_f64..1e6).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            any_map(inner).prop_map(Value::Object),
        ]
    })
}

fn any_map(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("\\PC{0,8}", value, 0..5).prop_map(|map| map.into_iter().collect())
}

/// Any call with a plain name.
pub(crate) fn any_call() -> impl Strategy<Value = Call> {
    ("[A-Za-z_][A-Za-z0-9_.-]{0,20}", any_map(any_json()))
        .prop_map(|(name, arguments)| Call { name, arguments })
}

proptest! {
    #[test]
    fn written_wrappers_are_read_back(call in any_call()) {
        let text = write_wrapper(&call);
        let read = strict_call(&text).unwrap();
        prop_assert_eq!(&read.name, &call.name);
        // Writing again gives the same bytes: what was read is what was meant.
        prop_assert_eq!(write_wrapper(&read), text.clone());
        prop_assert_eq!(write_wrapper(&first_call(&text).unwrap().call), text.clone());
        prop_assert_eq!(write_wrapper(&read_calls(&text).unwrap()[0]), text);
    }

    #[test]
    fn the_first_of_all_calls_is_the_first_call(
        text in "(<tool_call name=\"f\">|\\{\"name\":'g','arguments':|<tool_call>|\\{|\\}\
        |'|\"|</tool_call>|[:a1,])\
                 {0,14}",
    ) {
        let all = all_calls(&text);
        prop_assert_eq!(all.first().cloned(), first_call(&text));
        if let Some(strict) = strict_call(&text) {
            prop_assert_eq!(strict_calls(&text), Some(vec![strict]));
        }
        if let Some(strict) = strict_calls(&text) {
            let found: Vec<Call> = all.into_iter().map(|found| found.call).collect();
            prop_assert_eq!(found, strict);
        }
    }

    #[test]
    fn written_calls_are_all_read_back(calls in prop::collection::vec(any_call(), 1..5)) {
        let text = calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n");
        let again = |calls: &[Call]| calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n");
        prop_assert_eq!(again(&strict_calls(&text).unwrap()), text.clone());
        let found: Vec<Call> = all_calls(&text).into_iter().map(|found| found.call).collect();
        prop_assert_eq!(again(&found), text.clone());
        prop_assert_eq!(again(&read_calls(&text).unwrap()), text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(<tool_call|name=|[{}\"'<>/=a1 ]|\\PC){0,40}") {
        let _ = all_calls(&text);
        let _ = strict_calls(&text);
        let _ = first_call(&text);
        let _ = read_golds(&text);
        let _ = strict_call(&text);
    }
}
