//! `ledger dataset card`.

use std::fs;
use std::path::Path;

use datasets::export::ExportFormat;
use datasets::export::card::{CardFacts, FileFacts};
use serde::Serialize;

use super::super::{Globals, Output};
use crate::build::{Split, card, load_split};
use crate::error::AppError;
use crate::rows::{Traces, View};

/// Show the data card: rows, sources, licences rolled up, redaction, leakage. With --json it is a
/// Croissant 1.1 document.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, or the start of its identity
    name: String,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let split = load_split(&view, &args.name)?;
    let facts = card(&view, (&split, &Traces::list(&view)?), Vec::new())?;
    Output::document(&facts.croissant(), facts.markdown())
}

/// The form of the file that tells readers of data where it came from.
#[derive(Serialize)]
struct Source {
    licence: String,
    attribution: String,
    upstream: String,
    changes: String,
}

/// Writes the cards and the source file beside the rows that were written into `dir`.
pub(super) fn write(
    dir: &Path,
    view: &View,
    (split, traces): (&Split, &Traces),
    format: ExportFormat,
) -> Result<(), AppError> {
    let mut files = Vec::new();
    for side in ["train", "dev"] {
        for path in format.files(side) {
            if dir.join(&path).exists() {
                files.push(file(dir, &path, side, format)?);
            }
        }
    }
    let facts = card(view, (split, traces), files)?;
    let put = |name: &str, text: String| {
        fs::write(dir.join(name), text).map_err(AppError::file(dir.join(name)))
    };
    put("README.md", facts.markdown())?;
    put("croissant.json", format!("{:#}\n", facts.croissant()))?;
    put("SOURCE.toml", source(&facts)?)
}

fn file(dir: &Path, path: &Path, side: &str, format: ExportFormat) -> Result<FileFacts, AppError> {
    let whole = dir.join(path);
    let digest = models::model::file_digest(&whole)?;
    let bytes = fs::metadata(&whole).map_err(AppError::file(&whole))?.len();
    let parts: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    Ok(FileFacts {
        path: parts.join("/"),
        side: side.to_owned(),
        format,
        sha256: ledger::Digest::from_bytes(digest).to_string(),
        bytes,
    })
}

/// Rolls licences and attributions up, so that whoever reads the rows again keeps them.
fn source(facts: &CardFacts) -> Result<String, AppError> {
    let mut attributions: Vec<&str> = facts
        .sources
        .iter()
        .map(|source| source.attribution.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    attributions.sort_unstable();
    attributions.dedup();
    let source = Source {
        licence: facts.licences_of_rows().join(" AND "),
        attribution: attributions.join("; "),
        upstream: format!("dataset {} of a ledger notebook", facts.name),
        changes: format!("selected and split; identity {}", facts.identity),
    };
    let wrong = |e: toml::ser::Error| AppError::said(crate::error::Kind::Internal, e.to_string());
    toml::to_string(&source).map_err(wrong)
}
