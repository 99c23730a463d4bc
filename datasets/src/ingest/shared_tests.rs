//! Whole real files, where they are at hand: every row is accepted or rejected, none is lost.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::*;
use crate::episode::{Gold, Turn};

/// Finds a file of the shared data; says aloud that a test is skipped where there is none.
pub(super) fn shared(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("LEDGER_SHARED_DATA").map_or(beside, PathBuf::from);
    let path = folder.join(name);
    let is_there = path.exists();
    if !is_there {
        eprintln!("SKIPPED: no {} (set LEDGER_SHARED_DATA)", path.display());
    }
    is_there.then_some(path)
}

/// Reads a file whose format is told by its content.
fn rows(path: &Path) -> (Format, Vec<Row>) {
    let open = || BufReader::new(File::open(path).unwrap());
    let format = detect(path, &head(open(), 64 * 1024).unwrap()).unwrap();
    let info = SourceInfo::of_file(path).unwrap();
    let rows: Vec<Row> = read(open(), &info, &format.into()).map(Result::unwrap).collect();
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in rows.iter().filter_map(|row| row.result.as_ref().err()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let accepted = rows.iter().filter(|row| row.result.is_ok()).count();
    let episodes: usize = rows.iter().flat_map(|row| &row.result).map(Vec::len).sum();
    let (name, n) = (path.file_name().unwrap().to_string_lossy(), rows.len());
    eprintln!("{name}: {format}, {n} rows, {accepted} accepted, {episodes} episodes, {reasons:?}");
    (format, rows)
}

fn episodes(rows: &[Row]) -> Vec<&Episode> {
    rows.iter().flat_map(|row| &row.result).flatten().collect()
}

#[test]
fn all_trajectories_of_tau_bench() {
    let Some(path) = shared("tau_bench/gpt-4o-airline.json") else { return };
    let (format, rows) = rows(&path);
    assert_eq!((format, rows.len()), (Format::TauBench, 200));
    assert!(rows.iter().all(|row| row.result.is_ok()));
    let all = episodes(&rows);
    // 1,164 messages call tools; 18 trajectories hold no call.
    assert_eq!(all.len(), 1_164 + 18);
    let firsts = rows.iter().map(|row| &row.result.as_ref().unwrap()[0]);
    let with = |flag: &str| firsts.clone().filter(|episode| episode.has_flag(flag)).count();
    assert_eq!((with("outcome.success"), with("outcome.failure")), (84, 116));
    let is_sound = |episode: &&Episode| {
        let has_calls = !episode.gold.calls().is_empty();
        has_calls == (episode.track == "toolcall")
            && episode.has_flag("gold.unchecked")
                == (has_calls && episode.has_flag("outcome.failure"))
    };
    assert!(all.iter().all(is_sound));
    let results = |turn: &&Turn| turn.role == "tool";
    let calls = |turn: &&Turn| !turn.tool_calls.is_empty();
    let last = all.iter().max_by_key(|episode| episode.turns.len()).unwrap();
    assert!(last.turns.iter().filter(results).count() > 2);
    assert!(last.turns.iter().filter(calls).count() > 2);
    assert!(all.iter().all(|episode| !episode.source.external_id.contains('~')));
}

#[test]
fn all_exchanges_of_openllmetry() {
    let Some(path) = shared("openllmetry/llm_http_exchanges.jsonl") else { return };
    let (format, rows) = rows(&path);
    assert_eq!((format, rows.len()), (Format::Exchange, 262));
    let all = episodes(&rows);
    let rejected = rows.iter().filter(|row| row.result.is_err()).count();
    assert_eq!(all.len() + rejected, 262);
    // Two hold images, six begin with a call of the model.
    assert_eq!((all.len(), rejected), (254, 8));
    let called = all.iter().filter(|episode| matches!(episode.gold, Gold::Calls { .. })).count();
    let offered = all.iter().filter(|episode| !episode.tools.is_empty()).count();
    assert_eq!((called, offered), (43, 49));
    assert!(all.iter().all(|episode| episode.answer.is_some() && !episode.query.is_empty()));
}

#[test]
fn all_langfuse_exports() {
    let Some(folder) = shared("langfuse_traces") else { return };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|path| path.to_string_lossy().ends_with(".trace.json"));
    assert_eq!(files.len(), 10);
    let counts = [
        ("agno", 2, 2),
        ("autogen", 1, 1),
        ("claude-agent", 4, 1),
        ("google-adk", 2, 2),
        ("langgraph", 2, 2),
        ("openai-agents", 2, 2),
        ("pydantic-ai-2025", 1, 1),
        ("pydantic-ai-tools", 4, 4),
        ("vercel", 1, 1),
        ("vertex", 1, 1),
    ];
    let mut all = BTreeMap::new();
    for path in files {
        let (format, rows) = rows(&path);
        assert_eq!(format, Format::LangfuseExport);
        let accepted = rows.iter().filter(|row| row.result.is_ok()).count();
        let name = path.file_name().unwrap().to_string_lossy();
        // Three turns of Claude's show nothing of what was asked: `{"content": "role"}`.
        let n = counts.iter().find(|(start, ..)| name.starts_with(start)).unwrap();
        assert_eq!((rows.len(), accepted), (n.1, n.2), "{name}");
        for episode in episodes(&rows) {
            assert!(episode.source.external_id.contains('/'));
            let id = episode.source.external_id.clone();
            assert!(all.insert(id, path.clone()).is_none());
        }
    }
}

#[test]
fn formats_of_whole_folders_are_told_apart() {
    let Some(folder) = shared("") else { return };
    let expected = [
        ("bfcl/question", "bfcl", 19),
        ("bfcl/question", "companion", 1),
        ("bfcl/possible_answer", "companion", 16),
        ("bfcl/multi_turn_func_doc", "companion", 12),
        ("fledgling/xlam_derived/toolcall", "prompt-completion", 4),
        ("fledgling/hermes", "hermes", 4),
        ("tau_bench", "tau-bench", 1),
        ("openllmetry", "exchange", 1),
        ("langfuse_traces", "langfuse-export", 10),
        ("fledgling/adapters", "cep-text", 1),
    ];
    let mut found: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let data = path.extension().is_some_and(|ending| ending == "json" || ending == "jsonl");
            if path.is_dir() {
                folders.push(path);
            } else if data {
                let first = head(BufReader::new(File::open(&path).unwrap()), 64 * 1024).unwrap();
                let what = match detect(&path, &first) {
                    Some(format) => format.name(),
                    None if is_companion(&path, &first) => "companion",
                    None => "none",
                };
                let dir = dir.strip_prefix(&folder).unwrap().display().to_string();
                *found.entry((dir, what.to_owned())).or_default() += 1;
            }
        }
    }
    found.iter().for_each(|((dir, what), n)| eprintln!("{dir}: {n} {what}"));
    for (dir, what, n) in expected {
        let key = (dir.to_owned(), what.to_owned());
        assert_eq!(found.get(&key), Some(&n), "{dir}: {what}");
    }
}

#[test]
fn the_prefix_of_fledgling_is_found() {
    let Some(path) = shared("fledgling/adapters/llama31_cep_metadata.json") else { return };
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(detect(&path, &bytes), Some(Format::CepText));
    let cep = cep_of(&path, &bytes).unwrap();
    assert_eq!(cep.name, "llama31_cep_metadata");
    assert!(
        cep.text.starts_with("<|formatting_rules|>")
            && cep.text.ends_with("<|end_formatting_rules|>")
    );
}
