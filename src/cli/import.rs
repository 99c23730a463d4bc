//! `ledger import`.

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::PathBuf;

use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Make a notebook from JSON lines that `ledger export` wrote: same events, same bytes, same root.
/// It gets no signing key. (Traces are read in with `ledger ingest`.)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File of JSON lines; - for standard input
    file: PathBuf,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let head = if args.file.as_os_str() == "-" {
        ledger::import(stdin().lock(), globals.dir())?
    } else {
        let file = File::open(&args.file).map_err(AppError::file(&args.file))?;
        ledger::import(BufReader::new(file), globals.dir())?
    };
    let document = json!({ "size": head.size, "root": head.root, "dir": globals.dir() });
    let text = format!(
        "{} events under root {} in {}\nit has no signing key: checkpoints need keys/signer.key \
         from where the log was made",
        head.size,
        head.root,
        globals.dir().display()
    );
    Output::document(&document, text)
}
