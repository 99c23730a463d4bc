//! `ledger verify`.

use std::fmt::Write as _;

use ledger::VerifyReport;
use serde_json::json;

use super::{Globals, Output};
use crate::error::{AppError, Kind};

/// Verify that nobody edited the record: stored bytes of journal, store and blobs are hashed
/// again, checkpoints checked against the Merkle root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(globals: &Globals, _args: Args) -> Result<Output, AppError> {
    let report = ledger::verify(globals.dir())?;
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|d| json!({ "what": d.what, "where": d.where_, "seq": d.seq }))
        .collect();
    let document = json!({
        "good": report.good(),
        "events": report.events,
        "segments": report.segments,
        "blobs": report.blobs,
        "checkpoints": report.checkpoints,
        "signed": report.signed,
        "root": report.root,
        "store": report.store,
        "damage": damage,
    });
    let failure = (!report.good()).then(|| {
        let what = format!("{} places are damaged", report.damage.len());
        AppError::said(Kind::Damaged, what)
    });
    Ok(Output::document(&document, text(&report))?.failing(failure))
}

/// Says what verification found, for people.
pub(super) fn text(report: &VerifyReport) -> String {
    let verdict = if report.good() { "good" } else { "DAMAGED" };
    let mut text = format!(
        "{verdict}: {} events in {} segments, {} blobs, {} checkpoints; store {}\nroot {}\nsigned \
         up to event {}: behind it only accidental damage shows",
        report.events,
        report.segments,
        report.blobs,
        report.checkpoints,
        report.store,
        report.root,
        report.signed
    );
    for damage in &report.damage {
        let event = damage.seq.map(|seq| format!(" (event {seq})")).unwrap_or_default();
        let _ = write!(text, "\n  {}: {}{event}", damage.where_, damage.what);
    }
    text
}
