//! `ledger log`.

use std::collections::VecDeque;
use std::io::{BufWriter, ErrorKind, StdoutLock, Write as _};

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
    let mut out = Lines { json: globals.json, out: BufWriter::new(std::io::stdout().lock()) };
    if args.follow {
        follow(globals, &args, &mut out)?;
    } else {
        list(globals, &args, &mut out)?;
    }
    // Everything is written by now.
    Ok(Output::lines(Vec::new(), ""))
}

/// Prints events as they are read, so that a log of any length needs little memory.
fn list(globals: &Globals, args: &Args, out: &mut Lines) -> Result<(), AppError> {
    let mut newest = VecDeque::new();
    for event in globals.reader()?.events(args.from)? {
        let event = event?;
        if !args.takes(&event) {
            continue;
        }
        let Some(last) = args.last else {
            if out.write(&event)? == Read::No {
                return Ok(());
            }
            continue;
        };
        newest.push_back(event);
        if newest.len() > last {
            newest.pop_front();
        }
    }
    for event in &newest {
        if out.write(event)? == Read::No {
            return Ok(());
        }
    }
    out.flush().map(drop)
}

/// Prints events as they come, until nobody reads them any more.
fn follow(globals: &Globals, args: &Args, out: &mut Lines) -> Result<(), AppError> {
    for event in globals.reader()?.subscribe(args.from)? {
        let event = event?;
        if args.takes(&event) && (out.write(&event)? == Read::No || out.flush()? == Read::No) {
            break;
        }
    }
    Ok(())
}

/// Lines on the standard output.
struct Lines {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

/// Whether somebody still reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Yes,
    No,
}

impl Lines {
    fn write(&mut self, event: &Envelope) -> Result<Read, AppError> {
        let text = if self.json { serde_json::to_string(event)? } else { line(event) };
        heard(writeln!(self.out, "{text}"))
    }

    fn flush(&mut self) -> Result<Read, AppError> {
        heard(self.out.flush())
    }
}

/// A reader that left (a pager, `head`) is no failure of ours; a disk that is full is one.
fn heard(written: std::io::Result<()>) -> Result<Read, AppError> {
    match written {
        Ok(()) => Ok(Read::Yes),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Read::No),
        Err(error) => Err(AppError::file("standard output")(error)),
    }
}
