//! `ledger completions`.

use super::{Globals, Output};
use crate::error::AppError;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell
    shell: clap_complete::Shell,
}

pub(super) fn run(_globals: &Globals, args: Args) -> Result<Output, AppError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "ledger", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    Output::document(&text, text.clone())
}
