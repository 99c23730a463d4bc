//! Processes that are measured: time, processor time and highest memory of each, by itself.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::Outcome;

/// What a process took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// From start to end.
    pub(crate) seconds: f64,
    /// Processor time, of user and system.
    pub(crate) processor: f64,
    /// Highest resident memory, in MB.
    pub(crate) megabytes: f64,
    /// What it wrote to its standard output.
    pub(crate) output: String,
}

/// Runs a command to its end, below a process of its own: the system tells the highest memory of
/// all children that ever ended, so that there may be one only.
pub(crate) fn measured(command: &[OsString]) -> Outcome<Taken> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--measured")
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{}: it ended with an error", command_line(command)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// That process: runs the command, and prints what it took.
pub(crate) fn measure(command: &[OsString]) -> Outcome<()> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let begun = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(format!("{}: {}", command_line(command), output.status).into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time =
        |value: nix::sys::time::TimeVal| value.tv_sec() as f64 + value.tv_usec() as f64 / 1e6;
    let taken = Taken {
        seconds,
        processor: time(usage.user_time()) + time(usage.system_time()),
        // Linux counts KiB.
        megabytes: usage.max_rss() as f64 * 1024.0 / 1e6,
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
    };
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// Puts a command together.
pub(crate) fn command(parts: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<OsString> {
    parts.iter().map(|part| part.as_ref().to_owned()).collect()
}

fn command_line(command: &[OsString]) -> String {
    command.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Median of several rounds, with the least and the greatest.
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn of(taken: &[Taken], figure: impl Fn(&Taken) -> f64) -> Self {
        let mut values: Vec<f64> = taken.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The median, and how far the rounds lie apart where there are several.
    pub(crate) fn text(&self, digits: usize) -> String {
        let median = self.median();
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) if self.0.len() > 1 => {
                format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
            }
            _ => format!("{median:.digits$}"),
        }
    }
}
