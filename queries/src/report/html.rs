//! The report as one self-contained page: no script, no external resource, light and dark.

use maud::{DOCTYPE, Markup, PreEscaped, html as page};

use super::format::{
    estimate, figure, headings, milliseconds, pair_remarks, range, remarks, short_factor, signed,
    signed_range,
};
use super::markdown::side;
use super::{ArmFacts, Comparison, Estimate, ReadingKind, Report, Share, TrainingFacts};
use super::{interval_plot, loss_curve};
use crate::gate::{Decision, Policy, looks_text, p_text, verdict_word};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2024;--faint:#60646c;--line:#d9d9e0;--back:#fff;\
--first:#0b68cb;--second:#c2410c;--pass:#18794e;--fail:#c62a2f;--open:#946800}\
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--faint:#b0b4ba;--line:#43484e;\
--back:#111113;--first:#70b8ff;--second:#ffa057;--pass:#3dd68c;--fail:#ff9592;--open:#ffca16}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);\
max-width:76rem;margin:2rem auto;padding:0 1rem}\
h1,h2,h3{line-height:1.25}small,.faint,.range{color:var(--faint)}.range{font-size:.85em;\
white-space:nowrap}.scroll{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0 1.5rem}\
th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid var(--line);\
vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}\
code{font-size:.9em}svg{width:100%;max-width:46rem;height:auto}\
svg text{fill:var(--faint);font:12px system-ui,sans-serif}svg .grid{stroke:var(--line)}\
svg .loss,svg line.strict{stroke:var(--first);stroke-width:1.5}\
svg polyline.dev,svg line.lenient{stroke:var(--second);stroke-width:1.5}\
svg circle.strict{fill:var(--first)}svg circle.lenient,svg circle.dev{fill:var(--second)}\
svg circle.chosen{stroke:var(--ink);stroke-width:2}.strict{color:var(--first)}\
.lenient{color:var(--second)}.PASS{color:var(--pass)}.FAIL,.INVALID{color:var(--fail)}\
.INCONCLUSIVE{color:var(--open)}details{margin:0 0 1rem}";

/// Writes the report as one page, with the verdicts of policies on its arms, if any.
pub fn html(report: &Report, decisions: &[(&Policy, &str, &Decision)]) -> String {
    let facts = &report.facts;
    page! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (facts.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (intro(report))
                @for (policy, candidate, decision) in decisions {
                    (verdict(policy, candidate, decision))
                }
                h2 { "Exact answers" }
                p {
                    "Share over all " (facts.suite.n) " cases: "
                    span.strict { "strict" } " and " span.lenient { "lenient" } " reading."
                }
                (PreEscaped(interval_plot(report)))
                @for training in &facts.training { (curve(training)) }
                @for stratum in facts.strata() {
                    @for reading in ReadingKind::BOTH { (table(report, stratum, reading)) }
                }
                (issues(report))
                (cost(report))
                h2 { "Arms against each other" }
                p {
                    "p is the exact two-sided McNemar test on exact answers; Δ is first less \
                     second, with paired bootstrap intervals and Tango's score interval."
                }
                @for comparison in &facts.comparisons { (compare(comparison, report)) }
            }
        }
    }
    .into_string()
}

fn intro(report: &Report) -> Markup {
    let (facts, suite) = (&report.facts, &report.facts.suite);
    let percent = format!("{:.0} %", facts.intervals.confidence * 100.0);
    page! {
        h1 { (facts.name) }
        p {
            "Suite " (suite.name) " (" (suite.track) "), n = " (suite.n) ": "
            @for (place, stratum) in suite.strata.iter().enumerate() {
                @if place > 0 { ", " }
                (stratum.n) " " (stratum.name)
            }
            ". Suite " code { (suite.digest.short()) } ", scorer "
            code { (suite.scorer.short()) } ", event " (suite.event) "."
        }
        p {
            "Looks at the suite so far: " (facts.looks)
            ". Every look makes small p-values less surprising. Intervals are " (percent)
            ": Wilson for k of n, bootstrap over cases (BCa, " (facts.intervals.resamples)
            " resamples, seed " (facts.intervals.seed) ") for P, R and F1."
        }
        div.scroll { table {
            tr {
                th { "arm" } th { "base" } th { "adapter" } th { "prefix" } th { "decoding" }
                th { "deployment" } th { "run" } th { "remarks" }
            }
            @for arm in &facts.arms { (arm_row(arm)) }
        } }
    }
}

fn arm_row(arm: &ArmFacts) -> Markup {
    let factor = |value: &str| short_factor(value).to_owned();
    let deployment = &arm.deployment;
    page! {
        tr {
            td { (arm.label) }
            td { code { (factor(&deployment.base)) } }
            td { code { (factor(&deployment.adapter)) } }
            td { code { (factor(&deployment.cep)) } }
            td {
                (deployment.decoding.method)
                @if deployment.decoding.max_new_tokens > 0 {
                    ", at most " (deployment.decoding.max_new_tokens) " tokens"
                }
            }
            td { code { (arm.deployment_id.short()) } }
            td { code { (arm.run) } }
            td { (remarks(arm)) }
        }
    }
}

fn verdict(policy: &Policy, candidate: &str, decision: &Decision) -> Markup {
    let word = verdict_word(decision.verdict);
    page! {
        h2 { span class=(word) { (word) } ": " (candidate) " on policy " (policy.name) }
        div.scroll { table {
            tr { th { "rule" } th { "verdict" } th { "asks" } th { "says" } }
            @for rule in &decision.rules {
                @let word = verdict_word(rule.verdict);
                tr {
                    td { (rule.rule) }
                    td { strong class=(word) { (word) } }
                    td { (rule.asks) }
                    td { (rule.says) }
                }
            }
        } }
    }
}

fn curve(training: &TrainingFacts) -> Markup {
    page! {
        h2 { "Training " code { (training.run) } }
        p {
            "Adapter " code { (training.adapter.short()) } ": "
            span.strict { "training loss" } " by step and " span.lenient { "dev loss" }
            " at checkpoints; step " (training.chosen_step) " was chosen."
        }
        (PreEscaped(loss_curve(training)))
    }
}

fn table(report: &Report, stratum: &str, reading: ReadingKind) -> Markup {
    let names = headings(&report.facts.suite.track);
    let leaves = names.leaves;
    page! {
        h2 { (stratum) ", " (reading.name()) " reading" }
        div.scroll { table {
            tr {
                th { "arm" } th { "n" } th { (names.valid) } th { (names.name) }
                th { (names.exact) }
                th { (leaves) " P micro" } th { (leaves) " R micro" } th { (leaves) " F1 micro" }
                th { (leaves) " P macro" } th { (leaves) " R macro" } th { (leaves) " F1 macro" }
                th { "remarks" }
            }
            @for arm in &report.facts.arms {
                @if let Some(group) = arm.group(stratum, reading) {
                    tr {
                        td { (arm.label) }
                        td.n { (group.n) }
                        @for part in [&group.valid, &group.name, &group.exact] { (cell(part)) }
                        td.n { (figure(group.micro.precision.value)) }
                        td.n { (figure(group.micro.recall.value)) }
                        td.n { (estimate(&group.micro.f1)) }
                        td.n { (figure(group.r#macro.precision.value)) }
                        td.n { (figure(group.r#macro.recall.value)) }
                        td.n { (estimate(&group.r#macro.f1)) }
                        td { small { (remarks(arm)) } }
                    }
                }
            }
        } }
    }
}

fn cell(share: &Share) -> Markup {
    page! {
        td.n {
            (figure(share.rate)) " " small { (share.k) "/" (share.n) }
            br;
            span.range { (range(share.interval)) }
        }
    }
}

fn issues(report: &Report) -> Markup {
    page! {
        h2 { "Issues (strict reading)" }
        div.scroll { table {
            tr { th { "arm" } th { "issues" } th { "answers ended" } }
            @for arm in &report.facts.arms {
                tr {
                    td { (arm.label) }
                    @for counts in [&arm.issues, &arm.ended] {
                        td {
                            @for (place, count) in counts.iter().enumerate() {
                                @if place > 0 { ", " }
                                (count.name) " " (count.n)
                            }
                        }
                    }
                }
            }
        } }
    }
}

fn cost(report: &Report) -> Markup {
    page! {
        h2 { "Latency and tokens (measured)" }
        div.scroll { table {
            tr {
                th { "arm" } th { "latency in batch p50" } th { "p95" } th { "tokens/s" }
                th { "prompt tokens" } th { "answer tokens" }
            }
            @for arm in &report.facts.arms {
                @let measured = report.measured.iter().find(|m| m.label == arm.label);
                tr {
                    td { (arm.label) }
                    td.n { (milliseconds(measured.and_then(|m| m.latency_ms_p50))) }
                    td.n { (milliseconds(measured.and_then(|m| m.latency_ms_p95))) }
                    td.n { (figure(measured.and_then(|m| m.tokens_per_second))) }
                    td.n { @if let Some(tokens) = arm.prompt_tokens { (tokens) } @else { "–" } }
                    td.n { @if let Some(tokens) = arm.answer_tokens { (tokens) } @else { "–" } }
                }
            }
        } }
    }
}

fn compare(comparison: &Comparison, report: &Report) -> Markup {
    page! {
        h3 { (comparison.first) " and " (comparison.second) }
        @for line in pair_remarks(report, comparison) { p { small { (line) } } }
        div.scroll { table {
            tr {
                th { "stratum" } th { "reading" } th { "n" } th { "both" } th { "first only" }
                th { "second only" } th { "neither" }
                th { "p (" (looks_text(report.facts.looks)) ")" }
                th { "Δ exact" } th { "score interval" }
                th { "Δ F1 micro" }
            }
            @for group in &comparison.groups {
                tr {
                    td { (group.stratum) }
                    td { (group.reading.name()) }
                    td.n { (group.n) }
                    td.n { (group.both) }
                    td.n { (group.first_only) }
                    td.n { (group.second_only) }
                    td.n { (group.neither) }
                    td.n { (p_text(group.p_two_sided)) }
                    (difference(&group.exact_difference))
                    td.n { span.range { (signed_range(group.exact_score_interval)) } }
                    (difference(&group.f1_difference))
                }
            }
        } }
        @if !comparison.discordant.is_empty() { (discordant(comparison)) }
    }
}

fn difference(difference: &Estimate) -> Markup {
    page! {
        td.n {
            (signed(difference.value)) " "
            span.range { (signed_range(difference.interval)) }
        }
    }
}

fn discordant(comparison: &Comparison) -> Markup {
    page! {
        details {
            summary { "Discordant cases (" (comparison.discordant.len()) ")" }
            div.scroll { table {
                tr {
                    th { "case" } th { "stratum" } th { "tool" }
                    th { (comparison.first) } th { (comparison.second) }
                }
                @for case in &comparison.discordant {
                    tr {
                        td { code { (case.case) } }
                        td { (case.stratum) }
                        td { code { (case.tool) } }
                        td { (side(&case.first)) }
                        td { (side(&case.second)) }
                    }
                }
            } }
        }
    }
}
