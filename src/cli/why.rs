//! `ledger why`.

use queries::why::why;

use super::{Globals, Output};
use crate::error::AppError;

/// Show the chain from a deployment's promotion or refusal back to the traces.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Start of a deployment id, a label, or model@alias
    deployment: String,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let why = why(&globals.reader()?, &args.deployment)?;
    Output::document(&why, why.to_string())
}
