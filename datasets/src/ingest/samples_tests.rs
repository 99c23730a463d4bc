//! What must be read from the samples that ship.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::episode::{Episode, Gold};
use crate::literal::{self, Dialect};
use crate::samples::{episodes, rows};

#[test]
fn every_row_of_the_seed_tracks_is_read() {
    for (name, n) in [
        ("fledgling/toolcall/train.jsonl", 300),
        ("fledgling/toolcall/eval100.jsonl", 100),
        ("fledgling/structured/train.jsonl", 300),
        ("fledgling/structured/eval100.jsonl", 100),
        ("fledgling/recorded/toolcall_azure.jsonl", 50),
        ("fledgling/recorded/toolcall_phi.jsonl", 50),
        ("fledgling/recorded/structured_azure.jsonl", 39),
        ("fledgling/recorded/structured_phi.jsonl", 50),
        ("biz_entity/entity_location_date.jsonl", 200),
    ] {
        let read = episodes(name, 0);
        assert_eq!(read.len(), n, "{name}");
        for (_, episode) in &read {
            assert!(episode.gold != Gold::None && !episode.query.is_empty(), "{name}");
            assert_ne!(episode.licence, "unknown", "{name}");
            assert!(!episode.attribution.is_empty(), "{name}");
        }
    }
}

#[test]
fn sources_tracks_and_models_are_named() {
    let (_, first) = episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0);
    assert_eq!((first.source.name.as_str(), first.track.as_str()), ("toolcall/train", "toolcall"));
    assert_eq!(first.tools[0].name, "autocomplete_places");
    assert_eq!(first.tools[0].parameters["properties"]["limit"]["type"], "integer");
    assert_eq!(first.licence, "CC-BY-4.0");
    assert!(first.attribution.contains("Salesforce"));
    let (_, azure) = episodes("fledgling/recorded/structured_azure.jsonl", 0).swap_remove(38);
    assert_eq!(azure.source.external_id, "50", "gaps of the index stay");
    assert_eq!(azure.answer.unwrap().model, "azure-teacher-recorded");
    let (_, phi) = episodes("fledgling/recorded/toolcall_phi.jsonl", 0).swap_remove(0);
    assert_eq!(phi.answer.unwrap().model, "phi-4-mini-recorded");
    let (_, wide) = episodes("fledgling/structured/eval100.jsonl", 0).swap_remove(0);
    assert_eq!((wide.tools.len(), wide.gold.calls().len()), (2, 1));
}

#[test]
fn golds_of_the_toolcall_track_keep_their_bytes_but_for_number_and_escape_forms() {
    let text =
        std::fs::read_to_string(crate::samples::path("fledgling/toolcall/train.jsonl")).unwrap();
    let golds = text.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["completion"].as_str().unwrap().to_owned()
    });
    let read = episodes("fledgling/toolcall/train.jsonl", 0);
    let changed: Vec<usize> = golds
        .zip(&read)
        .enumerate()
        .filter(|(_, (gold, (_, episode)))| *gold != episode.gold_text())
        .map(|(row, _)| row + 1)
        .collect();
    // Floats such as 1.0 and escapes such as \u00fc are written in canonical form.
    assert_eq!(changed, [6, 110, 130, 147, 206]);
}

#[test]
fn hermes_golds_are_read_though_strict_json_reads_none() {
    let all = rows("hermes/hermes_test.jsonl");
    assert_eq!(all.len(), 50);
    let mut rejected: BTreeMap<u64, &str> = BTreeMap::new();
    let mut calls = 0;
    let mut flags: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &all {
        match &row.result {
            Ok(read) => {
                assert_eq!(read.len(), 1);
                calls += read[0].gold.calls().len();
                assert!(!read[0].tools.is_empty(), "row {}", row.location.row);
                read[0].flags.iter().for_each(|flag| *flags.entry(flag).or_default() += 1);
            }
            Err(reason) => drop(rejected.insert(row.location.row, reason)),
        }
    }
    // Row 15 has its tool list cut in two by the text around it; its gold alone would be readable.
    assert_eq!(rejected.keys().collect::<Vec<_>>(), [&15]);
    assert!(rejected[&15].starts_with("tools: neither comma nor end"), "{rejected:?}");
    assert_eq!(calls, 75);
    assert_eq!(flags["gold.python_literal"], 49);
    assert!(
        flags.contains_key("gold.name_lifted") && flags.contains_key("gold.escaped_line_breaks")
    );
    assert_eq!(literal::parse("{'a': 1}").unwrap().1, Dialect::Python);
}

#[test]
fn langfuse_export_gives_the_inner_generation_only() {
    let all = rows("langfuse/vercel-aisdk-2025-11-17.trace.json");
    assert_eq!(all.len(), 1);
    let episode: &Episode = &all[0].result.as_ref().unwrap()[0];
    assert_eq!(all[0].location.row, 2);
    assert_eq!(episode.query, "What is the weather like today in San Francisco?");
    assert_eq!(episode.tools[0].name, "getWeather");
    assert_eq!(episode.tools[0].parameters["required"], serde_json::json!(["location"]));
    assert_eq!(episode.gold.calls()[0].arguments["location"], "San Francisco");
    assert_eq!(episode.flags, ["answer.recorded", "gold.unchecked"]);
    assert_eq!(episode.answer.as_ref().unwrap().model, "gpt-5");
}
