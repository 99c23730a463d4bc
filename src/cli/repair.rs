//! `ledger repair`.

use std::path::PathBuf;
use std::sync::Arc;

use ledger::SystemClock;
use serde_json::json;

use super::{Globals, Output, verify};
use crate::error::{AppError, Kind};

/// Restore damaged copies from sound ones: events of the journal from the store, the store from
/// the journal, bodies from another copy of the notebook. Never from nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Another copy of this notebook, from which bodies may be taken
    #[arg(long, value_name = "NOTEBOOK")]
    from: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let report = ledger::repair(globals.dir(), args.from.as_deref(), Arc::new(SystemClock))?;
    let done = &report.done;
    let events: u64 = done.journal.iter().map(|(first, last)| last - first + 1).sum();
    let mut text = format!(
        "restored {events} events of the journal and {} bodies{}\n",
        done.bodies.len(),
        if done.store { "; rebuilt the store" } else { "" }
    );
    text.push_str(&verify::text(&report.after));
    let document = json!({
        "done": done, "good": report.after.good(), "events": report.after.events,
    });
    let left = report.after.damage.len();
    let failure = (left > 0).then(|| {
        let what = format!("{left} places are still damaged");
        let hint = "what has no sound copy is not invented: restore it from a backup, or name \
                    another copy of the notebook with --from";
        AppError::hinted(Kind::Damaged, what, hint)
    });
    Ok(Output::document(&document, text)?.failing(failure))
}
