//! One arm's figures: shares, and precision, recall and F1 with their intervals.

use datasets::score::totals;
use ledger::catalogue::Reading;

use super::{Estimate, Group, IntervalSpec, Prf, ReadingKind, Share};
use crate::stats::{self, Resamples};

/// The figures that are bootstrapped: micro P, R, F1, macro P, R, F1, share exact.
pub(super) type Figures = [f64; 7];

/// Place of micro F1 in [`Figures`].
pub(super) const MICRO_F1: usize = 2;
/// Place of the share exact in [`Figures`].
pub(super) const EXACT: usize = 6;

/// One arm's readings in one stratum, with their bootstrap values kept for comparisons.
pub(super) struct Sample {
    readings: Vec<Reading>,
    observed: [Option<f64>; 7],
    replicates: Vec<Figures>,
    jackknife: Vec<Figures>,
}

/// Per-case numbers in the form that a resample sums up.
struct Row {
    leaves: [f64; 3],
    ratios: [f64; 3],
    exact: f64,
}

impl Sample {
    /// Computes the figures of `readings` and of their resamples.
    pub(super) fn new(readings: Vec<Reading>, plan: &Resamples) -> Self {
        let rows: Vec<Row> = readings.iter().map(Row::new).collect();
        let observed = observed(&readings);
        let replicates = plan
            .replicate(|drawn| figures(drawn.iter().filter_map(|index| rows.get(*index as usize))));
        let jackknife = (0..rows.len())
            .map(|left_out| {
                let kept = rows.iter().enumerate().filter(|(index, _)| *index != left_out);
                figures(kept.map(|(_, row)| row))
            })
            .collect();
        Self { readings, observed, replicates, jackknife }
    }

    /// Returns the readings.
    pub(super) fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// Returns the figure at `place` with its interval.
    fn estimate(&self, place: usize, confidence: f64) -> Estimate {
        let pick = |all: &[Figures]| -> Vec<f64> { all.iter().map(|one| one[place]).collect() };
        estimate(self.observed[place], &pick(&self.replicates), &pick(&self.jackknife), confidence)
    }

    /// Returns the difference to `other` of the figure at `place`, with its paired interval.
    pub(super) fn difference(&self, other: &Self, place: usize, confidence: f64) -> Estimate {
        let pick = |ours: &[Figures], theirs: &[Figures]| -> Vec<f64> {
            ours.iter().zip(theirs).map(|(a, b)| a[place] - b[place]).collect()
        };
        estimate(
            self.observed[place].zip(other.observed[place]).map(|(ours, theirs)| ours - theirs),
            &pick(&self.replicates, &other.replicates),
            &pick(&self.jackknife, &other.jackknife),
            confidence,
        )
    }

    /// Makes the table row of this sample.
    pub(super) fn group(&self, stratum: &str, reading: ReadingKind, spec: &IntervalSpec) -> Group {
        let confidence = spec.confidence;
        let n = self.readings.len() as u64;
        let share = |has: fn(&Reading) -> bool| {
            share(self.readings.iter().filter(|reading| has(reading)).count() as u64, n, confidence)
        };
        let prf = |place: usize| Prf {
            precision: self.estimate(place, confidence),
            recall: self.estimate(place + 1, confidence),
            f1: self.estimate(place + 2, confidence),
        };
        Group {
            stratum: stratum.to_owned(),
            reading,
            n,
            valid: share(|reading| reading.valid),
            name: share(|reading| reading.name),
            exact: share(|reading| reading.exact),
            micro: prf(0),
            r#macro: prf(3),
        }
    }
}

impl Row {
    fn new(reading: &Reading) -> Self {
        let leaves = [
            f64::from(reading.true_positives),
            f64::from(reading.false_positives),
            f64::from(reading.false_negatives),
        ];
        let alone = totals(std::iter::once(*reading)).macro_;
        let ratios =
            [alone.precision, alone.recall, alone.f1].map(|ratio| ratio.unwrap_or_default());
        Self { leaves, ratios, exact: f64::from(u8::from(reading.exact)) }
    }
}

/// Returns the figures as the scorer defines them, in the order of [`Figures`].
fn observed(readings: &[Reading]) -> [Option<f64>; 7] {
    let metrics = totals(readings.iter().copied());
    let (micro, means) = (metrics.micro, metrics.macro_);
    [
        micro.precision,
        micro.recall,
        micro.f1,
        means.precision,
        means.recall,
        means.f1,
        metrics.exact.rate,
    ]
}

fn figures<'a>(rows: impl Iterator<Item = &'a Row>) -> Figures {
    let (mut leaves, mut means, mut exact, mut n) = ([0.0; 3], [0.0; 3], 0.0, 0.0);
    for row in rows {
        for place in 0..3 {
            leaves[place] += row.leaves[place];
            means[place] += row.ratios[place];
        }
        exact += row.exact;
        n += 1.0;
    }
    if n == 0.0 {
        return [0.0; 7];
    }
    let [precision, recall, f1] = ratios(leaves);
    [precision, recall, f1, means[0] / n, means[1] / n, means[2] / n, exact / n]
}

/// Returns precision, recall and F1 of true positives, false positives and false negatives.
///
/// Where there is nothing to divide by it is 0: a resample that drew only silent answers found
/// nothing.
fn ratios([hits, wrong, missed]: [f64; 3]) -> [f64; 3] {
    let ratio = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
    [
        ratio(hits, hits + wrong),
        ratio(hits, hits + missed),
        ratio(2.0 * hits, 2.0 * hits + wrong + missed),
    ]
}

fn estimate(
    observed: Option<f64>,
    replicates: &[f64],
    jackknife: &[f64],
    confidence: f64,
) -> Estimate {
    let Some(observed) = observed else { return Estimate { value: None, interval: None } };
    let interval = stats::bca(observed, replicates, jackknife, confidence).map(rounded);
    Estimate { value: Some(stats::round6(observed)), interval }
}

/// Makes a share with Wilson's interval.
pub(crate) fn share(k: u64, n: u64, confidence: f64) -> Share {
    Share {
        k,
        n,
        rate: (n > 0).then(|| stats::round6(k as f64 / n as f64)),
        interval: stats::wilson(k, n, confidence).map(rounded),
    }
}

/// Rounds both bounds.
pub(crate) fn rounded(interval: stats::Interval) -> stats::Interval {
    stats::Interval { low: stats::round6(interval.low), high: stats::round6(interval.high) }
}
