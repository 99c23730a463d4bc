#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ledger::catalogue::Reading;
use serde_json::{Value, json};

use super::*;
use crate::gold::{CallForm, first_call};
use crate::leak::leakage;
use crate::manifest::Stored;
use crate::samples::{episodes, path};
use crate::score::{CaseScore, Metrics, totals};

fn spec(track: &str, questions: &str) -> SuiteSpec {
    SuiteSpec {
        name: format!("{track}-teacher"),
        track: track.to_owned(),
        questions: format!("recorded/{questions}"),
        golds: vec![format!("{track}/train")],
        wider: vec!["structured/eval100".to_owned()],
        ..SuiteSpec::default()
    }
}

/// The suite of 50 toolcall questions that the recorded teacher answered.
pub(crate) fn toolcall_suite(first: u64) -> SuiteManifest {
    let questions = episodes("fledgling/recorded/toolcall_azure.jsonl", first + 1000);
    let golds = episodes("fledgling/toolcall/train.jsonl", first);
    let wider = episodes("fledgling/structured/eval100.jsonl", first + 2000);
    build_suite(&spec("toolcall", "toolcall_azure"), &questions, &golds, &wider).unwrap()
}

fn structured_suite() -> SuiteManifest {
    let questions = episodes("fledgling/recorded/structured_phi.jsonl", 0);
    let golds = episodes("fledgling/structured/train.jsonl", 1000);
    let wider = episodes("fledgling/structured/eval100.jsonl", 2000);
    build_suite(&spec("structured", "structured_phi"), &questions, &golds, &wider).unwrap()
}

/// Scores a recorded arm over all cases of `suite`.
fn arm(suite: &SuiteManifest, file: &str) -> Vec<CaseScore> {
    let rows = episodes(&format!("fledgling/recorded/{file}.jsonl"), 0);
    let answers = suite.recorded_answers(&rows);
    assert_eq!(answers.len(), suite.cases.len());
    let pairs = suite.cases.iter().zip(&answers);
    pairs
        .map(|(case, answer)| {
            score(suite.track(), &case.expected, answer.as_ref().map(|answer| answer.text.as_str()))
        })
        .collect()
}

fn strict(scores: &[CaseScore]) -> Metrics {
    totals(scores.iter().map(|score| score.strict))
}

fn lenient(scores: &[CaseScore]) -> Metrics {
    totals(scores.iter().map(|score| score.lenient))
}

fn near(found: Option<f64>, wanted: f64) -> bool {
    found.is_some_and(|found| (found - wanted).abs() < 5e-5)
}

#[test]
fn toolcall_suite_restores_the_golds_that_were_cut() {
    let suite = toolcall_suite(0);
    assert_eq!(suite.n(), 50);
    let strata: Vec<(String, u64)> = suite.strata().into_iter().map(|c| (c.name, c.n)).collect();
    assert_eq!(strata, [(SINGLE_CALL.to_owned(), 22), (TRUNCATED.to_owned(), 28)]);
    assert_eq!(suite.gold_against_gold(), 1.0);
    let cut: Vec<&Case> = suite.cases.iter().filter(|case| case.stratum == TRUNCATED).collect();
    let sizes: Vec<usize> = cut.iter().map(|case| case.gold_all.len()).collect();
    assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&2), Some(&23)));
    for case in &suite.cases {
        let Expected::Call { call } = &case.expected else { unreachable!() };
        assert_eq!(case.gold_all[0].name, call.name);
        assert_eq!(case.flags.contains(&"gold.truncated".to_owned()), case.stratum == TRUNCATED);
        assert!(
            case.gold_seq < 300 && case.seq >= 1000 && case.wider_seq.is_none_or(|seq| seq >= 2000)
        );
    }
}

#[test]
fn recorded_teacher_scores_as_published() {
    let suite = toolcall_suite(0);
    let scores = arm(&suite, "toolcall_azure");
    let all = strict(&scores);
    assert_eq!((all.n, all.valid.count, all.name.count, all.exact.count), (50, 40, 40, 32));
    assert!(near(all.micro.precision, 0.7778) && near(all.micro.recall, 0.7130));
    assert!(near(all.micro.f1, 0.7440));
    assert_eq!(lenient(&scores).valid.rate, Some(0.88));
    let exact = |stratum: &str| {
        let of = suite.cases.iter().zip(&scores).filter(|(case, _)| case.stratum == stratum);
        let of = totals(of.map(|(_, score)| score.strict));
        (of.exact.count, of.n)
    };
    assert_eq!((exact(SINGLE_CALL), exact(TRUNCATED)), ((17, 22), (15, 28)));
}

#[test]
fn recorded_small_model_is_understood_more_often_than_strict_reading_says() {
    let suite = toolcall_suite(0);
    let scores = arm(&suite, "toolcall_phi");
    assert_eq!((strict(&scores).valid.count, strict(&scores).exact.count), (0, 0));
    // Nine answers hold the wrapper itself with text around it: that is the figure that a reading
    // of wrappers alone gives. The others call in another form, which a program can read as well.
    let rows = episodes("fledgling/recorded/toolcall_phi.jsonl", 1);
    let mut forms: BTreeMap<CallForm, Vec<u64>> = BTreeMap::new();
    for (row, episode) in &rows {
        let text = episode.answer.as_ref().and_then(|answer| answer.text.clone()).unwrap();
        if let Some(found) = first_call(&text) {
            forms.entry(found.form).or_default().push(*row);
        }
    }
    assert_eq!(forms[&CallForm::Wrapper], [18, 19, 30, 32, 33, 35, 41, 43, 48]);
    assert_eq!(forms[&CallForm::Attribute], PHI_ATTRIBUTES);
    assert_eq!(forms[&CallForm::Object], PHI_OBJECTS);
    assert_eq!(lenient(&scores).valid.count, 9 + (PHI_ATTRIBUTES.len() + PHI_OBJECTS.len()) as u64);
}

const PHI_ATTRIBUTES: [u64; 20] =
    [2, 3, 4, 7, 9, 12, 13, 14, 15, 16, 17, 24, 25, 27, 28, 34, 38, 39, 45, 49];
const PHI_OBJECTS: [u64; 7] = [5, 6, 26, 29, 37, 40, 44];

#[test]
fn structured_arms_score_as_published() {
    let suite = structured_suite();
    assert_eq!(suite.n(), 50);
    let azure = arm(&suite, "structured_azure");
    let answered = || azure.iter().filter(|score| score.issues != ["answer_missing"]);
    let of_39 = totals(answered().map(|score| score.strict));
    assert_eq!((of_39.n, of_39.valid.count, of_39.exact.count), (39, 39, 8));
    assert!(near(of_39.micro.precision, 0.5561) && near(of_39.micro.recall, 0.6566));
    assert!(near(of_39.micro.f1, 0.6022));
    // The eleven questions that were skipped are failures.
    let of_50 = strict(&azure);
    assert_eq!((of_50.n, of_50.valid.count, of_50.exact.count), (50, 39, 8));
    assert!(of_50.micro.recall < of_39.micro.recall);
    let phi = strict(&arm(&suite, "structured_phi"));
    assert_eq!((phi.n, phi.valid.count, phi.exact.count), (50, 44, 2));
    assert!(near(phi.micro.f1, 0.3215));
    let strata: Vec<u64> = suite.strata().iter().map(|count| count.n).collect();
    assert_eq!(strata, [23, 27]);
}

#[test]
fn issue_tags_contain_those_that_were_published() {
    for (file, suite) in [
        ("toolcall_azure", toolcall_suite(0)),
        ("toolcall_phi", toolcall_suite(0)),
        ("structured_azure", structured_suite()),
        ("structured_phi", structured_suite()),
    ] {
        let name = format!("fledgling/recorded/{file}.jsonl");
        let text = std::fs::read_to_string(path(&name)).unwrap();
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (row, (_, episode)) in rows.iter().zip(episodes(&name, 0)) {
            let prompt = prompt_digest(episode.prompt_turns());
            let case = suite.cases.iter().find(|case| case.id == prompt.short()).unwrap();
            let answer = row["prediction"].as_str();
            let issues = score(suite.track(), &case.expected, answer).issues;
            let published: Vec<&str> =
                row["issues"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let has = |issue: &str| issues.iter().any(|found| found == issue);
            for issue in [
                "prediction_not_valid_json",
                "value_mismatch",
                "invalid_tool_call_format",
                "tool_name_mismatch",
                "arguments_mismatch",
            ] {
                assert_eq!(published.contains(&issue), has(issue), "{file} {prompt}: {issue}");
            }
            // A changed value was published as missing and extra, too; here it is a mismatch only.
            for issue in ["missing_fields", "extra_fields"] {
                let told = has(issue) || has("value_mismatch");
                assert!(!published.contains(&issue) || told, "{file} {prompt}: {issue}");
                assert!(!has(issue) || published.contains(&issue), "{file} {prompt}: {issue}");
            }
            assert_eq!(published.is_empty(), issues.is_empty(), "{file} {prompt}");
        }
    }
}

#[test]
fn leakage_is_seen_across_templates() {
    let suite = toolcall_suite(0);
    let train = episodes("fledgling/toolcall/train.jsonl", 0);
    let asked: Vec<String> = suite.cases.iter().map(|case| normalised(&case.query)).collect();
    let rest: Vec<(u64, &Episode)> = train
        .iter()
        .filter(|(_, row)| !asked.contains(&row.group()))
        .map(|(seq, row)| (*seq, row))
        .collect();
    assert_eq!(rest.len(), 250);
    // The questions of the structured suite are all among the rows, in other words around them.
    let other = structured_suite();
    let report = leakage(&rest, &other);
    assert_eq!(report.shared_questions.len(), 50);
    let prompts: Vec<&[Turn]> = rest.iter().map(|(_, row)| row.prompt_turns()).collect();
    assert!(other.cases.iter().all(|case| !prompts.contains(&case.turns.as_slice())));
    // Its own suite shares no question; the nearest pair differs in one number of a list.
    let own = leakage(&rest, &suite);
    assert!(own.shared_questions.is_empty());
    assert_eq!(own.max, 2.0 / 3.0);
    assert_eq!(own.nearest[0].similarity, own.max);
    let nearest = rest.iter().find(|(seq, _)| *seq == own.nearest[0].seq).unwrap();
    assert!(nearest.1.query.starts_with("Find the missing number in the list"));
}

fn normalised(query: &str) -> String {
    crate::template::normalise_query(query)
}

#[test]
fn identity_does_not_depend_on_event_numbers() {
    let (suite, later) = (toolcall_suite(0), toolcall_suite(7000));
    assert_ne!(suite, later);
    assert_eq!(suite.identity(), later.identity());
    let mut other = suite.clone();
    other.cases[3].query.push('x');
    assert_ne!(suite.identity(), other.identity());
    assert_eq!(SuiteManifest::from_stored(&suite.to_stored()).unwrap(), suite);
}

#[test]
fn bad_suites_are_refused() {
    let questions = episodes("fledgling/recorded/toolcall_azure.jsonl", 0);
    let made = |questions: &[(u64, Episode)], track: &str| {
        build_suite(&spec(track, "toolcall_azure"), questions, &[], &[])
    };
    assert!(matches!(made(&[], "toolcall"), Err(SuiteError::Empty { .. })));
    assert!(matches!(made(&questions, "chat"), Err(SuiteError::Track { .. })));
    assert!(matches!(made(&questions, "structured"), Err(SuiteError::NoGold { seq: 0, .. })));
    let twice = [questions[0].clone(), (9, questions[0].1.clone())];
    let twice = made(&twice, "toolcall");
    assert!(matches!(twice, Err(SuiteError::Duplicate { first: 0, second: 9, .. })));
    let mut other = questions[0].clone();
    other.1.gold =
        Gold::Calls { calls: vec![Call { name: "f".to_owned(), arguments: Map::new() }] };
    let differ = build_suite(&spec("toolcall", "x"), &questions[..1], &[(5, other.1.clone())], &[]);
    assert!(matches!(differ, Err(SuiteError::GoldsDiffer { first: 5, second: 0, .. })));
    // A name that the wrapper cannot carry makes a gold that nobody could match.
    other.1.gold =
        Gold::Calls { calls: vec![Call { name: "a\"b".to_owned(), arguments: Map::new() }] };
    let unscorable = build_suite(&spec("toolcall", "x"), &[(0, other.1)], &[], &[]);
    assert!(matches!(unscorable, Err(SuiteError::GoldAgainstGold { rate, .. }) if rate == 0.0));
}

#[test]
fn a_shorter_or_contradicting_list_restores_nothing() {
    let calls = |names: &[&str]| -> Vec<Call> {
        names.iter().map(|name| Call { name: (*name).to_owned(), arguments: Map::new() }).collect()
    };
    assert!(is_longer_list(&calls(&["f"]), &calls(&["g", "f"])));
    assert!(!is_longer_list(&calls(&["f"]), &calls(&["f"])));
    assert!(!is_longer_list(&calls(&["f"]), &calls(&["g", "h"])));
}

#[test]
fn missing_answers_have_no_reading() {
    let gold = Expected::Json { value: json!({ "a": 1 }) };
    assert_eq!(
        score("structured", &gold, None).strict,
        Reading { false_negatives: 1, ..Reading::default() }
    );
}

/// Returns the path of a real input; none, said aloud, where the shared inputs are not there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LEDGER_SHARED_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(name);
    if !path.exists() {
        eprintln!("SKIPPED: no {name} among the shared inputs (set LEDGER_SHARED_DATA)");
        return None;
    }
    Some(path)
}

#[test]
fn identities_stay_what_they_were() {
    let toolcall = toolcall_suite(0);
    let found = [
        toolcall.identity(),
        structured_suite().identity(),
        crate::score::scorer_digest("toolcall"),
        crate::score::scorer_digest("structured"),
        Digest::of(&toolcall.to_stored()),
    ];
    assert_eq!(
        found.map(|digest| digest.to_string()),
        [
            "546c0e6e280e5a9c84d5af803fcd0cebe1f577f365314b750cd885e38579aa6d",
            "fb05183a02a1ff9d7eb4989aa9e8d526e260172db5fa748bcfad1698af41aad8",
            "d46ba7ec948ba7bfc3a875463bed52135c0ace318157804cbfd58acf1560a964",
            "e0dc2f80a03cef4385436a5212a5b85dcae07a0c276bb8454efad2adf4b05a37",
            "46762784aa596d3a68ab0421b6862c9a6f10b6690aab4cad52bd4613e5bcab56",
        ]
    );
}
