//! Running the binary, and a tiny model to run it with.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A notebook's folder and the ways to run commands on it.
pub(crate) struct Bench {
    pub(crate) root: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The one JSON document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}: {:?}\n{}", self.out, self.err))
    }

    /// The JSON lines on standard output.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asserts success.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    /// Asserts a failure with this exit code, and returns its error document.
    pub(crate) fn fails(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        let last = self.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", self.err));
        error["error"].clone()
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// A bench with a notebook.
    pub(crate) fn with_notebook() -> Self {
        let bench = Self::new();
        bench.run(&["init"]).ok();
        bench
    }

    /// A bench of its own whose notebook begins as a copy of this one's.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        let status =
            Command::new("cp").arg("-r").arg(self.notebook()).arg(copy.notebook()).status();
        assert!(status.unwrap().success());
        copy
    }

    /// A bench whose notebook lies elsewhere, for as long as this one is kept.
    pub(crate) fn at(&self, place: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(self.path(place), root.path().join("notebook")).unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn notebook(&self) -> PathBuf {
        self.path("notebook")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ledger"));
        // Nothing of the machine's environment may steer a test.
        for key in
            ["LEDGER_DIR", "LEDGER_ACTOR", "LEDGER_TOKEN", "LEDGER_TEACHER", "LEDGER_TEACHER_KEY"]
        {
            command.env_remove(key);
        }
        command.arg("--dir").arg(self.notebook()).args(["--json", "--quiet"]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().unwrap())
    }

    /// Starts a command and returns it running, with the first line of its output.
    pub(crate) fn start(&self, arguments: &[&str]) -> (Running, Value) {
        started(self.command(arguments))
    }

    /// Starts a command from within a script of the shell, which ends with `exec "$@"`.
    pub(crate) fn start_with(&self, arguments: &[&str], script: &str) -> (Running, Value) {
        let inner = self.command(arguments);
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).arg(inner.get_program()).args(inner.get_args());
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        started(command)
    }
}

fn started(mut command: Command) -> (Running, Value) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let first = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    (Running(child), first)
}

/// A running command, killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Most memory that it ever took, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Asks it to end, as a service manager does, and waits.
    pub(crate) fn stop(mut self) -> i32 {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The tiny random model, written once.
pub(crate) fn tiny_model() -> &'static Path {
    static MODEL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MODEL.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        models::tiny::write(&path, 1).unwrap();
        (dir, path)
    });
    path
}

/// A recipe that takes seconds with the tiny model.
pub(crate) const TINY_RECIPE: &str = r#"
name = "tiny"
about = "for tests"
r = 4
alpha = 8.0
dropout = 0.1
modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
rates = [1e-2, 3e-2]
pilot_epochs = 1
epochs = 2
schedule = "cosine"
warmup = 0.1
weight_decay = 0.0
clip = 1.0
batch = 4
accumulate = 2
max_tokens = 4096
seed = "7"
"#;

/// Every file below a directory that holds one of the texts, in its bytes or in its path.
pub(crate) fn holding(dir: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, texts));
            continue;
        }
        // Bodies are named by digests whose first digits are the name of a folder.
        let name = path.to_string_lossy().replace('/', "").into_bytes();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let has = |text: &&str| [&name, &bytes].into_iter().any(|part| contains(part, text));
        if texts.iter().any(has) {
            found.push(path);
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

/// The folder of the shipped samples.
pub(crate) fn samples() -> String {
    format!("{}/datasets/samples", env!("CARGO_MANIFEST_DIR"))
}
