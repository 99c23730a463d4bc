//! One episode: which value has which placeholder.

use std::collections::BTreeMap;

use serde_json::Number;

use super::scan::{find, is_invisible, placeholder, write_placeholder};
use super::walk::{Edit, Texts};
use super::{Rule, Rules};

/// Times that a text is read again, because a placeholder has taken the place of what stood beside
/// something. The second time finds something in texts made for it only, the third in none so far.
const PASSES_MAX: usize = 8;
/// Least digits of a number that is recognised by a value found elsewhere.
const DIGITS_MIN: usize = 7;

/// The values that were found in an episode.
pub(super) struct Session<'a> {
    rules: &'a Rules,
    numbers: BTreeMap<(Rule, String), u64>,
    /// The highest number of placeholders by rule.
    last: BTreeMap<Rule, u64>,
    placed: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        Self { rules, numbers: BTreeMap::new(), last: BTreeMap::new(), placed: 0 }
    }

    /// Redacts all texts, and returns at how many places.
    pub(super) fn run(mut self, texts: &mut dyn Texts) -> u64 {
        let mut known = Seen::default();
        texts.each(&mut known);
        self.last.clone_from(&known.last);
        for _ in 0..PASSES_MAX {
            let before = self.placed;
            texts.each(&mut Patterns(&mut self));
            if self.placed == before {
                break;
            }
            texts.each(&mut Values(&mut self));
        }
        if self.placed > 0 {
            let mut order = Renumber { reserved: known.last, new: BTreeMap::new() };
            texts.each(&mut order);
        }
        self.placed
    }

    /// Returns the placeholder of a value.
    fn place(&mut self, rule: Rule, value: &str) -> String {
        self.placed += 1;
        let last = self.last.entry(rule).or_default();
        let number = *self.numbers.entry((rule, canonical(rule, value))).or_insert_with(|| {
            *last += 1;
            *last
        });
        write_placeholder(rule, number)
    }

    /// Returns which rule has found a value before.
    fn rule_of(&self, value: &str) -> Option<Rule> {
        let is_number = value.len() >= DIGITS_MIN && value.bytes().all(|b| b.is_ascii_digit());
        let rules: &[Rule] =
            if is_number { &[Rule::Phone, Rule::Card, Rule::Secrets] } else { &[Rule::Secrets] };
        let has = |rule: &&Rule| self.numbers.contains_key(&(**rule, value.to_owned()));
        rules.iter().find(has).copied()
    }
}

/// Returns the form by which one value is known, however it is written.
fn canonical(rule: Rule, value: &str) -> String {
    match rule {
        Rule::Card | Rule::Phone => value.chars().filter(char::is_ascii_digit).collect(),
        Rule::Iban => value.chars().filter(|c| !c.is_whitespace()).collect(),
        Rule::Email => value.to_lowercase(),
        Rule::Secrets => value.chars().filter(|c| !is_invisible(*c)).collect(),
    }
}

/// Replaces parts of a text, which stand in order.
fn replace(text: &mut String, parts: &[(usize, usize, String)]) {
    if parts.is_empty() {
        return;
    }
    let mut new = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end, with) in parts {
        new.push_str(text.get(done..*start).unwrap_or_default());
        new.push_str(with);
        done = *end;
    }
    new.push_str(text.get(done..).unwrap_or_default());
    *text = new;
}

/// Lists the placeholders of a text: rule, number, start and end.
fn placeholders(text: &str) -> Vec<(Rule, u64, usize, usize)> {
    let starts = text.match_indices('[').map(|(start, _)| start);
    let read = |start| placeholder(text, start).map(|(rule, n, end)| (rule, n, start, end));
    starts.filter_map(read).collect()
}

/// Sees which numbers are taken.
#[derive(Default)]
struct Seen {
    last: BTreeMap<Rule, u64>,
}

impl Edit for Seen {
    fn text(&mut self, text: &mut String, _key: Option<&str>) {
        for (rule, number, ..) in placeholders(text) {
            let last = self.last.entry(rule).or_default();
            *last = number.max(*last);
        }
    }
}

/// Replaces what the rules find.
struct Patterns<'s, 'r>(&'s mut Session<'r>);

impl Edit for Patterns<'_, '_> {
    fn text(&mut self, text: &mut String, key: Option<&str>) {
        for _ in 0..PASSES_MAX {
            let found = find(self.0.rules, text, key);
            let part = |found: &super::scan::Found| {
                let value = text.get(found.start..found.end).unwrap_or_default();
                (found.start, found.end, self.0.place(found.rule, value))
            };
            let parts: Vec<(usize, usize, String)> = found.iter().map(part).collect();
            if parts.is_empty() {
                return;
            }
            replace(text, &parts);
        }
    }
}

/// Replaces values that were found elsewhere, where nothing around them tells what they are.
struct Values<'s, 'r>(&'s mut Session<'r>);

impl Values<'_, '_> {
    /// Looks a piece of text up, whole and without the marks around it, then its own pieces.
    fn look_up(
        &mut self,
        text: &str,
        (start, end): (usize, usize),
        parts: &mut Vec<(usize, usize, String)>,
    ) -> bool {
        let piece = text.get(start..end).unwrap_or_default();
        let marks = |c: char| ".,:;!?".contains(c);
        let left = piece.trim_start_matches(marks);
        let bare = left.trim_end_matches(marks);
        let from = start + piece.len() - left.len();
        for (value, from) in [(piece, start), (left, from), (bare, from)] {
            if let Some(rule) = self.0.rule_of(value) {
                parts.push((from, from + value.len(), self.0.place(rule, value)));
                return true;
            }
        }
        false
    }
}

impl Edit for Values<'_, '_> {
    fn text(&mut self, text: &mut String, _key: Option<&str>) {
        let ends = |c: char| c.is_whitespace() || "\"'`,;<>()[]{}|\\".contains(c);
        let inner = |c: char| ends(c) || "=:&?@/".contains(c);
        let mut parts = Vec::new();
        if self.look_up(text, (0, text.len()), &mut parts) {
            replace(text, &parts);
            return;
        }
        for (start, end) in pieces(text, 0, text.len(), &ends) {
            if !self.look_up(text, (start, end), &mut parts) {
                for piece in pieces(text, start, end, &inner) {
                    self.look_up(text, piece, &mut parts);
                }
            }
        }
        replace(text, &parts);
    }

    fn number(&mut self, number: &Number) -> Option<String> {
        let digits = number.as_u64()?.to_string();
        let rule = self.0.rule_of(&digits)?;
        Some(self.0.place(rule, &digits))
    }
}

/// Cuts a part of a text at separators: start and end of each piece that is not empty.
fn pieces(
    text: &str,
    start: usize,
    end: usize,
    is_separator: &dyn Fn(char) -> bool,
) -> Vec<(usize, usize)> {
    let part = text.get(start..end).unwrap_or_default();
    let mut at = start;
    let mut found = Vec::new();
    for piece in part.split(is_separator) {
        if !piece.is_empty() {
            found.push((at, at + piece.len()));
        }
        let next = at + piece.len();
        at = next + text.get(next..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    }
    found
}

/// Numbers the new placeholders by first appearance, above those that were there.
struct Renumber {
    reserved: BTreeMap<Rule, u64>,
    new: BTreeMap<Rule, BTreeMap<u64, u64>>,
}

impl Edit for Renumber {
    fn text(&mut self, text: &mut String, _key: Option<&str>) {
        let mut parts = Vec::new();
        for (rule, number, start, end) in placeholders(text) {
            let reserved = self.reserved.get(&rule).copied().unwrap_or_default();
            if number > reserved {
                let new = self.new.entry(rule).or_default();
                let next = reserved + new.len() as u64 + 1;
                let number = *new.entry(number).or_insert(next);
                parts.push((start, end, write_placeholder(rule, number)));
            }
        }
        replace(text, &parts);
    }
}
