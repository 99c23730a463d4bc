//! Each kind of rule against the cases of a report.

use ledger::catalogue::{RuleDecided, Verdict};
use serde_json::{Value, json};

use super::Rule;
use crate::report::{ALL, ArmFacts, Group, Pairs, ReadingKind, Report, yes_or_no};
use crate::stats::{
    CASES_MAX, cases_to_settle_non_inferiority, cases_to_settle_superiority, mcnemar_exact,
    non_inferiority, paired_score_interval, round_p, round6,
};

/// What a rule found: its verdict, its numbers and a sentence; or why it cannot be asked.
type Found = Result<(Verdict, Value, String), String>;

/// Which cases a rule looks at, and what it counts in them.
struct Question<'a> {
    report: &'a Report,
    candidate: &'a str,
    metric: &'a str,
    reading: ReadingKind,
    stratum: &'a str,
}

/// Decides one rule.
pub(super) fn decide(rule: &Rule, report: &Report, candidate: &str) -> RuleDecided {
    let question = |metric, reading: &ReadingKind, stratum| Question {
        report,
        candidate,
        metric,
        reading: *reading,
        stratum,
    };
    let found = match rule {
        Rule::Threshold { metric, reading, stratum, at_least, .. } => {
            threshold(&question(metric, reading, stratum), *at_least)
        }
        Rule::Superiority { metric, reading, stratum, against, alpha, .. } => {
            superiority(&question(metric, reading, stratum), against, *alpha)
        }
        Rule::NotWorse { metric, reading, stratum, against, alpha, .. } => {
            not_worse(&question(metric, reading, stratum), against, *alpha)
        }
        Rule::NonInferiority { metric, reading, stratum, against, margin, confidence, .. } => {
            within_margin(&question(metric, reading, stratum), against, (*margin, *confidence))
        }
    };
    let (verdict, numbers, says) = found.unwrap_or_else(|why| (Verdict::Invalid, json!({}), why));
    RuleDecided { rule: rule.name().to_owned(), asks: rule.to_string(), verdict, numbers, says }
}

impl<'a> Question<'a> {
    fn arm(&self, label: &str) -> Result<&'a ArmFacts, String> {
        self.report.facts.arm(label).ok_or_else(|| format!("the report has no arm {label}"))
    }

    /// Compares the candidate with another arm, case by case.
    fn pairs(&self, against: &str) -> Result<Pairs, String> {
        if against == self.candidate {
            return Err(format!("{against} cannot be compared with itself"));
        }
        let (first, second) = (self.arm(self.candidate)?, self.arm(against)?);
        let inside = |stratum: &str| self.stratum == ALL || stratum == self.stratum;
        let outcomes: Option<Vec<(bool, bool)>> = first
            .cases
            .iter()
            .zip(&second.cases)
            .filter(|(case, _)| inside(&case.stratum))
            .map(|(a, b)| {
                let of = |case: &crate::report::CaseOutcome| {
                    yes_or_no(&case.reading(self.reading), self.metric)
                };
                Some((of(a)?, of(b)?))
            })
            .collect();
        let outcomes = outcomes
            .ok_or_else(|| format!("metric {} is not one of exact, name, valid", self.metric))?;
        if outcomes.is_empty() {
            return Err(format!("the report has no cases in stratum {}", self.stratum));
        }
        Ok(Pairs::count(outcomes.into_iter()))
    }

    /// Tells how often the suite was looked at, which every p-value is read with.
    fn looks(&self) -> String {
        looks_text(self.report.facts.looks)
    }

    fn group(&self) -> Result<&'a Group, String> {
        self.arm(self.candidate)?
            .group(self.stratum, self.reading)
            .filter(|group| group.n > 0)
            .ok_or_else(|| format!("the report has no cases in stratum {}", self.stratum))
    }
}

fn threshold(question: &Question<'_>, at_least: f64) -> Found {
    let group = question.group()?;
    let metric = question.metric;
    let (value, interval, of) = match metric {
        "valid" | "name" | "exact" => {
            let share = match metric {
                "valid" => &group.valid,
                "name" => &group.name,
                _ => &group.exact,
            };
            (share.rate, share.interval, format!(" ({} of {})", share.k, share.n))
        }
        _ => {
            let prf = match metric.split_once('_').map(|(kind, _)| kind) {
                Some("micro") => &group.micro,
                Some("macro") => &group.r#macro,
                _ => return Err(format!("the report has no metric {metric}")),
            };
            let figure = match metric.split_once('_').map(|(_, figure)| figure) {
                Some("precision") => &prf.precision,
                Some("recall") => &prf.recall,
                Some("f1") => &prf.f1,
                _ => return Err(format!("the report has no metric {metric}")),
            };
            (figure.value, figure.interval, String::new())
        }
    };
    let value = value.ok_or_else(|| format!("the report has no value of {metric}"))?;
    let verdict = if value >= at_least { Verdict::Pass } else { Verdict::Fail };
    let relation = if value >= at_least { "reaches" } else { "lies below" };
    let range = interval.map_or_else(String::new, |interval| {
        let confidence = question.report.facts.intervals.confidence * 100.0;
        format!(", {confidence:.0} % interval {:.3} to {:.3}", interval.low, interval.high)
    });
    let numbers = json!({
        "value": value, "interval": interval, "at_least": at_least, "n": group.n,
    });
    let says = format!("{metric} {value:.3}{of} {relation} {at_least}{range}");
    Ok((verdict, numbers, says))
}

fn superiority(question: &Question<'_>, against: &[String], alpha: f64) -> Found {
    let mut best: Option<(&str, Pairs)> = None;
    for label in against {
        let pairs = question.pairs(label)?;
        // The better arm is the one with more right; of equals the one that is harder to beat.
        let rank = |pairs: &Pairs| {
            (pairs.both + pairs.second_only, pairs.second_only, u64::MAX - pairs.first_only)
        };
        if best.as_ref().is_none_or(|(_, held)| rank(&pairs) > rank(held)) {
            best = Some((label, pairs));
        }
    }
    let (label, pairs) = best.ok_or("no arm to compare with")?;
    let (b, c, n) = (pairs.first_only, pairs.second_only, pairs.n());
    let p = mcnemar_exact(b, c).p_two_sided;
    let verdict = match (p < alpha, b > c) {
        (true, true) => Verdict::Pass,
        (true, false) => Verdict::Fail,
        (false, _) => Verdict::Inconclusive,
    };
    let mut says = alone(question, label, &pairs);
    let conclusion = match verdict {
        Verdict::Pass => "better",
        Verdict::Fail => "worse",
        _ => "neither is shown to be better",
    };
    let looks = question.looks();
    says.push_str(&format!("; exact McNemar p = {} ({looks}): {conclusion}", p_text(p)));
    let more = (verdict == Verdict::Inconclusive)
        .then(|| cases_to_settle_superiority((b, c, n), alpha))
        .flatten();
    settle(&mut says, verdict, more);
    let mut numbers = paired_numbers(label, &pairs, p);
    add(&mut numbers, json!({ "alpha": alpha, "more_cases": more }));
    Ok((verdict, numbers, says))
}

fn not_worse(question: &Question<'_>, against: &str, alpha: f64) -> Found {
    let pairs = question.pairs(against)?;
    let p = mcnemar_exact(pairs.first_only, pairs.second_only).p_two_sided;
    let worse = p < alpha && pairs.second_only > pairs.first_only;
    let verdict = if worse { Verdict::Fail } else { Verdict::Pass };
    let conclusion = if worse {
        format!("shown to be worse than {against}")
    } else {
        format!("not shown to be worse than {against} (which does not show that it is as good)")
    };
    let alone = alone(question, against, &pairs);
    let looks = question.looks();
    let says = format!("{alone}; exact McNemar p = {} ({looks}): {conclusion}", p_text(p));
    let mut numbers = paired_numbers(against, &pairs, p);
    add(&mut numbers, json!({ "alpha": alpha }));
    Ok((verdict, numbers, says))
}

fn within_margin(
    question: &Question<'_>,
    against: &str,
    (margin, confidence): (f64, f64),
) -> Found {
    let pairs = question.pairs(against)?;
    let (b, c, n) = (pairs.first_only, pairs.second_only, pairs.n());
    let interval = paired_score_interval(b as f64, c as f64, n as f64, confidence)
        .ok_or("the difference has no interval")?;
    let verdict = non_inferiority(interval, margin);
    let difference = (b as f64 - c as f64) / n as f64;
    let conclusion = match verdict {
        Verdict::Pass => format!("wholly above -{margin}"),
        Verdict::Fail => format!("wholly below -{margin}"),
        _ => format!("on both sides of -{margin}"),
    };
    let mut says = format!(
        "{}; difference {difference:+.3}, {:.0} % interval {:+.3} to {:+.3}: {conclusion}",
        alone(question, against, &pairs),
        confidence * 100.0,
        interval.low,
        interval.high,
    );
    let more = (verdict == Verdict::Inconclusive)
        .then(|| cases_to_settle_non_inferiority((b, c, n), margin, confidence))
        .flatten();
    settle(&mut says, verdict, more);
    let p = mcnemar_exact(b, c).p_two_sided;
    let mut numbers = paired_numbers(against, &pairs, p);
    let low = round6(interval.low);
    let high = round6(interval.high);
    add(
        &mut numbers,
        json!({
            "difference": round6(difference), "interval": { "low": low, "high": high },
            "margin": margin, "confidence": confidence, "more_cases": more,
        }),
    );
    Ok((verdict, numbers, says))
}

fn alone(question: &Question<'_>, against: &str, pairs: &Pairs) -> String {
    let (candidate, metric) = (question.candidate, question.metric);
    format!(
        "{metric}: {candidate} {} and {against} {} of {}; alone in it {candidate} {} and {against} \
         {} times",
        pairs.both + pairs.first_only,
        pairs.both + pairs.second_only,
        pairs.n(),
        pairs.first_only,
        pairs.second_only,
    )
}

fn settle(says: &mut String, verdict: Verdict, more: Option<u64>) {
    if verdict != Verdict::Inconclusive {
        return;
    }
    match more {
        Some(more) => {
            says.push_str(&format!("; about {more} more such cases would settle it"));
            says.push_str(" if the observed rates hold");
        }
        None => says.push_str(&format!(
            "; at the observed rates no number of cases up to {CASES_MAX} would settle it"
        )),
    }
}

fn paired_numbers(against: &str, pairs: &Pairs, p: f64) -> Value {
    json!({
        "against": against, "n": pairs.n(), "both": pairs.both,
        "candidate_only": pairs.first_only, "other_only": pairs.second_only,
        "neither": pairs.neither, "p_two_sided": round_p(p),
    })
}

fn add(numbers: &mut Value, more: Value) {
    if let (Value::Object(numbers), Value::Object(more)) = (numbers, more) {
        numbers.extend(more);
    }
}

/// Writes how often a suite was looked at.
pub(crate) fn looks_text(looks: u64) -> String {
    if looks == 1 { "1 look".to_owned() } else { format!("{looks} looks") }
}

/// Writes a p-value with two significant digits.
pub(crate) fn p_text(p: f64) -> String {
    if p >= 0.001 { format!("{p:.3}") } else { format!("{p:.1e}") }
}
