//! `ledger show`.

use super::{Globals, Output};
use crate::error::{AppError, Kind};

/// Show one event whole, with the text of its body where it has one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the event
    seq: u64,
    /// Print the body instead
    #[arg(long)]
    body: bool,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let Some(event) = reader.get(args.seq)? else {
        let size = reader.head()?.size;
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("there is no event {}", args.seq),
            format!("the record has events 0 to {}", size.saturating_sub(1)),
        ));
    };
    if !args.body {
        return Output::document(&event, serde_json::to_string_pretty(&event)?);
    }
    let bodies = ledger::bodies_in(&event.facts);
    let Some(body) = bodies.first() else {
        return Err(AppError::said(Kind::NotFound, format!("event {} has no body", args.seq)));
    };
    let bytes = reader.blobs().get(body)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let document = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text.clone()));
    Output::document(&document, text)
}
