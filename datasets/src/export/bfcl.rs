//! BFCL: a file of questions and a file of possible answers.

use serde_json::{Map, Value, json};

use crate::episode::{Call, Episode, Gold, Tool, Turn};
use crate::signature::bfcl_of_schema;

/// A row of the possible answers.
pub(super) struct Possible {
    pub(super) id: String,
    pub(super) ground_truth: Value,
}

impl Possible {
    pub(super) fn row(self) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert("id".to_owned(), Value::from(self.id));
        row.insert("ground_truth".to_owned(), self.ground_truth);
        row
    }
}

/// Makes the rows of an episode: its question and, where it has calls, its possible answers.
pub(super) fn rows(episode: &Episode) -> Result<(Map<String, Value>, Option<Possible>), String> {
    let ground_truth = match &episode.gold {
        Gold::AnyOf { calls, options, .. } => Some(
            calls
                .iter()
                .zip(options)
                .map(|(call, options)| single(&call.name, json!(options)))
                .collect::<Value>(),
        ),
        Gold::Calls { calls } => Some(calls.iter().map(possible).collect()),
        Gold::NoCall => None,
        Gold::None if episode.has_flag("gold.some_call") => None,
        Gold::None => return Err("it has no gold".to_owned()),
        Gold::Json { .. } | Gold::Text { .. } => return Err("its gold is no call".to_owned()),
    };
    let id = id(episode);
    let mut row = Map::new();
    row.insert("id".to_owned(), Value::from(id.as_str()));
    let messages = episode.turns.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    row.insert("question".to_owned(), json!([messages]));
    row.insert("function".to_owned(), episode.tools.iter().map(function).collect());
    Ok((row, ground_truth.map(|ground_truth| Possible { id, ground_truth })))
}

/// Returns the id, with the category before it where the id does not tell it: the leaderboard
/// knows the category of a row by its id.
fn id(episode: &Episode) -> String {
    let id = &episode.source.external_id;
    let calls = episode.gold.calls().len();
    let category = match (&episode.gold, episode.tools.len()) {
        (Gold::NoCall, _) => "irrelevance",
        (Gold::None, _) => "relevance",
        (_, 0 | 1) if calls > 1 => "parallel",
        (Gold::AnyOf { in_order: false, .. }, 0 | 1) => "parallel",
        (_, _) if calls > 1 => "parallel_multiple",
        (Gold::AnyOf { in_order: false, .. }, _) => "parallel_multiple",
        (_, 0 | 1) => "simple",
        _ => "multiple",
    };
    if id.contains(category) { id.clone() } else { format!("{category}_{id}") }
}

fn message(turn: &Turn) -> Result<Value, String> {
    match turn.role.as_str() {
        _ if !turn.tool_calls.is_empty() => {
            // Its rows of several turns are run against classes that an episode does not hold.
            Err("an earlier turn calls a tool".to_owned())
        }
        role @ ("system" | "user" | "assistant") => {
            Ok(json!({ "role": role, "content": turn.content }))
        }
        _ => Err("an earlier turn is the result of a tool".to_owned()),
    }
}

fn function(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name, "description": tool.description });
    if let (Value::Object(function), false) = (&mut function, tool.parameters.is_null()) {
        function.insert("parameters".to_owned(), bfcl_of_schema(&tool.parameters));
    }
    function
}

fn single(name: &str, arguments: Value) -> Value {
    Value::Object([(name.to_owned(), arguments)].into_iter().collect())
}

/// Writes a call as possible answers of one value each.
fn possible(call: &Call) -> Value {
    let arguments = call.arguments.iter().map(|(name, value)| (name.clone(), json!([one(value)])));
    single(&call.name, Value::Object(arguments.collect()))
}

/// Writes a value as the only one: members of an object, and of objects in a list, have lists.
fn one(value: &Value) -> Value {
    match value {
        Value::Object(members) => one_each(members),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_object().map_or_else(|| item.clone(), one_each))
            .collect(),
        other => other.clone(),
    }
}

fn one_each(members: &Map<String, Value>) -> Value {
    Value::Object(members.iter().map(|(key, value)| (key.clone(), json!([value]))).collect())
}
