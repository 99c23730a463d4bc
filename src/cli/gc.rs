//! `ledger gc`.

use std::fmt::Write as _;
use std::time::Duration;

use ledger::catalogue::{CheckpointReleased, CheckpointSaved, RunFinished, RunOutcome};
use ledger::{Facts as _, gc};
use serde_json::json;

use super::forget::agree;
use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// List what nothing needs, and remove it after asking: bodies that no event names, that a
/// released checkpoint gave up or whose subject was forgotten; unfinished files; stores set aside.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only list
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Leave alone what is younger than so many hours: somebody may be about to name it
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    grace: u64,
    /// First give up what the checkpoints of this finished training run stored, save the chosen one
    #[arg(long, value_name = "RUN", conflicts_with = "dry_run")]
    release: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    if let Some(run) = &args.release {
        globals.with_lab(|lab| release(lab, run))?;
    }
    let (reader, grace) = (globals.reader()?, Duration::from_secs(args.grace.saturating_mul(3600)));
    let found = gc::garbage(&reader, grace)?;
    let bytes: u64 = found.iter().map(|file| file.bytes).sum();
    let mut text = String::new();
    for file in &found {
        let _ = writeln!(text, "{:>12} {} ({})", file.bytes, file.path.display(), file.why.text());
    }
    let listed: Vec<_> = found
        .iter()
        .map(|file| json!({ "path": file.path, "bytes": file.bytes, "why": file.why.text() }))
        .collect();
    let mut freed = 0;
    if !args.dry_run && !found.is_empty() {
        if !args.yes {
            agree(&text)?;
        }
        freed = gc::sweep(&reader, &found, grace)?;
        let listed = found.len();
        let _ = write!(text, "removed {freed} of {bytes} bytes in {listed} files and folders");
        if freed < bytes {
            let _ = write!(text, "; the rest was stored or named again since it was listed");
        }
    } else {
        let _ = write!(text, "{} files and folders, {bytes} bytes, are garbage", found.len());
    }
    Output::document(&json!({ "garbage": listed, "bytes": bytes, "freed": freed }), text)
}

/// Appends that the checkpoints of a finished run are given up.
fn release(lab: &Lab<'_>, run: &str) -> Result<(), AppError> {
    let stream = format!("run/{run}");
    let (mut saved, mut chosen) = (Vec::new(), None);
    for event in lab.view().events()? {
        let event = event?;
        if event.stream != stream {
            continue;
        }
        if event.kind == CheckpointSaved::KIND {
            saved.push(event.facts::<CheckpointSaved>()?);
        } else if event.kind == RunFinished::KIND
            && let RunOutcome::Train { checkpoint_step, .. } = event.facts::<RunFinished>()?.outcome
        {
            chosen = Some(checkpoint_step);
        }
    }
    let Some(chosen) = chosen else {
        let what = format!("{run} is no finished training run: its checkpoints are still needed");
        return Err(AppError::said(Kind::Refused, what));
    };
    for checkpoint in saved {
        let weights = (checkpoint.step != chosen).then_some(checkpoint.weights);
        let bodies: Vec<_> = weights.into_iter().chain(checkpoint.optimiser).collect();
        if bodies.is_empty() {
            continue;
        }
        let facts = CheckpointReleased {
            run: run.to_owned(),
            step: checkpoint.step,
            bodies,
            why: "the run has finished".to_owned(),
        };
        let id = format!("release/{run}/{}", checkpoint.step);
        lab.record(&stream, &id, &facts, Place::run(run))?;
    }
    Ok(())
}
