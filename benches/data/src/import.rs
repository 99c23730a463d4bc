//! Importing: `ledger init` and `ledger ingest` beside a script that fills SQLite.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::child::{Rounds, Taken, command, measured};
use crate::{Bench, Outcome, peer};

/// Above so many rows one round is enough.
const LONG: u64 = 200_000;

/// Makes a file of rows.
pub(crate) fn rows(bench: &Bench, total: u64) -> Outcome<PathBuf> {
    let path = bench.dir.join(format!("rows-{total}.jsonl"));
    bench.questions()?.write(total, &path)?;
    Ok(path)
}

/// Where the notebook of a round lies. The last one is left there, for other parts.
pub(crate) fn notebook(bench: &Bench, total: u64, round: usize) -> PathBuf {
    bench.dir.join(format!("notebook-{total}-{round}"))
}

fn database(bench: &Bench, total: u64, round: usize) -> PathBuf {
    bench.dir.join(format!("sqlite-{total}-{round}"))
}

/// How often so many rows are imported.
fn rounds(bench: &Bench, total: u64) -> usize {
    if total > LONG { 1 } else { bench.rounds }
}

pub(crate) fn import(bench: &Bench) -> Outcome<()> {
    let ledger = bench.ledger.as_ref().ok_or("name a release build of ledger with --ledger")?;
    clear(bench, false)?;
    for &total in &bench.rows {
        let file = rows(bench, total)?;
        let megabytes = fs::metadata(&file)?.len() as f64 / 1e6;
        println!(
            "{total} rows, {megabytes:.0} MB, {:.0} bytes each",
            megabytes * 1e6 / total as f64
        );
        let (mut ours, mut sqlite, mut disk) = (Vec::new(), Vec::new(), (0.0, 0.0));
        for round in 0..rounds(bench, total) {
            let (notebook, database) =
                (notebook(bench, total, round), database(bench, total, round));
            ours.push(ingest(bench, (ledger, &notebook), &file, total)?);
            sqlite.push(fill(&database, &file, total)?);
            disk = (used(&notebook)?, used(&database)?);
        }
        let rate = |taken: &Taken| total as f64 / taken.seconds;
        let (us, them) = (Rounds::of(&ours, rate), Rounds::of(&sqlite, rate));
        say("ledger ingest", &ours, (total, megabytes, disk.0));
        say("SQLite, from Python", &sqlite, (total, megabytes, disk.1));
        println!("  ratio: {:.2} x the rows/s of SQLite", us.median() / them.median());
    }
    clear(bench, true)
}

/// Removes what the rounds made, at the end only: where many files were just removed, ext4 without
/// a journal is slow to make others. `keep` leaves the last notebook of each size.
fn clear(bench: &Bench, keep: bool) -> Outcome<()> {
    for entry in fs::read_dir(&bench.dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let last = |&total: &u64| path == notebook(bench, total, rounds(bench, total) - 1);
        let is_ours = name.starts_with("notebook-") || name.starts_with("sqlite-");
        if is_ours && !(keep && bench.rows.iter().any(last)) {
            fs::remove_dir_all(&path)?;
            if !keep {
                println!("{name} was removed: better measure five minutes later");
            }
        }
    }
    Ok(())
}

fn say(what: &str, taken: &[Taken], (total, megabytes, disk): (u64, f64, f64)) {
    let rate = Rounds::of(taken, |taken| total as f64 / taken.seconds);
    let input = Rounds::of(taken, |taken| megabytes / taken.seconds);
    println!(
        "  {what}: {} rows/s, {} MB/s of input, {} s of processor, at most {} MB resident, \
         {disk:.0} MB of disk",
        rate.text(0),
        input.text(1),
        Rounds::of(taken, |taken| taken.processor).text(1),
        Rounds::of(taken, |taken| taken.megabytes).text(0),
    );
}

/// Imports into a new notebook. Making that is not counted.
fn ingest(
    bench: &Bench,
    (ledger, notebook): (&Path, &Path),
    file: &Path,
    total: u64,
) -> Outcome<Taken> {
    measured(&command(&[&ledger, &"--dir", &notebook, &"--quiet", &"init"]))?;
    // Their writes must not be waited for by the next.
    rustix::fs::sync();
    let format = ["--format", "openai"];
    let taken = measured(&command(&[
        &ledger, &"--dir", &notebook, &"--quiet", &"--json", &"ingest", &format[0], &format[1],
        &file,
    ]))?;
    let report: Value = serde_json::from_str(&taken.output)?;
    if report["rows"] != total || report["accepted"] != total {
        let (rows, accepted) = (&report["rows"], &report["accepted"]);
        let why = report["files"][0]["rejections"][0].as_str().unwrap_or("no reason given");
        let said = format!("{total} rows, but {rows} were read and {accepted} accepted: {why}");
        if !bench.even_rejected {
            return Err(said.into());
        }
        println!("  NOT WHAT SHOULD BE MEASURED: {said}");
    }
    Ok(taken)
}

fn fill(folder: &Path, file: &Path, total: u64) -> Outcome<Taken> {
    fs::create_dir_all(folder)?;
    rustix::fs::sync();
    let script = peer("import_sqlite.py");
    let taken = measured(&command(&[&"python3", &script, &file, &folder.join("rows")]))?;
    let report: Value = serde_json::from_str(&taken.output)?;
    if report["rows"] != total {
        return Err(format!("{}: {report}", script.display()).into());
    }
    Ok(taken)
}

/// Disk that a folder takes, in MB.
fn used(path: &Path) -> Outcome<f64> {
    let mut megabytes = fs::symlink_metadata(path)?.blocks() as f64 * 512.0 / 1e6;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            megabytes += used(&entry?.path())?;
        }
    }
    Ok(megabytes)
}
