//! Finding questions inside other texts: system texts, earlier turns, prefixes.

use std::collections::BTreeMap;

use crate::near::mix;

/// Least words of a question that is looked for inside texts. Shorter ones, as "yes, please", stand
/// everywhere and give nothing away.
const WORDS_MIN: usize = 4;
/// Least letters and digits of such a question.
const LETTERS_MIN: usize = 12;

/// A text as hashes of its words: runs of letters and digits, in lower case.
///
/// Marks, quotes, white space and the escapes of JSON strings only part words. Where a script has
/// no spaces between words, each letter is one.
pub(super) struct Words {
    pub(super) hashes: Vec<u64>,
    letters: usize,
}

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut words = Self { hashes: Vec::new(), letters: 0 };
        let mut open: Option<u64> = None;
        let mut escaped = false;
        for c in text.chars() {
            let is_escape = escaped;
            escaped = c == '\\' && !is_escape;
            let parts = is_escape && matches!(c, 'n' | 'r' | 't') || !c.is_alphanumeric();
            if parts || stands_alone(c) {
                words.hashes.extend(open.take().map(mix));
            }
            if parts {
                continue;
            }
            words.letters += 1;
            let start = open.unwrap_or(0xcbf2_9ce4_8422_2325);
            let add = |hash: u64, c: char| (hash ^ u64::from(c)).wrapping_mul(0x0100_0000_01b3);
            open = Some(if c.is_ascii() {
                add(start, c.to_ascii_lowercase())
            } else {
                c.to_lowercase().fold(start, add)
            });
        }
        words.hashes.extend(open.map(mix));
        words
    }

    /// Says whether a text of these words is long enough to be told apart from others.
    pub(super) fn is_telling(&self) -> bool {
        self.hashes.len() >= WORDS_MIN && self.letters >= LETTERS_MIN
    }

    /// Says whether `other` stands in this text, word for word.
    pub(super) fn contain(&self, other: &Self) -> bool {
        let size = other.hashes.len();
        size > 0 && self.hashes.windows(size).any(|run| run == other.hashes)
    }
}

/// Says whether a letter is a word of its own: in Chinese, Japanese and Thai no spaces tell.
pub(crate) fn stands_alone(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{e7f}' | '\u{2e80}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}')
}

/// Questions to look for, all at once.
///
/// Each is looked for by that run of four words of it that the fewest other questions have, so that
/// a text is read once, whatever the number of questions.
pub(crate) struct Questions {
    /// The words of each different question that is telling.
    texts: Vec<Vec<u64>>,
    /// Which of them a given question is.
    which: Vec<Option<usize>>,
    /// By a hash of four words: questions, and where in them the four stand.
    anchors: BTreeMap<u64, Vec<(usize, usize)>>,
    /// Says of most runs quickly that they are no anchor.
    sieve: Vec<bool>,
}

impl Questions {
    /// Takes questions in; those that are not telling are never found.
    pub(crate) fn of<'a>(questions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
        let mut texts: Vec<Vec<u64>> = Vec::new();
        let place = |question: &str| {
            let words = Words::of(question);
            words.is_telling().then(|| {
                *known.entry(words.hashes).or_insert_with_key(|hashes| {
                    texts.push(hashes.clone());
                    texts.len() - 1
                })
            })
        };
        let which: Vec<Option<usize>> = questions.into_iter().map(place).collect();
        let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
        for run in texts.iter().flat_map(|words| runs(words)) {
            *counts.entry(run).or_default() += 1;
        }
        let mut anchors: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
        for (question, words) in texts.iter().enumerate() {
            let rarest = runs(words).enumerate().min_by_key(|(_, run)| counts.get(run).copied());
            if let Some((offset, run)) = rarest {
                anchors.entry(run).or_default().push((question, offset));
            }
        }
        let mut sieve = vec![false; (anchors.len() * 16).next_power_of_two()];
        for &run in anchors.keys() {
            let place = sieve_place(run, sieve.len());
            sieve.get_mut(place).into_iter().for_each(|known| *known = true);
        }
        Self { texts, which, anchors, sieve }
    }

    /// Says whether there is no question to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns which question the given one is: two of the same words are the same.
    pub(crate) fn which(&self, place: usize) -> Option<usize> {
        self.which.get(place).copied().flatten()
    }

    /// Returns the questions that stand in a text, sorted.
    pub(crate) fn within(&self, text: &str) -> Vec<usize> {
        let mut found = Vec::new();
        // Most names and values in schemas and arguments are too short to hold a question.
        if self.texts.is_empty() || text.len() < LETTERS_MIN {
            return found;
        }
        let words = Words::of(text).hashes;
        for (at, run) in runs(&words).enumerate() {
            if !self.sieve.get(sieve_place(run, self.sieve.len())).copied().unwrap_or_default() {
                continue;
            }
            for &(question, offset) in self.anchors.get(&run).into_iter().flatten() {
                let Some(start) = at.checked_sub(offset) else { continue };
                let is_here = self.texts.get(question).is_some_and(|wanted| {
                    words.get(start..start + wanted.len()).is_some_and(|here| here == wanted)
                });
                if is_here {
                    found.push(question);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn sieve_place(run: u64, size: usize) -> usize {
    usize::try_from(run % (size as u64).max(1)).unwrap_or_default()
}

fn runs(words: &[u64]) -> impl Iterator<Item = u64> + '_ {
    let hash = |run: &[u64]| run.iter().fold(0, |hash: u64, &word| mix(hash.rotate_left(7) ^ word));
    words.windows(WORDS_MIN).map(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn question_is_found_whatever_stands_around_it() {
        let questions = Questions::of([
            "What is the capital of Norway?",
            "Book a table for two, please.",
            "Yes, please do.",
            "what is the capital of NORWAY",
            "请问明天北京的天气怎么样呢谢谢",
        ]);
        assert_eq!(questions.which(0), questions.which(3));
        assert_eq!(questions.which(2), None, "too short to tell");
        for (text, wanted) in [
            ("Example:\nQ: what is the capital of Norway? A: Oslo", vec![0]),
            ("{\"q\": \"What is\\nthe capital\\tof Norway\"}", vec![0]),
            ("What is the capital of Norwayland?", vec![]),
            ("is the capital of Norway", vec![]),
            ("book a table for two please; what is the capital of norway", vec![0, 1]),
            ("用户：请问明天北京的天气怎么样呢谢谢！", vec![2]),
            ("Yes, please do.", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(questions.within(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn finding_all_at_once_is_finding_each(
            questions in prop::collection::vec("[ab]{3}( [ab]{3}){2,6}", 0..8),
            text in "[ab]{3}( [ab]{3}){0,40}",
        ) {
            let all = Questions::of(questions.iter().map(String::as_str));
            let found = all.within(&text);
            for (place, question) in questions.iter().enumerate() {
                let telling = question.split(' ').count() >= 4;
                let is_in = telling && format!(" {text} ").contains(&format!(" {question} "));
                let said = all.which(place).is_some_and(|which| found.contains(&which));
                prop_assert_eq!(said, is_in, "{}", question);
            }
        }
    }
}
