//! A text with what is known of where its tags stand.
//!
//! Elements are read one after the other, and each asks where the next tag stands. The places are
//! found once for the whole text, so that a text of a million open tags is not searched to its end
//! a million times.

use super::{CLOSE, OPEN};

/// A text and the places of its tags.
pub(super) struct Page<'a> {
    text: &'a str,
    opens: Vec<usize>,
    closes: Vec<usize>,
    /// Last `>`: no opening tag ends behind it.
    pub(super) last_end: Option<usize>,
}

impl<'a> Page<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let places = |tag: &str| text.match_indices(tag).map(|(place, _)| place).collect();
        Self { text, opens: places(OPEN), closes: places(CLOSE), last_end: text.rfind('>') }
    }

    /// Returns the text from byte `at` on.
    pub(super) fn from(&self, at: usize) -> &'a str {
        self.text.get(at..).unwrap_or_default()
    }

    /// Returns the text from `start` up to `end`.
    pub(super) fn between(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// Returns the bytes of the text.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Returns where the first opening tag at or behind `at` begins.
    pub(super) fn open_from(&self, at: usize) -> Option<usize> {
        next(&self.opens, at)
    }

    /// Returns where the first closing tag at or behind `at` begins.
    pub(super) fn close_from(&self, at: usize) -> Option<usize> {
        next(&self.closes, at)
    }

    /// Returns where the first `{` at or behind `at` stands. Looks at the text up to there.
    pub(super) fn brace_from(&self, at: usize) -> Option<usize> {
        self.from(at).find('{').map(|place| at + place)
    }
}

fn next(places: &[usize], at: usize) -> Option<usize> {
    places.get(places.partition_point(|&place| place < at)).copied()
}
