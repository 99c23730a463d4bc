#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ledger::Digest;
use ledger::catalogue::{CaseScored, Count, Decoding, Deployment, Reading};

use super::*;

/// One case's outcome in shorthand.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// Exact in both readings.
    Exact,
    /// Valid with one wrong leaf of two in both readings.
    Wrong,
    /// Exact in the lenient reading only.
    Buried,
    /// No call in either reading.
    Silent,
}

pub(crate) const SINGLE: usize = 22;
pub(crate) const N: usize = 50;

/// Makes `n` outcomes of which the first `exact` are exact and the others wrong.
pub(crate) fn first(exact: usize, n: usize) -> Vec<Outcome> {
    (0..n).map(|i| if i < exact { Outcome::Exact } else { Outcome::Wrong }).collect()
}

/// The recorded teacher's outcomes: 17 of 22 and 15 of 28.
pub(crate) fn teacher() -> Vec<Outcome> {
    [first(17, SINGLE), first(15, N - SINGLE)].concat()
}

fn reading(valid: bool, exact: bool) -> Reading {
    Reading {
        valid,
        name: valid,
        exact,
        true_positives: u32::from(valid) + u32::from(exact),
        false_positives: u32::from(valid && !exact),
        false_negatives: 2 - u32::from(valid) - u32::from(exact),
    }
}

pub(crate) fn suite() -> SuiteFacts {
    let count = |name: &str, n| Count { name: name.to_owned(), n };
    SuiteFacts {
        name: "toolcall-teacher".to_owned(),
        track: "toolcall".to_owned(),
        digest: Digest::of(b"suite"),
        scorer: Digest::of(b"scorer"),
        event: 7,
        n: N as u64,
        strata: vec![count("single-call", SINGLE as u64), count("truncated", (N - SINGLE) as u64)],
    }
}

pub(crate) fn arm(label: &str, outcomes: &[Outcome]) -> Arm {
    let known = |name: &str| if label == "teacher" { "unknown" } else { name }.to_owned();
    let deployment = Deployment {
        base: format!("base of {label}"),
        adapter: known("none"),
        template: known("template"),
        cep: known("none"),
        decoding: Decoding { method: known("greedy"), max_new_tokens: 128 },
    };
    let deployment_id = Digest::of_json(&deployment).unwrap();
    let cases = outcomes.iter().enumerate().map(|(index, outcome)| {
        let (strict, lenient, issues) = match outcome {
            Outcome::Exact => (reading(true, true), reading(true, true), vec![]),
            Outcome::Wrong => {
                (reading(true, false), reading(true, false), vec!["arguments_mismatch"])
            }
            Outcome::Buried => {
                (reading(false, false), reading(true, true), vec!["invalid_tool_call_format"])
            }
            Outcome::Silent => {
                (reading(false, false), reading(false, false), vec!["answer_missing"])
            }
        };
        ScoredCase {
            event: 100 + index as u64,
            facts: CaseScored {
                suite: Digest::of(b"suite"),
                deployment: deployment_id,
                scorer: Digest::of(b"scorer"),
                case: format!("case{index:02}"),
                index: index as u32,
                stratum: if index < SINGLE { "single-call" } else { "truncated" }.to_owned(),
                tool: format!("tool{}", index % 7),
                strict,
                lenient,
                issues: issues.into_iter().map(str::to_owned).collect(),
                answer: None,
                prompt_tokens: Some(100),
                answer_tokens: (label != "teacher").then_some(20),
                ended: "stop".to_owned(),
            },
            latency_ms: Some(index as f64 * 10.0),
        }
    });
    Arm {
        label: label.to_owned(),
        run: format!("run-{label}"),
        suite: Digest::of(b"suite"),
        scorer: Digest::of(b"scorer"),
        deployment,
        deployment_id,
        flags: if label == "teacher" { vec!["recorded".to_owned()] } else { vec![] },
        leaked_questions: 0,
        cases: cases.collect(),
        tokens_per_second: Some(33.5),
    }
}

pub(crate) fn input(arms: Vec<Arm>) -> ReportInput {
    ReportInput {
        name: "first light".to_owned(),
        suite: suite(),
        looks: 5,
        arms,
        training: vec![TrainingFacts {
            run: "train-1".to_owned(),
            adapter: Digest::of(b"adapter"),
            losses: (1..=40)
                .map(|step| LossPoint { step, epoch: 1 + step / 11, loss: 1.0 / step as f64 })
                .collect(),
            checkpoints: (1..=4)
                .map(|e| LossPoint { step: e * 10, epoch: e, loss: 0.5 / e as f64 })
                .collect(),
            chosen_step: 30,
        }],
        intervals: IntervalSpec { resamples: 500, ..IntervalSpec::default() },
    }
}

/// A report in which the adapter is like the teacher and the base knows nothing.
pub(crate) fn report() -> Report {
    let adapter = [first(16, SINGLE), first(14, N - SINGLE)].concat();
    let base: Vec<Outcome> =
        (0..N).map(|i| if i % 10 == 0 { Outcome::Buried } else { Outcome::Silent }).collect();
    let arms = vec![arm("base", &base), arm("adapter", &adapter), arm("teacher", &teacher())];
    build_report(input(arms)).unwrap()
}

#[test]
fn figures_count_cases_by_stratum_and_reading() {
    let report = report();
    let group = |label: &str, stratum: &str, reading| {
        report.facts.arm(label).unwrap().group(stratum, reading).unwrap().clone()
    };
    let all = group("teacher", ALL, ReadingKind::Strict);
    assert_eq!((all.exact.k, all.exact.n, all.exact.rate), (32, 50, Some(0.64)));
    // Wilson, from statsmodels: see the table in stats/proportion.rs.
    let interval = all.exact.interval.unwrap();
    assert_eq!((interval.low, interval.high), (0.50141, 0.758613));
    let single = group("teacher", "single-call", ReadingKind::Lenient);
    assert_eq!((single.exact.k, single.n), (17, 22));
    let truncated = group("teacher", "truncated", ReadingKind::Strict);
    assert_eq!((truncated.exact.k, truncated.n), (15, 28));
    // 32 cases with two leaves found, 18 with one found, one wrong, one missed.
    assert_eq!(all.micro.f1.value, Some(0.82));
    assert_eq!(all.r#macro.f1.value, Some(0.82));
    assert!(all.micro.f1.interval.unwrap().contains(0.82));
    let base = group("base", ALL, ReadingKind::Strict);
    assert_eq!((base.valid.k, base.exact.k), (0, 0));
    assert_eq!(base.micro.precision.value, None, "nothing was answered, so nothing was precise");
    assert_eq!(base.micro.recall.value, Some(0.0));
    assert_eq!(base.micro.f1.value, Some(0.0));
    assert_eq!(group("base", ALL, ReadingKind::Lenient).exact.k, 5);
}

#[test]
fn every_pair_is_compared_case_by_case() {
    let report = report();
    let pairs: Vec<(&str, &str)> = report
        .facts
        .comparisons
        .iter()
        .map(|pair| (pair.first.as_str(), pair.second.as_str()))
        .collect();
    assert_eq!(pairs, [("base", "adapter"), ("base", "teacher"), ("adapter", "teacher")]);
    let pair = &report.facts.comparisons[2];
    assert_eq!(pair.groups.len(), 6);
    let all = &pair.groups[0];
    assert_eq!((all.stratum.as_str(), all.reading), (ALL, ReadingKind::Strict));
    assert_eq!((all.both, all.first_only, all.second_only, all.neither), (30, 0, 2, 18));
    assert_eq!(all.p_two_sided, 0.5);
    assert_eq!(all.exact_difference.value, Some(-0.04));
    let score = all.exact_score_interval.unwrap();
    assert!(score.low < -0.04 && score.high > 0.0);
    let cases: Vec<&str> = pair.discordant.iter().map(|case| case.case.as_str()).collect();
    assert_eq!(cases, ["case16", "case36"]);
    assert!(pair.discordant[0].second.strict && !pair.discordant[0].first.strict);
    assert_eq!(pair.discordant[0].first.issues, ["arguments_mismatch"]);
}

#[test]
fn the_same_cases_in_any_order_give_the_same_bytes() {
    let mut arms = vec![arm("adapter", &first(30, N)), arm("teacher", &teacher())];
    let once = build_report(input(arms.clone())).unwrap();
    arms[1].cases.reverse();
    let again = build_report(input(arms.clone())).unwrap();
    assert_eq!(once.facts.canonical().unwrap(), again.facts.canonical().unwrap());
    // Measurements are hashed apart.
    arms[0].cases[3].latency_ms = Some(1e6);
    let slower = build_report(input(arms)).unwrap();
    assert_eq!(once.facts.canonical().unwrap(), slower.facts.canonical().unwrap());
    assert_ne!(once.canonical_measured().unwrap(), slower.canonical_measured().unwrap());
    let read: ReportFacts = serde_json::from_slice(&once.facts.canonical().unwrap()).unwrap();
    assert_eq!(read, once.facts);
}

#[test]
fn the_same_cases_are_drawn_for_both_arms() {
    let arms = vec![arm("one", &first(30, N)), arm("two", &first(30, N))];
    let report = build_report(input(arms)).unwrap();
    for group in &report.facts.comparisons[0].groups {
        for difference in [&group.exact_difference, &group.f1_difference] {
            let interval = difference.interval.unwrap();
            assert_eq!((interval.low, interval.high), (0.0, 0.0), "equal answers never differ");
        }
    }
}

#[test]
fn latency_is_told_by_percentile() {
    let report = report();
    let measured = &report.measured[1];
    assert_eq!(measured.n, 50);
    assert_eq!(measured.latency_ms_p50, Some(245.0));
    assert_eq!(measured.latency_ms_p95, Some(465.5));
    assert_eq!(measured.tokens_per_second, Some(33.5));
    assert_eq!(report.facts.arms[1].answer_tokens, Some(1000));
    assert_eq!(report.facts.arms[2].answer_tokens, None, "a recorded arm does not tell");
}

/// Builds a report of two arms of which the second was changed.
fn refused(change: impl FnOnce(&mut Arm)) -> String {
    let mut other = arm("teacher", &teacher());
    change(&mut other);
    build_report(input(vec![arm("adapter", &first(30, N)), other])).unwrap_err().to_string()
}

#[test]
fn what_answers_another_question_is_refused_by_name() {
    let other = Digest::of(b"other");
    let says = refused(|arm| arm.suite = other);
    assert!(says.starts_with("suite of arm teacher differ from suite toolcall-teacher"), "{says}");
    assert!(says.contains(&other.short()), "{says}");
    let says = refused(|arm| arm.scorer = other);
    assert!(says.starts_with("scorer of arm teacher"), "{says}");
    let says = refused(|arm| arm.cases[4].facts.scorer = other);
    assert!(says.starts_with("scorer of a case of arm teacher"), "{says}");
    let says = refused(|arm| arm.cases[4].facts.deployment = other);
    assert!(says.starts_with("deployment of a case of arm teacher"), "{says}");
    let says = refused(|arm| arm.cases[4].facts.case = "case99".to_owned());
    assert!(says.starts_with("case ids of arm teacher differ from arm adapter"), "{says}");
    assert!(says.contains("case99 against case04"), "{says}");
    let says = refused(|arm| arm.cases[4].facts.stratum = "truncated".to_owned());
    assert!(says.contains("stratum or tool") && says.contains("case04"), "{says}");
    let says = refused(|arm| arm.label = "adapter".to_owned());
    assert!(says.starts_with("two arms are called adapter"), "{says}");
    let says = refused(|arm| arm.cases[4].facts.case = "case05".to_owned());
    assert!(says.contains("holds a case twice"), "{says}");
}

#[test]
fn thirty_nine_of_fifty_cases_are_refused() {
    // A skipped answer once shrank a teacher's suite from 50 to 39, and its score rose.
    let says = refused(|arm| arm.cases.truncate(39));
    assert!(says.starts_with("arm teacher has 39 of 50 cases (missing: case39, case40"), "{says}");
    assert!(says.contains("and 6 more"), "{says}");
}

#[test]
fn nothing_is_made_of_nothing() {
    assert_eq!(build_report(input(vec![])).unwrap_err(), ReportError::NoArms);
    let mut empty = input(vec![arm("adapter", &[])]);
    empty.suite.n = 0;
    assert!(matches!(build_report(empty), Err(ReportError::NoCases { .. })));
    let mut seeded = input(vec![arm("adapter", &first(30, N))]);
    seeded.intervals.seed = "seven".to_owned();
    assert_eq!(build_report(seeded).unwrap_err(), ReportError::Seed("seven".to_owned()));
}

#[test]
fn unknown_factors_stand_beside_every_figure() {
    let report = report();
    let unknown = "unknown: adapter, template, cep, decoding";
    let text = markdown(&report);
    let rows = text.lines().filter(|line| line.starts_with("| teacher |") && line.contains("= 0."));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), 6, "{rows:#?}");
    assert!(rows.iter().all(|row| row.contains(unknown)), "{rows:#?}");
    let table = csv(&report);
    assert_eq!(table.lines().count(), 1 + 3 * 3 * 2);
    assert!(table.lines().filter(|l| l.contains(",teacher,")).all(|l| l.contains(unknown)));
    assert_eq!(text.matches(&format!("teacher: recorded; {unknown}\n")).count(), 2, "{text}");
    assert!(html(&report, &[]).matches(unknown).count() >= 9);
}

#[test]
fn tables_hold_n_strata_and_looks() {
    let text = markdown(&report());
    for wanted in [
        "n = 50: 22 single-call, 28 truncated",
        "The suite had 5 looks so far",
        "## single-call, strict reading",
        "## truncated, lenient reading",
        "| teacher | 22 | 22/22 = 1.000 [0.851, 1.000] | 22/22 = 1.000 [0.851, 1.000] | \
         17/22 = 0.773 [0.566, 0.899] |",
        "arguments_mismatch 18",
        "### adapter and teacher",
        "Discordant cases (2):",
        "| case16 | single-call | tool2 | not exact: arguments_mismatch (event 116) | \
         exact (event 116) |",
        "| neither | p (5 looks) |",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
}

#[test]
fn the_csv_has_one_width() {
    let table = csv(&report());
    let widths: Vec<usize> = table.lines().map(|line| line.split(',').count()).collect();
    let unquoted = table.lines().filter(|line| !line.contains('"'));
    assert!(unquoted.clone().count() > 10);
    assert!(unquoted.map(|line| line.split(',').count()).all(|width| width == widths[0]));
}

#[test]
fn the_page_needs_nothing_else() {
    let mut other = arm("a<script>b", &first(30, N));
    other.run = "\"><img src=x>".to_owned();
    let arms = vec![other, arm("teacher", &teacher())];
    let page = html(&build_report(input(arms)).unwrap(), &[]);
    for banned in ["<script", "<link", "<img", "src=\"", "url(", "@import", "https:"] {
        assert!(!page.contains(banned), "{banned} stands in the page");
    }
    assert_eq!(page.matches("http:").count(), page.matches("http://www.w3.org/2000/svg").count());
    assert!(page.contains("prefers-color-scheme:dark"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(
        page,
        html(
            &build_report(input(vec![
                {
                    let mut other = arm("a<script>b", &first(30, N));
                    other.run = "\"><img src=x>".to_owned();
                    other
                },
                arm("teacher", &teacher()),
            ]))
            .unwrap(),
            &[]
        ),
        "the same figures make the same bytes"
    );
}

#[test]
fn pictures_hold_their_points() {
    let report = report();
    let curve = loss_curve(&report.facts.training[0]);
    assert_eq!(curve.matches("<polyline").count(), 2);
    assert_eq!(curve.matches("dev chosen").count(), 1);
    assert!(!curve.contains("NaN"));
    let mut broken = report.facts.training[0].clone();
    broken.losses[3].loss = f64::NAN;
    broken.checkpoints.clear();
    assert!(!loss_curve(&broken).contains("NaN"));
    let plot = interval_plot(&report);
    assert_eq!(plot.matches("<circle").count(), 6);
}
