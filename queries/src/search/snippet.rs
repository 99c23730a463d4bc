//! The piece of a text in which most of the words asked for stand.

use std::collections::BTreeSet;

use serde::Serialize;

use super::query::Asked;
use super::tokens;

/// Most characters of a snippet.
const SNIPPET_CHARS: usize = 160;
/// Characters before the first word found.
const BEFORE: usize = 40;

/// A piece of text with the words found marked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snippet {
    /// The piece.
    pub text: String,
    /// Byte ranges of the words found, from and up to.
    pub highlights: Vec<(usize, usize)>,
}

impl Snippet {
    /// Returns the text with `before` and `after` around each word found.
    pub fn marked(&self, before: &str, after: &str) -> String {
        let (mut marked, mut done) = (String::new(), 0);
        for (from, to) in &self.highlights {
            let (Some(plain), Some(word)) = (self.text.get(done..*from), self.text.get(*from..*to))
            else {
                continue;
            };
            marked.push_str(plain);
            marked.push_str(before);
            marked.push_str(word);
            marked.push_str(after);
            done = *to;
        }
        marked.push_str(self.text.get(done..).unwrap_or_default());
        marked
    }
}

/// A word found: where, and which.
struct Found {
    from: usize,
    to: usize,
    word: String,
}

/// Cuts the piece of `text` in which most different words stand, the first of several; its
/// beginning where none does.
pub(super) fn snippet(asked: &Asked, text: &str) -> Snippet {
    let mut found = Vec::new();
    if !asked.words.is_empty() || !asked.beginnings.is_empty() {
        tokens::of_documents().token_stream(text).process(&mut |token| {
            let begins = |begin: &String| token.text.starts_with(begin.as_str());
            if asked.words.contains(&token.text) || asked.beginnings.iter().any(begins) {
                let (from, to) = (token.offset_from, token.offset_to);
                found.push(Found { from, to, word: token.text.clone() });
            }
        });
    }
    let (from, to) = window(text, &found);
    let cut = text.get(from..to).unwrap_or_default();
    let inside = found.iter().filter(|word| from <= word.from && word.to <= to);
    let highlights = merged(inside.map(|word| (word.from - from, word.to - from)));
    Snippet { text: cut.to_owned(), highlights }
}

/// Finds the best piece.
fn window(text: &str, found: &[Found]) -> (usize, usize) {
    let mut best = (0, (0, forward(text, 0, SNIPPET_CHARS)));
    for (at, first) in found.iter().enumerate() {
        let to = forward(text, first.from, SNIPPET_CHARS - BEFORE);
        let inside = found.iter().skip(at).take_while(|word| word.to <= to);
        let different: BTreeSet<&str> = inside.map(|word| word.word.as_str()).collect();
        if different.len() > best.0 {
            let from = back(text, first.from, BEFORE);
            best = (different.len(), (from, forward(text, from, SNIPPET_CHARS)));
        }
    }
    best.1
}

/// Returns the byte `chars` characters behind `from`, or the end.
fn forward(text: &str, from: usize, chars: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.char_indices().nth(chars).map_or(text.len(), |(at, _)| from + at)
}

/// Returns the byte some `chars` characters before `from`, behind a gap where there is one.
fn back(text: &str, from: usize, chars: usize) -> usize {
    let before = text.get(..from).unwrap_or_default();
    let Some((at, _)) = before.char_indices().rev().nth(chars) else { return 0 };
    let piece = before.get(at..).unwrap_or_default();
    piece.find(char::is_whitespace).map_or(at, |gap| {
        let gap = at + gap;
        gap + before.get(gap..).and_then(|s| s.chars().next()).map_or(0, char::len_utf8)
    })
}

/// Puts ranges that touch or overlap together, as pairs of characters do.
fn merged(ranges: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from < last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tantivy::query::AllQuery;

    use super::*;

    fn asked(words: &[&str], beginnings: &[&str]) -> Asked {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Asked { query: Box::new(AllQuery), words: set(words), beginnings: set(beginnings) }
    }

    #[test]
    fn the_piece_with_most_words_is_cut() {
        let text = format!("oslo {} rain in oslo and more", "filler ".repeat(100));
        let found = snippet(&asked(&["oslo", "rain"], &[]), &text);
        assert!(found.marked("[", "]").ends_with("[rain] in [oslo] and more"), "{found:?}");
        assert!(found.text.chars().count() <= SNIPPET_CHARS);
        assert!(found.text.starts_with("filler"));
    }

    #[test]
    fn pairs_are_marked_as_one_range() {
        let text = format!("{}北京天气如何", "说".repeat(300));
        let found = snippet(&asked(&["北京", "京天", "天气"], &[]), &text);
        assert!(found.marked("[", "]").contains("[北京天气]如何"), "{found:?}");
        let lone = snippet(&asked(&[], &["气"]), "天气");
        assert_eq!(lone.marked("[", "]"), "天[气]");
    }

    #[test]
    fn without_words_the_beginning_is_cut_at_a_character() {
        let text = "é".repeat(500);
        let found = snippet(&asked(&["zebra"], &[]), &text);
        assert_eq!(found.text.chars().count(), SNIPPET_CHARS);
        assert!(found.highlights.is_empty());
        assert_eq!(snippet(&asked(&[], &[]), ""), Snippet::default());
    }
}
