//! Reports: arms compared over one suite, with intervals, paired tests and what is not known.
//!
//! A report is built from scored cases alone, so the same events give the same bytes. It refuses
//! to put figures side by side that answer different questions.

mod check;
mod compare;
mod csv;
mod facts;
mod figures;
mod format;
mod html;
mod input;
mod load;
mod markdown;
mod svg;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use compare::Pairs;
pub use csv::csv;
pub use facts::*;
pub use html::html;
pub use input::{Arm, ReportInput, ScoredCase};
pub(crate) use load::find_run;
pub use load::{LoadError, ReportSpec, latest_runs, load};
pub use markdown::{decision_markdown, markdown};
pub use svg::{interval_plot, loss_curve};

use std::collections::BTreeMap;

use ledger::catalogue::{Count, Reading};

use crate::stats::{Resamples, quantile, round6};
use figures::Sample;

/// Says why no report is made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There is nothing to compare.
    #[error("a report needs at least one arm")]
    NoArms,
    /// The suite is empty.
    #[error("suite {suite} has no cases")]
    NoCases {
        /// Its name.
        suite: String,
    },
    /// Two arms have one name.
    #[error("two arms are called {label}: give one of them another label")]
    LabelTwice {
        /// The name.
        label: String,
    },
    /// A run scored a case twice.
    #[error("arm {arm} holds a case twice")]
    CaseTwice {
        /// Its label.
        arm: String,
    },
    /// An arm did not answer the same question under the same scorer.
    #[error("{what} of arm {arm} differ from {than}: {found} against {wanted}")]
    Differs {
        /// What differs.
        what: &'static str,
        /// The arm.
        arm: String,
        /// What it has.
        found: String,
        /// What it is held against.
        than: String,
        /// What that has.
        wanted: String,
    },
    /// An arm did not answer every case.
    #[error(
        "arm {arm} has {have} of {n} cases (missing: {missing}); a skipped case is a failure, not \
         a smaller suite"
    )]
    Incomplete {
        /// Its label.
        arm: String,
        /// Cases that it has.
        have: u64,
        /// Cases of the suite.
        n: u64,
        /// Some of the missing ones, where another arm names them.
        missing: String,
    },
    /// The seed is no number.
    #[error("bootstrap seed {0:?} is not a whole number")]
    Seed(String),
}

/// Builds a report.
///
/// # Errors
/// When the arms do not all answer the whole of one suite under one scorer; the error names what
/// differs.
pub fn build_report(mut input: ReportInput) -> Result<Report, ReportError> {
    check::check(&input)?;
    let spec = &input.intervals;
    let seed: u64 = spec.seed.parse().map_err(|_| ReportError::Seed(spec.seed.clone()))?;
    for arm in &mut input.arms {
        arm.cases.sort_by_key(|case| (case.facts.index, case.event));
    }
    let measured = input.arms.iter().map(measure).collect();
    let mut arms: Vec<ArmFacts> = input.arms.iter().map(arm_facts).collect();
    let mut paired: BTreeMap<(usize, usize), Vec<PairedGroup>> = BTreeMap::new();
    for stratum in strata(&input.suite) {
        fill(&stratum, (seed, spec), &mut arms, &mut paired);
    }
    let comparisons = paired
        .into_iter()
        .filter_map(|((first, second), groups)| {
            Some(compare::comparison(arms.get(first)?, arms.get(second)?, groups))
        })
        .collect();
    let facts = ReportFacts {
        schema: REPORT_SCHEMA,
        name: input.name,
        suite: input.suite,
        looks: input.looks,
        intervals: input.intervals,
        arms,
        comparisons,
        training: input.training,
    };
    Ok(Report { facts, measured })
}

fn strata(suite: &SuiteFacts) -> Vec<String> {
    std::iter::once(ALL.to_owned()).chain(suite.strata.iter().map(|s| s.name.clone())).collect()
}

/// Adds one stratum's figures to every arm and pair of arms.
fn fill(
    stratum: &str,
    (seed, spec): (u64, &IntervalSpec),
    arms: &mut [ArmFacts],
    paired: &mut BTreeMap<(usize, usize), Vec<PairedGroup>>,
) {
    let inside = |case: &CaseOutcome| stratum == ALL || case.stratum == stratum;
    let n = arms.first().map_or(0, |arm| arm.cases.iter().filter(|case| inside(case)).count());
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let plan = Resamples::draw(seed, &format!("bootstrap/{stratum}"), n, spec.resamples);
    for reading in ReadingKind::BOTH {
        let samples: Vec<Sample> = arms
            .iter()
            .map(|arm| {
                let cases = arm.cases.iter().filter(|case| inside(case));
                Sample::new(cases.map(|case| case.reading(reading)).collect(), &plan)
            })
            .collect();
        for (arm, sample) in arms.iter_mut().zip(&samples) {
            arm.groups.push(sample.group(stratum, reading, spec));
        }
        for (i, first) in samples.iter().enumerate() {
            for (j, second) in samples.iter().enumerate().skip(i + 1) {
                let group = compare::paired_group((stratum, reading), first, second, spec);
                paired.entry((i, j)).or_default().push(group);
            }
        }
    }
}

fn arm_facts(arm: &Arm) -> ArmFacts {
    let cases: Vec<CaseOutcome> = arm
        .cases
        .iter()
        .map(|case| CaseOutcome {
            case: case.facts.case.clone(),
            event: case.event,
            stratum: case.facts.stratum.clone(),
            tool: case.facts.tool.clone(),
            strict: case.facts.strict,
            lenient: case.facts.lenient,
            issues: case.facts.issues.clone(),
            answer: case.facts.answer.clone(),
        })
        .collect();
    let tokens = |of: fn(&ScoredCase) -> Option<u32>| {
        arm.cases.iter().map(|case| of(case).map(u64::from)).sum::<Option<u64>>()
    };
    ArmFacts {
        label: arm.label.clone(),
        run: arm.run.clone(),
        unknown: unknown_factors(&arm.deployment),
        deployment: arm.deployment.clone(),
        deployment_id: arm.deployment_id,
        flags: arm.flags.clone(),
        leaked_questions: arm.leaked_questions,
        groups: Vec::new(),
        issues: counts(arm.cases.iter().flat_map(|case| &case.facts.issues)),
        ended: counts(arm.cases.iter().map(|case| &case.facts.ended)),
        prompt_tokens: tokens(|case| case.facts.prompt_tokens),
        answer_tokens: tokens(|case| case.facts.answer_tokens),
        cases,
    }
}

/// Counts names, most frequent first, ties by name.
fn counts<'a>(names: impl Iterator<Item = &'a String>) -> Vec<Count> {
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        *counted.entry(name).or_default() += 1;
    }
    let mut counted: Vec<Count> =
        counted.into_iter().map(|(name, n)| Count { name: name.to_owned(), n }).collect();
    counted.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.name.cmp(&b.name)));
    counted
}

fn measure(arm: &Arm) -> ArmMeasured {
    let mut latencies: Vec<f64> =
        arm.cases.iter().filter_map(|case| case.latency_ms).filter(|ms| ms.is_finite()).collect();
    latencies.sort_unstable_by(f64::total_cmp);
    ArmMeasured {
        label: arm.label.clone(),
        n: latencies.len() as u64,
        latency_ms_p50: quantile(&latencies, 0.5).map(round6),
        latency_ms_p95: quantile(&latencies, 0.95).map(round6),
        tokens_per_second: arm.tokens_per_second.map(round6),
    }
}

/// Says whether a reading has the yes-or-no metric called `metric`; none for other metrics.
pub(crate) fn yes_or_no(reading: &Reading, metric: &str) -> Option<bool> {
    match metric {
        "valid" => Some(reading.valid),
        "name" => Some(reading.name),
        "exact" => Some(reading.exact),
        _ => None,
    }
}
