//! What the card of a dataset says.

use std::collections::BTreeMap;

use datasets::Side;
use datasets::export::card::{CardFacts, FileFacts, Leakage, Lengths, SourceFacts};
use datasets::split::RowRef;

use super::Split;
use crate::error::AppError;
use crate::rows::{Traces, View};

/// Quantiles of the lengths that a card tells, in percent.
const QUANTILES: [u8; 6] = [5, 25, 50, 75, 95, 100];

/// Gathers what the card of a dataset says.
///
/// # Errors
/// When the record cannot be read, or a body is missing or damaged.
pub fn card(
    view: &View,
    (split, traces): (&Split, &Traces),
    files: Vec<FileFacts>,
) -> Result<CardFacts, AppError> {
    let facts = &split.facts;
    let mut gathered = Gathered::default();
    for row in &split.manifest.rows {
        gathered.add(traces, row)?;
    }
    let near = |reason: &str| reason.starts_with("near duplicate");
    let published = view.get(split.event)?.map(|event| event.at.format("%Y-%m-%d").to_string());
    Ok(CardFacts {
        name: facts.name.clone(),
        identity: facts.dataset.to_string(),
        published: published.unwrap_or_default(),
        rows: [("train", Side::Train), ("dev", Side::Dev)]
            .map(|(name, side)| (name.to_owned(), split.manifest.n(side)))
            .into(),
        strata: facts.strata.iter().map(|count| (count.name.clone(), count.n)).collect(),
        sources: gathered.sources(),
        tools: gathered.tools,
        lengths: lengths(gathered.lengths),
        near_duplicates: facts.excluded.iter().filter(|c| near(&c.name)).map(|c| c.n).sum(),
        leakage: facts
            .leakage
            .iter()
            .map(|leak| Leakage {
                against: format!("suite {} ({} questions)", leak.suite, leak.n),
                found: leak.shared_questions,
            })
            .collect(),
        redaction_rules: gathered.rules.into_keys().collect(),
        redacted: gathered.redacted,
        excluded: facts.excluded.iter().map(|count| (count.name.clone(), count.n)).collect(),
        spec: serde_json::to_string_pretty(&facts.spec)?,
        files,
        ..CardFacts::default()
    })
}

/// What is counted over all rows.
#[derive(Default)]
struct Gathered {
    /// (source, licence, attribution) -> rows.
    sources: BTreeMap<(String, String, String), u64>,
    tools: BTreeMap<String, u64>,
    lengths: Vec<u64>,
    rules: BTreeMap<String, u64>,
    redacted: u64,
}

impl Gathered {
    fn add(&mut self, traces: &Traces, row: &RowRef) -> Result<(), AppError> {
        let episode = traces.row(row)?;
        for call in episode.gold.calls() {
            *self.tools.entry(call.name.clone()).or_default() += 1;
        }
        let prompt = episode.prompt_turns().iter().map(|turn| turn.content.chars().count());
        let length = prompt.sum::<usize>() + episode.gold_text().chars().count();
        self.lengths.push(length as u64);
        if let Some(facts) = traces.facts(row.seq) {
            facts.rules.iter().for_each(|rule| *self.rules.entry(rule.clone()).or_default() += 1);
            self.redacted += facts.redacted;
        }
        let source = (episode.source.name, episode.licence, episode.attribution);
        *self.sources.entry(source).or_default() += 1;
        Ok(())
    }

    fn sources(&self) -> Vec<SourceFacts> {
        let source =
            |((name, licence, attribution), rows): (&(String, String, String), &u64)| SourceFacts {
                name: name.clone(),
                rows: *rows,
                licence: licence.clone(),
                attribution: attribution.clone(),
            };
        self.sources.iter().map(source).collect()
    }
}

fn lengths(mut all: Vec<u64>) -> Lengths {
    all.sort_unstable();
    let last = all.len().saturating_sub(1);
    let at = |quantile: u8| {
        let place = (last * usize::from(quantile)).div_ceil(100);
        all.get(place).map(|length| (quantile, *length))
    };
    Lengths {
        unit: "characters".to_owned(),
        quantiles: QUANTILES.into_iter().filter_map(at).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_lengths_that_occur() {
        let found = lengths((1..=101).rev().collect());
        assert_eq!(found.quantiles, [(5, 6), (25, 26), (50, 51), (75, 76), (95, 96), (100, 101)]);
        assert_eq!(lengths(vec![7]).quantiles, QUANTILES.map(|quantile| (quantile, 7)));
        assert!(lengths(Vec::new()).quantiles.is_empty());
    }
}
