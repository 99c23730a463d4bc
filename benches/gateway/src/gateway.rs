//! The gateway: a process of its own, with a notebook that goes when the bench ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::Outcome;

/// How often a process is looked at that may have come to rest.
const LOOKS: Duration = Duration::from_millis(250);
/// Ticks of a processor, of which there are 100 a second, that a process at rest takes in between.
const AT_REST: u64 = 1;
/// When it counts as one that never rests.
const RESTS_BY: Duration = Duration::from_secs(120);

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    binary: PathBuf,
    dir: TempDir,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

fn ledger(binary: &Path, dir: &TempDir) -> Command {
    let mut command = Command::new(binary);
    // Nothing of the machine's environment may steer a bench.
    for key in
        ["LEDGER_DIR", "LEDGER_ACTOR", "LEDGER_TOKEN", "LEDGER_TEACHER", "LEDGER_TEACHER_KEY"]
    {
        command.env_remove(key);
    }
    command.arg("--dir").arg(dir.path().join("notebook")).args(["--json", "--quiet"]);
    command.stdin(Stdio::null());
    command
}

impl Gateway {
    /// Starts it in front of a teacher.
    pub(crate) fn start(binary: &Path, teacher: SocketAddr) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let made = ledger(binary, &dir).arg("init").stdout(Stdio::null()).status()?;
        if !made.success() {
            return Err(format!("{} init: {made}", binary.display()).into());
        }
        let teacher = format!("http://{teacher}/v1");
        let mut child = ledger(binary, &dir)
            .args(["serve", "--teacher", &teacher, "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()?;
        match first_line(&mut child) {
            Ok(address) => Ok(Self { child, binary: binary.to_owned(), dir, address }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits until it has nothing more to do, and says how long that took. Answers leave before
    /// they are recorded, so that what is measured next would be measured beside the recording.
    pub(crate) fn rest(&self) -> Option<Duration> {
        let (begun, mut before) = (Instant::now(), ticks(self.child.id())?);
        while begun.elapsed() < RESTS_BY {
            std::thread::sleep(LOOKS);
            let now = ticks(self.child.id())?;
            if now.saturating_sub(before) <= AT_REST {
                return Some(begun.elapsed());
            }
            before = now;
        }
        None
    }

    /// Asks it to end, as a service manager does, and counts the calls in its record.
    pub(crate) fn stop(mut self) -> Outcome<usize> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let ended = self.child.wait()?;
        if !ended.success() {
            return Err(format!("the gateway ended with {ended}").into());
        }
        let mut log = ledger(&self.binary, &self.dir)
            .args(["log", "--kind", "call.captured"])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = log.stdout.take().map(|out| BufReader::new(out).lines());
        let calls = lines.into_iter().flatten().map_while(Result::ok).count();
        log.wait()?;
        Ok(calls)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the line that says where it listens.
fn first_line(child: &mut Child) -> Outcome<SocketAddr> {
    let out = child.stdout.as_mut().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let first: Value = serde_json::from_str(&line).map_err(|_| "the gateway did not start")?;
    let address = first["address"].as_str().ok_or("the gateway says no address")?;
    Ok(address.trim_start_matches("http://").parse()?)
}

/// Returns the ticks of a processor that a process took, where the system tells.
fn ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold spaces; user and system time stand 12 and 13 words behind.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(words.get(11)?.parse::<u64>().ok()? + words.get(12)?.parse::<u64>().ok()?)
}
