//! `ledger log`.

use std::fmt::Write as _;
use std::io::Write as _;

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
    /// Go on with what is appended, until interrupted
    #[arg(long, short, conflicts_with = "last")]
    follow: bool,
}

impl Args {
    fn takes(&self, event: &Envelope) -> bool {
        self.stream.as_ref().is_none_or(|stream| event.stream.starts_with(stream.as_str()))
            && self.kind.as_ref().is_none_or(|kind| event.kind == *kind)
    }
}

/// The line that people read.
fn line(event: &Envelope) -> String {
    let at = event.at.format("%Y-%m-%d %H:%M:%S");
    format!("{:>6} {at} {:20} {} ({})", event.seq, event.kind, event.stream, event.actor)
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    if args.follow {
        return follow(globals, &args);
    }
    let mut events: Vec<Envelope> = Vec::new();
    for event in globals.reader()?.events(args.from)? {
        let event = event?;
        if args.takes(&event) {
            events.push(event);
        }
    }
    if let Some(last) = args.last {
        events.drain(..events.len().saturating_sub(last));
    }
    let mut text = String::new();
    let mut lines = Vec::with_capacity(events.len());
    for event in &events {
        let _ = writeln!(text, "{}", line(event));
        lines.push(serde_json::to_value(event)?);
    }
    Ok(Output::lines(lines, text))
}

/// Prints events as they come, until nobody reads them any more.
fn follow(globals: &Globals, args: &Args) -> Result<Output, AppError> {
    for event in globals.reader()?.subscribe(args.from)? {
        let event = event?;
        if !args.takes(&event) {
            continue;
        }
        let text = if globals.json { serde_json::to_string(&event)? } else { line(&event) };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Output::lines(Vec::new(), ""))
}
