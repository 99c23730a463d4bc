//! `ledger export`.

use std::path::PathBuf;

use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Write the log out for others.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder for checkpoint, tiles and entry bundles in the tlog-tiles layout
    #[arg(long, value_name = "FOLDER")]
    tiles: PathBuf,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let none = ledger::ProofError::NotCovered { seq: 0 };
    let signed = reader.latest_checkpoint()?.ok_or(none)?;
    let exported = reader.export_tiles(&args.tiles, &signed)?;
    let document = json!({ "size": exported.size, "files": exported.files, "root": signed.root });
    let text = format!(
        "{} events under root {}\n{} files written to {}",
        exported.size,
        signed.root,
        exported.files,
        args.tiles.display()
    );
    Output::document(&document, text)
}
