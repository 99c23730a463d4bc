//! Gates: a policy and a report make a verdict.
//!
//! Every rule answers PASS, INCONCLUSIVE, FAIL or INVALID with its numbers; the worst counts, in
//! that order. What a report does not hold is INVALID: a missing figure is never a zero.

mod policy;
mod rules;

#[cfg(test)]
mod tests;

pub use policy::{Policy, PolicyError, Rule};
pub(crate) use rules::{looks_text, p_text};

use ledger::catalogue::{RuleDecided, Verdict};
use serde_json::json;

use crate::report::Report;

/// Name of the rule that every policy has without saying so.
pub const ADMISSIBLE: &str = "admissible";

/// A policy's verdict on one arm of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The worst of the rules' verdicts.
    pub verdict: Verdict,
    /// Rule by rule.
    pub rules: Vec<RuleDecided>,
}

/// Holds `policy` against the arm of `report` that is labelled `candidate`.
pub fn decide(policy: &Policy, report: &Report, candidate: &str) -> Decision {
    let mut decided = vec![admissible(report, candidate)];
    decided.extend(policy.rules.iter().map(|rule| rules::decide(rule, report, candidate)));
    let verdict = worst(decided.iter().map(|rule| rule.verdict));
    Decision { verdict, rules: decided }
}

/// Returns the worst of some verdicts, in the order INVALID, FAIL, INCONCLUSIVE, PASS. Of none it
/// is INVALID: nothing was asked.
pub fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.max_by_key(|verdict| severity(*verdict)).unwrap_or(Verdict::Invalid)
}

const fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Inconclusive => 1,
        Verdict::Fail => 2,
        Verdict::Invalid => 3,
    }
}

/// Returns the verdict as people are shown it.
pub const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::Fail => "FAIL",
        Verdict::Invalid => "INVALID",
    }
}

/// Asks what holds for every policy: the candidate is in the report, is fully known, and was not
/// trained on the suite's questions.
fn admissible(report: &Report, candidate: &str) -> RuleDecided {
    let facts = &report.facts;
    let (verdict, numbers, says) = match facts.arm(candidate) {
        None => (Verdict::Invalid, json!({}), format!("the report has no arm {candidate}")),
        Some(arm) => {
            let mut faults = Vec::new();
            if !arm.unknown.is_empty() {
                faults.push(format!("its {} is unknown", arm.unknown.join(", ")));
            }
            if arm.leaked_questions > 0 {
                let (leaked, n) = (arm.leaked_questions, facts.suite.n);
                faults.push(format!("{leaked} of the suite's {n} questions were trained on"));
            }
            let numbers =
                json!({ "leaked_questions": arm.leaked_questions, "unknown": arm.unknown });
            if faults.is_empty() {
                let says = "every factor is known and no question was trained on".to_owned();
                (Verdict::Pass, numbers, says)
            } else {
                (Verdict::Invalid, numbers, faults.join("; "))
            }
        }
    };
    RuleDecided {
        rule: ADMISSIBLE.to_owned(),
        asks: "Is the candidate fully known, and not trained on the suite's questions?".to_owned(),
        verdict,
        numbers,
        says,
    }
}
