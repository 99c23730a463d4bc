//! The report and the verdict as Markdown.

use std::fmt::Write as _;

use super::format::{
    NONE, estimate, figure, headings, milliseconds, pair_remarks, remarks, share, short_factor,
    signed, signed_range,
};
use super::{ArmFacts, Comparison, Group, ReadingKind, Report, Side};
use crate::gate::{Decision, Policy, looks_text, p_text, verdict_word};

/// Most discordant cases that a comparison lists.
const DISCORDANT_MAX: usize = 60;

/// Writes the report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    head(&mut text, report);
    for stratum in report.facts.strata() {
        for reading in ReadingKind::BOTH {
            stratum_table(&mut text, report, stratum, reading);
        }
    }
    issues(&mut text, report);
    cost(&mut text, report);
    text.push_str("\n## Arms against each other\n");
    text.push_str(
        "\n`first only` counts cases that only the first arm has exact. p is the exact two-sided \
         McNemar test; Δ is first less second, with paired bootstrap intervals and \
         Tango's score interval, which also holds where no resample differs.\n",
    );
    for comparison in &report.facts.comparisons {
        compare(&mut text, comparison, report);
    }
    text
}

/// Writes a policy's verdict as Markdown, rule by rule.
pub fn decision_markdown(policy: &Policy, candidate: &str, decision: &Decision) -> String {
    let verdict = verdict_word(decision.verdict);
    let mut text = format!("# {verdict}: {} on policy {}\n\n", cell(candidate), cell(&policy.name));
    text.push_str("| rule | verdict | asks | says |\n|---|---|---|---|\n");
    for rule in &decision.rules {
        let word = verdict_word(rule.verdict);
        let (name, asks, says) = (cell(&rule.rule), cell(&rule.asks), cell(&rule.says));
        put(&mut text, format_args!("| {name} | {word} | {asks} | {says} |\n"));
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _ = text.write_fmt(what);
}

/// Keeps text from breaking a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn head(text: &mut String, report: &Report) {
    let (facts, suite) = (&report.facts, &report.facts.suite);
    put(text, format_args!("# {}\n\n", cell(&facts.name)));
    put(text, format_args!("Suite {} ({}), n = {}", cell(&suite.name), suite.track, suite.n));
    let strata: Vec<String> =
        suite.strata.iter().map(|s| format!("{} {}", s.n, cell(&s.name))).collect();
    put(text, format_args!(": {}. ", strata.join(", ")));
    put(text, format_args!("Suite digest `{}`, ", suite.digest.short()));
    put(text, format_args!("scorer `{}`, event {}.\n", suite.scorer.short(), suite.event));
    put(text, format_args!("The suite had {} so far; ", looks_text(facts.looks)));
    text.push_str("every look makes small p-values less surprising.\n");
    let spec = &facts.intervals;
    let percent = spec.confidence * 100.0;
    put(text, format_args!("Intervals are {percent:.0} %: Wilson for k/n, "));
    put(text, format_args!("bootstrap over cases (BCa, {} resamples, ", spec.resamples));
    put(text, format_args!("seed {}) for P, R and F1.\n\n", spec.seed));
    text.push_str("| arm | base | adapter | prefix | decoding | deployment | run | remarks |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for arm in &facts.arms {
        arm_line(text, arm);
    }
}

fn arm_line(text: &mut String, arm: &ArmFacts) {
    let factor = |value: &str| cell(short_factor(value));
    let deployment = &arm.deployment;
    let (base, adapter, cep) =
        (factor(&deployment.base), factor(&deployment.adapter), factor(&deployment.cep));
    let decoding = match deployment.decoding.max_new_tokens {
        0 => cell(&deployment.decoding.method),
        most => format!("{}, at most {most} tokens", cell(&deployment.decoding.method)),
    };
    put(text, format_args!("| {} | {base} | {adapter} | {cep} | ", cell(&arm.label)));
    put(text, format_args!("{decoding} | {} | ", arm.deployment_id.short()));
    put(text, format_args!("{} | {} |\n", cell(&arm.run), cell(&remarks(arm))));
}

fn stratum_table(text: &mut String, report: &Report, stratum: &str, reading: ReadingKind) {
    let names = headings(&report.facts.suite.track);
    put(text, format_args!("\n## {}, {} reading\n\n", cell(stratum), reading.name()));
    put(text, format_args!("| arm | n | {} | {} | ", names.valid, names.name));
    put(text, format_args!("{} | {} P micro | ", names.exact, names.leaves));
    put(text, format_args!("{0} R micro | {0} F1 micro | {0} P macro | ", names.leaves));
    put(text, format_args!("{0} R macro | {0} F1 macro | remarks |\n", names.leaves));
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for arm in &report.facts.arms {
        match arm.group(stratum, reading) {
            Some(group) => group_line(text, arm, group),
            None => put(text, format_args!("| {} |{}\n", cell(&arm.label), " – |".repeat(11))),
        }
    }
}

fn group_line(text: &mut String, arm: &ArmFacts, group: &Group) {
    put(text, format_args!("| {} | {} | ", cell(&arm.label), group.n));
    for part in [&group.valid, &group.name, &group.exact] {
        put(text, format_args!("{} | ", share(part)));
    }
    let (micro, means) = (&group.micro, &group.r#macro);
    put(text, format_args!("{} | ", figure(micro.precision.value)));
    put(text, format_args!("{} | ", figure(micro.recall.value)));
    put(text, format_args!("{} | ", estimate(&micro.f1)));
    put(text, format_args!("{} | ", figure(means.precision.value)));
    put(text, format_args!("{} | ", figure(means.recall.value)));
    put(text, format_args!("{} | {} |\n", estimate(&means.f1), cell(&remarks(arm))));
}

fn issues(text: &mut String, report: &Report) {
    text.push_str(
        "\n## Issues (strict reading)\n\n| arm | issues | answers ended |\n|---|---|---|\n",
    );
    for arm in &report.facts.arms {
        let list = |counts: &[ledger::catalogue::Count]| {
            let parts: Vec<String> = counts.iter().map(|c| format!("{} {}", c.name, c.n)).collect();
            if parts.is_empty() { NONE.to_owned() } else { cell(&parts.join(", ")) }
        };
        let (issues, ended) = (list(&arm.issues), list(&arm.ended));
        put(text, format_args!("| {} | {issues} | {ended} |\n", cell(&arm.label)));
    }
}

fn cost(text: &mut String, report: &Report) {
    text.push_str("\n## Latency and tokens (measured)\n\n");
    text.push_str("Latency runs from the start of a case's batch to the end of its answer.\n\n");
    text.push_str(
        "| arm | latency in batch p50 | p95 | tokens/s | prompt tokens | answer tokens |\n",
    );
    text.push_str("|---|---|---|---|---|---|\n");
    let whole =
        |value: Option<u64>| value.map_or_else(|| NONE.to_owned(), |value| value.to_string());
    for arm in &report.facts.arms {
        let measured = report.measured.iter().find(|m| m.label == arm.label);
        let p50 = milliseconds(measured.and_then(|m| m.latency_ms_p50));
        let p95 = milliseconds(measured.and_then(|m| m.latency_ms_p95));
        let rate = measured.and_then(|m| m.tokens_per_second);
        let rate = rate.map_or_else(|| NONE.to_owned(), |rate| format!("{rate:.1}"));
        let (prompt, answer) = (whole(arm.prompt_tokens), whole(arm.answer_tokens));
        let label = cell(&arm.label);
        put(text, format_args!("| {label} | {p50} | {p95} | {rate} | {prompt} | {answer} |\n"));
    }
}

fn compare(text: &mut String, comparison: &Comparison, report: &Report) {
    let (first, second) = (cell(&comparison.first), cell(&comparison.second));
    put(text, format_args!("\n### {first} and {second}\n\n"));
    for line in pair_remarks(report, comparison) {
        put(text, format_args!("{}\n\n", cell(&line)));
    }
    text.push_str("| stratum | reading | n | both | first only | second only | neither | ");
    put(text, format_args!("p ({}) |", looks_text(report.facts.looks)));
    text.push_str(" Δ exact | Δ exact, score interval | Δ F1 micro |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for group in &comparison.groups {
        let (stratum, reading) = (cell(&group.stratum), group.reading.name());
        put(text, format_args!("| {stratum} | {reading} | {} | {} | ", group.n, group.both));
        put(text, format_args!("{} | {} | ", group.first_only, group.second_only));
        put(text, format_args!("{} | {} | ", group.neither, p_text(group.p_two_sided)));
        let (exact, f1) = (&group.exact_difference, &group.f1_difference);
        put(text, format_args!("{} {} | ", signed(exact.value), signed_range(exact.interval)));
        put(text, format_args!("{} | ", signed_range(group.exact_score_interval)));
        put(text, format_args!("{} {} |\n", signed(f1.value), signed_range(f1.interval)));
    }
    if comparison.discordant.is_empty() {
        text.push_str("\nThe same cases are exact in both.\n");
        return;
    }
    let many = comparison.discordant.len();
    put(text, format_args!("\nDiscordant cases ({many}):\n\n"));
    put(
        text,
        format_args!("| case | stratum | tool | {first} | {second} |\n|---|---|---|---|---|\n"),
    );
    for case in comparison.discordant.iter().take(DISCORDANT_MAX) {
        let (id, stratum, tool) = (cell(&case.case), cell(&case.stratum), cell(&case.tool));
        let (left, right) = (cell(&side(&case.first)), cell(&side(&case.second)));
        put(text, format_args!("| {id} | {stratum} | {tool} | {left} | {right} |\n"));
    }
    if many > DISCORDANT_MAX {
        put(text, format_args!("\nand {} more.\n", many - DISCORDANT_MAX));
    }
}

/// Writes one arm's side of a discordant case.
pub(super) fn side(side: &Side) -> String {
    let exact = match (side.strict, side.lenient) {
        (true, _) => "exact",
        (false, true) => "exact (lenient only)",
        (false, false) => "not exact",
    };
    let issues = if side.issues.is_empty() {
        String::new()
    } else {
        format!(": {}", side.issues.join(", "))
    };
    format!("{exact}{issues} (event {})", side.event)
}
