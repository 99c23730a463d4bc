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

/// Words by which a user corrects what was said before, where a turn begins with one.
const CORRECTIONS: [&str; 13] = [
    "actually",
    "correction",
    "instead",
    "mistake",
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

/// Words that may stand before such a word, and say nothing themselves.
const FILLERS: [&str; 12] =
    ["ah", "but", "er", "hey", "hm", "hmm", "oh", "ok", "okay", "uh", "um", "well"];

/// Words that correct something wherever they stand.
const PHRASES: [&str; 9] = [
    "i meant",
    "i mean",
    "instead of",
    "my mistake",
    "i was wrong",
    "i was mistaken",
    "scratch that",
    "that s wrong",
    "change that to",
];

/// Words whose `not` says that something is not done.
const VERBS: [&str; 10] =
    ["can", "could", "did", "do", "does", "may", "rather", "should", "will", "would"];

/// Most words from `not` to `but`.
const NOT_BUT_MAX: usize = 5;

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

/// Says whether a turn corrects what was said before: by its first words, or by a phrase.
///
/// A single word within a turn, as in "with no layovers", says nothing.
fn corrects(turn: &str) -> bool {
    let said = spoken(turn);
    let first = said.iter().find(|word| !FILLERS.contains(&word.as_str()));
    let last = said.last().is_some_and(|word| word == "instead");
    let text = format!(" {} ", said.join(" "));
    let has = |phrase: &&str| text.contains(&format!(" {phrase} "));
    first.is_some_and(|word| CORRECTIONS.contains(&word.as_str()))
        || last
        || PHRASES.iter().any(has)
        || not_but(&said)
}

/// Says whether a few words stand between `not` and `but`, as in "not Paris but Rome", where the
/// `not` is none of a verb, as in "I do not mind, but".
fn not_but(said: &[String]) -> bool {
    let mut since: Option<usize> = None;
    let mut before = "";
    for (place, word) in said.iter().enumerate() {
        let of_verb = VERBS.contains(&std::mem::replace(&mut before, word.as_str()));
        match word.as_str() {
            "not" => since = (!of_verb).then_some(place),
            "but" if since.is_some_and(|not| (2..=NOT_BUT_MAX).contains(&(place - not))) => {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// Returns the words of a turn in their order, in lower case.
fn spoken(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
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
    properties(schema).any(|(_, parameter)| holds_members(schema, parameter, false, DEPTH_MAX))
}

/// Looks into a parameter of the schema `root`, whose definitions it may refer to.
fn holds_members(root: &Map<String, Value>, schema: &Value, is_item: bool, depth: u32) -> bool {
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
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|to| defined(root, to));
    let items = schema.get("items").into_iter();
    let fixed = schema.get("prefixItems").and_then(Value::as_array);
    several.flatten().chain(referred).any(|one| holds_members(root, one, is_item, depth))
        || items
            .chain(fixed.into_iter().flatten())
            .any(|item| holds_members(root, item, true, depth))
}

/// Returns the schema that `#/$defs/name` or `#/definitions/name` stands for.
fn defined<'a>(root: &'a Map<String, Value>, to: &str) -> Option<&'a Value> {
    let (group, name) = to.strip_prefix("#/")?.split_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    let is_known = matches!(group, "$defs" | "definitions");
    is_known.then(|| root.get(group)?.get(&name)).flatten()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_corrects_is_a_clarification() {
        for turn in [
            "No, the other one.",
            "Oh, sorry, Rome.",
            "Hm, actually make it two",
            "Wait! Not today.",
            "To Rome instead of Paris, please.",
            "I meant the blue one",
            "Book not Paris but Rome.",
            "Take the train instead.",
        ] {
            assert!(corrects(turn), "{turn}");
        }
        for turn in [
            "A flight with no layovers",
            "Book early so that I do not wait",
            "I would rather not say, but what is the wrong side?",
            "Is that actually true?",
            "Find the meant value",
            "",
        ] {
            assert!(!corrects(turn), "{turn}");
        }
    }

    #[test]
    fn references_to_objects_are_nested() {
        let nested = |schema: Value| is_nested(schema.as_object().unwrap_or(&Map::new()));
        for group in ["$defs", "definitions"] {
            let to = |kind: &str| {
                json!({
                    "properties": { "a": { "$ref": format!("#/{group}/A") } },
                    group: { "A": { "type": kind } },
                })
            };
            assert!(nested(to("object")) && !nested(to("string")));
        }
        let items = json!({
            "properties": { "a": { "type": "array", "items": { "$ref": "#/$defs/A" } } },
            "$defs": { "A": { "anyOf": [{ "$ref": "#/$defs/B" }] }, "B": { "properties": {} } },
        });
        assert!(nested(items));
        let endless = json!({
            "properties": { "a": { "$ref": "#/$defs/A" } },
            "$defs": { "A": { "$ref": "#/$defs/A" } },
        });
        assert!(!nested(endless) && !nested(json!({ "properties": { "a": { "$ref": "x" } } })));
    }
}
