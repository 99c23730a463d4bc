//! The report as CSV: one row for each arm, stratum and reading.

use super::format::{prf_figures, remarks};
use super::{Report, Share};
use crate::stats::Interval;

/// Writes the figures as CSV (RFC 4180, line feeds), empty where there is none.
pub fn csv(report: &Report) -> String {
    let mut lines = vec![header()];
    for arm in &report.facts.arms {
        let measured = report.measured.iter().find(|m| m.label == arm.label);
        for group in &arm.groups {
            let suite = &report.facts.suite;
            let mut row = vec![
                suite.name.clone(),
                suite.digest.to_string(),
                suite.scorer.to_string(),
                report.facts.looks.to_string(),
                arm.label.clone(),
                arm.deployment_id.to_string(),
                arm.run.clone(),
                remarks(arm),
                group.stratum.clone(),
                group.reading.name().to_owned(),
                group.n.to_string(),
            ];
            for share in [&group.valid, &group.name, &group.exact] {
                row.extend(share_cells(share));
            }
            for (_, estimate) in prf_figures(group) {
                row.push(number(estimate.value));
                row.extend(bounds(estimate.interval));
            }
            row.push(whole(arm.prompt_tokens));
            row.push(whole(arm.answer_tokens));
            row.push(number(measured.and_then(|m| m.latency_ms_p50)));
            row.push(number(measured.and_then(|m| m.latency_ms_p95)));
            row.push(number(measured.and_then(|m| m.tokens_per_second)));
            lines.push(line(&row));
        }
    }
    lines.concat()
}

fn header() -> String {
    let mut names: Vec<String> = [
        "suite",
        "suite_digest",
        "scorer",
        "looks",
        "arm",
        "deployment",
        "run",
        "remarks",
        "stratum",
        "reading",
        "n",
    ]
    .map(str::to_owned)
    .to_vec();
    for metric in ["valid", "name", "exact"] {
        names.extend(["k", "rate", "low", "high"].map(|part| format!("{metric}_{part}")));
    }
    for kind in ["micro", "macro"] {
        for figure in ["precision", "recall", "f1"] {
            names.extend(["", "_low", "_high"].map(|part| format!("{kind}_{figure}{part}")));
        }
    }
    names.extend(
        ["prompt_tokens", "answer_tokens", "latency_ms_p50", "latency_ms_p95", "tokens_per_second"]
            .map(str::to_owned),
    );
    line(&names)
}

fn share_cells(share: &Share) -> Vec<String> {
    let mut cells = vec![share.k.to_string(), number(share.rate)];
    cells.extend(bounds(share.interval));
    cells
}

fn bounds(interval: Option<Interval>) -> [String; 2] {
    [number(interval.map(|i| i.low)), number(interval.map(|i| i.high))]
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn whole(value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    format!("{}\n", cells.join(","))
}

/// Quotes a cell where it needs it, and keeps a spreadsheet from reading text as a formula.
fn quoted(cell: &str) -> String {
    let is_number = cell.parse::<f64>().is_ok();
    let safe = if !is_number && cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if safe.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", safe.replace('"', "\"\""))
    } else {
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quoted("=SUM(A1)"), "'=SUM(A1)");
        assert_eq!(quoted("-0.5"), "-0.5");
    }
}
