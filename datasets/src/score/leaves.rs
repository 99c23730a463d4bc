//! Comparing JSON values leaf by leaf.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// How two values compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The values are equal.
    pub(super) is_equal: bool,
    /// Leaves with the same path and value.
    pub(super) shared: u32,
    /// Paths of the gold that the answer lacks.
    pub(super) missing: u32,
    /// Paths of the answer that the gold lacks.
    pub(super) extra: u32,
    /// Paths in both, with different values.
    pub(super) changed: u32,
}

/// One step into a value. Steps are kept apart, so that a key with a dot in it is one step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

type Leaves<'a> = BTreeMap<Vec<Step<'a>>, &'a Value>;

/// Compares `answer` with `gold`.
pub(super) fn compare(gold: &Value, answer: &Value) -> Comparison {
    let (gold_leaves, answer_leaves) = (leaves(gold), leaves(answer));
    let mut compared = Comparison { is_equal: same(gold, answer), ..Comparison::default() };
    for (path, value) in &gold_leaves {
        match answer_leaves.get(path) {
            None => compared.missing += 1,
            Some(found) if same(value, found) => compared.shared += 1,
            Some(_) => compared.changed += 1,
        }
    }
    let extra = answer_leaves.keys().filter(|path| !gold_leaves.contains_key(*path)).count();
    compared.extra = u32::try_from(extra).unwrap_or(u32::MAX);
    compared
}

/// Counts the leaves of `value`.
pub(super) fn count(value: &Value) -> u32 {
    u32::try_from(leaves(value).len()).unwrap_or(u32::MAX)
}

/// Returns whether two values are equal, numbers by value.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => same_number(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        (left, right) => left == right,
    }
}

fn same_number(left: &Number, right: &Number) -> bool {
    // Whole numbers beyond 2^53 differ though their nearest floats may not.
    if left.is_f64() || right.is_f64() {
        return left.as_f64() == right.as_f64();
    }
    left == right
}

fn leaves(value: &Value) -> Leaves<'_> {
    let mut found = Leaves::new();
    collect(value, &mut Vec::new(), &mut found);
    found
}

fn collect<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, found: &mut Leaves<'a>) {
    let mut descend = |step: Step<'a>, value: &'a Value| {
        path.push(step);
        collect(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| descend(Step::Key(key), value));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| descend(Step::Item(index), value));
        }
        scalar => {
            found.insert(path.clone(), scalar);
        }
    }
}
