//! What counts as correct.
//!
//! Each answer is read twice. The strict reading takes the whole trimmed answer: exactly one
//! wrapper around a JSON object (toolcall), or one JSON value (structured). The lenient reading
//! takes the strict one where it is valid, else the first call or JSON value that can be decoded
//! anywhere in the answer, whatever its form. Leaves are (path, scalar) pairs; numbers are equal
//! when their values are (`1` and `1.0`); empty objects and arrays have no leaves.
//!
//! The track `calls` holds all calls of an answer against all calls of the gold: see [`Expected`]
//! and the module `calls`.

use std::collections::BTreeMap;

use ledger::Digest;
use ledger::catalogue::Reading;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::episode::{Call, json_text};
use crate::gold::{CallForm, Found, first_call, strict_call, unfence, write_wrapper};
use crate::literal;
use crate::manifest::digest_of;

mod calls;
mod leaves;
mod matching;
mod options;
mod totals;

pub use options::first_choice;
pub use totals::{Metrics, Prf, Rate, totals};

use calls::WantedCalls;
use leaves::{Comparison, compare, same};

/// Version of the rules below. Any change of a score's meaning raises it.
const SCORER_VERSION: u32 = 1;

/// What an answer is held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Expected {
    /// This call (toolcall track).
    Call {
        /// The call.
        call: Call,
    },
    /// This value (structured track).
    Json {
        /// The value.
        value: Value,
    },
    /// All of these calls (calls track).
    Calls {
        /// The calls; of arguments with several right values, the first.
        calls: Vec<Call>,
        /// For each call, the values that count as right by argument, as in
        /// [`Gold::AnyOf`](crate::episode::Gold::AnyOf); none where the calls say all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        options: Option<Vec<BTreeMap<String, Vec<Value>>>>,
        /// The calls must come in this order.
        in_order: bool,
    },
    /// No call, whatever the words (calls track).
    NoCall,
}

impl Expected {
    /// Writes an answer that scores as exact.
    pub fn text(&self) -> String {
        match self {
            Self::Call { call } => write_wrapper(call),
            Self::Json { value } => json_text(value),
            Self::Calls { calls, .. } => {
                calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n")
            }
            Self::NoCall => "None of the tools fits.".to_owned(),
        }
    }

    /// Returns the tool that is called (first), where one is.
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::Call { call } => Some(&call.name),
            Self::Json { value } => value.get("tool_name").and_then(Value::as_str),
            Self::Calls { calls, .. } => calls.first().map(|call| call.name.as_str()),
            Self::NoCall => None,
        }
    }

    /// Returns how many calls are scored.
    pub fn calls_scored(&self) -> usize {
        match self {
            Self::Call { .. } | Self::Json { .. } => 1,
            Self::Calls { calls, .. } => calls.len(),
            Self::NoCall => 0,
        }
    }
}

/// One answer's score.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseScore {
    /// Strict reading.
    pub strict: Reading,
    /// Lenient reading.
    pub lenient: Reading,
    /// Issue tags of the strict reading, sorted.
    pub issues: Vec<String>,
}

/// Returns the identity of the scorer of `track`.
pub fn scorer_digest(track: &str) -> Digest {
    let rules = match track {
        "toolcall" => json!({
            "strict": "whole trimmed answer is one wrapper around a JSON object",
            "lenient": "strict where valid, else first call: wrapper, attributes, tags, object",
            "exact": "arguments equal, whatever the name",
        }),
        calls::TRACK => return calls::digest(),
        _ => json!({
            "strict": "whole answer is one JSON value",
            "lenient": "strict where valid, else first decodable object or array",
            "exact": "value equal",
        }),
    };
    digest_of(&json!({
        "scorer": track,
        "version": SCORER_VERSION,
        "rules": rules,
        "leaves": "(path, scalar); numbers by value; empty containers have none",
        "invalid": "all gold leaves are false negatives, none is a false positive",
    }))
}

/// Scores `answer` against `expected`. No answer is a failure, not a gap.
///
/// What is compared follows from `expected`; `track` names the scorer, as a suite does, and
/// building a suite makes sure that the two agree.
pub fn score(_track: &str, expected: &Expected, answer: Option<&str>) -> CaseScore {
    let Some(answer) = answer else {
        let failed = unread(expected);
        return CaseScore {
            strict: failed,
            lenient: failed,
            issues: vec!["answer_missing".to_owned()],
        };
    };
    let (strict, lenient, mut issues) = match expected {
        Expected::Call { call } => score_call(call, answer),
        Expected::Json { value } => score_json(value, answer),
        Expected::Calls { calls, options, in_order } => {
            calls::score(&WantedCalls::new(calls, options.as_deref(), *in_order), answer)
        }
        Expected::NoCall => calls::score_none(answer),
    };
    issues.sort_unstable();
    issues.dedup();
    CaseScore { strict, lenient, issues: issues.into_iter().map(str::to_owned).collect() }
}

fn score_call(gold: &Call, answer: &str) -> (Reading, Reading, Vec<&'static str>) {
    if let Some(call) = strict_call(answer) {
        let reading = read_call(gold, &call);
        let mut issues = Vec::new();
        if !reading.name {
            issues.push("tool_name_mismatch");
        }
        if !reading.exact {
            issues.push("arguments_mismatch");
        }
        return (reading, reading, issues);
    }
    let expected = Expected::Call { call: gold.clone() };
    let found = first_call(answer);
    let issues = call_faults(answer, found.as_ref());
    let lenient = found.map_or_else(|| unread(&expected), |found| read_call(gold, &found.call));
    (unread(&expected), lenient, issues)
}

fn read_call(gold: &Call, call: &Call) -> Reading {
    let compared = compare_objects(&gold.arguments, &call.arguments);
    Reading { valid: true, name: gold.name == call.name, ..reading_of(&compared) }
}

fn compare_objects(gold: &Map<String, Value>, answer: &Map<String, Value>) -> Comparison {
    compare(&Value::Object(gold.clone()), &Value::Object(answer.clone()))
}

fn score_json(gold: &Value, answer: &str) -> (Reading, Reading, Vec<&'static str>) {
    let expected = Expected::Json { value: gold.clone() };
    if let Ok(value) = serde_json::from_str::<Value>(answer) {
        let (reading, issues) = read_json(gold, &value);
        return (reading, reading, issues);
    }
    let lenient =
        first_value(answer).map_or_else(|| unread(&expected), |value| read_json(gold, &value).0);
    let mut issues = vec!["prediction_not_valid_json"];
    if answer.trim().is_empty() {
        issues.push("empty_answer");
    } else if answer.contains("```") {
        issues.push("code_fence");
    }
    (unread(&expected), lenient, issues)
}

fn read_json(gold: &Value, value: &Value) -> (Reading, Vec<&'static str>) {
    let compared = compare(gold, value);
    let tool = |value: &Value| value.get("tool_name").and_then(Value::as_str).map(str::to_owned);
    let reading = Reading { valid: true, name: tool(gold) == tool(value), ..reading_of(&compared) };
    let mut issues = Vec::new();
    for (count, issue) in [
        (compared.missing, "missing_fields"),
        (compared.extra, "extra_fields"),
        (compared.changed, "value_mismatch"),
    ] {
        if count > 0 {
            issues.push(issue);
        }
    }
    if issues.is_empty() && !reading.exact {
        // Same leaves, another shape: an empty object where an empty array should be, say.
        issues.push("value_mismatch");
    }
    (reading, issues)
}

fn reading_of(compared: &Comparison) -> Reading {
    Reading {
        valid: true,
        name: false,
        exact: compared.is_equal,
        true_positives: compared.shared,
        false_positives: compared.extra + compared.changed,
        false_negatives: compared.missing + compared.changed,
    }
}

/// Returns the reading of an answer that could not be read.
fn unread(expected: &Expected) -> Reading {
    let leaves = match expected {
        Expected::Call { call } => leaves::count(&Value::Object(call.arguments.clone())),
        Expected::Json { value } => leaves::count(value),
        Expected::Calls { calls, options, in_order } => {
            WantedCalls::new(calls, options.as_deref(), *in_order).leaves()
        }
        Expected::NoCall => 0,
    };
    unread_leaves(leaves)
}

fn unread_leaves(gold: u32) -> Reading {
    Reading { false_negatives: gold, ..Reading::default() }
}

/// Finds the first object or array in `text` that can be decoded.
fn first_value(text: &str) -> Option<Value> {
    let mut rest = unfence(text);
    // Bounded, because each start may be read to the end of the text.
    for _ in 0..1_000 {
        let here = rest.get(rest.find(['{', '['])?..)?;
        if let Ok((value, _, _)) = literal::parse_prefix(here) {
            return Some(value);
        }
        rest = here.get(1..)?;
    }
    None
}

/// Tells what is wrong with the form of an answer that is no strict call.
fn call_faults(answer: &str, found: Option<&Found>) -> Vec<&'static str> {
    let mut issues = vec!["invalid_tool_call_format"];
    let answer = answer.trim();
    if answer.is_empty() {
        issues.push("empty_answer");
        return issues;
    }
    let tag = answer.find("<tool_call").and_then(|start| answer.get(start..));
    let opening = tag.map(|tag| tag.find('>').and_then(|end| tag.get(..end)).unwrap_or(tag));
    if !answer.starts_with("<tool_call") {
        issues.push("missing_opening_tag");
    }
    if !answer.contains("</tool_call>") {
        issues.push("missing_closing_tag");
    }
    if answer.contains("```") {
        issues.push("code_fence");
    }
    if opening.is_some_and(|opening| opening.ends_with('/')) {
        issues.push("self_closing_tag");
    }
    if found.is_some_and(|found| found.form == CallForm::Attribute) {
        issues.push("attribute_arguments");
    }
    if answer.matches("<tool_call").count() > 1 {
        issues.push("several_calls");
    }
    issues
}

/// Returns whether two values are equal, numbers by value.
pub fn values_equal(left: &Value, right: &Value) -> bool {
    same(left, right)
}

#[cfg(test)]
mod tests;
