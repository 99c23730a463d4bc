//! `ledger dataset`.

mod diff;
mod list;
mod show;

use std::fmt::Write as _;

use ledger::catalogue::SplitBuilt;
use serde_json::json;

use super::split::Sides;
use super::{Globals, Output};
use crate::build::{SplitSource, SplitWish, build_split, rows_of_query, wish_of_query};
use crate::error::AppError;
use crate::lab::Lab;
use crate::rows::Traces;

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
    /// Freeze a dataset from what a search finds: traces with a gold or a correction, failed cases
    Build(Build),
}

/// Freeze a dataset from what a search finds.
#[derive(Debug, clap::Args)]
struct Build {
    /// Name
    name: String,
    /// Search, as in `ledger search`
    #[arg(long)]
    from_query: String,
    /// Suites whose questions are kept out
    #[arg(long)]
    keep_out: Vec<String>,
    #[command(flatten)]
    sides: Sides,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::List => list::run(globals),
        Action::Show(args) => show::run(globals, args),
        Action::Diff(args) => diff::run(globals, args),
        Action::Build(build) => {
            let (split, left_out) = globals.with_lab(|lab| {
                let wish = wish_of_query(
                    lab,
                    &build.name,
                    &build.from_query,
                    build.sides.spec(),
                    build.keep_out.clone(),
                )?;
                let left_out = left_out(lab, &wish)?;
                Ok((build_split(lab, &wish)?, left_out))
            })?;
            let mut text = lines(&split.facts, split.event);
            for (event, reason) in &left_out {
                let _ = write!(text, "\n  event {event} gave no row: {reason}");
            }
            Output::document(&json!({ "dataset": split.facts, "left_out": left_out }), text)
        }
    }
}

fn left_out(lab: &Lab<'_>, wish: &SplitWish) -> Result<Vec<(u64, String)>, AppError> {
    let SplitSource::Query { hits, .. } = &wish.source else { return Ok(Vec::new()) };
    let view = lab.view();
    Ok(rows_of_query(&view, &Traces::list(&view)?, hits)?.left_out)
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
