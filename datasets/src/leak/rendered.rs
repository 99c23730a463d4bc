//! All texts of a row that are put into a prompt or trained on.

use serde_json::Value;

use crate::episode::{Call, Episode, Gold};

/// Shows `look` each text: those of turns and their calls, of the tools on offer with their
/// schemas, of the gold, and of the recorded answer.
pub(super) fn each(row: &Episode, look: &mut dyn FnMut(&str)) {
    for turn in &row.turns {
        look(&turn.content);
        calls(&turn.tool_calls, look);
    }
    for tool in &row.tools {
        look(&tool.description);
        leaves(&tool.parameters, look);
    }
    match &row.gold {
        Gold::None | Gold::NoCall => {}
        Gold::Calls { calls: of_gold } => calls(of_gold, look),
        Gold::Json { value } => leaves(value, look),
        Gold::Text { text } => look(text),
        Gold::AnyOf { calls: of_gold, options, .. } => {
            calls(of_gold, look);
            options.iter().flat_map(|call| call.values()).flatten().for_each(|v| leaves(v, look));
        }
    }
    if let Some(answer) = &row.answer {
        answer.text.iter().for_each(|text| look(text));
        calls(&answer.calls, look);
    }
}

fn calls(calls: &[Call], look: &mut dyn FnMut(&str)) {
    calls.iter().flat_map(|call| &call.arguments).for_each(|(key, value)| {
        look(key);
        leaves(value, look);
    });
}

/// Shows the texts of a JSON value and the names of its members.
fn leaves(value: &Value, look: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, look)),
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            look(key);
            leaves(value, look);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
