//! `ledger trace`.

mod show;

use clap::Subcommand;

use super::{Globals, Output};
use crate::error::AppError;

/// Look at traces.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw the spans of a trace with timing, messages, tool calls and results
    Show(show::Args),
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.command {
        Command::Show(args) => show::run(globals, args),
    }
}
