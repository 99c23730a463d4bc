#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::episode::{Episode, Gold};
use crate::ingest::{Format, SourceInfo, read};
use crate::samples::episodes;

#[test]
fn samples_are_read_with_loose_parameters_as_schemas() {
    let all: Vec<Episode> =
        episodes("xlam/rows.jsonl", 0).into_iter().map(|(_, episode)| episode).collect();
    assert_eq!(all.len(), 4);
    let ids: Vec<&str> = all.iter().map(|e| e.source.external_id.as_str()).collect();
    assert_eq!(ids[..3], ["1", "2", "3"]);
    assert!(ids[3].starts_with("q-"));
    let schema = &all[0].tools[0].parameters;
    assert_eq!(schema["required"], json!(["value", "unit"]));
    assert_eq!(schema["properties"]["value"]["type"], "number");
    assert_eq!(schema["properties"]["target"]["default"], "km");
    assert_eq!(all[1].gold.calls().len(), 2);
    assert_eq!(all[2].gold, Gold::NoCall);
    assert_eq!(all[3].tools[0].parameters["properties"]["a"], json!({ "type": "integer" }));
    assert!(all.iter().all(|episode| episode.track == "toolcall" && episode.turns.len() == 1));
}

#[test]
fn what_cannot_be_read_says_why_without_a_word_of_the_row() {
    let row = |tools: Value, answers: Value| {
        let row = json!({ "query": "zeppelin", "tools": tools, "answers": answers }).to_string();
        let source = SourceInfo::unknown(std::path::Path::new("b.jsonl"));
        let reading = Format::Xlam.into();
        let rows: Vec<_> = read(row.as_bytes(), &source, &reading).collect();
        rows.into_iter().next().unwrap().unwrap().result.unwrap_err()
    };
    let cases = [
        (json!("zeppelin"), json!([]), "tools: a bare word that is no value"),
        (json!([{ "zeppelin": 1 }]), json!([]), "tools: a tool has no name"),
        (json!({}), json!([]), "field \"tools\" is no list"),
        (json!([]), json!("[{\"arguments\": {}}]"), "answer 1: a call without a name"),
        (json!([]), json!([{ "name": "f", "arguments": 1 }]), "answer 1: the arguments"),
        (json!([]), Value::Null, "field \"answers\" is no list"),
    ];
    for (tools, answers, why) in cases {
        let said = row(tools, answers);
        assert!(said.starts_with(why) && !said.contains("zeppelin"), "{said}");
    }
}
