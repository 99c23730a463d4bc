//! Arbitrary episodes: unicode, nested arguments, empty texts, tags inside texts.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;

/// A text, with what might be taken for something else in it.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "\\PC{0,12}",
        1 => select(vec![
            "", " ", "\n", "\n\n", "<tool_call>", "</tool_call>", "<tools>", "</tools>", "[]",
            "<tool_response>\n", "\n</tool_response>", "{'a': 1}", "\"", "\\u003c", "\u{0}",
        ]).prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// A name that stands for itself.
fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z_.]{0,6}"
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(object),
        ]
    })
}

fn object(members: BTreeMap<String, Value>) -> Value {
    Value::Object(members.into_iter().collect())
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = |(name, arguments): (String, BTreeMap<String, Value>)| Call {
        name,
        arguments: arguments.into_iter().collect(),
    };
    vec((name(), btree_map(text(), value(), 0..4)).prop_map(call), 0..4)
}

fn schema() -> impl Strategy<Value = Value> {
    let kind = select(vec!["integer", "string", "number", "boolean", "object", "array", "null"]);
    let property = (option::of(kind), option::of(text()), option::of(value())).prop_map(
        |(kind, description, default)| {
            let mut schema = Map::new();
            let members = [
                ("type", kind.map(Value::from)),
                ("description", description.map(Value::from)),
                ("default", default),
            ];
            for (key, value) in members {
                schema.extend(value.map(|value| (key.to_owned(), value)));
            }
            Value::Object(schema)
        },
    );
    let of = |properties: BTreeMap<String, Value>| {
        let required: Vec<&String> = properties.keys().take(2).collect();
        json!({ "type": "object", "required": required, "properties": properties })
    };
    prop_oneof![
        4 => btree_map(name(), property, 0..4).prop_map(of),
        1 => Just(Value::Null),
        1 => value(),
    ]
}

fn tool() -> impl Strategy<Value = Tool> {
    (name(), text(), schema()).prop_map(|(name, description, parameters)| Tool {
        name,
        description,
        parameters,
    })
}

fn turn() -> impl Strategy<Value = Turn> {
    let role = select(vec!["system", "user", "user", "assistant", "assistant", "tool"]);
    (role, text(), calls()).prop_map(|(role, content, tool_calls)| Turn {
        tool_calls: if role == "assistant" { tool_calls } else { Vec::new() },
        ..Turn::text(role, content)
    })
}

fn gold() -> impl Strategy<Value = Gold> {
    let any_of = (calls(), any::<bool>(), any::<bool>()).prop_map(|(calls, in_order, twice)| {
        let options = calls.iter().map(|call| {
            let options = |value: &Value| vec![value.clone(); if twice { 2 } else { 1 }];
            call.arguments.iter().map(|(name, value)| (name.clone(), options(value))).collect()
        });
        Gold::AnyOf { options: options.collect(), calls: calls.clone(), in_order }
    });
    prop_oneof![
        1 => Just(Gold::None),
        3 => calls().prop_map(|calls| Gold::Calls { calls }),
        1 => value().prop_map(|value| Gold::Json { value }),
        2 => text().prop_map(|text| Gold::Text { text }),
        1 => Just(Gold::NoCall),
        2 => any_of,
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let model = select(vec!["unknown", "gpt"]);
    (model, option::of(text()), calls()).prop_map(|(model, text, calls)| Answer {
        model: model.to_owned(),
        text,
        calls,
    })
}

/// Episodes of any kind, each with an id of its own.
pub(super) fn episodes() -> impl Strategy<Value = Vec<Episode>> {
    let parts = (vec(tool(), 0..3), vec(turn(), 0..5), gold(), option::of(answer()), text());
    let episode = (parts, text(), vec("[a-z.]{1,8}", 0..3)).prop_map(
        |((tools, turns, gold, answer, query), licence, mut flags)| {
            flags.sort();
            flags.dedup();
            Episode { tools, turns, gold, answer, query, licence, flags, ..plain(Gold::None) }
        },
    );
    vec(episode, 1..4).prop_map(|mut all| {
        for (place, episode) in all.iter_mut().enumerate() {
            episode.source.external_id = format!("é {place}");
        }
        all
    })
}

/// Episodes that every format can say: one request, tools with schemas, one or more calls.
pub(super) fn sayable() -> impl Strategy<Value = Episode> {
    let argument = prop_oneof![
        any::<i32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "\\PC{1,12}".prop_map(Value::from),
        vec("\\PC{1,8}", 0..3).prop_map(Value::from),
        btree_map("[a-z]{1,4}", any::<i32>().prop_map(Value::from), 0..3).prop_map(object),
    ];
    let call = (name(), btree_map(name(), argument, 0..4));
    let call = call
        .prop_map(|(name, arguments)| Call { name, arguments: arguments.into_iter().collect() });
    (vec(tool(), 0..3), "\\PC{0,40}", vec(call, 1..4)).prop_map(|(mut tools, query, calls)| {
        tools.iter_mut().for_each(|tool| {
            if !tool.parameters["properties"].is_object() || tool.parameters["type"] != "object" {
                tool.parameters = Value::Null;
            }
        });
        let turns = vec![Turn::text("user", query.clone())];
        Episode { tools, turns, query, ..plain(Gold::Calls { calls }) }
    })
}
