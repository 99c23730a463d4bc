//! `ledger prove`.

use std::path::PathBuf;

use serde_json::json;

use super::{Globals, Output};
use crate::error::{AppError, Kind};

/// Write a proof that an event is in the signed log: a .tlog-proof that anybody can check offline
/// with the verifier key, and the event's stored bytes beside it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of the event
    seq: u64,
    /// File of the proof [default: event-<number>.tlog-proof]; the bytes go beside it as .event
    #[arg(long, short)]
    out: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let seq = args.seq;
    let uncovered = || ledger::ProofError::NotCovered { seq };
    let event = reader.raw(seq)?.ok_or_else(|| {
        AppError::said(Kind::NotFound, format!("there is no event {seq} in this record"))
    })?;
    let signed = reader.latest_checkpoint()?.ok_or_else(uncovered)?;
    let proof = reader.prove(seq, &signed)?;
    let out = args.out.unwrap_or_else(|| format!("event-{seq}.tlog-proof").into());
    let bytes = out.with_extension("event");
    for (path, content) in [(&out, proof.to_text().as_bytes()), (&bytes, event.as_slice())] {
        ledger::durable::write_file(path, content, 0o644).map_err(AppError::file(path))?;
    }
    // The checkpoint may be older than the newest key, which then does not verify it.
    let keys = reader.keys()?;
    let key = keys.at(signed.size).unwrap_or_default();
    let document = json!({
        "event": seq, "size": signed.size, "root": signed.root, "proof": out, "bytes": bytes,
        "verifier_key": key,
    });
    let text = format!(
        "event {seq} is in the log of {} events\nproof {}\nbytes {}\ncheck it with: ledger verify \
         --proof {} --key '{key}'",
        signed.size,
        out.display(),
        bytes.display(),
        out.display()
    );
    Output::document(&document, text)
}
