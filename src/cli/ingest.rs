//! `ledger ingest`.

use std::fmt::Write as _;
use std::path::PathBuf;

use datasets::Format;

use super::{Globals, Output};
use crate::capture::import;
use crate::error::AppError;

/// Read files and folders into canonical episodes. What cannot be read is rejected with file, row
/// and reason; reading a file again adds nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Format, where it cannot be told from the content: prompt-completion, recorded-answers,
    /// hermes, biz-entity, langfuse-export, episodes
    #[arg(long, value_parser = parse_format)]
    format: Option<Format>,
}

fn parse_format(name: &str) -> Result<Format, String> {
    name.parse().map_err(|e: datasets::IngestError| e.to_string())
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let report = globals.with_lab(|lab| import(lab, &args.paths, args.format))?;
    let mut text = String::new();
    for file in &report.files {
        let _ = writeln!(
            text,
            "{} ({}): {} rows, {} accepted, {} rejected, {} duplicates -> {}",
            file.file,
            file.format,
            file.rows,
            file.accepted,
            file.rejected,
            file.duplicates,
            file.source
        );
        for rejection in &file.rejections {
            let _ = writeln!(text, "  rejected {rejection}");
        }
    }
    let _ = writeln!(
        text,
        "{} rows, {} accepted, {} rejected, {} duplicates",
        report.rows, report.accepted, report.rejected, report.duplicates
    );
    Output::document(&report, text)
}
