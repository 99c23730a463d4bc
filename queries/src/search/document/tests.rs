#![allow(clippy::unwrap_used)]

use chrono::DateTime;
use datasets::{Tool, Turn};
use serde_json::json;

use super::*;

fn event() -> Envelope {
    Envelope {
        seq: 7,
        id: "x".to_owned(),
        stream: "trace/x".to_owned(),
        version: 0,
        kind: "trace.ingested".to_owned(),
        schema: 1,
        at: DateTime::UNIX_EPOCH,
        actor: "ada".to_owned(),
        cause: None,
        run: None,
        prev: None,
        facts: json!({}),
        measured: json!({}),
    }
}

/// An episode with words in every place that search reads.
fn episode(gold: Gold) -> Episode {
    let call = |name: &str| Call { name: name.to_owned(), arguments: serde_json::Map::new() };
    let mut turn = Turn::text("assistant", "turn \"words\"\nwith escapes");
    turn.tool_calls.push(call("earlier"));
    Episode {
        turns: vec![turn, Turn::text("tool", "observed")],
        tools: vec![Tool {
            name: "offered".to_owned(),
            description: "tools are not searched for words".to_owned(),
            parameters: json!({ "type": "object" }),
        }],
        query: "the query".to_owned(),
        ..only_answers(
            gold,
            Some(Answer {
                model: "m".to_owned(),
                text: Some("answered".to_owned()),
                calls: vec![call("called")],
            }),
        )
    }
}

#[test]
fn what_is_read_of_an_episode_is_what_it_says() {
    let call = Call { name: "golden".to_owned(), arguments: serde_json::Map::new() };
    for gold in [
        Gold::None,
        Gold::Calls { calls: vec![call.clone()] },
        Gold::Json { value: json!({ "a": [1, 2.5] }) },
        Gold::Text { text: "golden text".to_owned() },
        Gold::AnyOf { calls: vec![call], options: vec![], in_order: true },
    ] {
        let episode = episode(gold);
        let bytes = episode.to_bytes();
        let draft = Said::read(&bytes).unwrap().tell(Draft::new(&event(), "trace"));
        assert_eq!(draft.title, "the query");
        let gold = episode.gold_text();
        let gold = if gold.is_empty() { gold } else { format!("{gold}\n") };
        assert_eq!(
            draft.text,
            format!(
                "turn \"words\"\nwith escapes\n<tool_call name=\"earlier\">{{}}</tool_call>\n\
                 observed\n{gold}answered\n<tool_call name=\"called\">{{}}</tool_call>"
            )
        );
        assert!(draft.exact.contains(&(Exact::Model, "m".to_owned())));
    }
}

#[test]
fn a_newer_or_broken_episode_is_not_read() {
    let newer = Episode { schema: EPISODE_SCHEMA + 1, ..episode(Gold::None) };
    assert!(Said::read(&newer.to_bytes()).is_none());
    assert!(Said::read(b"{}").is_none() && Said::read(b"").is_none());
}
