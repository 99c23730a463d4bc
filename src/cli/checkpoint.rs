//! `ledger checkpoint`.

use std::path::Path;

use ledger::{Notebook, SignedCheckpoint};
use serde_json::json;

use super::{Globals, Output};
use crate::error::{AppError, Kind};

/// Sign size and root of the log, and put that where somebody else keeps it: a checkpoint on the
/// same disk proves nothing against the disk's owner.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder, or address to which the note is sent with PUT (http:// or https://)
    #[arg(long, value_name = "FOLDER|URL")]
    send: Vec<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    globals.with_lab(|lab| {
        let signed = lab.notebook.checkpoint()?;
        let mut sent = Vec::new();
        for place in &args.send {
            sent.push(send(lab.notebook, &signed, place)?);
        }
        let document = json!({
            "size": signed.size, "root": signed.root, "note": signed.note, "sent": sent,
        });
        let mut text = signed.note.clone();
        for place in &sent {
            text.push_str(&format!("\nsent to {place}"));
        }
        Output::document(&document, text)
    })
}

fn send(notebook: &Notebook, signed: &SignedCheckpoint, place: &str) -> Result<String, AppError> {
    if place.starts_with("http://") || place.starts_with("https://") {
        put(signed, place)?;
        notebook.note_sent(signed, place)?;
        return Ok(place.to_owned());
    }
    let file = notebook.send_checkpoint(signed, Path::new(place))?;
    Ok(file.display().to_string())
}

/// Sends the note to an address.
fn put(signed: &SignedCheckpoint, url: &str) -> Result<(), AppError> {
    let failed = |what: String| {
        AppError::hinted(
            Kind::Unavailable,
            format!("the checkpoint was signed but not sent to {url}: {what}"),
            "send it again with the same command; nothing is lost",
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let answer = runtime.block_on(async {
        let client = reqwest::Client::builder().build()?;
        let request = client.put(url).header("content-type", "text/plain; charset=utf-8");
        request.body(signed.note.clone()).send().await
    });
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    if answer.status().is_success() { Ok(()) } else { Err(failed(answer.status().to_string())) }
}
