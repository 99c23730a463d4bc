#![allow(clippy::unwrap_used)]

use super::*;
use crate::episode::{Answer, Call, Gold, Tool, Turn};
use crate::samples::episodes;
use crate::suite::tests::toolcall_suite;

/// Returns references, as the checks take them.
fn refs(rows: &[(u64, Episode)]) -> Vec<(u64, &Episode)> {
    rows.iter().map(|(seq, row)| (*seq, row)).collect()
}

fn cases(found: &[Shared]) -> Vec<(&str, u64)> {
    found.iter().map(|shared| (shared.case.as_str(), shared.seq)).collect()
}

/// Rows that ask none of the suite's questions.
fn clean_rows(suite: &SuiteManifest) -> Vec<(u64, Episode)> {
    let asked: Vec<String> = suite.cases.iter().map(|c| normalise_query(&c.query)).collect();
    let rows = episodes("fledgling/toolcall/train.jsonl", 0);
    rows.into_iter().filter(|(_, row)| !asked.contains(&row.group())).collect()
}

#[test]
fn questions_in_the_context_of_a_row_are_found() {
    let suite = toolcall_suite(0);
    let mut rows = clean_rows(&suite);
    assert!(leakage(&refs(&rows), &suite).in_context.is_empty());
    let (first, second) = (suite.cases[3].clone(), suite.cases[7].clone());
    // As an example in the system text, and as an earlier turn.
    let example = format!("Example.\nQ: {}\nA: done", first.query.to_uppercase());
    rows[5].1.turns.insert(0, Turn::text("system", example));
    let (asked, reply) = (format!("\"{}\"", second.query), "Here you are.");
    rows[9].1.turns.splice(0..0, [Turn::text("user", asked), Turn::text("assistant", reply)]);
    let found = leakage(&refs(&rows), &suite);
    assert!(found.shared_questions.is_empty());
    let wanted = [(first.id.as_str(), rows[5].0), (second.id.as_str(), rows[9].0)];
    assert_eq!(cases(&found.in_context), wanted);
    // A row's own question is no context.
    let own = episodes("fledgling/recorded/toolcall_azure.jsonl", 900);
    let found = leakage(&refs(&own), &suite);
    assert_eq!((found.shared_questions.len(), found.in_context.len()), (50, 0));
}

#[test]
fn questions_are_found_wherever_a_row_shows_or_trains_on_them() {
    let suite = toolcall_suite(0);
    let rows = clean_rows(&suite);
    let case = suite.cases[3].clone();
    let arguments = serde_json::json!({ "deep": [{ "q": case.query }] });
    let call = Call { name: "f".to_owned(), arguments: arguments.as_object().unwrap().clone() };
    let calls = vec![call.clone()];
    let schema = serde_json::json!({ "properties": { "q": { "description": case.query } } });
    let tool = |description: &str, parameters| Tool {
        name: "f".to_owned(),
        description: description.to_owned(),
        parameters,
    };
    let mut turn = Turn::text("assistant", "");
    turn.tool_calls = calls.clone();
    let answer = |text: Option<String>, calls| Some(Answer { model: "m".to_owned(), text, calls });
    let options = vec![[("q".to_owned(), vec![serde_json::json!(case.query)])].into()];
    let any_of = Gold::AnyOf { calls: Vec::new(), options, in_order: true };
    let row = rows[5].1.clone();
    let shows = [
        Episode { turns: [vec![turn], row.turns.clone()].concat(), ..row.clone() },
        Episode { tools: vec![tool(&case.query, serde_json::Value::Null)], ..row.clone() },
        Episode { tools: vec![tool("", schema)], ..row.clone() },
        Episode { gold: Gold::Calls { calls: calls.clone() }, ..row.clone() },
        Episode { gold: Gold::Json { value: arguments.clone() }, ..row.clone() },
        Episode { gold: Gold::Text { text: format!("You ask: {}", case.query) }, ..row.clone() },
        Episode { gold: any_of, ..row.clone() },
        Episode { answer: answer(Some(case.query.clone()), Vec::new()), ..row.clone() },
        Episode { answer: answer(None, calls), ..row.clone() },
    ];
    let mut asks = rows[6].1.clone();
    asks.query = case.query.clone();
    for (place, row) in shows.into_iter().enumerate() {
        let found = leakage(&[(7, &row)], &suite);
        assert_eq!(cases(&found.in_context), [(case.id.as_str(), 7)], "{place}");
        assert_eq!(between(&[(7, &row)], &[(8, &asks)]).in_context.rows, 1, "{place}");
    }
    // A gold that repeats the question of its own row shows nothing beside it.
    let mut own = asks.clone();
    own.gold = Gold::Json { value: serde_json::json!({ "query": own.query }) };
    let found = leakage(&[(7, &own)], &suite);
    assert_eq!((found.shared_questions.len(), found.in_context.len()), (1, 0));
}

#[test]
fn reports_without_a_context_keep_their_form() {
    let report = leakage(&[], &toolcall_suite(0));
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(text, r#"{"shared_questions":[],"nearest":[],"max":0.0}"#);
    assert_eq!(serde_json::from_str::<LeakReport>(&text).unwrap(), report);
}

#[test]
fn a_prefix_that_quotes_the_suite_is_told() {
    let suite = toolcall_suite(0);
    let shipped = in_text(&suite, &crate::cep::Cep::toolcall().text);
    assert!(shipped.is_empty(), "{shipped:?}");
    let case = suite.cases.iter().find(|case| case.query.split(' ').count() > 12).unwrap();
    let quoted = in_text(&suite, &format!("Rules.\nExample: {} -> call it.", case.query));
    let found = quoted.iter().find(|found| found.part == Part::Question).unwrap();
    assert_eq!((&found.case, found.share), (&case.id, 1.0));
    // With one word changed it is still told.
    let mut words: Vec<&str> = case.query.split(' ').collect();
    words[2] = "otherwise";
    let found = in_text(&suite, &words.join(" "));
    let found = found.iter().find(|found| found.part == Part::Question).unwrap();
    assert!(found.case == case.id && found.share < 1.0 && found.share >= 0.7, "{found:?}");
    // The gold of a case, as a prefix would show it.
    let gold: Vec<&Case> = suite
        .cases
        .iter()
        .filter(|case| {
            let found = in_text(&suite, &case.expected.text());
            let is_own = |found: &InText| found.case == case.id && found.part == Part::Arguments;
            assert!(found.iter().all(is_own), "{found:?}");
            !found.is_empty()
        })
        .collect();
    assert!(gold.len() >= 25, "golds of two short numbers give nothing away: {}", gold.len());
    assert!(in_text(&suite, "").is_empty());
}

#[test]
fn no_report_quotes_a_question() {
    let suite = toolcall_suite(0);
    let rows = episodes("fledgling/toolcall/train.jsonl", 0);
    let report = serde_json::to_string(&between(&refs(&rows), &refs(&rows))).unwrap();
    let text = serde_json::to_string(&in_text(&suite, &suite.cases[0].query)).unwrap();
    for word in rows[0].1.query.split(' ').chain(suite.cases[0].query.split(' ')) {
        let is_word = word.len() > 4 && word.chars().all(char::is_alphabetic);
        assert!(!is_word || (!report.contains(word) && !text.contains(word)), "{word}");
    }
}

#[test]
fn two_samples_are_compared_without_a_suite() {
    let train = episodes("fledgling/toolcall/train.jsonl", 0);
    let eval = episodes("fledgling/structured/eval100.jsonl", 1000);
    let report = between(&refs(&train), &refs(&eval));
    assert_eq!((report.rows_a, report.rows_b), (300, 100));
    let questions = &report.shared_questions;
    assert_eq!((questions.rows, questions.distinct, questions.shown.len()), (100, 100, 20));
    assert_eq!((report.shared_prompts.rows, report.shared_ids.rows), (0, 0));
    assert_eq!((report.in_context.rows, report.near.rows), (0, 0));
    assert!(!report.is_clean());
    let best = report.nearest[0];
    assert!((best.similarity - 2.0 / 3.0).abs() < 1e-9 && best.a < 300 && best.b >= 1000);
}

#[test]
fn two_sets_share_contexts_and_near_questions() {
    let rows = episodes("fledgling/toolcall/train.jsonl", 0);
    let (mut a, mut b) = (rows[..10].to_vec(), rows[20..24].to_vec());
    assert!(between(&refs(&a), &refs(&b)).is_clean());
    let asked = "please tell me how many rows of seats the old theatre in the square has";
    b[0].1.query = asked.to_owned();
    a[2].1.turns.insert(0, Turn::text("user", format!("{asked}?")));
    b[1].1.query = format!("{asked} now");
    a[4].1.query = format!("{asked} today");
    let report = between(&refs(&a), &refs(&b));
    assert_eq!(report.in_context.shown, [RowPair { a: a[2].0, b: b[0].0 }]);
    assert_eq!((report.near.rows, report.shared_questions.rows), (2, 0));
    let near: Vec<(u64, u64)> = report.near.shown.iter().map(|pair| (pair.a, pair.b)).collect();
    assert_eq!(near, [(a[4].0, b[0].0), (a[4].0, b[1].0)]);
    assert_eq!(report.nearest[0].similarity, 13.0 / 14.0);
    assert!(!report.is_clean());
}

#[test]
fn thousands_of_rows_of_one_question_are_compared_once() {
    let row = episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0).1;
    let many: Vec<(u64, &Episode)> = (0..3_000).map(|seq| (seq, &row)).collect();
    let report = between(&many, &many);
    assert_eq!((report.shared_questions.rows, report.shared_questions.distinct), (3_000, 1));
    assert!(report.nearest.is_empty() && report.near.rows == 0);
}

mod shared_data {
    //! Published sets that leak, and published sets that do not. Which pairs are clean was computed
    //! by a program in another language, too: all eight below have no question, prompt, context or
    //! near duplicate in common, and their most similar questions are alike by .364 at most.
    use std::fs::File;
    use std::io::BufReader;
    use std::path::PathBuf;

    use super::*;
    use crate::ingest::{Format, Reading, SourceInfo, read};

    fn folder() -> Option<PathBuf> {
        let root = std::env::var_os("LEDGER_SHARED_DATA").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"))
        });
        let folder = root.join("fledgling");
        if !folder.is_dir() {
            eprintln!("SKIPPED: no shared data (set LEDGER_SHARED_DATA)");
            return None;
        }
        Some(folder)
    }

    /// Reads a file, without its rejected rows.
    fn rows(folder: &std::path::Path, name: &str, format: Format) -> Vec<(u64, Episode)> {
        let path = folder.join(format!("{name}.jsonl"));
        let info = SourceInfo::of_file(&path).unwrap();
        let reading = Reading::from(format);
        let input = BufReader::new(File::open(&path).unwrap());
        let all = read(input, &info, &reading).filter_map(|row| row.unwrap().result.ok()).flatten();
        (1..).zip(all).collect()
    }

    fn compare(a: &str, b: &str, format: Format) -> Option<PairReport> {
        let folder = folder()?;
        let (a, b) = (rows(&folder, a, format), rows(&folder, b, format));
        Some(between(&refs(&a), &refs(&b)))
    }

    /// Reads conversations whatever their golds are, so that the figures do not depend on how many
    /// golds can be read.
    fn conversations(folder: &std::path::Path, name: &str) -> Vec<(u64, Episode)> {
        let template = episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0).1;
        let text = std::fs::read_to_string(folder.join(format!("hermes/{name}.jsonl"))).unwrap();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut episode = template.clone();
            episode.source.external_id = row["id"].as_str().unwrap().to_owned();
            let messages = row["conversations"].as_array().unwrap().iter();
            let said =
                messages.map(|m| (m["from"].as_str().unwrap(), m["value"].as_str().unwrap()));
            let shown = said.filter(|(from, _)| *from != "gpt");
            episode.turns = shown
                .map(|(from, value)| {
                    Turn::text(if from == "system" { from } else { "user" }, value)
                })
                .collect();
            episode.query = episode.turns.last().unwrap().content.clone();
            episode
        };
        (1..).zip(text.lines().map(row)).collect()
    }

    #[test]
    fn hermes_sets_share_an_id_and_more_questions() {
        let Some(folder) = folder() else { return };
        let train = conversations(&folder, "hermes_train");
        for (other, questions) in [("hermes_val", 8), ("hermes_test", 10)] {
            let other_rows = conversations(&folder, other);
            let report = between(&refs(&train), &refs(&other_rows));
            assert_eq!((report.rows_a, report.rows_b), (100, 50));
            assert_eq!((report.shared_ids.distinct, report.shared_ids.rows), (1, 1), "{other}");
            // More questions than ids: the same passage stands under several ids.
            assert_eq!(report.shared_questions.rows, questions, "{other}");
            assert_eq!((report.in_context.rows, report.near.rows), (0, 0), "{other}");
            // As the reader reads them, too.
            let read = |name: &str| rows(&folder, &format!("hermes/{name}"), Format::Hermes);
            let report = between(&refs(&read("hermes_train")), &refs(&read(other)));
            assert_eq!((report.shared_ids.distinct, report.shared_ids.rows), (1, 1), "{other}");
        }
    }

    #[test]
    fn contaminated_split_of_the_seed_is_seen() {
        let file = |name: &str| format!("leak_fixture_c1f7355/structured_{name}");
        let report = compare(&file("train"), &file("test"), Format::PromptCompletion);
        let Some(report) = report else { return };
        assert_eq!((report.rows_a, report.rows_b), (32, 50));
        assert_eq!((report.shared_questions.rows, report.shared_prompts.rows), (32, 32));
    }

    #[test]
    fn eval100_is_train_under_another_template() {
        for (train, eval) in [
            ("structured", "structured"),
            ("toolcall", "toolcall"),
            ("structured", "toolcall"),
            ("toolcall", "structured"),
        ] {
            let (train, eval) =
                (format!("xlam_derived/{train}/train"), format!("xlam_derived/{eval}/eval100"));
            let Some(report) = compare(&train, &eval, Format::PromptCompletion) else { return };
            assert_eq!((report.shared_questions.rows, report.rows_b), (100, 100));
            assert_eq!((report.shared_prompts.rows, report.shared_ids.rows), (0, 0));
        }
    }

    #[test]
    fn clean_pairs_are_clean() {
        for track in ["toolcall", "structured"] {
            for (a, b) in
                [("train", "test"), ("train", "val"), ("val", "test"), ("test", "eval100")]
            {
                let file = |name: &str| format!("xlam_derived/{track}/{name}");
                let Some(report) = compare(&file(a), &file(b), Format::PromptCompletion) else {
                    return;
                };
                assert!(report.is_clean(), "{track} {a} {b}: {report:?}");
                let best = report.nearest.first().map_or(0.0, |pair| pair.similarity);
                assert!(best < 0.37, "{best}");
                assert_eq!(report.shared_ids.rows, 0);
            }
        }
    }
}
