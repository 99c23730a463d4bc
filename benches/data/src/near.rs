//! Near duplicates: a split of many made-up episodes beside a MinHash index in Python.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use datasets::episode::{EPISODE_SCHEMA, Episode, Gold, Source, Turn};
use datasets::split::{SplitSpec, build_split, side_of};
use datasets::template::normalise_query;
use ledger::catalogue::Location;
use serde_json::{Value, json};

use crate::child::{Rounds, Taken, command, measured};
use crate::rows::Questions;
use crate::{Bench, Outcome, peer};

/// Version of the peer.
const PEER: &str = "datasketch==2.0.0";

/// Half of the rows are held out, so that half of the near duplicates stand on the other side.
fn spec() -> SplitSpec {
    SplitSpec { dev_fraction: 0.5, ..SplitSpec::default() }
}

pub(crate) fn near(bench: &Bench) -> Outcome<()> {
    let questions = bench.questions()?;
    let python = python(bench)?;
    for &total in &bench.rows {
        let file = bench.dir.join(format!("queries-{total}.jsonl"));
        queries(&questions, total, &file)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            let here = std::env::current_exe()?;
            ours.push(measured(&command(&[&here, &"--near", &bench.from, &total.to_string()]))?);
            if let Some(python) = &python {
                let rule = spec().near_duplicate;
                theirs.push(measured(&command(&[
                    python,
                    &peer("near_datasketch.py"),
                    &file,
                    &rule.shingle_words.to_string(),
                    &rule.permutations.to_string(),
                    &rule.threshold.to_string(),
                ]))?);
            }
        }
        println!("near duplicates among {total} queries");
        say("ours, build_split", &ours)?;
        if !theirs.is_empty() {
            say(PEER, &theirs)?;
            let seconds = |taken: &[Taken]| Rounds::of(taken, work).median();
            println!("  ratio: {:.2} x as fast", seconds(&theirs) / seconds(&ours));
        }
    }
    Ok(())
}

/// Seconds of the work itself, as the process says: without reading or making the queries.
fn work(taken: &Taken) -> f64 {
    let report: Value = serde_json::from_str(&taken.output).unwrap_or_default();
    report["seconds"].as_f64().unwrap_or(f64::NAN)
}

fn say(what: &str, taken: &[Taken]) -> Outcome<()> {
    let first = taken.first().ok_or("no round")?;
    let report: Value = serde_json::from_str(&first.output)?;
    println!(
        "  {what}: {} s, at most {} MB resident, found {}",
        Rounds::of(taken, work).text(2),
        Rounds::of(taken, |taken| taken.megabytes).text(0),
        report["found"]
    );
    Ok(())
}

/// Writes the queries for the peer, each with its side.
fn queries(questions: &Questions, total: u64, path: &Path) -> Outcome<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for n in 0..total {
        let query = questions.text(n);
        let side = side_of(&spec(), &normalise_query(&query));
        serde_json::to_writer(&mut file, &json!({ "query": query, "side": side }))?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(())
}

/// Makes the peer's environment, where that is possible.
fn python(bench: &Bench) -> Outcome<Option<PathBuf>> {
    let folder = bench.dir.join("venv");
    let python = folder.join("bin/python");
    let has = |python: &Path| {
        let run = Command::new(python).args(["-c", "import datasketch"]).output();
        run.is_ok_and(|run| run.status.success())
    };
    if has(&python) {
        return Ok(Some(python));
    }
    fs::create_dir_all(&bench.dir)?;
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
    let installed = made.is_ok_and(|made| made.success())
        && Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", PEER])
            .status()
            .is_ok_and(|installed| installed.success());
    if installed && has(&python) {
        return Ok(Some(python));
    }
    println!("SKIPPED: {PEER} cannot be installed: no peer for near duplicates");
    Ok(None)
}

/// The process that is measured: makes the episodes, splits them, and says how long that took.
pub(crate) fn here(from: &Path, total: u64) -> Outcome<()> {
    let questions = Questions::read(from)?;
    let rows: Vec<(u64, Episode)> =
        (0..total).map(|n| (n, episode(questions.text(n), n))).collect();
    let begun = Instant::now();
    let split = build_split(&spec(), &rows, &[])?;
    let seconds = begun.elapsed().as_secs_f64();
    let found = split.excluded.iter().filter(|row| row.near_duplicate_of.is_some()).count();
    println!("{}", json!({ "seconds": seconds, "found": found }));
    Ok(())
}

fn episode(query: String, n: u64) -> Episode {
    Episode {
        schema: EPISODE_SCHEMA,
        track: "chat".to_owned(),
        tools: Vec::new(),
        turns: vec![Turn::text("user", query.clone())],
        gold: Gold::Text { text: format!("answer {n}") },
        answer: None,
        query,
        source: Source {
            name: "bench".to_owned(),
            external_id: n.to_string(),
            location: Location { file: "bench".to_owned(), row: n },
            format: "openai".to_owned(),
        },
        licence: "Apache-2.0".to_owned(),
        attribution: String::new(),
        subject: None,
        flags: Vec::new(),
    }
}
