#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

fn words(text: &str) -> Node {
    Node::Words { words: text.to_owned(), begins: false }
}

fn value(field: Exact, value: &str) -> Node {
    Node::Value { field, value: value.to_owned(), begins: false }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn micros(text: &str) -> Amount {
    Amount::Time(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
}

#[test]
fn words_phrases_and_their_joints() {
    assert_eq!(parse("  \t").unwrap(), Node::Everything);
    assert_eq!(parse("weather").unwrap(), words("weather"));
    assert_eq!(
        parse("a \"b c\" -d").unwrap(),
        Node::All(vec![words("a"), words("b c"), not(words("d"))])
    );
    // Side by side binds more tightly than OR.
    let both = Node::All(vec![words("a"), words("b")]);
    assert_eq!(parse("a b OR c").unwrap(), Node::Any(vec![both.clone(), words("c")]));
    assert_eq!(parse("a AND b").unwrap(), both);
    assert_eq!(
        parse("a (b OR -c) NOT (d e)").unwrap(),
        Node::All(vec![
            words("a"),
            Node::Any(vec![words("b"), not(words("c"))]),
            not(Node::All(vec![words("d"), words("e")])),
        ])
    );
    assert_eq!(parse("weath*").unwrap(), Node::Words { words: "weath".into(), begins: true });
    assert_eq!(parse("\"in os\"*").unwrap(), Node::Words { words: "in os".into(), begins: true });
    assert_eq!(parse("OR a OR").unwrap(), words("a"));
    assert_eq!(parse("ORDER").unwrap(), words("ORDER"));
}

#[test]
fn values_of_fields_may_have_any_character() {
    assert_eq!(parse("tool:a.b/c-d_e").unwrap(), value(Exact::Tool, "a.b/c-d_e"));
    assert_eq!(parse("tool:北京.天气").unwrap(), value(Exact::Tool, "北京.天气"));
    assert_eq!(parse("tool:f(x)").unwrap(), value(Exact::Tool, "f(x)"));
    assert_eq!(
        parse(r#"label:"say \"hi\" \\ C:\new *""#).unwrap(),
        value(Exact::Label, r#"say "hi" \ C:\new *"#)
    );
    assert_eq!(
        parse("(tool:a OR tool:b)").unwrap(),
        Node::Any(vec![value(Exact::Tool, "a"), value(Exact::Tool, "b")])
    );
    let begins = Node::Value { field: Exact::Tool, value: "get_".into(), begins: true };
    assert_eq!(parse("tool:get_*").unwrap(), begins);
    assert_eq!(parse("-kind:case").unwrap(), not(value(Exact::Kind, "case")));
    assert_eq!(parse("text:weather").unwrap(), words("weather"));
    assert_eq!(parse("text:\"in oslo\"").unwrap(), words("in oslo"));
    assert_eq!(parse("id:/a/b").unwrap(), value(Exact::Id, "/a/b"));
}

#[test]
fn numbers_and_dates_have_bounds() {
    let range = |text: &str| match parse(text).unwrap() {
        Node::Range { low, high, .. } => (low, high),
        other => panic!("{other:?}"),
    };
    let score = |score| Amount::Score(score);
    assert_eq!(range("score:<0.5"), (Bound::Unbounded, Bound::Excluded(score(0.5))));
    assert_eq!(range("score:>=0.5"), (Bound::Included(score(0.5)), Bound::Unbounded));
    assert_eq!(
        range("score:[0 TO 0.5}"),
        (Bound::Included(score(0.0)), Bound::Excluded(score(0.5)))
    );
    assert_eq!(range("score:[* TO -1e3]"), (Bound::Unbounded, Bound::Included(score(-1e3))));
    assert_eq!(
        range("seq:17"),
        (Bound::Included(Amount::Seq(17)), Bound::Included(Amount::Seq(17)))
    );
    // A date is the whole day.
    let last = Amount::Time(match micros("2026-12-02T00:00:00Z") {
        Amount::Time(micros) => micros - 1,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        range("time:[2026-11-01 TO 2026-12-01]"),
        (Bound::Included(micros("2026-11-01T00:00:00Z")), Bound::Included(last))
    );
    assert_eq!(range("time:>2026-12-01"), (Bound::Excluded(last), Bound::Unbounded));
    assert_eq!(
        range("time:<2026-11-01T09:30:00+01:00"),
        (Bound::Unbounded, Bound::Excluded(micros("2026-11-01T08:30:00Z")))
    );
    assert_eq!(
        range("time:>=\"2026-11-01T09:30\"").0,
        Bound::Included(micros("2026-11-01T09:30:00Z"))
    );
    for wrong in ["score:high", "score:nan", "score:<", "time:>yesterday", "seq:-1", "score:[0"] {
        let error = parse(wrong).unwrap_err();
        assert!(matches!(error, SearchError::Query(_)), "{wrong}: {error}");
    }
}

#[test]
fn a_wrong_field_is_told_and_pasted_text_is_not() {
    for wrong in ["tol:get_weather", "a (b OR colour:red)"] {
        assert!(matches!(parse(wrong), Err(SearchError::UnknownField { .. })), "{wrong}");
    }
    for pasted in [
        "{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Oslo\"}}",
        "see https://example.org/a?b=c and std::io::Error at 12:30",
        "Note: this, C:\\temp and \"unfinished",
        "git log --oneline ((((( ))))) ) ) (",
        "- + * \" ' : \\",
        "<tool_call name=\"f\">{}</tool_call>",
    ] {
        parse(pasted).unwrap();
    }
    let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    parse(&deep).unwrap();
    parse(&"-+NOT ".repeat(100_000)).unwrap();
}

#[test]
fn feedback_has_a_name_and_perhaps_a_bound() {
    assert_eq!(parse_feedback("correction").unwrap(), value(Exact::Feedback, "correction"));
    let low = Node::Range {
        number: Number::Score,
        low: Bound::Unbounded,
        high: Bound::Excluded(Amount::Score(0.5)),
    };
    let both = Node::All(vec![value(Exact::Feedback, "user quality"), low]);
    assert_eq!(parse_feedback(" user quality < 0.5").unwrap(), both);
    assert!(parse_feedback("<0.5").is_err() && parse_feedback("quality<good").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[-+*()\"\\\\:\\[\\]{}<>=a-z 天OR.]{0,40}") {
        drop(parse(&text));
        drop(parse_feedback(&text));
    }
}
