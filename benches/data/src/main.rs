//! Many rows, beside peers in the same run.
//!
//! `data-bench <folder> <what> [option...]`; `benches/README.md` says what each figure means.

mod child;
mod import;
mod near;
mod rows;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rows::Questions;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What is measured together.
type Part = fn(&Bench) -> Outcome<()>;

const USAGE: &str = "usage: data-bench <folder> <what> [option...]
what:
  make-rows <n> <file>   writes n rows as OpenAI's fine-tuning takes them
  import                 `ledger ingest` beside SQLite
  near                   near duplicates among queries, beside datasketch
options:
  --from <folder>        questions of BFCL [default: datasets/samples/bfcl]
  --ledger <binary>      a release build of ledger
  --rows <n>[,<n>...]    how many rows [default: 10000,1000000; near: 100000]
  --rounds <n>           rounds, of which the median counts [default: 3]
  --even-rejected        go on where rows are rejected, and say so";

/// What to measure, and where.
pub(crate) struct Bench {
    dir: PathBuf,
    from: PathBuf,
    ledger: Option<PathBuf>,
    rows: Vec<u64>,
    rounds: usize,
    even_rejected: bool,
}

impl Bench {
    fn questions(&self) -> Outcome<Questions> {
        let questions = Questions::read(&self.from)?;
        println!("rows are made of {} questions of BFCL", questions.len());
        Ok(questions)
    }
}

/// The folder of all benches.
fn benches() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The script of a peer.
pub(crate) fn peer(name: &str) -> PathBuf {
    benches().join("peers").join(name)
}

/// Says where and when it is measured.
fn machine(dir: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let system = Command::new("df").arg("--output=fstype").arg(dir).output();
    let system = system.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    format!(
        "{}: {} x {}, Linux {}, {}",
        chrono::Utc::now().format("%Y-%m-%d"),
        std::thread::available_parallelism().map_or(1, usize::from),
        model.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        system.unwrap_or_default().lines().last().unwrap_or_default(),
    )
}

fn arguments(given: &[String]) -> Outcome<(Bench, Vec<String>)> {
    let mut plain = Vec::new();
    let mut bench = Bench {
        dir: PathBuf::new(),
        from: benches().join("../datasets/samples/bfcl"),
        ledger: None,
        rows: Vec::new(),
        rounds: 3,
        even_rejected: false,
    };
    let mut given = given.iter();
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--from" => bench.from = value()?.into(),
            "--ledger" => bench.ledger = Some(std::path::absolute(value()?)?),
            "--rows" => {
                bench.rows = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?
            }
            "--rounds" => bench.rounds = value()?.parse::<usize>()?.max(1),
            "--even-rejected" => bench.even_rejected = true,
            other if other.starts_with("--") => return Err(format!("{other}?\n{USAGE}").into()),
            other => plain.push(other.to_owned()),
        }
    }
    let dir = if plain.is_empty() { return Err(USAGE.into()) } else { plain.remove(0) };
    bench.dir = std::path::absolute(dir)?;
    Ok((bench, plain))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    match given.split_first() {
        Some((first, rest)) if first == "--measured" => {
            let command: Vec<OsString> = rest.iter().map(OsString::from).collect();
            return child::measure(&command);
        }
        Some((first, [from, total])) if first == "--near" => {
            return near::here(Path::new(from), total.parse()?);
        }
        _ => {}
    }
    let (mut bench, what) = arguments(&given)?;
    fs::create_dir_all(&bench.dir)?;
    let what: Vec<&str> = what.iter().map(String::as_str).collect();
    if let ["make-rows", total, file] = what.as_slice() {
        let bytes = bench.questions()?.write(total.parse()?, Path::new(file))?;
        println!("{total} rows, {bytes} bytes");
        return Ok(());
    }
    let (part, rows): (Part, &[u64]) = match what.as_slice() {
        ["import"] => (import::import, &[10_000, 1_000_000]),
        ["near"] => (near::near, &[100_000]),
        _ => return Err(USAGE.into()),
    };
    if bench.rows.is_empty() {
        bench.rows = rows.to_vec();
    }
    println!("{}; {} rounds of the shorter parts", machine(&bench.dir), bench.rounds);
    part(&bench)
}
