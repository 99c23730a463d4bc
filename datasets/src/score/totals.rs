//! Adding up readings.

use ledger::catalogue::Reading;
use serde::{Deserialize, Serialize};

/// A count with its share of n. The share is none where n is 0: missing is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// Their share of n.
    pub rate: Option<f64>,
}

/// Precision, recall and F1. Each is none where its denominator is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prf {
    /// Share of the answer's leaves that the gold has.
    pub precision: Option<f64>,
    /// Share of the gold's leaves that the answer has.
    pub recall: Option<f64>,
    /// Their harmonic mean.
    pub f1: Option<f64>,
}

/// What a set of readings adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Readings.
    pub n: u64,
    /// Answers that could be read.
    pub valid: Rate,
    /// Answers that name the gold's tool.
    pub name: Rate,
    /// Answers that equal the gold.
    pub exact: Rate,
    /// Over all leaves together.
    pub micro: Prf,
    /// Mean over the readings; an answer that could not be read counts 0.
    #[serde(rename = "macro")]
    pub macro_: Prf,
}

/// Adds up `readings`.
pub fn totals(readings: impl Iterator<Item = Reading>) -> Metrics {
    let (mut n, mut valid, mut name, mut exact) = (0_u64, 0, 0, 0);
    let (mut hits, mut extra, mut missed) = (0_u64, 0_u64, 0_u64);
    let mut sums = [0.0_f64; 3];
    for reading in readings {
        n += 1;
        valid += u64::from(reading.valid);
        name += u64::from(reading.name);
        exact += u64::from(reading.exact);
        hits += u64::from(reading.true_positives);
        extra += u64::from(reading.false_positives);
        missed += u64::from(reading.false_negatives);
        for (sum, value) in sums.iter_mut().zip(of_one(&reading)) {
            *sum += value;
        }
    }
    let rate = |count| Rate { count, rate: share(count, n) };
    let [precision, recall, f1] = sums.map(|sum| (n > 0).then(|| sum / n as f64));
    Metrics {
        n,
        valid: rate(valid),
        name: rate(name),
        exact: rate(exact),
        micro: Prf {
            precision: share(hits, hits + extra),
            recall: share(hits, hits + missed),
            f1: share(2 * hits, 2 * hits + extra + missed),
        },
        macro_: Prf { precision, recall, f1 },
    }
}

/// Returns precision, recall and F1 of one reading.
///
/// A valid answer without leaves to a gold without leaves is right; nothing else is right by
/// having no leaves.
fn of_one(reading: &Reading) -> [f64; 3] {
    let hits = u64::from(reading.true_positives);
    let answered = hits + u64::from(reading.false_positives);
    let gold = hits + u64::from(reading.false_negatives);
    if !reading.valid {
        return [0.0; 3];
    }
    if answered == 0 && gold == 0 {
        return [1.0; 3];
    }
    [share(hits, answered), share(hits, gold), share(2 * hits, answered + gold)]
        .map(Option::unwrap_or_default)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
