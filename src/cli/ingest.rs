//! `ledger ingest`.

use std::fmt::Write as _;
use std::path::PathBuf;

use datasets::Format;
use datasets::redact::Rules;

use super::{Globals, Output};
use crate::capture::{Asked, FileReport, ImportReport, import};
use crate::error::AppError;

/// Read files and folders into canonical episodes, packed (.gz) or not. What cannot be read is
/// rejected with file, row and reason; reading a file again adds nothing.
///
/// Secrets (keys, tokens, passwords, bearer headers) are taken out before anything is stored, and a
/// placeholder stands where they stood.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Format, where it cannot be told from the content
    #[arg(long, value_parser = format_parser())]
    format: Option<String>,
    /// What is taken out before storing: secrets,email,phone,card,iban; or none
    #[arg(long, default_value = "secrets")]
    redact: String,
    /// Member of a row that names the person whom it is about, as user_id or metadata.user: such
    /// rows are encrypted under that person's key, which `ledger forget` destroys
    #[arg(long, value_name = "MEMBER")]
    subject_field: Option<String>,
    /// Name of the rows' source [default: folder/file]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The file is a newer version of one that lay elsewhere: changed rows are revised
    #[arg(long)]
    revise: bool,
}

fn format_parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(Format::ALL.map(Format::name))
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let asked = Asked {
        format: args.format.as_deref().map(str::parse).transpose()?,
        rules: args.redact.parse::<Rules>()?,
        subject_field: args.subject_field,
        source: args.source,
        is_revision: args.revise,
    };
    let report = globals.with_lab(|lab| import(lab, &args.paths, &asked))?;
    Output::document(&report, text(&report))
}

fn text(report: &ImportReport) -> String {
    let mut text = String::new();
    report.files.iter().for_each(|file| file_text(&mut text, file));
    for skipped in &report.skipped {
        let _ = writeln!(text, "passed over {skipped}");
    }
    let _ = write!(
        text,
        "{} rows, {} accepted, {} rejected, {} duplicates",
        report.rows, report.accepted, report.rejected, report.duplicates
    );
    if report.redacted > 0 {
        let _ = write!(text, ", {} places redacted", report.redacted);
    }
    text
}

fn file_text(text: &mut String, file: &FileReport) {
    let _ = write!(
        text,
        "{} ({}): {} rows, {} accepted, {} rejected, {} duplicates",
        file.file, file.format, file.rows, file.accepted, file.rejected, file.duplicates
    );
    if file.revised > 0 {
        let _ = write!(text, ", {} revised", file.revised);
    }
    if file.redacted > 0 {
        let _ = write!(text, ", {} places redacted", file.redacted);
    }
    let _ = writeln!(text, " -> {}", file.source);
    for beside in &file.beside {
        let _ = writeln!(text, "  with {beside}");
    }
    for rejection in &file.rejections {
        let _ = writeln!(text, "  rejected {rejection}");
    }
    let untold = file.rejected.saturating_sub(file.rejections.len() as u64);
    if untold > 0 {
        let search = format!("ledger search kind:rejection source:\"{}\"", file.source);
        let _ = writeln!(text, "  and {untold} more: `{search}` lists them");
    }
}
