//! `ledger dataset export`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use datasets::Side;
use datasets::export::{ExportError, ExportFormat, Writer};
use serde_json::json;

use super::super::{Globals, Output};
use super::card;
use crate::build::{Split, load_split};
use crate::error::{AppError, Kind};
use crate::rows::{Traces, View};

/// Rows that cannot be said which are named one by one.
const UNSAID_SHOWN: usize = 20;

/// Write a dataset out for trainers, with its data card, licences and where it came from.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, or the start of its identity
    name: String,
    /// Format
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(
        ExportFormat::ALL.map(ExportFormat::name)))]
    format: String,
    /// Folder to make
    #[arg(long)]
    out: PathBuf,
    /// Leave out the rows that the format cannot say, instead of refusing
    #[arg(long)]
    skip_unsayable: bool,
}

/// A row that the format cannot say.
type Unsaid = (u64, String);

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let split = load_split(&view, &args.name)?;
    let traces = Traces::list(&view)?;
    let format: ExportFormat = args.format.parse()?;
    if args.out.exists() {
        return Err(AppError::hinted(
            Kind::Usage,
            format!("{} is there already", args.out.display()),
            "name a folder that is not there yet",
        ));
    }
    // Written beside and renamed at the end: what bears the name is whole.
    let name = args.out.file_name().unwrap_or_default().to_string_lossy();
    let staging = args.out.with_file_name(format!(".{name}.partial"));
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(AppError::file(&staging))?;
    }
    let written =
        write_all(&staging, format, (&split, &traces), args.skip_unsayable).and_then(|unsaid| {
            card::write(&staging, &view, (&split, &traces), format)?;
            fs::rename(&staging, &args.out).map_err(AppError::file(&args.out))?;
            Ok(unsaid)
        });
    let unsaid = match written {
        Ok(unsaid) => unsaid,
        Err(error) => {
            let _ = fs::remove_dir_all(&staging);
            return Err(error);
        }
    };
    let rows = split.manifest.rows.len() - unsaid.len();
    let mut text = format!(
        "{rows} rows of {} ({}) as {format} in {}",
        split.facts.name,
        split.facts.dataset.short(),
        args.out.display()
    );
    for (seq, reason) in unsaid.iter().take(UNSAID_SHOWN) {
        let _ = write!(text, "\n  left out event {seq}: {reason}");
    }
    let untold = unsaid.len().saturating_sub(UNSAID_SHOWN);
    if untold > 0 {
        let _ = write!(text, "\n  and {untold} more");
    }
    let document = json!({
        "dataset": split.facts.dataset,
        "format": format.name(),
        "out": args.out,
        "rows": rows,
        "left_out": unsaid,
    });
    Output::document(&document, text)
}

fn write_all(
    dir: &Path,
    format: ExportFormat,
    (split, traces): (&Split, &Traces),
    skip: bool,
) -> Result<Vec<Unsaid>, AppError> {
    let mut unsaid = Vec::new();
    for (side, stem) in [(Side::Train, "train"), (Side::Dev, "dev")] {
        if split.manifest.n(side) == 0 {
            continue;
        }
        let mut writer = Writer::new(format, dir, stem)?;
        for row in split.manifest.side(side) {
            match writer.write(&traces.row(row)?) {
                Ok(()) => {}
                Err(ExportError::Unsayable { reason, .. }) => unsaid.push((row.seq, reason)),
                Err(error) => return Err(error.into()),
            }
        }
        writer.finish()?;
    }
    if unsaid.len() == split.manifest.rows.len() {
        let reason = unsaid.first().map(|(_, reason)| reason.as_str()).unwrap_or_default();
        return Err(AppError::hinted(
            Kind::Refused,
            format!("{format} cannot say any of {} rows: {reason}", unsaid.len()),
            "take another format",
        ));
    }
    match unsaid.first() {
        Some((seq, reason)) if !skip => Err(AppError::hinted(
            Kind::Refused,
            format!(
                "{format} cannot say {} of {} rows; the first is event {seq}: {reason}",
                unsaid.len(),
                split.manifest.rows.len()
            ),
            "--skip-unsayable leaves them out and lists them; or take another format",
        )),
        _ => Ok(unsaid),
    }
}
