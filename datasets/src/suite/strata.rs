//! Which stratum a row belongs to, and why a row belongs to none.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::domain;
use super::select::Kind;
use crate::episode::{Episode, Gold, Tool, Turn};

/// Single-turn: one tool on offer, all its parameters required, none nested.
pub const SIMPLE: &str = "simple";
/// Single-turn: one tool on offer, some of its parameters optional, none nested.
pub const MODERATE: &str = "moderate";
/// Single-turn: nested parameters, or several tools on offer.
pub const COMPLEX: &str = "complex";
/// Multi-turn: the last user turn corrects something.
pub const CLARIFICATION: &str = "clarification";
/// Multi-turn: three user turns or more.
pub const CONTEXT_DEPENDENT: &str = "context-dependent";
/// Multi-turn: the rest.
pub const SEQUENTIAL: &str = "sequential";
/// Irrelevance: none of the tools on offer fits.
pub const IRRELEVANCE: &str = "irrelevance";

/// Words by which a user corrects what was said before.
const CORRECTIONS: [&str; 15] = [
    "actually",
    "correction",
    "instead",
    "meant",
    "mistake",
    "mistaken",
    "nah",
    "no",
    "nope",
    "oops",
    "rather",
    "scratch",
    "sorry",
    "wait",
    "wrong",
];

/// Depth to which alternatives and items in schemas are looked into.
const DEPTH_MAX: u32 = 16;

/// Names the strata of a kind, in the order in which they are told; none where the rows name them.
pub(super) fn of_kind(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::SingleTurn => vec![SIMPLE, MODERATE, COMPLEX],
        Kind::MultiTurn => vec![CLARIFICATION, CONTEXT_DEPENDENT, SEQUENTIAL],
        Kind::DomainDiverse => domain::names(),
        Kind::Irrelevance => vec![IRRELEVANCE],
        Kind::All => Vec::new(),
    }
}

/// Finds the stratum of a row, or says what the row lacks. None where the kind has no strata of
/// its own.
pub(super) fn of_row(
    kind: Kind,
    row: &Episode,
    gold: &Gold,
) -> Result<Option<&'static str>, &'static str> {
    let users: Vec<&Turn> = row.prompt_turns().iter().filter(|turn| turn.role == "user").collect();
    let Some(last) = users.last() else {
        return Err("have no user turn");
    };
    match kind {
        Kind::SingleTurn if users.len() > 1 => Err("have more than one user turn"),
        Kind::SingleTurn => complexity(&row.tools).map(Some),
        Kind::MultiTurn if users.len() < 2 => Err("have one user turn only"),
        Kind::MultiTurn if corrects(&last.content) => Ok(Some(CLARIFICATION)),
        Kind::MultiTurn if users.len() > 2 => Ok(Some(CONTEXT_DEPENDENT)),
        Kind::MultiTurn => Ok(Some(SEQUENTIAL)),
        Kind::DomainDiverse => Ok(Some(domain::of(row))),
        Kind::Irrelevance if *gold == Gold::NoCall => Ok(Some(IRRELEVANCE)),
        Kind::Irrelevance => Err("have a gold other than that no call is right"),
        Kind::All => Ok(None),
    }
}

/// Returns the key of the question: its normalised user turns. Rows with one key ask the same.
pub(super) fn question(row: &Episode) -> String {
    let turns = row.prompt_turns().iter().filter(|turn| turn.role == "user");
    let said: Vec<&str> = turns.map(|turn| turn.content.as_str()).collect();
    match said.as_slice() {
        // The query is the turn without the template around it.
        [] | [_] => row.group(),
        several => {
            let normal = several.iter().map(|turn| crate::template::normalise_query(turn));
            normal.collect::<Vec<_>>().join("\n")
        }
    }
}

fn corrects(turn: &str) -> bool {
    let said = words(turn);
    CORRECTIONS.iter().any(|word| said.contains(*word))
}

fn complexity(tools: &[Tool]) -> Result<&'static str, &'static str> {
    match tools {
        [] => Err("have no tool on offer"),
        [tool] => match tool.parameters.as_object() {
            None => Err("have a tool whose parameters are unknown"),
            Some(schema) if is_nested(schema) => Ok(COMPLEX),
            Some(schema) if has_optional(schema) => Ok(MODERATE),
            Some(_) => Ok(SIMPLE),
        },
        _ => Ok(COMPLEX),
    }
}

fn properties(schema: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn has_optional(schema: &Map<String, Value>) -> bool {
    let required: BTreeSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    properties(schema).any(|(name, _)| !required.contains(name.as_str()))
}

/// Returns whether a parameter holds members: an object, or an array of objects or arrays.
fn is_nested(schema: &Map<String, Value>) -> bool {
    properties(schema).any(|(_, parameter)| holds_members(parameter, false, DEPTH_MAX))
}

fn holds_members(schema: &Value, is_item: bool, depth: u32) -> bool {
    let (Some(schema), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else {
        return false;
    };
    // A type may be a list of types.
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_kind = |names: &[&str]| kinds.iter().any(|kind| names.contains(kind));
    if is_kind(&["object", "dict"])
        || schema.contains_key("properties")
        || (is_item && is_kind(&["array", "tuple", "list"]))
    {
        return true;
    }
    let several = ["anyOf", "oneOf", "allOf"].iter().filter_map(|&key| schema.get(key)?.as_array());
    let items = schema.get("items").into_iter();
    let fixed = schema.get("prefixItems").and_then(Value::as_array);
    several.flatten().any(|one| holds_members(one, is_item, depth))
        || items.chain(fixed.into_iter().flatten()).any(|item| holds_members(item, true, depth))
}

/// Returns the words of a text, in lower case; `getWeather` and `get_weather` are two words each.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut word = String::new();
    let mut before = ' ';
    for c in text.chars() {
        let is_hump = before.is_lowercase() && c.is_uppercase();
        if (is_hump || !c.is_alphanumeric()) && !word.is_empty() {
            words.insert(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    if !word.is_empty() {
        words.insert(word);
    }
    words
}
