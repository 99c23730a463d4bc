//! `ledger export`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use ledger::Reader;
use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Write the log out: as JSON lines that `ledger import` reads, or as tiles for an auditor.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("form").required(true).args(["out", "tiles"])))]
pub(super) struct Args {
    /// File for JSON lines, one per event; - for standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Add the bodies that events name; those of subjects stay encrypted
    #[arg(long, requires = "out")]
    bodies: bool,
    /// Folder for checkpoint, tiles and entry bundles in the tlog-tiles layout
    #[arg(long, value_name = "FOLDER")]
    tiles: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    if let Some(folder) = &args.tiles {
        return tiles(&reader, folder);
    }
    let path = args.out.unwrap_or_else(|| "-".into());
    if path.as_os_str() == "-" {
        reader.export(&mut BufWriter::new(std::io::stdout().lock()), args.bodies)?;
        return Ok(Output::lines(Vec::new(), ""));
    }
    // Under its name the file is whole, or what was there before is still there.
    let unfinished = path.with_extension("unfinished");
    let file = File::create(&unfinished).map_err(AppError::file(&unfinished))?;
    let mut out = BufWriter::new(file);
    let head = reader.export(&mut out, args.bodies)?;
    out.flush()
        .and_then(|()| out.get_ref().sync_all())
        .and_then(|()| std::fs::rename(&unfinished, &path))
        .map_err(AppError::file(&path))?;
    let document = json!({ "size": head.size, "root": head.root, "out": path });
    let text = format!("{} events under root {} in {}", head.size, head.root, path.display());
    Output::document(&document, text)
}

fn tiles(reader: &Reader, folder: &Path) -> Result<Output, AppError> {
    let none = ledger::ProofError::NotCovered { seq: 0 };
    let signed = reader.latest_checkpoint()?.ok_or(none)?;
    let exported = reader.export_tiles(folder, &signed)?;
    let document = json!({ "size": exported.size, "files": exported.files, "root": signed.root });
    let text = format!(
        "{} events under root {}\n{} files written to {}",
        exported.size,
        signed.root,
        exported.files,
        folder.display()
    );
    Output::document(&document, text)
}
