//! `ledger dataset`.

mod build;
mod card;
mod check;
mod diff;
mod export;
mod list;
mod show;

use std::fmt::Write as _;

use ledger::catalogue::SplitBuilt;

use super::{Globals, Output};
use crate::error::AppError;

/// List, show, compare, build and write out datasets.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List datasets
    List,
    Show(show::Args),
    Diff(diff::Args),
    Build(Box<build::Args>),
    Check(check::Args),
    Card(card::Args),
    Export(export::Args),
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::List => list::run(globals),
        Action::Show(args) => show::run(globals, args),
        Action::Diff(args) => diff::run(globals, args),
        Action::Build(args) => build::run(globals, *args),
        Action::Check(args) => check::run(globals, args),
        Action::Card(args) => card::run(globals, args),
        Action::Export(args) => export::run(globals, args),
    }
}

pub(super) fn lines(facts: &SplitBuilt, event: u64) -> String {
    let mut text = format!(
        "dataset {}: {} rows to train on, {} held out, identity {}, event {event}",
        facts.name,
        facts.train,
        facts.dev,
        facts.dataset.short()
    );
    for excluded in &facts.excluded {
        let _ = write!(text, "\n  {} rows left out: {}", excluded.n, excluded.name);
    }
    for leak in &facts.leakage {
        let _ = write!(
            text,
            "\n  suite {}: {} of {} questions stand in it; nearest other question {:.2}",
            leak.suite, leak.shared_questions, leak.n, leak.nearest
        );
    }
    let _ = write!(text, "\n  licences: {}", facts.licences.join(", "));
    text
}
