//! Searching through the binary: facets, order, saved searches, scripts without spaces.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bench, samples};

fn seqs(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["seq"].as_u64()).collect()
}

#[test]
fn hits_are_counted_by_field_sorted_and_paged() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &format!("{}/fledgling", samples())]).ok();
    let lines = bench.run(&["search", "kind:trace", "--facet", "source", "-n", "5"]).ok().lines();
    let facets = &lines.last().unwrap()["facets"][0];
    assert_eq!(facets["field"], "source");
    let total: u64 =
        facets["values"].as_array().unwrap().iter().map(|v| v["hits"].as_u64().unwrap()).sum();
    assert_eq!(lines.last().unwrap()["total"].as_u64().unwrap(), total);
    let page = |offset: &str, sort: &str| {
        let wish = ["search", "kind:trace", "--sort", sort, "-n", "3", "--offset", offset];
        seqs(&bench.run(&wish).ok().lines())
    };
    let (first, second) = (page("0", "newest"), page("3", "newest"));
    assert!(first.is_sorted_by(|a, b| a > b) && first.last() > second.first(), "{first:?}");
    assert!(page("0", "oldest").is_sorted());
    let future = ["search", "kind:trace", "--since", "2100-01-01"];
    assert!(bench.run(&future).ok().lines().is_empty());
    let error = bench.run(&["search", "tol:x"]).fails(2);
    assert!(error["message"].as_str().unwrap().contains("tool"), "{error}");
    // Deleted, the index comes back with the same answers.
    let wish = ["search", "weather OR flight", "-n", "50"];
    let before = bench.run(&wish).ok().out;
    fs::remove_dir_all(bench.notebook().join("index")).unwrap();
    assert_eq!(bench.run(&wish).ok().out, before);
}

#[test]
fn searches_are_saved_in_the_notebook_and_datasets_are_built_of_them() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &format!("{}/fledgling", samples())]).ok();
    let save = ["search", "flight", "--source", "toolcall/train", "--save", "flights"];
    let saved = bench.run(&[&save[..], &["--describe", "Questions about flights."]].concat()).ok();
    let again = bench.run(&["search", "--saved", "flights"]).ok();
    assert_eq!(again.out, saved.out);
    assert_eq!(bench.run(&["log", "--kind", "search.saved"]).ok().lines().len(), 1);
    let list = bench.run(&["search", "--list"]).ok().lines();
    let own: Vec<&Value> = list.iter().filter(|line| line["own"] == true).collect();
    assert_eq!(own.len(), 1);
    assert!(list.iter().any(|line| line["search"]["name"] == "failed-cases"));
    let built = bench.run(&["dataset", "build", "flights", "--saved", "flights"]).ok().json();
    assert!(built["dataset"]["train"].as_u64().unwrap() > 0, "{built}");
    bench.run(&["search", "--unsave", "flights"]).ok();
    bench.run(&["search", "--saved", "flights"]).fails(3);
    bench.run(&["search", "--unsave", "failed-cases"]).fails(3);
}

#[test]
fn words_are_found_in_scripts_without_spaces() {
    let bench = Bench::with_notebook();
    let rows: Vec<String> =
        ["请问北京的当前天气状况如何？", "東京の天気を教えてください", "서울 날씨를 알려줘"]
            .iter()
            .map(|question| {
                let answer = json!({ "role": "assistant", "content": "1" });
                json!({ "messages": [{ "role": "user", "content": question }, answer] }).to_string()
            })
            .collect();
    let path = bench.path("rows.jsonl");
    fs::write(&path, rows.join("\n")).unwrap();
    bench.run(&["ingest", path.to_str().unwrap()]).ok();
    for (word, n) in [("天气", 1), ("天気", 1), ("东京", 0), ("北京的当前", 1), ("날씨", 1)]
    {
        assert_eq!(bench.run(&["search", word]).ok().lines().len(), n, "{word}");
    }
}
