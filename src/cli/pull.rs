//! `ledger pull`.

mod langfuse;

use super::{Globals, Output};
use crate::error::AppError;

/// Fetch traces and scores from another system.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Debug, clap::Subcommand)]
enum System {
    Langfuse(Box<langfuse::Args>),
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.system {
        System::Langfuse(args) => langfuse::run(globals, *args),
    }
}
