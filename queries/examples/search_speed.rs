//! How fast the search index is built and searched, over made-up traces of the size and form of
//! BFCL's (about 2 KB each), while others come in.
//!
//! ```text
//! cargo run --release -p queries --example search_speed -- 1000000 50000 200
//! ```
//!
//! The arguments: traces; different bodies among them (traces share bodies, so that not all of
//! the time goes into making files; each is read, hashed and parsed for each of its traces);
//! queries of each class; and perhaps a directory to work in, which is removed at the end.
//!
//! Bodies are written without a sync: this measures reading, not `put_many`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datasets::{Call, Episode, Gold, Source, Tool, Turn};
use ledger::catalogue::{Location, TraceIngested};
use ledger::{BodyRef, Digest, NewEvent, Notebook, SystemClock};
use queries::search::{Filters, Follower, Index, Options, Sort};
use serde_json::json;

const WORDS: usize = 30_000;
const TOOLS: usize = 400;

/// xorshift64*: made-up data need no better one.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Draws a rank as words are drawn in texts: the second half as often as the first.
    fn rank(&mut self, n: usize) -> usize {
        let share = self.next() as f64 / u64::MAX as f64;
        ((n as f64).powf(share) as usize).saturating_sub(1).min(n - 1)
    }
}

/// Spells a rank as a word: short ones for frequent ranks.
fn word(rank: usize) -> String {
    let syllables = ["ka", "lo", "mi", "ne", "ru", "sta", "tor", "ve", "xi", "zan", "bre", "do"];
    let (mut word, mut left) = (String::new(), rank + 1);
    while left > 0 {
        word.push_str(syllables[left % syllables.len()]);
        left /= syllables.len();
    }
    word
}

fn sentence(dice: &mut Dice, words: usize) -> String {
    (0..words).map(|_| word(dice.rank(WORDS))).collect::<Vec<_>>().join(" ")
}

fn tool_name(rank: usize) -> String {
    format!("{}_{}", word(rank * 3), word(rank * 5 + 1))
}

/// Makes an episode as BFCL's live questions are: a system turn, a question, functions with
/// described parameters, a call as gold.
fn episode(dice: &mut Dice) -> Episode {
    let name = tool_name(dice.rank(TOOLS));
    let question = if dice.below(50) == 0 {
        "请问北京的当前天气状况如何？还有，上海的天气情况是怎样的？".to_owned()
    } else {
        let length = 15 + dice.below(25);
        sentence(dice, length)
    };
    let parameter = |dice: &mut Dice| {
        let description = sentence(dice, 22);
        json!({ "type": "string", "description": description, "enum": ["a", "b"] })
    };
    let parameters = json!({
        "type": "dict",
        "required": ["first"],
        "properties": {
            "first": parameter(dice), "second": parameter(dice), "third": parameter(dice),
            "fourth": parameter(dice), "fifth": parameter(dice),
        },
    });
    let mut arguments = serde_json::Map::new();
    arguments.insert("first".to_owned(), json!(sentence(dice, 2)));
    arguments.insert("second".to_owned(), json!(dice.below(1000)));
    let description = sentence(dice, 15);
    Episode {
        schema: 1,
        track: "toolcall".to_owned(),
        tools: vec![Tool { name: name.clone(), description, parameters }],
        turns: vec![Turn::text("system", sentence(dice, 20)), Turn::text("user", question.clone())],
        gold: Gold::Calls { calls: vec![Call { name, arguments }] },
        answer: None,
        query: question,
        source: Source {
            name: "bfcl/made-up".to_owned(),
            external_id: String::new(),
            location: Location { file: "made-up.json".to_owned(), row: 1 },
            format: "bfcl".to_owned(),
        },
        licence: "Apache-2.0".to_owned(),
        attribution: String::new(),
        subject: None,
        flags: vec![],
    }
}

/// Facts that traces are made of.
struct Made {
    facts: Vec<TraceIngested>,
    bytes: u64,
    /// Two words that stand side by side, of some of them.
    pairs: Vec<String>,
}

fn bodies(notebook: &Notebook, n: usize) -> Made {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut made = Made { facts: Vec::new(), bytes: 0, pairs: Vec::new() };
    for _ in 0..n {
        let episode = episode(&mut dice);
        let bytes = episode.to_bytes();
        let digest = Digest::of(&bytes);
        let path = notebook.blobs().path(&digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &bytes).unwrap();
        let length = bytes.len() as u64;
        made.bytes += length;
        let words: Vec<&str> = episode.query.split(' ').collect();
        if words.len() > 4 {
            made.pairs.push(format!("\"{} {}\"", words[2], words[3]));
        }
        made.facts.push(TraceIngested {
            source: format!("bfcl/{}", dice.below(8)),
            external_id: String::new(),
            format: "bfcl".to_owned(),
            location: episode.source.location.clone(),
            content: episode.content_digest(),
            body: BodyRef { digest, length, cipher: None, subject: None },
            licence: episode.licence.clone(),
            track: episode.track.clone(),
            tools: episode.tool_names(),
            flags: episode.flags.clone(),
            rules: Vec::new(),
            redacted: 0,
            aliases: Vec::new(),
            mapper: None,
        });
    }
    made
}

fn append(notebook: &Notebook, made: &Made, rows: std::ops::Range<usize>) {
    let events = rows.map(|row| {
        let facts = &made.facts[row % made.facts.len()];
        let facts = TraceIngested { external_id: format!("row-{row}"), ..facts.clone() };
        NewEvent::new("trace/made-up", format!("trace/{row}"), "speed", &facts).unwrap()
    });
    notebook.append(&[], events.collect()).unwrap();
}

fn size_of(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// A class of queries: makes one, with how it is asked.
type Class = (&'static str, fn(&mut Dice, &Made) -> String, Options);

fn frequent(dice: &mut Dice) -> String {
    word(dice.rank(2_000))
}

fn classes() -> Vec<Class> {
    let best = Options::best(20);
    let newest = Options { sort: Sort::Newest, ..best.clone() };
    let facets = Options { facets: vec!["tool".to_owned(), "source".to_owned()], ..best.clone() };
    vec![
        ("one word", |dice, _| frequent(dice), best.clone()),
        ("two words", |dice, _| format!("{} {}", frequent(dice), frequent(dice)), best.clone()),
        (
            "three words",
            |dice, _| format!("{} {} {}", frequent(dice), frequent(dice), frequent(dice)),
            best.clone(),
        ),
        (
            "two words, either",
            |dice, _| format!("{} OR {}", frequent(dice), frequent(dice)),
            best.clone(),
        ),
        ("phrase", |dice, made| made.pairs[dice.below(made.pairs.len())].clone(), best.clone()),
        ("Chinese phrase", |_, _| "上海的天气".to_owned(), best.clone()),
        (
            "word in a tool",
            |dice, _| format!("tool:{} {}", tool_name(dice.rank(TOOLS)), frequent(dice)),
            best.clone(),
        ),
        ("a tool", |dice, _| format!("tool:{}", tool_name(dice.rank(TOOLS))), best.clone()),
        ("word in a time", |dice, _| format!("{} time:>2020-01-01", frequent(dice)), best.clone()),
        ("word, newest first", |dice, _| frequent(dice), newest.clone()),
        ("all, newest first", |_, _| String::new(), newest),
        ("word, with facets", |dice, _| frequent(dice), facets.clone()),
        ("all, with facets", |_, _| String::new(), facets),
    ]
}

/// Reads how long this thread was on a processor, where the system tells: on a busy machine that
/// is what a query costs, and the time on the clock is what others take beside it.
fn on_processor() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Reads the processor time of all threads, in seconds (steps of 10 ms).
fn of_process() -> f64 {
    let told = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = told.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ticks.iter().sum::<f64>() / 100.0
}

fn measure(index: &Index, reader: &ledger::Reader, made: &Made, queries: usize) {
    let heads = ["index only", "on a processor", "20 hits told", "on a processor"];
    println!(
        "{:<20} {:>9}{}",
        "p50 p99 max, ms",
        "hits",
        heads.map(|h| format!("{h:>27}")).concat()
    );
    let (mut dice, mut whole) = (Dice(42), [Vec::new(), Vec::new()]);
    for (name, make, options) in classes() {
        let (mut times, mut hits) = ([const { Vec::new() }; 4], 0);
        for _ in 0..queries {
            let (query, filters) = (make(&mut dice, made), Filters::default());
            let (began, busy) = (Instant::now(), on_processor());
            index.refresh().unwrap();
            hits += index.find((&query, &filters), &options).unwrap().total;
            times[0].push(began.elapsed());
            times[1].push(on_processor() - busy);
            let (began, busy) = (Instant::now(), on_processor());
            index.search(reader, (&query, &filters), &options).unwrap();
            times[2].push(began.elapsed());
            times[3].push(on_processor() - busy);
        }
        whole[0].extend(times[0].iter().copied());
        whole[1].extend(times[1].iter().copied());
        let hits = hits / queries as u64;
        println!("{name:<20} {hits:>9}{}", times.map(quantiles).concat());
    }
    println!("{:<20} {:>9}{}", "all classes", "", whole.map(quantiles).concat());
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("{:>9.2}{:>9.2}{:>9.2}", at(0.5), at(0.99), at(1.0))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: usize| arguments.get(at).map_or(or, |n| n.parse().unwrap());
    let (n, different, queries) = (number(0, 100_000), number(1, 20_000), number(2, 200));
    let dir = arguments.get(3).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("search-speed-{}", std::process::id()));
    let clock = Arc::new(SystemClock);
    let notebook = Notebook::create(&dir, clock, "speed").unwrap();
    let made = bodies(&notebook, different.min(n));
    println!(
        "{n} traces over {} bodies of {} bytes on average",
        made.facts.len(),
        made.bytes / made.facts.len() as u64
    );
    let began = Instant::now();
    for first in (0..n).step_by(1_000) {
        append(&notebook, &made, first..(first + 1_000).min(n));
    }
    println!("appended {:.0}/s", n as f64 / began.elapsed().as_secs_f64());

    let (path, reader) = (dir.join("index"), notebook.reader());
    let mut index = Index::open_or_rebuild(&path).unwrap();
    let (began, busy) = (Instant::now(), of_process());
    let caught = index.catch_up(&reader).unwrap();
    let (took, busy) = (began.elapsed(), of_process() - busy);
    println!(
        "indexed {} traces in {took:.1?} ({busy:.1} s of processors): {:.0}/s, {} bytes each",
        caught.added,
        caught.added as f64 / took.as_secs_f64(),
        size_of(&path) / caught.added
    );

    println!("\nalone:");
    measure(&index, &reader, &made, queries);
    let (stop, rows) = (AtomicBool::new(false), AtomicU64::new(n as u64));
    std::thread::scope(|scope| {
        let follower = Follower::start(&path, reader.clone()).unwrap();
        scope.spawn(|| {
            // Some 1,000 traces a second come in.
            while !stop.load(Ordering::Relaxed) {
                let first = rows.fetch_add(100, Ordering::Relaxed) as usize;
                append(&notebook, &made, first..first + 100);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let began = Instant::now();
        println!("\nwhile others come in:");
        measure(&index, &reader, &made, queries);
        stop.store(true, Ordering::Relaxed);
        let came = rows.load(Ordering::Relaxed) - n as u64;
        let behind = follower.progress().unwrap().behind();
        println!("{came} came in within {:.1?}; the index was {behind} behind", began.elapsed());
    });
    fs::remove_dir_all(&dir).unwrap();
}
