//! `ledger log`.

use std::fmt::Write as _;

use ledger::Envelope;

use super::{Globals, Output};
use crate::error::AppError;

/// List events, oldest first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// First event
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only the last events
    #[arg(long, short = 'n')]
    last: Option<usize>,
    /// Only this stream, or all below it (run/, trace/serve)
    #[arg(long)]
    stream: Option<String>,
    /// Only this kind
    #[arg(long)]
    kind: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let mut events: Vec<Envelope> = Vec::new();
    for event in globals.reader()?.events(args.from)? {
        let event = event?;
        let in_stream = args.stream.as_ref().is_none_or(|s| event.stream.starts_with(s.as_str()));
        let of_kind = args.kind.as_ref().is_none_or(|kind| event.kind == *kind);
        if in_stream && of_kind {
            events.push(event);
        }
    }
    if let Some(last) = args.last {
        events.drain(..events.len().saturating_sub(last));
    }
    let mut text = String::new();
    let mut lines = Vec::with_capacity(events.len());
    for event in &events {
        let at = event.at.format("%Y-%m-%d %H:%M:%S");
        let _ = writeln!(
            text,
            "{:>6} {at} {:20} {} ({})",
            event.seq, event.kind, event.stream, event.actor
        );
        lines.push(serde_json::to_value(event)?);
    }
    Ok(Output::lines(lines, text))
}
