//! Reading a text from left to right for what the rules know.

use super::{Rule, Rules, digits, email, secrets};

/// Something that is taken out of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which rule found it.
    pub(super) rule: Rule,
    /// Its first byte.
    pub(super) start: usize,
    /// The byte behind it.
    pub(super) end: usize,
}

/// A text that is being read.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    /// Name of the member that holds the text, where it is a leaf of a JSON value.
    pub(super) key: &'a str,
    /// Nothing before this place is looked at: there stands a placeholder, or will.
    wall: usize,
}

/// What ends a text: no rule takes it for anything.
pub(super) const NOTHING: u8 = 0;

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str, key: Option<&'a str>) -> Self {
        Self { text, key: key.unwrap_or_default(), wall: 0 }
    }

    /// Returns the byte at a place; nothing behind the end.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(NOTHING)
    }

    /// Returns the byte before a place; nothing at the start and behind a placeholder.
    pub(super) fn before(&self, at: usize) -> u8 {
        if at <= self.wall { NOTHING } else { self.byte(at - 1) }
    }

    /// Returns the text before a place, at most `most` bytes, back to a placeholder.
    pub(super) fn lead(&self, at: usize, most: usize) -> &'a str {
        let mut start = at.saturating_sub(most).max(self.wall);
        while start < at && !self.text.is_char_boundary(start) {
            start += 1;
        }
        self.text.get(start..at).unwrap_or_default()
    }

    /// Returns where a run of bytes ends that begins at a place.
    pub(super) fn run(&self, start: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        start + rest.iter().take_while(|&&byte| is(byte)).count()
    }

    /// Returns where such a run ends, or has gone on for `most` bytes.
    pub(super) fn run_most(&self, start: usize, most: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        start + rest.iter().take(most).take_while(|&&byte| is(byte)).count()
    }

    /// Returns a part; nothing where it does not begin and end between letters.
    pub(super) fn part(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// Says whether the text goes on like this.
    pub(super) fn has(&self, at: usize, wanted: &str) -> bool {
        // Most are no match, and told by their first letter alone.
        self.byte(at) == wanted.as_bytes().first().copied().unwrap_or(NOTHING)
            && self
                .text
                .as_bytes()
                .get(at..)
                .is_some_and(|rest| rest.starts_with(wanted.as_bytes()))
    }
}

/// Says whether a byte is a letter, a digit or `_`.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Says whether a letter is not seen: with one inside, a token has no form any more.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Finds what the rules take out of a text, in order. None overlaps another, or a placeholder.
///
/// Letters that are not seen are read over; those within what is found are a part of it.
pub(super) fn find(rules: &Rules, text: &str, key: Option<&str>) -> Vec<Found> {
    if text.is_ascii() || !text.contains(is_invisible) {
        return find_seen(rules, text, key);
    }
    let (mut seen, mut places) = (String::with_capacity(text.len()), Vec::new());
    for (at, c) in text.char_indices().filter(|(_, c)| !is_invisible(*c)) {
        seen.push(c);
        places.extend(at..at + c.len_utf8());
    }
    let back = |found: Found| {
        let start = *places.get(found.start)?;
        let last = *places.get(found.end.checked_sub(1)?)?;
        Some(Found { start, end: last + 1, ..found })
    };
    find_seen(rules, &seen, key).into_iter().filter_map(back).collect()
}

fn find_seen(rules: &Rules, text: &str, key: Option<&str>) -> Vec<Found> {
    let mut text = Text::new(text, key);
    let has = |rule: Rule| rules.on.contains(&rule);
    let on = Rule::ALL.map(|rule| (rule, has(rule)));
    let mut found = Vec::new();
    let mut at = 0;
    if has(Rule::Secrets) && secrets::is_whole(&text) {
        return vec![Found { rule: Rule::Secrets, start: 0, end: text.text.len() }];
    }
    let only_secrets = rules.on.len() == 1 && has(Rule::Secrets);
    while at < text.text.len() {
        if only_secrets {
            at = secrets::next_start(&text, at);
        }
        if let Some((_, _, end)) = placeholder(text.text, at) {
            (text.wall, at) = (end, end);
            continue;
        }
        let first = on.iter().filter(|(_, is_on)| *is_on).find_map(|&(rule, _)| {
            let (start, end) = match rule {
                Rule::Card => digits::card(&text, at),
                Rule::Email => email::find(&text, at),
                Rule::Iban => digits::iban(&text, at),
                Rule::Phone => digits::phone(&text, at),
                Rule::Secrets => secrets::find(&text, at),
            }?;
            // Parts of letters, and of placeholders, are nothing to take out.
            let value = text.part(start, end);
            let is_whole = !value.is_empty() && !has_placeholder(value) && start >= at;
            is_whole.then_some(Found { rule, start, end })
        });
        match first {
            Some(this) => {
                found.push(this);
                (text.wall, at) = (this.end, this.end);
            }
            None => at += 1,
        }
    }
    found
}

/// Reads a placeholder: its rule, its number, and where it ends.
pub(super) fn placeholder(text: &str, at: usize) -> Option<(Rule, u64, usize)> {
    let rest = text.as_bytes().get(at..)?.strip_prefix(b"[")?;
    Rule::ALL.into_iter().find_map(|rule| {
        let number = rest.strip_prefix(rule.label().as_bytes())?.strip_prefix(b"_")?;
        let length = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_closed = number.get(length) == Some(&b']');
        if !is_closed || !(1..=9).contains(&length) {
            return None;
        }
        let value = std::str::from_utf8(number.get(..length)?).ok()?.parse().ok()?;
        Some((rule, value, at + rule.label().len() + length + 3))
    })
}

/// Says whether a placeholder stands in a text.
pub(super) fn has_placeholder(text: &str) -> bool {
    text.match_indices('[').any(|(at, _)| placeholder(text, at).is_some())
}

/// Writes a placeholder.
pub(super) fn write_placeholder(rule: Rule, number: u64) -> String {
    format!("[{}_{number}]", rule.label())
}
