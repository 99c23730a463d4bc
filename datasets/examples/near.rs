//! Measures how long it takes to find near duplicates among many queries, and what is missed.
//!
//! ```text
//! cargo run -p datasets --example near -- FILE_OR_FOLDER [QUERIES] [SAMPLE]
//! ```
//!
//! The path names a text file with a query a line, or a folder with questions of the Berkeley
//! Function Calling Leaderboard. Where there are fewer than QUERIES (100,000), copies with edits
//! make up for it. SAMPLE (2,000) queries are compared with all before them to see what is missed.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use datasets::near::{NearDuplicate, earliest_near};
use datasets::template::normalise_query;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("which file or folder has the queries?")?;
    let wanted: usize = args.next().map_or(Ok(100_000), |n| n.parse())?;
    let sample: usize = args.next().map_or(Ok(2_000), |n| n.parse())?;
    let real = read(Path::new(&path))?;
    let queries = edited(&real, wanted);
    let bytes: usize = queries.iter().map(String::len).sum();
    println!("queries        {} ({} real), {bytes} bytes", queries.len(), real.len());
    let before = memory("VmRSS")?;
    let rule = NearDuplicate::default();
    let clock = Instant::now();
    let found = earliest_near(queries.iter().map(String::as_str), &rule);
    let seconds = clock.elapsed().as_secs_f64();
    println!("seconds        {seconds:.2}, with {:.2} of the processor in all", processor()?);
    println!("memory, kB     {before} before, at most {}", memory("VmHWM")?);
    println!("near           {} queries repeat an earlier one", found.iter().flatten().count());
    recall(&queries, &found, sample);

    let same: Vec<&str> = std::iter::repeat_n(queries[0].as_str(), wanted).collect();
    let clock = Instant::now();
    let found = earliest_near(same, &rule);
    let seconds = clock.elapsed().as_secs_f64();
    println!("all equal      {seconds:.2} seconds, {} repeat", found.iter().flatten().count());
    let made: Vec<String> = (0..wanted)
        .map(|n| format!("book a table for two in the town of t{n} and tell me what it costs us"))
        .collect();
    let clock = Instant::now();
    let found = earliest_near(made.iter().map(String::as_str), &rule);
    let seconds = clock.elapsed().as_secs_f64();
    println!("one template   {seconds:.2} seconds, {} repeat", found.iter().flatten().count());
    Ok(())
}

/// Compares a sample with all queries before it.
fn recall(queries: &[String], found: &[Option<(usize, f64)>], sample: usize) {
    let sets: Vec<BTreeSet<String>> = queries.iter().map(|query| shingles(query)).collect();
    let step = (queries.len() / sample.max(1)).max(1);
    let (mut pairs, mut same) = (0, 0);
    let mut looked_at = 0;
    for place in (0..queries.len()).step_by(step) {
        let wanted = sets[..place].iter().position(|set| jaccard(set, &sets[place]) >= 0.7);
        looked_at += 1;
        pairs += usize::from(wanted.is_some());
        same += usize::from(wanted == found[place].map(|(earlier, _)| earlier));
    }
    println!("exhaustive     {looked_at} looked at, {pairs} repeat; {same} with the same result");
}

/// Cuts a query into runs of three words, without any hash.
fn shingles(query: &str) -> BTreeSet<String> {
    let normalised = normalise_query(query);
    let words: Vec<&str> = normalised.split(' ').filter(|word| !word.is_empty()).collect();
    words.windows(words.len().clamp(1, 3)).map(|run| run.join(" ")).collect()
}

fn jaccard(left: &BTreeSet<String>, right: &BTreeSet<String>) -> f64 {
    let (least, most) = (left.len().min(right.len()), left.len().max(right.len()));
    // Most pairs are told apart by their sizes.
    if most == 0 || (least as f64 / most as f64) < 0.69 {
        return 0.0;
    }
    let shared = left.intersection(right).count();
    shared as f64 / (left.len() + right.len() - shared) as f64
}

/// Reads queries: lines of a file, or the user's messages in a folder of questions.
fn read(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    if path.is_file() {
        return Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect());
    }
    let mut files: Vec<_> =
        std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?.iter().map(|f| f.path()).collect();
    files.sort();
    let mut queries = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(&file)?.lines() {
            // One of the files is no list of questions.
            let Ok(row) = serde_json::from_str::<Value>(line) else { continue };
            let turns = row["question"].as_array().into_iter().flatten();
            let messages: Vec<&Value> = turns.filter_map(Value::as_array).flatten().collect();
            let asked = messages.iter().rev().find(|message| message["role"] == "user");
            queries.extend(asked.and_then(|m| m["content"].as_str()).map(str::to_owned));
        }
    }
    Ok(queries)
}

/// Makes up to `wanted` queries: the real ones, then copies with one to eight words changed.
fn edited(real: &[String], wanted: usize) -> Vec<String> {
    let mut queries: Vec<String> = real.iter().take(wanted).cloned().collect();
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    while queries.len() < wanted && !real.is_empty() {
        let mut words: Vec<String> =
            real[draw(real.len())].split_whitespace().map(str::to_owned).collect();
        for _ in 0..=draw(8) {
            let place = draw(words.len());
            match draw(3) {
                0 if !words.is_empty() => words[place] = format!("w{}", draw(5_000)),
                1 if !words.is_empty() => drop(words.remove(place)),
                _ => words.insert(place, format!("w{}", draw(5_000))),
            }
        }
        queries.push(words.join(" "));
    }
    queries
}

/// Reads a figure of this process in kB.
fn memory(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such figure")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}

/// Reads the seconds that this process has had of processors.
fn processor() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind = stat.rsplit_once(')').ok_or("no name")?.1;
    let ticks: f64 = behind.split_whitespace().nth(11).ok_or("no figure")?.parse()?;
    Ok(ticks / 100.0)
}
