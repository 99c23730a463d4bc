//! What a dataset is made of, in numbers: lengths, tools, sources.

use std::collections::BTreeMap;

use datasets::{Episode, Side};
use serde::Serialize;

use super::Split;
use crate::error::AppError;
use crate::rows::Traces;

/// Upper ends of the buckets of lengths, in characters; longer ones follow.
const LENGTHS: [usize; 9] = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];

/// What a dataset is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Profile {
    /// Prompts by length in characters.
    pub prompt_lengths: Vec<Bucket>,
    /// Answers by length in characters.
    pub answer_lengths: Vec<Bucket>,
    /// Rows by the tools that their gold calls, most first; `(no call)` for rows without.
    pub tools: Vec<Used>,
    /// Rows by source.
    pub sources: Vec<Used>,
    /// Redaction rules that rows went through, with the rows.
    pub rules: Vec<Used>,
}

/// Rows whose length lies in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Longest length in it; none for the longest rows.
    pub up_to: Option<usize>,
    /// Rows.
    pub n: u64,
}

/// How many rows have something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// What.
    pub name: String,
    /// Rows.
    pub n: u64,
}

impl Bucket {
    /// Names the range.
    pub fn name(&self) -> String {
        self.up_to.map_or_else(|| "longer".to_owned(), |up_to| format!("≤ {up_to}"))
    }
}

/// Counts what the rows of a dataset are made of.
///
/// # Errors
/// When a body is missing or damaged.
pub fn profile(split: &Split, traces: &Traces) -> Result<Profile, AppError> {
    let mut counts = Counts::default();
    for side in [Side::Train, Side::Dev] {
        for row in split.manifest.side(side) {
            let rules = traces.facts(row.seq).map(|facts| facts.rules.as_slice());
            counts.add(&traces.row(row)?, rules.unwrap_or_default());
        }
    }
    Ok(counts.profile())
}

#[derive(Default)]
struct Counts {
    prompts: [u64; LENGTHS.len() + 1],
    answers: [u64; LENGTHS.len() + 1],
    tools: BTreeMap<String, u64>,
    sources: BTreeMap<String, u64>,
    rules: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, episode: &Episode, rules: &[String]) {
        let prompt = episode.prompt_turns().iter().map(|turn| turn.content.chars().count()).sum();
        count_length(&mut self.prompts, prompt);
        count_length(&mut self.answers, episode.gold_text().chars().count());
        let mut called: Vec<&str> =
            episode.gold.calls().iter().map(|call| call.name.as_str()).collect();
        called.sort_unstable();
        called.dedup();
        if called.is_empty() {
            called.push("(no call)");
        }
        called.into_iter().for_each(|name| *self.tools.entry(name.to_owned()).or_default() += 1);
        *self.sources.entry(episode.source.name.clone()).or_default() += 1;
        rules.iter().for_each(|rule| *self.rules.entry(rule.clone()).or_default() += 1);
    }

    fn profile(self) -> Profile {
        Profile {
            prompt_lengths: buckets(&self.prompts),
            answer_lengths: buckets(&self.answers),
            tools: most_first(self.tools),
            sources: most_first(self.sources),
            rules: most_first(self.rules),
        }
    }
}

fn count_length(counts: &mut [u64], length: usize) {
    let place = LENGTHS.iter().position(|&up_to| length <= up_to).unwrap_or(LENGTHS.len());
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
}

/// Leaves out the empty buckets before the first and behind the last that has rows.
fn buckets(counts: &[u64]) -> Vec<Bucket> {
    let first = counts.iter().position(|&n| n > 0).unwrap_or_default();
    let end = counts.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
    let ends = LENGTHS.iter().map(|&up_to| Some(up_to)).chain([None]);
    let all = ends.zip(counts).map(|(up_to, &n)| Bucket { up_to, n });
    all.take(end).skip(first).collect()
}

fn most_first(counts: BTreeMap<String, u64>) -> Vec<Used> {
    let mut used: Vec<Used> = counts.into_iter().map(|(name, n)| Used { name, n }).collect();
    used.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.name.cmp(&b.name)));
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fall_into_buckets_and_empty_ends_are_left_out() {
        let mut counts = [0; LENGTHS.len() + 1];
        for length in [100, 128, 129, 2000, 20_000] {
            count_length(&mut counts, length);
        }
        let buckets = buckets(&counts);
        let found: Vec<(String, u64)> = buckets.iter().map(|b| (b.name(), b.n)).collect();
        assert_eq!(found.first(), Some(&("≤ 128".to_owned(), 2)));
        assert_eq!(found.last(), Some(&("longer".to_owned(), 1)));
        assert_eq!(found.iter().map(|(_, n)| n).sum::<u64>(), 5);
        assert!(super::buckets(&[0; LENGTHS.len() + 1]).is_empty());
    }
}
