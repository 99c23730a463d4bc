//! `ledger init`.

use std::sync::Arc;

use ledger::{Notebook, SystemClock};
use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Make a notebook: a folder with its journal, store, blobs, index and keys.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(globals: &Globals, _args: Args) -> Result<Output, AppError> {
    let notebook = Notebook::create(globals.dir(), Arc::new(SystemClock), &globals.actor)?;
    let head = notebook.reader().head()?;
    let checkpoint = notebook.checkpoint()?;
    notebook.close()?;
    let dir = std::path::absolute(globals.dir()).map_err(AppError::file(globals.dir()))?;
    let document = json!({ "dir": dir, "events": head.size, "root": checkpoint.root });
    let text = format!(
        "made a notebook in {}\nits signing key is keys/ (0600); checkpoints can be checked with \
         the verifier key in its first event (`ledger show 0`)",
        dir.display()
    );
    Output::document(&document, text)
}
