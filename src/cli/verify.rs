//! `ledger verify`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ledger::{LogProof, Outside, VerifyReport};
use serde_json::json;

use super::{Globals, Output};
use crate::error::{AppError, Kind};

/// Verify that nobody edited the record: stored bytes of journal, store and blobs are hashed
/// again, checkpoints checked against the Merkle root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Checkpoint that was kept elsewhere: today's log must extend it
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Verifier key that was kept elsewhere: the log must begin with it
    #[arg(long)]
    key: Option<String>,
    /// Check a .tlog-proof with --key instead; no notebook is needed
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "against")]
    proof: Option<PathBuf>,
    /// Stored bytes of the proven event [default: the proof's name with .event]
    #[arg(long, value_name = "FILE", requires = "proof")]
    event: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    if let (Some(proof), Some(key)) = (&args.proof, &args.key) {
        let event = args.event.clone().unwrap_or_else(|| proof.with_extension("event"));
        return check_proof(proof, &event, key);
    }
    let mut outside = Outside { key: args.key, ..Outside::default() };
    for path in &args.against {
        let note = fs::read_to_string(path).map_err(AppError::file(path))?;
        outside.checkpoints.push((path.display().to_string(), note));
    }
    let report = ledger::verify_against(globals.dir(), &outside)?;
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
        "outside": report.outside,
        "verifier_key": report.verifier_key,
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

/// Checks a proof that stands alone.
fn check_proof(proof: &Path, event: &Path, key: &str) -> Result<Output, AppError> {
    let text = fs::read_to_string(proof).map_err(AppError::file(proof))?;
    let bytes = fs::read(event).map_err(AppError::file(event))?;
    let proven = LogProof::parse(&text)?.verify(&bytes, key)?;
    let document =
        json!({ "good": true, "event": proven.index, "size": proven.size, "root": proven.root });
    let text = format!(
        "good: these bytes are event {} of the log of {} events with root {}, signed by {key}",
        proven.index, proven.size, proven.root
    );
    Output::document(&document, text)
}

/// Says above which size only accidents can be found.
fn reach(report: &VerifyReport) -> String {
    match report.outside {
        Some(size) => format!(
            "extends the checkpoint of {size} events that was kept elsewhere: behind event {size} \
             only accidental damage shows"
        ),
        None => format!(
            "signed up to event {}, but by checkpoints on this disk only: against somebody who \
             holds disk and key nothing is shown; hold it against one that was kept elsewhere \
             with --against",
            report.signed
        ),
    }
}

/// Says what verification found, for people.
pub(super) fn text(report: &VerifyReport) -> String {
    let verdict = if report.good() { "good" } else { "DAMAGED" };
    let mut text = format!(
        "{verdict}: {} events in {} segments, {} blobs, {} checkpoints; store {}\nroot {}\n{}",
        report.events,
        report.segments,
        report.blobs,
        report.checkpoints,
        report.store,
        report.root,
        reach(report)
    );
    for damage in &report.damage {
        let event = damage.seq.map(|seq| format!(" (event {seq})")).unwrap_or_default();
        let _ = write!(text, "\n  {}: {}{event}", damage.where_, damage.what);
    }
    text
}
