#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::BufReader;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::episode::{Answer, Call, Gold, Tool, Turn};
use crate::gold::write_wrapper;
use crate::ingest::{Format, SourceInfo, read};
use crate::samples::episodes;
use crate::score::{Expected, first_choice};
use crate::suite::tests::shared;
use crate::suite::{NO_CALL, SEVERAL_CALLS, SINGLE_CALL, build_from, build_suite, survey};

fn spec(kind: Kind) -> SuiteSpec {
    SuiteSpec {
        name: "suite".to_owned(),
        track: "calls".to_owned(),
        questions: "made".to_owned(),
        select: Some(select(kind)),
        ..SuiteSpec::default()
    }
}

fn select(kind: Kind) -> Select {
    Select {
        kind,
        per_stratum: None,
        take: BTreeMap::new(),
        salt: "pepper".to_owned(),
        keep_out: Vec::new(),
        allow_short: false,
    }
}

fn with(kind: Kind, change: impl FnOnce(&mut Select)) -> SuiteSpec {
    let mut spec = spec(kind);
    change(spec.select.as_mut().unwrap());
    spec
}

fn build(spec: &SuiteSpec, rows: &[(u64, Episode)]) -> Result<SuiteManifest, SuiteError> {
    build_suite(spec, rows, &[], &[])
}

/// A row of one user turn, with a gold call and a tool of one required parameter.
fn row(query: &str) -> Episode {
    static FIRST: LazyLock<Episode> =
        LazyLock::new(|| episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0).1);
    let mut row = FIRST.clone();
    row.turns = vec![Turn::text("system", "Use the tools."), Turn::text("user", query)];
    row.query = query.to_owned();
    row.gold = Gold::Calls { calls: vec![call("f")] };
    row.tools = vec![tool("f", json!({ "a": { "type": "string" } }), &["a"])];
    row.flags.clear();
    row
}

fn call(name: &str) -> Call {
    Call { name: name.to_owned(), arguments: json!({ "a": 1 }).as_object().unwrap().clone() }
}

fn tool(name: &str, properties: Value, required: &[&str]) -> Tool {
    let parameters = json!({ "type": "object", "properties": properties, "required": required });
    Tool { name: name.to_owned(), description: String::new(), parameters }
}

/// A conversation as tau-bench has them: rules, then a customer and an agent by turns.
fn talk(users: &[&str]) -> Episode {
    let mut row = row(users.last().unwrap());
    row.turns = vec![Turn::text("system", "You are an airline agent.")];
    for said in users {
        row.turns.push(Turn::text("user", *said));
        let mut made = Turn::text("assistant", "");
        made.tool_calls = vec![call("get_user_details")];
        row.turns.push(made);
        row.turns.push(Turn::text("tool", "{\"membership\": \"gold\"}"));
        row.turns.push(Turn::text("assistant", "Anything else?"));
    }
    // The answer to the last turn is the gold.
    row.turns.truncate(row.turns.len() - 3);
    row
}

fn numbered(rows: Vec<Episode>) -> Vec<(u64, Episode)> {
    (0..).zip(rows).collect()
}

fn strata(suite: &SuiteManifest) -> Vec<(String, u64, u64)> {
    let strata = &suite.selected.as_ref().unwrap().strata;
    strata.iter().map(|s| (s.name.clone(), s.found, s.taken)).collect()
}

fn told(strata: &[(&str, u64)]) -> Vec<(String, u64, u64)> {
    strata.iter().map(|(name, n)| ((*name).to_owned(), *n, *n)).collect()
}

#[test]
fn rows_that_were_read_under_wrong_names_make_no_suite() {
    // What a script gets that asks rows of `conversations` for `messages`: no turns, no tools.
    let blank = |n: usize| {
        let mut row = row(&format!("question {n}"));
        (row.turns, row.tools, row.query) = (Vec::new(), Vec::new(), String::new());
        row
    };
    let rows = numbered((0..1893).map(blank).collect());
    for kind in Kind::KINDS {
        for allow_short in [false, true] {
            let spec = with(kind, |select| {
                select.per_stratum = Some(20);
                select.allow_short = allow_short;
            });
            let error = build(&spec, &rows).unwrap_err();
            assert!(matches!(&error, SuiteError::NothingFound { .. }));
            let said = error.to_string();
            let why = "1,893 rows looked at: 1,893 have no user turn";
            assert!(said.ends_with(why) && said.contains(kind.name()), "{said}");
            assert!(said.contains("made"), "{said}");
        }
    }
    let none = build(&spec(Kind::SingleTurn), &[]).unwrap_err();
    assert!(matches!(none, SuiteError::Empty { .. }), "{none}");
    // A survey tells the same without refusing.
    let nobody = BTreeSet::new();
    let rows = Rows { questions: &rows, golds: &[], wider: &[], keep_out: &nobody };
    let found = survey(&spec(Kind::SingleTurn), &rows).unwrap();
    assert_eq!((found.looked_at, found.taken()), (1893, 0));
}

#[test]
fn single_turns_fall_into_strata_by_their_tools() {
    let text = json!({ "type": "string" });
    let several = |n: usize| {
        let mut row = row(&format!("several {n}"));
        row.tools = vec![tool("f", json!({}), &[]), tool("g", json!({}), &[])];
        row
    };
    let one = |n: usize, properties: Value, required: &[&str]| {
        let mut row = row(&format!("one {n}"));
        row.tools = vec![tool("f", properties, required)];
        row
    };
    let list = |items: Value| json!({ "a": { "type": "array", "items": items } });
    let simple = [
        one(1, json!({ "a": text, "b": { "type": "integer" } }), &["a", "b"]),
        one(2, json!({}), &[]),
        one(3, list(json!({ "type": "string" })), &["a"]),
    ];
    let moderate =
        [one(4, json!({ "a": text, "b": text }), &["a"]), one(5, json!({ "a": text }), &[])];
    let complex = [
        one(6, json!({ "a": { "type": "dict" } }), &["a"]),
        one(7, json!({ "a": { "properties": {} } }), &["a"]),
        one(8, list(json!({ "type": "object" })), &["a"]),
        one(9, list(json!({ "type": "array", "items": text })), &["a"]),
        one(10, json!({ "a": { "anyOf": [text, { "type": ["null", "object"] }] } }), &["a"]),
        several(11),
    ];
    let mut rows: Vec<Episode> = simple.into_iter().chain(moderate).chain(complex).collect();
    let mut unknown = row("unknown");
    unknown.tools[0].parameters = Value::Null;
    let mut nothing = row("nothing");
    nothing.tools.clear();
    rows.extend([unknown, nothing, talk(&["a", "b"])]);
    let suite = build(&spec(Kind::SingleTurn), &numbered(rows)).unwrap();
    let wanted = [(super::strata::SIMPLE, 3), (super::strata::MODERATE, 2)];
    let wanted: Vec<_> = wanted.into_iter().chain([(super::strata::COMPLEX, 6)]).collect();
    assert_eq!(strata(&suite), told(&wanted));
    let selected = suite.selected.as_ref().unwrap();
    assert_eq!(selected.looked_at, 14);
    let lacked: Vec<(&str, u64)> =
        selected.lacked.iter().map(|count| (count.name.as_str(), count.n)).collect();
    let reasons = [
        ("have a tool whose parameters are unknown", 1),
        ("have more than one user turn", 1),
        ("have no tool on offer", 1),
    ];
    assert_eq!(lacked, reasons);
    // Cases carry what a prompt needs.
    assert!(suite.cases.iter().all(|case| !case.tools.is_empty() && !case.turns.is_empty()));
    let counted: u64 = suite.strata().iter().map(|count| count.n).sum();
    assert_eq!((counted, suite.n()), (11, 11));
}

#[test]
fn multi_turns_fall_into_strata_by_their_turns() {
    let rows = vec![
        talk(&["Book a flight.", "No, the other one."]),
        talk(&["Book a flight.", "Oslo", "ACTUALLY make it Bergen"]),
        talk(&["Book a flight.", "wait... two seats"]),
        // Parts of words are not words: nothing is corrected here.
        talk(&["Book a flight.", "I know the waiter; it is instead-of-nothing"]),
        talk(&["Book now.", "the note says nowhere"]),
        // Only the last user turn counts.
        talk(&["Book a flight.", "No, not that.", "Yes."]),
        talk(&["Hello.", "Book a flight.", "Two seats."]),
        row("What is the weather?"),
    ];
    let suite = build(&spec(Kind::MultiTurn), &numbered(rows)).unwrap();
    let wanted = [("clarification", 4), ("context-dependent", 2), ("sequential", 1)];
    assert_eq!(strata(&suite), told(&wanted));
    let said = suite.selected.as_ref().unwrap().sentence();
    assert_eq!(said, "8 rows looked at: 1 have one user turn only");
    let talk = suite.cases.iter().find(|case| case.query == "Yes.").unwrap();
    assert_eq!(talk.stratum, "context-dependent");
    assert_eq!(talk.turns.iter().filter(|turn| turn.role == "user").count(), 3);
}

#[test]
fn domains_are_told_by_words() {
    let about = |query: &str, tool_name: &str, description: &str| {
        let mut row = row(query);
        row.tools[0].name = tool_name.to_owned();
        row.tools[0].description = description.to_owned();
        row.gold = Gold::Calls { calls: vec![call(tool_name)] };
        row
    };
    let rows = [
        (about("Is it cold in Oslo?", "get_weather_forecast", "Temperature of a place"), "weather"),
        (about("Plan it", "createCalendarEvent", "Makes a meeting"), "calendar"),
        (about("How far is it?", "route", "Gives the distance and directions"), "maps"),
        (about("I want two", "add_to_cart", "Puts a product into the order"), "ecommerce"),
        (about("What is it worth?", "stock_price", "Price of stocks"), "finance"),
        (about("Tell her", "sendEmail", "Sends a message to a recipient"), "communication"),
        (about("Say it aloud", "tweet", "Posts a tweet to followers"), "social"),
        (about("Keep it", "save_file", "Writes a document to a folder"), "files"),
        (about("Which ones?", "run_sql", "Queries a database table"), "database"),
        (about("Who was it?", "web_search", "Finds articles"), "search"),
        // `border` is no order, `windows` no wind, `brain` no rain, `searching` is no word of ours.
        (about("Cross the border of windows", "brain", "Is for searching"), "other"),
        // One word of two domains each: the one that stands first.
        (about("weather database", "f", ""), "weather"),
        (about("database weather", "f", ""), "weather"),
        (about("find the table", "f", ""), "database"),
    ];
    for (row, domain) in &rows {
        assert_eq!(super::super::domain::of(row), *domain, "{}", row.query);
    }
    let rows = numbered(rows.into_iter().map(|(row, _)| row).collect());
    let suite = build(&spec(Kind::DomainDiverse), &rows).unwrap();
    assert_eq!(strata(&suite).len(), 11);
    assert_eq!(suite.n(), 14);
}

#[test]
fn irrelevance_is_rows_for_which_no_call_is_right() {
    let mut idle = row("Sing me a song");
    idle.gold = Gold::NoCall;
    let rows = numbered(vec![idle, row("Call f")]);
    let suite = build(&spec(Kind::Irrelevance), &rows).unwrap();
    assert_eq!(strata(&suite), told(&[("irrelevance", 1)]));
    assert_eq!(
        (suite.cases[0].expected.clone(), suite.cases[0].tool.as_str()),
        (Expected::NoCall, "")
    );
    // No other track can score them, and says so.
    let mut other = spec(Kind::Irrelevance);
    other.track = "toolcall".to_owned();
    let said = build(&other, &rows).unwrap_err().to_string();
    assert!(said.contains("1 have no call as gold, which is scored on track calls"), "{said}");
}

#[test]
fn what_is_taken_depends_on_salt_and_question_alone() {
    let rows = numbered((0..40).map(|n| row(&format!("question {n}"))).collect());
    let spec = with(Kind::SingleTurn, |select| {
        select.take = BTreeMap::from([("simple".to_owned(), 10)]);
    });
    let ids = |suite: &SuiteManifest| -> Vec<String> {
        suite.cases.iter().map(|case| case.id.clone()).collect()
    };
    let suite = build(&spec, &rows).unwrap();
    assert_eq!(suite.n(), 10);
    // Other events in another order: the same cases in the same order, and the same identity.
    let turned: Vec<(u64, Episode)> =
        (100..).zip(rows.iter().rev().map(|(_, row)| row.clone())).collect();
    let again = build(&spec, &turned).unwrap();
    assert_eq!((ids(&again), again.identity()), (ids(&suite), suite.identity()));
    // Half as many rows: whatever was taken and is still there stays.
    let half = build(&spec, &rows[..20]).unwrap();
    let kept = ids(&suite).into_iter().filter(|id| ids(&half).contains(id)).count();
    let there = suite.cases.iter().filter(|case| case.seq < 20).count();
    assert_eq!((kept, there > 0 && there < 10), (there, true));
    // A row that is added pushes one out at most.
    for n in 40..60 {
        let mut more = rows.clone();
        more.push((999, row(&format!("question {n}"))));
        let more = build(&spec, &more).unwrap();
        let stay = ids(&suite).iter().filter(|id| ids(&more).contains(id)).count();
        assert!(stay >= 9);
        // What was looked at is told, and is no part of the identity.
        assert_eq!(more.identity() == suite.identity(), stay == 10);
        assert_eq!(more.selected.as_ref().unwrap().looked_at, 41);
    }
    let other = with(Kind::SingleTurn, |select| {
        select.take = BTreeMap::from([("simple".to_owned(), 10)]);
        select.salt = "salt".to_owned();
    });
    assert_ne!(ids(&build(&other, &rows).unwrap()), ids(&suite));
}

#[test]
fn equal_questions_count_once_and_trained_ones_not_at_all() {
    let mut rows = vec![row("What is it?"), row("  what IS it"), row("Known?"), row("New?")];
    rows[1].gold = Gold::Calls { calls: vec![call("g")] };
    // One question in other words before it is another conversation.
    rows.extend([talk(&["Hi.", "Yes."]), talk(&["Ho.", "Yes."]), talk(&["hi", "YES!"])]);
    let rows = numbered(rows);
    let keep_out = BTreeSet::from(["known".to_owned()]);
    let all = Rows { questions: &rows, golds: &[], wider: &[], keep_out: &keep_out };
    let single = with(Kind::SingleTurn, |select| select.keep_out = vec!["model".to_owned()]);
    let suite = build_from(&single, &all).unwrap();
    let mut taken: Vec<u64> = suite.cases.iter().map(|case| case.seq).collect();
    taken.sort_unstable();
    assert_eq!(taken, [0, 3], "the earliest of equal questions stays");
    let selected = suite.selected.clone().unwrap();
    assert_eq!((selected.kept_out, selected.asked_again), (1, 1));
    assert_eq!(
        selected.sentence(),
        "7 rows looked at: 3 have more than one user turn, 1 stand in a dataset to keep out, \
         1 ask what an earlier row asks"
    );
    let talks = build(&spec(Kind::MultiTurn), &rows).unwrap();
    assert_eq!((talks.n(), talks.selected.unwrap().asked_again), (2, 1));
    // Names of datasets without their questions would let all of them in.
    let error = build(&single, &rows).unwrap_err();
    assert!(matches!(&error, SuiteError::KeepOut { datasets, .. } if datasets == "model"));
    // Rows are accounted for, each once.
    let counted: u64 = selected.lacked.iter().map(|count| count.n).sum();
    let found: u64 = selected.strata.iter().map(|stratum| stratum.found).sum();
    assert_eq!(counted + selected.kept_out + selected.asked_again + found, selected.looked_at);
}

#[test]
fn short_strata_are_refused_unless_they_are_allowed() {
    let mut rows: Vec<Episode> = (0..3).map(|n| row(&format!("question {n}"))).collect();
    rows.push(talk(&["a", "b"]));
    let rows = numbered(rows);
    let few = |allow_short: bool| {
        with(Kind::SingleTurn, |select| {
            select.per_stratum = Some(2);
            select.take = BTreeMap::from([("complex".to_owned(), 1)]);
            select.allow_short = allow_short;
        })
    };
    let said = build(&few(false), &rows).unwrap_err().to_string();
    assert!(said.contains("moderate 0 of 2, complex 0 of 1;"), "{said}");
    let suite = build(&few(true), &rows).unwrap();
    assert_eq!(suite.n(), 2);
    assert_eq!(
        describe(&suite),
        "4 rows looked at: 1 have more than one user turn\n\
         stratum     asked    found    taken\n\
         simple          2        3        2\n\
         moderate        2        0        0  short\n\
         complex         1        0        0  short"
    );
    let nothing = with(Kind::SingleTurn, |select| select.per_stratum = Some(0));
    assert!(matches!(build(&nothing, &rows), Err(SuiteError::NothingAsked { found: 3, .. })));
    let unknown = with(Kind::SingleTurn, |select| {
        select.take = BTreeMap::from([("hard".to_owned(), 1)]);
    });
    let said = build(&unknown, &rows).unwrap_err().to_string();
    assert!(said.contains("\"hard\" (known: simple, moderate, complex)"), "{said}");
}

#[test]
fn all_rows_fall_into_strata_by_their_calls() {
    let mut rows = vec![row("one"), row("two"), row("none"), row("text"), row("json"), row("what")];
    rows[1].gold = Gold::Calls { calls: vec![call("f"), call("g")] };
    rows[2].gold = Gold::NoCall;
    rows[3].gold = Gold::Text { text: "Hello".to_owned() };
    rows[4].gold = Gold::Json { value: json!({}) };
    rows[5].gold = Gold::None;
    let rows = numbered(rows);
    let mut all = spec(Kind::All);
    all.sealed = true;
    let suite = build(&all, &rows).unwrap();
    assert_eq!(strata(&suite), told(&[(SINGLE_CALL, 1), (SEVERAL_CALLS, 1), (NO_CALL, 1)]));
    assert!(suite.is_sealed());
    let stored = crate::manifest::Stored::to_stored(&suite);
    let back: SuiteManifest = crate::manifest::Stored::from_stored(&stored).unwrap();
    assert_eq!(back, suite);
    assert_eq!(
        suite.selected.as_ref().unwrap().sentence(),
        "6 rows looked at: 1 have a JSON value as gold, which is scored on track structured, \
         1 have a text as gold, which says nothing about calls, 1 have no gold"
    );
    // Without a selection every row must have a gold that the track scores.
    let plain = SuiteSpec { select: None, sealed: false, ..all };
    let said = build(&plain, &rows[..4]).unwrap_err().to_string();
    assert!(said.contains("event 3") && said.contains("a text as gold"), "{said}");
    let suite = build(&plain, &rows[..3]).unwrap();
    let names: Vec<&str> = suite.cases.iter().map(|case| case.stratum.as_str()).collect();
    assert_eq!(names, [SINGLE_CALL, SEVERAL_CALLS, NO_CALL]);
    assert!(suite.cases.iter().all(|case| case.tools.is_empty()));
    assert!(!suite.is_sealed() && suite.selected.is_none());
    assert!(describe(&suite).starts_with("stratum"));
}

#[test]
fn recorded_calls_are_answers_on_the_track_calls() {
    let mut asked = row("one");
    asked.gold = Gold::Calls { calls: vec![call("f"), call("g")] };
    let suite = build(&spec(Kind::All), &numbered(vec![asked.clone()])).unwrap();
    let calls = vec![call("f"), call("g")];
    let wrappers = calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n");
    let text = Some("Let me see.".to_owned());
    asked.answer = Some(Answer { model: "m".to_owned(), text, calls });
    let found = suite.recorded_answers(&[(5, asked)]);
    assert_eq!(found[0].as_ref().unwrap().text, wrappers);
}

#[test]
fn old_specs_keep_their_bytes() {
    let old = json!({
        "name": "n", "track": "toolcall", "questions": "q", "golds": ["g"], "wider": [],
    });
    let spec: SuiteSpec = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), old);
    assert_eq!(spec.sources(), ["q"]);
    let mut new = with(Kind::DomainDiverse, |select| select.per_stratum = Some(5));
    new.more_questions = vec!["r".to_owned()];
    assert_eq!(new.sources(), ["made", "r"]);
    let written = serde_json::to_value(&new).unwrap();
    assert_eq!(
        written["select"],
        json!({ "kind": "domain-diverse", "per_stratum": 5, "salt": "pepper" })
    );
    assert_eq!(serde_json::from_value::<SuiteSpec>(written).unwrap(), new);
    for kind in Kind::KINDS {
        assert_eq!(kind.name().parse::<Kind>(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.name()));
    }
    assert!("double-turn".parse::<Kind>().unwrap_err().contains("known: single-turn"));
}

fn hermes(name: &str) -> Option<(usize, Vec<(u64, Episode)>)> {
    let path = shared(&format!("fledgling/hermes/{name}.jsonl"))?;
    let source = SourceInfo {
        name: format!("hermes/{name}"),
        file: name.to_owned(),
        licence: "Apache-2.0".to_owned(),
        attribution: "NousResearch".to_owned(),
    };
    let reading = Format::Hermes.into();
    let rows: Vec<_> = read(BufReader::new(File::open(path).unwrap()), &source, &reading)
        .map(|row| row.unwrap().result)
        .collect();
    let all = rows.len();
    Some((all, (0..).zip(rows.into_iter().flatten().flatten()).collect()))
}

#[test]
fn strata_of_hermes() {
    let Some((rows, train)) = hermes("hermes_train") else { return };
    assert_eq!((rows, train.len()), (100, 95));
    for kind in Kind::KINDS {
        let nobody = BTreeSet::new();
        let all = Rows { questions: &train, golds: &[], wider: &[], keep_out: &nobody };
        eprintln!("{}:\n{}", kind.name(), survey(&spec(kind), &all).unwrap());
    }
    let suite = build(&spec(Kind::SingleTurn), &train).unwrap();
    assert_eq!(suite.gold_against_gold(), 1.0);
    assert_eq!(strata(&suite), told(&HERMES_SINGLE));
    // All of its rows have one user turn: that is said, and no suite of nothing is made.
    let said = build(&spec(Kind::MultiTurn), &train).unwrap_err().to_string();
    assert!(said.contains(&format!("{0} have one user turn only", train.len())), "{said}");
}

/// Of 100 rows five have a gold that cannot be read, and seven ask what another row asks.
const HERMES_SINGLE: [(&str, u64); 3] = [("simple", 32), ("moderate", 1), ("complex", 55)];

/// Questions of the leaderboard with their possible answers.
fn bfcl(name: &str) -> Option<Vec<Episode>> {
    let lines = |folder: &str| {
        let path = shared(&format!("bfcl/{folder}/BFCL_v4_{name}.json"))?;
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Some(rows)
    };
    let (questions, answers) = (lines("question")?, lines("possible_answer")?);
    let episode = |(question, answer): (&Value, &Value)| {
        assert_eq!(question["id"], answer["id"]);
        let turns = question["question"][0].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut row = row(&text(&turns.last().unwrap()["content"]));
        row.turns = turns
            .iter()
            .map(|turn| Turn::text(turn["role"].as_str().unwrap(), text(&turn["content"])))
            .collect();
        let tool = |tool: &Value| Tool {
            name: text(&tool["name"]),
            description: text(&tool["description"]),
            parameters: tool["parameters"].clone(),
        };
        row.tools = question["function"].as_array().unwrap().iter().map(tool).collect();
        let (mut calls, mut options) = (Vec::new(), Vec::new());
        for truth in answer["ground_truth"].as_array().unwrap() {
            let (name, arguments) = truth.as_object().unwrap().iter().next().unwrap();
            let of_call: BTreeMap<String, Vec<Value>> =
                serde_json::from_value(arguments.clone()).unwrap();
            let first = of_call
                .iter()
                .filter_map(|(key, values)| first_choice(values).map(|value| (key.clone(), value)));
            calls.push(Call { name: name.clone(), arguments: first.collect() });
            options.push(of_call);
        }
        row.gold = Gold::AnyOf { calls, options, in_order: !name.contains("parallel") };
        row
    };
    Some(questions.iter().zip(&answers).map(episode).collect())
}

#[test]
fn strata_of_the_leaderboard() {
    let mut rows = Vec::new();
    for name in ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple"] {
        let Some(more) = bfcl(name) else { return };
        rows.extend(more);
    }
    let rows = numbered(rows);
    for kind in [Kind::SingleTurn, Kind::DomainDiverse, Kind::All] {
        let suite = build(&spec(kind), &rows).unwrap();
        eprintln!("{}:\n{}", kind.name(), describe(&suite));
        assert_eq!(suite.gold_against_gold(), 1.0);
        assert_eq!(suite.selected.as_ref().unwrap().looked_at, 1258);
    }
    let few = with(Kind::DomainDiverse, |select| {
        select.per_stratum = Some(5);
        select.allow_short = true;
    });
    let suite = build(&few, &rows).unwrap();
    assert!(suite.cases.iter().all(|case| !case.tools.is_empty()));
    let full = suite.selected.as_ref().unwrap().strata.iter().filter(|s| s.taken == 5).count();
    assert_eq!((suite.n(), full), BFCL_DIVERSE);
}

/// Cases, and strata that have as many as were asked for.
const BFCL_DIVERSE: (u64, usize) = (55, 11);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_row_is_counted_in_one_place(
        picks in prop::collection::vec((0_u32..6, 0_u32..8), 1..30),
        per_stratum in 1_u64..4,
    ) {
        let rows: Vec<Episode> = picks
            .iter()
            .map(|(shape, n)| {
                let mut row = row(&format!("question {n}"));
                match shape {
                    0 => row.gold = Gold::NoCall,
                    1 => row.gold = Gold::None,
                    2 => row = talk(&["Hello", &format!("question {n}")]),
                    3 => row.turns.clear(),
                    4 => row.tools.clear(),
                    _ => {}
                }
                row
            })
            .collect();
        let rows = numbered(rows);
        let keep_out = BTreeSet::from(["question 3".to_owned()]);
        let all = Rows { questions: &rows, golds: &[], wider: &[], keep_out: &keep_out };
        for kind in Kind::KINDS {
            let spec = with(kind, |select| {
                select.per_stratum = Some(per_stratum);
                select.allow_short = true;
            });
            let found = survey(&spec, &all).unwrap();
            let counted = found.lacked.iter().map(|count| count.n).sum::<u64>()
                + found.kept_out
                + found.asked_again
                + found.strata.iter().map(|stratum| stratum.found).sum::<u64>();
            prop_assert_eq!(counted, rows.len() as u64);
            match build_from(&spec, &all) {
                Ok(suite) => {
                    prop_assert!(suite.n() > 0 && suite.n() == found.taken());
                    prop_assert_eq!(suite.selected.as_ref(), Some(&found));
                    prop_assert!(suite.cases.iter().all(|case| !case.query.contains('3')));
                }
                Err(error) => {
                    let is_empty = matches!(error, SuiteError::NothingFound { .. });
                    prop_assert!(is_empty && found.taken() == 0);
                }
            }
        }
    }
}
