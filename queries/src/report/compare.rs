//! Two arms on the same cases: what they agree on, and what chance would make of the rest.

use ledger::catalogue::Reading;

use super::figures::{EXACT, MICRO_F1, Sample, rounded};
use super::{
    ArmFacts, CaseOutcome, Comparison, Discordant, IntervalSpec, PairedGroup, ReadingKind, Side,
};
use crate::stats::{mcnemar_exact, paired_score_interval, round_p};

/// How often two arms had something, case by case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    /// In both.
    pub(crate) both: u64,
    /// In the first only.
    pub(crate) first_only: u64,
    /// In the second only.
    pub(crate) second_only: u64,
    /// In neither.
    pub(crate) neither: u64,
}

impl Pairs {
    /// Counts the outcomes of pairs.
    pub(crate) fn count(pairs: impl Iterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for pair in pairs {
            let place = match pair {
                (true, true) => &mut counts.both,
                (true, false) => &mut counts.first_only,
                (false, true) => &mut counts.second_only,
                (false, false) => &mut counts.neither,
            };
            *place += 1;
        }
        counts
    }

    /// Returns the number of pairs.
    pub(crate) const fn n(&self) -> u64 {
        self.both + self.first_only + self.second_only + self.neither
    }
}

/// Makes the paired figures of one stratum and reading.
pub(super) fn paired_group(
    (stratum, reading): (&str, ReadingKind),
    first: &Sample,
    second: &Sample,
    spec: &IntervalSpec,
) -> PairedGroup {
    let exact = |(a, b): (&Reading, &Reading)| (a.exact, b.exact);
    let pairs = Pairs::count(first.readings().iter().zip(second.readings()).map(exact));
    let test = mcnemar_exact(pairs.first_only, pairs.second_only);
    let (b, c) = (pairs.first_only as f64, pairs.second_only as f64);
    PairedGroup {
        stratum: stratum.to_owned(),
        reading,
        n: pairs.n(),
        both: pairs.both,
        first_only: pairs.first_only,
        second_only: pairs.second_only,
        neither: pairs.neither,
        p_two_sided: round_p(test.p_two_sided),
        exact_difference: first.difference(second, EXACT, spec.confidence),
        exact_score_interval: paired_score_interval(b, c, pairs.n() as f64, spec.confidence)
            .map(rounded),
        f1_difference: first.difference(second, MICRO_F1, spec.confidence),
    }
}

/// Adds the discordant cases to the paired figures of two arms.
pub(super) fn comparison(
    first: &ArmFacts,
    second: &ArmFacts,
    groups: Vec<PairedGroup>,
) -> Comparison {
    let side = |case: &CaseOutcome| Side {
        strict: case.strict.exact,
        lenient: case.lenient.exact,
        issues: case.issues.clone(),
        event: case.event,
    };
    let discordant = first
        .cases
        .iter()
        .zip(&second.cases)
        .filter(|(a, b)| {
            ReadingKind::BOTH.iter().any(|kind| a.reading(*kind).exact != b.reading(*kind).exact)
        })
        .map(|(a, b)| Discordant {
            case: a.case.clone(),
            stratum: a.stratum.clone(),
            tool: a.tool.clone(),
            first: side(a),
            second: side(b),
        })
        .collect();
    Comparison { first: first.label.clone(), second: second.label.clone(), groups, discordant }
}
