//! What a text that is put before all prompts gives away of a suite.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::Words;
use crate::episode::json_text;
use crate::near::NearDuplicate;
use crate::suite::{Case, SuiteManifest};

/// Words of the runs by which a question is recognised, also where some of its words were changed.
const RUN: usize = 3;
/// Least letters of a single word that can give a gold away; it must hold a digit, too.
const WORD_MIN: usize = 8;
/// Members of a gold that is no call which name a kind or a tool, or repeat the question.
const NAMES: [&str; 4] = ["kind", "name", "tool_name", "query"];

/// A case that a text gives away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InText {
    /// Case.
    pub case: String,
    /// What of it stands there.
    pub part: Part,
    /// Share of the part's runs of three words that stand in the text, from the threshold of a near
    /// duplicate to 1; always 1 for arguments, which are looked for as they are.
    pub share: f64,
}

/// What of a case stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Its question, whole or with few words changed.
    Question,
    /// Words of its gold's arguments that are in the gold of no other case.
    Arguments,
}

/// Finds cases of `suite` whose question or gold stands in `text`, as in the examples of a context
/// engineering prefix, in the order of the cases.
///
/// Questions of fewer than four words are not looked for. Of the arguments, texts of at least four
/// words, or words of eight letters with a digit among them, are; so is each call's list of all
/// arguments.
pub fn in_text(suite: &SuiteManifest, text: &str) -> Vec<InText> {
    let words = Words::of(text);
    let runs: BTreeSet<&[u64]> = words.hashes.windows(RUN).collect();
    let all: BTreeSet<u64> = words.hashes.iter().copied().collect();
    let golds: Vec<BTreeSet<String>> = suite.cases.iter().map(distinctive).collect();
    let mut holders: BTreeMap<&str, u32> = BTreeMap::new();
    for text in golds.iter().flatten() {
        *holders.entry(text).or_default() += 1;
    }
    let is_own = |text: &&String| holders.get(text.as_str()) == Some(&1);
    let mut found = Vec::new();
    for (case, gold) in suite.cases.iter().zip(&golds) {
        let question = Words::of(&case.query);
        let of_question = question.hashes.windows(RUN);
        let there = of_question.clone().filter(|run| runs.contains(run)).count();
        let share = there as f64 / of_question.len().max(1) as f64;
        if question.is_telling() && share >= NearDuplicate::default().threshold {
            found.push(InText { case: case.id.clone(), part: Part::Question, share });
        }
        let stands = |text: &String| {
            let wanted = Words::of(text);
            // Few texts have all of the words.
            wanted.hashes.iter().all(|word| all.contains(word)) && words.contain(&wanted)
        };
        if gold.iter().filter(is_own).any(stands) {
            found.push(InText { case: case.id.clone(), part: Part::Arguments, share: 1.0 });
        }
    }
    found
}

/// Returns the texts of a case's gold that could give it away.
fn distinctive(case: &Case) -> BTreeSet<String> {
    let mut texts = Vec::new();
    for call in &case.gold_all {
        let arguments = Value::Object(call.arguments.clone());
        texts.push(json_text(&arguments));
        leaves(&arguments, &[], &mut texts);
    }
    // Read by its stored form, whatever kinds of expectation there are.
    if let Some(Ok(expected)) = texts.is_empty().then(|| serde_json::to_value(&case.expected)) {
        leaves(&expected, &NAMES, &mut texts);
    }
    let is_telling = |text: &String| {
        let has = |is: fn(&char) -> bool| text.chars().filter(is).count();
        let (letters, digits) = (has(|c| c.is_alphanumeric()), has(char::is_ascii_digit));
        let is_word = letters >= WORD_MIN && digits > 0 && digits < letters;
        Words::of(text).is_telling() || is_word
    };
    texts.into_iter().filter(is_telling).collect()
}

fn leaves(value: &Value, without: &[&str], texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, without, texts)),
        Value::Object(members) => {
            let members = members.iter().filter(|(key, _)| !without.contains(&key.as_str()));
            members.for_each(|(_, value)| leaves(value, without, texts));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
