//! `ledger key`.

use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Show the verifier keys of the log, or replace the signing key.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the keys, each with the event from which on it is valid
    Show,
    /// Replace the signing key; the present one vouches for the next and is destroyed
    Rotate,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.command.unwrap_or(Command::Show) {
        Command::Show => show(globals),
        Command::Rotate => globals.with_lab(|lab| {
            let key = lab.notebook.rotate_key()?;
            let checkpoint = lab.notebook.checkpoint()?;
            let document = json!({ "verifier_key": key, "checkpoint": checkpoint.note });
            let text = format!(
                "the signing key was replaced; give the new verifier key to whoever checks:\n{key}"
            );
            Output::document(&document, text)
        }),
    }
}

fn show(globals: &Globals) -> Result<Output, AppError> {
    let history = globals.reader()?.keys()?;
    let keys: Vec<_> =
        history.keys().iter().map(|(from, key)| json!({ "from": from, "key": key })).collect();
    let lines: Vec<_> =
        history.keys().iter().map(|(from, key)| format!("from event {from}: {key}")).collect();
    Output::document(&json!({ "keys": keys }), lines.join("\n"))
}
