//! The kept corpus is read again by every run of the tests; `UPDATE_GOLDEN=1` writes its seeds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::search::shipped;

/// What takes the inputs of a target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 2] = [("query", super::query), ("saved", super::saved)];

/// Queries that use every piece of the language.
const QUERIES: [&str; 12] = [
    "weather",
    "\"the weather\" OR get_weather*",
    "-paris NOT (tokyo OR (osaka AND kyoto))",
    "tool:get_weather label:\"any value, \\\"quoted\\\"\"",
    "tool:get_* -tool:other",
    "score:<0.5 seq:17 score:[0 TO 0.5] score:>=1e-3",
    "time:>2026-11-01 time:[2026-01-01 TO 2026-01-02T03:04:05Z]",
    "東京の天気 \"天気は\" 天",
    "quality<0.5",
    "correction",
    "(((a) b) c",
    "What's up: \"is this {json: 1}\" (or not)?!",
];

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn write_seeds() {
    let put = |target: &str, name: &str, text: &str| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(format!("seed-{name}")), text).unwrap();
    };
    for (n, text) in QUERIES.iter().enumerate() {
        put("query", &n.to_string(), text);
    }
    for mut search in shipped().unwrap() {
        let name = std::mem::replace(&mut search.name, "fuzz".to_owned());
        put("saved", &format!("{name}-facts"), &search.to_value().unwrap().to_string());
        put("saved", &name, &toml::to_string(&search).unwrap());
    }
}

#[test]
fn the_kept_corpus_harms_nobody() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write_seeds();
    }
    for (name, target) in TARGETS {
        let files = fs::read_dir(corpus(name)).unwrap_or_else(|_| panic!("{name} has no corpus"));
        let inputs: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() >= 3, "{name}");
        for input in inputs {
            for end in (0..input.len()).step_by(1 + input.len() / 200) {
                target(&input[..end]);
            }
            target(&input);
        }
    }
}

/// The seeds are read as what they are, so that a fuzzer begins inside the languages.
#[test]
fn the_seeds_are_of_the_languages() {
    assert!(QUERIES.iter().all(|text| parse(text).is_ok()));
    for search in shipped().unwrap() {
        assert!(SavedSearch::parse(&search.name, &toml::to_string(&search).unwrap()).is_ok());
    }
}
