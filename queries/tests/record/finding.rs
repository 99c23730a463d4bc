//! Fields, numbers, order, facets, feedback and scripts without spaces.

use chrono::{DateTime, Duration, Utc};
use datasets::{Answer, Turn};
use ledger::catalogue::{FeedbackRecorded, TraceIngested};
use queries::search::{Filters, Hits, Options, SearchError, Sort, shipped};
use serde_json::{Value, json};

use crate::fixture::{Lab, episode, ingested, lab};
use crate::searching::{Searched, find, index, seqs};

fn ask(searched: &Searched, query: &str, options: &Options) -> Hits {
    ask_with(searched, query, &Filters::default(), options)
}

fn ask_with(searched: &Searched, query: &str, filters: &Filters, options: &Options) -> Hits {
    searched.index.search(&searched.reader, (query, filters), options).unwrap()
}

/// Appends a trace that says `words`, changed as told.
fn say(lab: &mut Lab, words: &str, change: impl FnOnce(&mut TraceIngested)) -> u64 {
    let mut episode = episode(1, (words, "get_weather"));
    episode.source.external_id = format!("said-{words}");
    let mut facts = ingested(lab, &episode);
    change(&mut facts);
    lab.append("trace/toolcall/train", &facts)
}

fn judge(lab: &mut Lab, target: &str, name: &str, value: Value) -> u64 {
    let feedback = FeedbackRecorded {
        target: target.to_owned(),
        name: name.to_owned(),
        value,
        comment: Some("said aloud".to_owned()),
        body: None,
    };
    lab.append("trace/feedback", &feedback)
}

#[test]
fn texts_without_spaces_are_found_by_any_part() {
    let mut lab = lab();
    let chinese = say(&mut lab, "请问北京的当前天气状况如何？还有，上海的天气情况", |_| {});
    let japanese = say(&mut lab, "東京タワーの高さを教えてください", |_| {});
    let korean = say(&mut lab, "서울의 내일 날씨는 어때요", |_| {});
    let accents = say(&mut lab, "¿Qué tiempo hará en Cancún mañana? 👍🏽", |_| {});
    let searched = index(&lab);
    for (query, expected) in [
        ("天气", vec![chinese]),
        ("北京", vec![chinese]),
        ("上海的天气", vec![chinese]),
        ("北京 上海", vec![chinese]),
        ("北京上海", vec![]),
        ("况", vec![chinese]),
        ("请", vec![chinese]),
        ("天气情", vec![chinese]),
        ("東京タワー", vec![japanese]),
        ("高さ", vec![japanese]),
        ("\"教えて\"", vec![japanese]),
        ("내일 날씨", vec![korean]),
        ("서울", vec![korean]),
        ("날", vec![korean]),
        ("cancun manana", vec![accents]),
        ("CANCU\u{301}N", vec![accents]),
        ("👍", vec![accents]),
        ("kind:trace 天气 OR 날씨", vec![chinese, korean]),
    ] {
        let mut found = seqs(&find(&searched, query));
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
    }
    let marked = find(&searched, "天气状况").hits[0].snippet.marked("[", "]");
    assert!(marked.contains("当前[天气状况]如何"), "{marked}");
}

#[test]
fn values_with_odd_characters_are_reached() {
    let mut lab = lab();
    let odd = ["a.b/c-d", "weather.get current", "天气.查询", "say \"hi\"", "back\\slash", "f(x)*"];
    for name in odd {
        say(&mut lab, "nothing", |facts| facts.tools = vec![name.to_owned()]);
    }
    let searched = index(&lab);
    for name in odd {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let query = format!("tool:\"{quoted}\"");
        let hits = find(&searched, &query);
        assert_eq!((hits.total, &hits.hits[0].fields["tool"][0]), (1, &name.to_owned()), "{query}");
        let filters = Filters { tool: Some(name.to_owned()), ..Filters::default() };
        assert_eq!(ask_with(&searched, "", &filters, &Options::default()).total, 1);
    }
    assert_eq!(find(&searched, "tool:a.b/c-d").total, 1);
    assert_eq!(find(&searched, "tool:天气.查询").total, 1);
    assert_eq!(find(&searched, "tool:天*").total, 1);
}

#[test]
fn traces_have_model_id_outcome_licence_and_time() {
    let mut lab = lab();
    let failed = say(&mut lab, "broke", |facts| facts.flags = vec!["outcome.failure".to_owned()]);
    let fine = say(&mut lab, "went", |facts| facts.flags = vec!["outcome.success".to_owned()]);
    let searched = index(&lab);
    assert_eq!(seqs(&find(&searched, "kind:trace outcome:failure")), [failed]);
    assert_eq!(seqs(&find(&searched, "outcome:success")), [fine]);
    assert_eq!(seqs(&find(&searched, "id:said-broke")), [failed]);
    assert_eq!(find(&searched, "kind:trace model:m licence:CC-BY-4.0 track:toolcall").total, 14);
    assert_eq!(find(&searched, "kind:trace format:prompt-completion").total, 14);
    assert_eq!(find(&searched, "kind:trace -licence:CC-BY-4.0").total, 0);
    // The lab's clock begins in 1970 and goes on by a millisecond or so for each event.
    let all = find(&searched, "").total;
    assert_eq!(find(&searched, "time:1970-01-01").total, all);
    assert_eq!(find(&searched, "time:>1970-01-01").total, 0);
    assert_eq!(find(&searched, "time:[1969-12-31 TO 1970-01-01}").total, 0);
    let moment = DateTime::<Utc>::UNIX_EPOCH;
    let within = |since, until| {
        let filters = Filters { since: Some(since), until: Some(until), ..Filters::default() };
        ask_with(&searched, "", &filters, &Options::default()).total
    };
    let at = find(&searched, &format!("seq:{failed}")).hits[0].at;
    assert_eq!(within(at, at + Duration::microseconds(1)), 1, "since counts itself");
    assert_eq!(within(moment, at) + within(at, at + Duration::days(1)), all, "until does not");
    assert_eq!(within(moment - Duration::days(1), moment), 0);
    let text = at.to_rfc3339();
    assert_eq!(seqs(&find(&searched, &format!("time:{text}"))), [failed]);
    assert_eq!(find(&searched, &format!("time:>={text}")).total, 2);
}

#[test]
fn cases_reports_and_frozen_data_are_found() {
    let lab = lab();
    let searched = index(&lab);
    // F1 of the strict reading, and what the arm's model is.
    assert_eq!(find(&searched, "kind:case score:1").total, 7);
    assert_eq!(find(&searched, "kind:case score:<0.5").total, 9);
    assert_eq!(find(&searched, "kind:case model:adapter").total, 8);
    assert_eq!(find(&searched, "kind:case suite:toolcall-teacher").total, 16);
    let report = find(&searched, "kind:report first light label:adapter");
    assert_eq!((seqs(&report), report.hits[0].title.as_str()), (vec![lab.report], "first light"));
    assert_eq!(seqs(&find(&searched, "kind:suite")), [lab.suite.0]);
    assert_eq!(seqs(&find(&searched, &format!("kind:suite id:{}", lab.suite.1))), [lab.suite.0]);
    assert_eq!(seqs(&find(&searched, "kind:dataset label:first")), [lab.split]);
    assert_eq!(find(&searched, "kind:import source:toolcall/train").total, 1);
    assert_eq!(find(&searched, "kind:run run:eval-base outcome:finished").total, 1);
    assert_eq!(find(&searched, "kind:model licence:Apache-2.0 tiny").total, 1);
}

#[test]
fn feedback_finds_the_traces_that_it_is_about() {
    let mut lab = lab();
    let good = say(&mut lab, "good", |_| {});
    let bad = say(&mut lab, "bad", |_| {});
    judge(&mut lab, "said-good", "quality", json!(0.9));
    judge(&mut lab, "said-bad", "quality", json!(0.25));
    judge(&mut lab, "said-bad", "correction", json!("<tool_call name=\"x\">{}</tool_call>"));
    judge(&mut lab, "nobody", "quality", json!(0.1));
    judge(&mut lab, "said-good", "useful", json!(true));
    let searched = index(&lab);
    for (condition, expected) in [
        ("quality", vec![good, bad]),
        ("quality<0.5", vec![bad]),
        ("quality>=0.9", vec![good]),
        ("quality>0.9", vec![]),
        ("correction", vec![bad]),
        ("useful=1", vec![good]),
        ("unknown", vec![]),
    ] {
        let filters = Filters { feedback: Some(condition.to_owned()), ..Filters::default() };
        let oldest = Options { sort: Sort::Oldest, ..Options::default() };
        let found = ask_with(&searched, "", &filters, &oldest);
        assert_eq!(seqs(&found), expected, "{condition}");
        let both = ask_with(&searched, "certainly", &filters, &oldest);
        assert_eq!(seqs(&both), expected);
    }
    let judged = find(&searched, "kind:feedback feedback:quality aloud");
    assert_eq!(judged.total, 3);
    assert_eq!(judged.hits[0].value, Some(0.9));
    assert_eq!(find(&searched, "target:said-bad").total, 2);
    let wrong = Filters { feedback: Some("quality<good".to_owned()), ..Filters::default() };
    let asked = searched.index.find(("", &wrong), &Options::default());
    assert!(matches!(asked, Err(SearchError::Query(_))));
}

#[test]
fn hits_come_in_the_order_and_by_the_page_that_is_asked() {
    let mut lab = lab();
    for (n, score) in [0.5, 0.25, 1.0, 0.25].into_iter().enumerate() {
        judge(&mut lab, &format!("t{n}"), "quality", json!(score));
    }
    judge(&mut lab, "t4", "quality", json!("words only"));
    let searched = index(&lab);
    let sorted = |sort, offset, limit| {
        let options = Options { sort, offset, limit, ..Options::default() };
        let hits = ask(&searched, "kind:feedback", &options);
        assert_eq!(hits.total, 5);
        hits.hits.into_iter().map(|hit| hit.title).collect::<Vec<_>>()
    };
    assert_eq!(sorted(Sort::Newest, 0, 9), ["t4", "t3", "t2", "t1", "t0"]);
    assert_eq!(sorted(Sort::Oldest, 0, 9), ["t0", "t1", "t2", "t3", "t4"]);
    assert_eq!(sorted(Sort::LowestScore, 0, 9), ["t1", "t3", "t0", "t2", "t4"]);
    assert_eq!(sorted(Sort::HighestScore, 0, 9), ["t2", "t0", "t1", "t3", "t4"]);
    assert_eq!(sorted(Sort::HighestScore, 1, 2), ["t0", "t1"]);
    assert!(sorted(Sort::Newest, 5, 9).is_empty() && sorted(Sort::Best, 0, 0).is_empty());
    let found = searched.index.find(("", &Filters::default()), &Options::best(usize::MAX)).unwrap();
    assert_eq!(found.events.len() as u64, found.total);
}

#[test]
fn facets_count_all_hits_and_not_only_those_shown() {
    let lab = lab();
    let searched = index(&lab);
    let options = Options {
        limit: 1,
        facets: vec!["outcome".to_owned(), "tool".to_owned(), "source".to_owned()],
        values: 2,
        ..Options::default()
    };
    let hits = ask(&searched, "kind:case", &options);
    assert_eq!((hits.total, hits.hits.len()), (16, 1));
    let counted = |facet: usize| {
        let values = hits.facets[facet].values.iter();
        values.map(|value| (value.value.as_str(), value.hits)).collect::<Vec<_>>()
    };
    assert_eq!(hits.facets[0].field, "outcome");
    assert_eq!(counted(0), [("failed", 9), ("passed", 7)]);
    // The most frequent first, equals by value, and how many are left out.
    assert_eq!(counted(1), [("get_weather", 4), ("book_table", 2)]);
    assert_eq!(hits.facets[1].more, 5);
    assert!(hits.facets[2].values.is_empty());
    let wrong = Options { facets: vec!["id".to_owned()], ..Options::default() };
    let error = searched.index.find(("", &Filters::default()), &wrong).unwrap_err();
    assert!(error.to_string().starts_with("values of id cannot be counted"), "{error}");
}

#[test]
fn every_search_that_ships_runs_and_finds_what_it_says() {
    let mut lab = lab();
    say(&mut lab, "broke", |facts| facts.flags = vec!["outcome.failure".to_owned()]);
    judge(&mut lab, "said-broke", "correction", json!("<tool_call name=\"x\">{}</tool_call>"));
    let searched = index(&lab);
    for search in shipped().unwrap() {
        let options = search.options(0, 20);
        let hits = ask_with(&searched, &search.query, &search.filters, &options);
        let expected = match search.name.as_str() {
            "failed-cases" | "unread-calls" => 9,
            "failed-traces" | "corrections" | "rejected-rows" | "refused-promotions" => 1,
            // This lab has none of these.
            "near-misses" | "failed-runs" | "overrides-and-rollbacks" => 0,
            other => panic!("say what {other} should find"),
        };
        assert_eq!(hits.total, expected, "{}", search.name);
        assert_eq!(hits.facets.len(), search.facets.len());
    }
}

#[test]
fn calls_in_turns_and_answers_are_found_too() {
    let mut lab = lab();
    let call = |name: &str| datasets::Call {
        name: name.to_owned(),
        arguments: json!({ "city": "Nuuk" }).as_object().unwrap().clone(),
    };
    let mut said = episode(77, ("silent", "get_weather"));
    let mut turn = Turn::text("assistant", "");
    turn.tool_calls.push(call("earlier_call"));
    said.turns.push(turn);
    let calls = vec![call("answering_call")];
    said.answer = Some(Answer { model: "teacher".to_owned(), text: None, calls });
    let facts = ingested(&lab, &said);
    let seq = lab.append("trace/toolcall/train", &facts);
    let searched = index(&lab);
    for query in ["earlier_call", "answering_call nuuk", "model:teacher", "\"city\":\"Nuuk\""] {
        assert_eq!(seqs(&find(&searched, query)), [seq], "{query}");
    }
}

/// Finds the shared real data, where there are any.
fn shared() -> Option<std::path::PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let dir = std::env::var("LEDGER_SHARED_DATA").unwrap_or_else(|_| beside.to_owned());
    let dir = std::path::PathBuf::from(dir);
    if !dir.is_dir() {
        eprintln!("skipped: there is no {}", dir.display());
        return None;
    }
    Some(dir)
}

#[test]
fn real_questions_in_chinese_are_found_by_any_piece_of_them() {
    let Some(dir) = shared() else { return };
    let file = dir.join("bfcl/question/BFCL_v4_live_parallel.json");
    let mut lab = lab();
    let mut asked: Vec<(u64, String)> = Vec::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let messages = row["question"][0].as_array().unwrap();
        let question = messages.last().unwrap()["content"].as_str().unwrap();
        asked.push((say(&mut lab, question, |_| {}), question.to_owned()));
    }
    let searched = index(&lab);
    let is_han = |c: &char| ('\u{4E00}'..='\u{9FFF}').contains(c);
    let mut pieces = 0;
    for (_, question) in &asked {
        let chars: Vec<char> = question.chars().collect();
        for size in [1, 2, 5] {
            for piece in chars.windows(size).filter(|piece| piece.iter().all(is_han)) {
                let piece: String = piece.iter().collect();
                let whole = Options { sort: Sort::Oldest, ..Options::best(100) };
                let found = ask(&searched, &format!("kind:trace {piece}"), &whole);
                let expected = asked.iter().filter(|(_, text)| text.contains(&piece));
                assert_eq!(seqs(&found), expected.map(|(seq, _)| *seq).collect::<Vec<_>>());
                pieces += 1;
            }
        }
    }
    assert!(pieces > 20, "{pieces}");
}
