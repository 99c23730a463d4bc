#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::episode::{Answer, Tool, Turn};
use crate::manifest::Stored as _;
use crate::samples;

fn episode() -> Episode {
    samples::episodes("biz_entity/entity_location_date.jsonl", 0).swap_remove(0).1
}

/// Puts a value wherever an episode has one.
fn everywhere(value: &Value) -> Vec<Episode> {
    let arguments = json!({ "b": value, "a": 1.0 }).as_object().unwrap().clone();
    let calls = vec![Call { name: "f".to_owned(), arguments }];
    let turn = Turn { tool_calls: calls.clone(), ..Turn::text("assistant", "") };
    let (name, description) = ("f".to_owned(), String::new());
    let tool = Tool { name, description, parameters: value.clone() };
    let answer = Answer { model: "m".to_owned(), text: None, calls: calls.clone() };
    let options = vec![[("b".to_owned(), vec![value.clone()])].into()];
    let whole = Episode { schema: 2, ..episode() };
    vec![
        Episode { turns: vec![turn], ..whole.clone() },
        Episode { tools: vec![tool], ..whole.clone() },
        Episode { answer: Some(answer), ..whole.clone() },
        Episode { gold: Gold::Calls { calls: calls.clone() }, ..whole.clone() },
        Episode { gold: Gold::Json { value: value.clone() }, ..whole.clone() },
        Episode { gold: Gold::AnyOf { calls, options, in_order: true }, ..whole },
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-b\u{fb33}\u{1f600}é]{0,3}";
    let number = prop_oneof![
        any::<f64>().prop_map(Value::from),
        (-9_i64..9).prop_map(Value::from),
        (-9_i64..9).prop_map(|whole| Value::from(whole as f64)),
        prop::sample::select(vec![1e19, 1.2e20, 1e21, -0.0, 9e15]).prop_map(Value::from),
    ];
    let leaf = prop_oneof![number, text.prop_map(Value::from), Just(Value::Null)];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Settled in place is read from the record, in the order of the members too.
    #[test]
    fn a_settled_episode_is_what_the_record_gives(value in value()) {
        for mut episode in everywhere(&value) {
            let stored = Episode::from_stored(&episode.to_stored()).unwrap();
            settle(&mut episode, false).unwrap();
            let text = |episode: &Episode| serde_json::to_string(episode).unwrap();
            prop_assert_eq!(text(&episode), text(&stored));
        }
    }
}

/// What is one level too deep could not be read again, and nothing else is refused.
#[test]
fn the_deepest_that_is_kept_can_be_read_again() {
    for levels in 110..130 {
        let deep = (0..levels).fold(json!(1), |inner, level| match level % 2 {
            0 => json!([inner]),
            _ => json!({ "k": inner }),
        });
        for mut episode in everywhere(&deep) {
            let stored = Episode::from_stored(&episode.to_stored());
            assert_eq!(settle(&mut episode, false).is_ok(), stored.is_ok(), "{levels}");
        }
    }
}

#[test]
fn numbers_that_would_lose_digits_are_refused() {
    let large = [json!((1_u64 << 53) + 1), json!(u64::MAX), json!(i64::MIN)];
    for value in &large {
        for mut episode in everywhere(value) {
            assert!(settle(&mut episode, false).unwrap_err().contains("2^53"));
        }
    }
    for mut episode in everywhere(&json!(1e20)) {
        assert!(settle(&mut episode.clone(), true).unwrap_err().contains("2^53"));
        settle(&mut episode, false).unwrap();
    }
}
