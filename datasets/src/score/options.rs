//! Values of which several count as right, in the notation of BFCL's possible answers.
//!
//! An argument has a list of options. An option that is an object holds a list of options for each
//! of its members; members that hold no list are plain. An option that is an array must match item
//! by item, and its objects are read as such options. `""` in a list of options says that the
//! argument or member may be left out. An empty list of options stands for the empty list itself:
//! that is what the two rows that have one ask for.
//!
//! What BFCL's own checker lets pass beside that is no option here: an empty list for any list, and
//! `true` for 1.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::leaves;

/// The options of one call, by argument.
pub(super) type Options = BTreeMap<String, Vec<Value>>;

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texts {
    /// As they are.
    Exact,
    /// As BFCL does: without white space and the marks `,./-_*^`, in lower case, with `"` for `'`.
    Loose,
}

/// Leaves of a value that is held against a gold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// In both.
    pub(super) shared: u32,
    /// In the gold only.
    pub(super) missing: u32,
    /// In the value only.
    pub(super) extra: u32,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.shared = self.shared.saturating_add(other.shared);
        self.missing = self.missing.saturating_add(other.missing);
        self.extra = self.extra.saturating_add(other.extra);
    }
}

/// Returns the value that options name first; none where they say that it may be left out.
///
/// Objects among the options become objects of first values. Golds that are made of this value
/// score as exact against the options.
pub fn first_choice(options: &[Value]) -> Option<Value> {
    if may_be_left_out(options) {
        return None;
    }
    Some(options.first().map_or_else(|| Value::Array(Vec::new()), first_of))
}

fn first_of(option: &Value) -> Value {
    match option {
        Value::Object(members) => {
            let member = |(key, member): (&String, &Value)| {
                let value = match member {
                    Value::Array(options) => first_choice(options)?,
                    plain => first_of(plain),
                };
                Some((key.clone(), value))
            };
            Value::Object(members.iter().filter_map(member).collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(first_of).collect()),
        scalar => scalar.clone(),
    }
}

/// Returns whether the options let the argument be left out.
pub(super) fn may_be_left_out(options: &[Value]) -> bool {
    options.iter().any(|option| option.as_str() == Some(""))
}

/// Returns whether `value` is one of the options.
pub(super) fn accepts(options: &[Value], value: &Value, texts: Texts) -> bool {
    if options.is_empty() {
        return value.as_array().is_some_and(Vec::is_empty);
    }
    values(options).any(|option| is_match(option, value, texts))
}

/// Returns the options that are values. Where others are no texts, `""` is a mark only.
fn values(options: &[Value]) -> impl Iterator<Item = &Value> {
    let is_mark = options.iter().any(|option| !option.is_string() && !option.is_null());
    options.iter().filter(move |option| !(is_mark && option.as_str() == Some("")))
}

fn is_match(option: &Value, value: &Value, texts: Texts) -> bool {
    match (option, value) {
        (Value::Object(members), Value::Object(found)) => {
            let is_right = |(key, value): (&String, &Value)| match members.get(key) {
                Some(Value::Array(options)) => accepts(options, value, texts),
                Some(plain) => is_match(plain, value, texts),
                None => false,
            };
            let is_there = |(key, member): (&String, &Value)| {
                found.contains_key(key)
                    || member.as_array().is_some_and(|options| may_be_left_out(options))
            };
            found.iter().all(is_right) && members.iter().all(is_there)
        }
        (Value::Array(items), Value::Array(found)) => {
            items.len() == found.len()
                && items.iter().zip(found).all(|(item, value)| is_match(item, value, texts))
        }
        (Value::String(text), Value::String(found)) if texts == Texts::Loose => {
            text == found || loose(text) == loose(found)
        }
        (option, value) => leaves::same(option, value),
    }
}

/// Normalises a text as BFCL does before it compares.
fn loose(text: &str) -> String {
    let is_kept = |c: &char| !matches!(c, ' ' | ',' | '.' | '/' | '-' | '_' | '*' | '^');
    let kept: String = text.chars().filter(is_kept).collect();
    kept.to_lowercase().replace('\'', "\"")
}

/// Counts what `value`, which is none of the options, has in common with the nearest of them.
pub(super) fn nearest(options: &[Value], value: &Value, texts: Texts) -> Tally {
    let tallies = values(options).map(|option| tally(option, value, texts));
    let nearest = tallies.max_by_key(|tally| {
        (tally.shared, std::cmp::Reverse(tally.missing), std::cmp::Reverse(tally.extra))
    });
    nearest.unwrap_or(Tally { extra: leaves::count(value), ..Tally::default() })
}

fn tally(option: &Value, value: &Value, texts: Texts) -> Tally {
    let mut sum = Tally::default();
    match (option, value) {
        (Value::Object(members), Value::Object(found)) => {
            for (key, member) in members {
                sum.add(of_member(member, found.get(key), texts));
            }
            let unknown = found.iter().filter(|(key, _)| !members.contains_key(*key));
            unknown.for_each(|(_, value)| sum.extra += leaves::count(value));
        }
        (Value::Array(items), Value::Array(found)) => {
            for (item, value) in items.iter().zip(found) {
                sum.add(tally(item, value, texts));
            }
            let lacking = items.iter().skip(found.len());
            lacking.for_each(|item| sum.missing += leaves::count(&first_of(item)));
            let beyond = found.iter().skip(items.len());
            beyond.for_each(|value| sum.extra += leaves::count(value));
        }
        (option, value) if is_match(option, value, texts) => sum.shared = 1,
        (option, value) => {
            sum.missing = leaves::count(&first_of(option));
            sum.extra = leaves::count(value);
        }
    }
    sum
}

fn of_member(member: &Value, found: Option<&Value>, texts: Texts) -> Tally {
    match (member, found) {
        (Value::Array(options), None) => {
            let missing = first_choice(options).as_ref().map_or(0, leaves::count);
            Tally { missing, ..Tally::default() }
        }
        (plain, None) => Tally { missing: leaves::count(&first_of(plain)), ..Tally::default() },
        (Value::Array(options), Some(value)) => {
            let right = Tally { shared: leaves::count(value), ..Tally::default() };
            if accepts(options, value, texts) { right } else { nearest(options, value, texts) }
        }
        (plain, Some(value)) => tally(plain, value, texts),
    }
}
