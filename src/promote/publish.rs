//! Publishing comparison reports: facts into the record, pages into the notebook.

use std::path::{Path, PathBuf};

use ledger::catalogue::{ReportArm, ReportPublished};
use ledger::{Digest, Reader};
use queries::gate::{Decision, Policy};
use queries::projection::State;
use queries::report::{self, Report, ReportSpec};

use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// A report with its event.
pub struct Published {
    /// Event.
    pub event: u64,
    /// The report.
    pub report: Report,
}

/// Builds a report, records it and writes its pages. With `reuse`, a report over the same runs
/// that stands in the record already is returned as it is, with the count of looks that it had.
///
/// # Errors
/// When the arms cannot be compared, or the record refuses the event.
pub fn publish(lab: &Lab<'_>, spec: &ReportSpec, reuse: bool) -> Result<Published, AppError> {
    let reader = lab.notebook.reader();
    let state = queries::projection::fold_all(&reader)?;
    let report = report::load(&state, spec)?;
    let event = match same_arms(&state, &report).filter(|_| reuse) {
        Some(event) => event,
        None => record(lab, &report)?,
    };
    let state = queries::projection::fold_all(&reader)?;
    let report = load_report(&state, &reader, event)?.report;
    write_pages(lab.notebook.dir(), &report, &[])?;
    Ok(Published { event, report })
}

fn same_arms(state: &State, report: &Report) -> Option<u64> {
    let runs = || report.facts.arms.iter().map(|arm| arm.run.as_str());
    let same = |published: &ReportPublished| {
        published.name == report.facts.name
            && published.suite == report.facts.suite.digest
            && published.arms.iter().map(|arm| arm.run.as_str()).eq(runs())
    };
    state.catalog.reports.iter().rev().find(|(_, r)| same(r)).map(|(event, _)| *event)
}

fn record(lab: &Lab<'_>, report: &Report) -> Result<u64, AppError> {
    let facts = &report.facts;
    let bytes = facts.canonical()?;
    let arm = |arm: &report::ArmFacts| ReportArm {
        label: arm.label.clone(),
        deployment: arm.deployment.clone(),
        deployment_id: arm.deployment_id,
        run: arm.run.clone(),
    };
    let published = ReportPublished {
        name: facts.name.clone(),
        suite: facts.suite.digest,
        scorer: facts.suite.scorer,
        arms: facts.arms.iter().map(arm).collect(),
        facts: lab.notebook.blobs().put(&bytes)?,
        looks: facts.looks,
    };
    let id = format!("report/{}/{}", facts.name, Digest::of_json(&published)?);
    let place = Place::default().because(facts.suite.event);
    lab.record(&format!("gate/{}", facts.name), &id, &published, place)
}

/// Builds a published report again, and checks that it comes out with the recorded facts.
///
/// # Errors
/// When there is no such report, or its facts come out otherwise.
pub fn load_report(state: &State, reader: &Reader, event: u64) -> Result<Published, AppError> {
    let Some(published) = state.catalog.reports.get(&event) else {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("event {event} is no report"),
            "`ledger compare` makes one",
        ));
    };
    let spec = ReportSpec {
        name: published.name.clone(),
        suite: published.suite.to_string(),
        runs: published.arms.iter().map(|arm| arm.run.clone()).collect(),
        intervals: report::IntervalSpec::default(),
    };
    let mut report = report::load(state, &spec)?;
    // The count of looks is the one at the time of the report.
    report.facts.looks = published.looks;
    if Digest::of(&report.facts.canonical()?) != published.facts.digest {
        let stored = reader.blobs().get(&published.facts)?;
        return Err(AppError::said(
            Kind::Damaged,
            format!(
                "report {event} comes out otherwise than it was published ({} bytes of facts then)",
                stored.len()
            ),
        ));
    }
    Ok(Published { event, report })
}

/// Writes a report's pages into the notebook: Markdown, CSV and one self-contained HTML page.
///
/// # Errors
/// When a file cannot be written.
pub fn write_pages(
    dir: &Path,
    report: &Report,
    decisions: &[(&Policy, &str, &Decision)],
) -> Result<Vec<PathBuf>, AppError> {
    let dir = dir.join("reports").join(&report.facts.name);
    std::fs::create_dir_all(&dir).map_err(AppError::file(&dir))?;
    let mut markdown = report::markdown(report);
    for (policy, candidate, decision) in decisions {
        markdown.push('\n');
        markdown.push_str(&report::decision_markdown(policy, candidate, decision));
    }
    let pages = [
        ("report.md", markdown),
        ("report.csv", report::csv(report)),
        ("report.html", report::html(report, decisions)),
    ];
    let mut written = Vec::with_capacity(pages.len());
    for (name, text) in pages {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(AppError::file(&path))?;
        written.push(path);
    }
    Ok(written)
}
