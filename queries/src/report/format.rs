//! How figures are written in tables.

use super::{ArmFacts, Comparison, Estimate, Group, Prf, Report, Share};
use crate::stats::Interval;

/// Stands where there is no figure.
pub(super) const NONE: &str = "–";

/// Writes a figure with three digits.
pub(super) fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.3}"))
}

/// Writes a signed figure with three digits.
pub(super) fn signed(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:+.3}"))
}

/// Writes an interval in brackets.
pub(super) fn range(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |i| format!("[{:.3}, {:.3}]", i.low, i.high))
}

/// Writes a signed interval in brackets.
pub(super) fn signed_range(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |i| format!("[{:+.3}, {:+.3}]", i.low, i.high))
}

/// Writes `k/n = rate [interval]`.
pub(super) fn share(share: &Share) -> String {
    format!("{}/{} = {} {}", share.k, share.n, figure(share.rate), range(share.interval))
}

/// Writes a figure with its interval.
pub(super) fn estimate(estimate: &Estimate) -> String {
    format!("{} {}", figure(estimate.value), range(estimate.interval)).trim_end().to_owned()
}

/// Writes milliseconds.
pub(super) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.0} ms"))
}

/// Names what is not known of an arm, and its marks; empty where all is known and plain.
pub(super) fn remarks(arm: &ArmFacts) -> String {
    let mut remarks = arm.flags.clone();
    if !arm.unknown.is_empty() {
        remarks.push(format!("unknown: {}", arm.unknown.join(", ")));
    }
    if arm.leaked_questions > 0 {
        remarks.push(format!("{} questions were trained on", arm.leaked_questions));
    }
    remarks.join("; ")
}

/// Lists what is to be known of the arms of a comparison, a line each.
pub(super) fn pair_remarks(report: &Report, comparison: &Comparison) -> Vec<String> {
    let arms = [&comparison.first, &comparison.second].into_iter();
    arms.filter_map(|label| report.facts.arm(label))
        .map(|arm| (arm, remarks(arm)))
        .filter(|(_, remarks)| !remarks.is_empty())
        .map(|(arm, remarks)| format!("{}: {remarks}", arm.label))
        .collect()
}

/// What the suite's track calls its three yes-or-no metrics.
pub(super) struct Headings {
    /// Of `valid`.
    pub(super) valid: &'static str,
    /// Of `name`.
    pub(super) name: &'static str,
    /// Of `exact`.
    pub(super) exact: &'static str,
    /// Of precision, recall and F1.
    pub(super) leaves: &'static str,
}

/// Returns the headings of a track.
pub(super) fn headings(track: &str) -> Headings {
    match track {
        "structured" => Headings {
            valid: "valid JSON",
            name: "tool name",
            exact: "exact value",
            leaves: "field",
        },
        _ => {
            Headings { valid: "valid call", name: "tool name", exact: "args exact", leaves: "args" }
        }
    }
}

/// Lists the six precision, recall and F1 figures of a group with their names.
pub(super) fn prf_figures(group: &Group) -> [(&'static str, &Estimate); 6] {
    let Group { micro: Prf { precision: mp, recall: mr, f1: mf }, r#macro: means, .. } = group;
    [
        ("micro_precision", mp),
        ("micro_recall", mr),
        ("micro_f1", mf),
        ("macro_precision", &means.precision),
        ("macro_recall", &means.recall),
        ("macro_f1", &means.f1),
    ]
}
/// Shortens a factor that is a digest; names are shown whole.
pub(super) fn short_factor(value: &str) -> &str {
    let digest = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if digest { value.get(..12).unwrap_or(value) } else { value }
}
