#![allow(clippy::unwrap_used)]

use super::*;

fn facts() -> CardFacts {
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|&(k, n)| (k.to_owned(), n)).collect();
    let source = |name: &str, rows, licence: &str, attribution: &str| SourceFacts {
        name: name.to_owned(),
        rows,
        licence: licence.to_owned(),
        attribution: attribution.to_owned(),
    };
    let file = |path: &str, side: &str, format| FileFacts {
        path: path.to_owned(),
        side: side.to_owned(),
        format,
        sha256: "ab".repeat(32),
        bytes: 1234,
    };
    CardFacts {
        name: "orders".to_owned(),
        description: "Calls of the tools of a shop.".to_owned(),
        url: "https://example.org/orders".to_owned(),
        creator: "The shop".to_owned(),
        published: "2026-11-25".to_owned(),
        identity: "sha256:0123".to_owned(),
        rows: counts(&[("train", 300), ("test", 50)]),
        strata: counts(&[("toolcall/one call", 340), ("chat", 10)]),
        sources: vec![
            source("xlam/rows", 200, "CC-BY-4.0", "Salesforce: xLAM"),
            source("shop/traces", 140, "Apache-2.0", ""),
            source("found|somewhere", 10, "unknown", ""),
        ],
        tools: counts(&[("refund", 40), ("find_order", 300), ("a", 40)]),
        lengths: Lengths { unit: "tokens".to_owned(), quantiles: vec![(50, 312), (99, 1800)] },
        near_duplicates: 7,
        leakage: vec![
            Leakage { against: "suite/orders".to_owned(), found: 0 },
            Leakage { against: "CEP text".to_owned(), found: 2 },
        ],
        redaction_rules: vec!["email@1".to_owned(), "key@2".to_owned()],
        redacted: 19,
        excluded: counts(&[("near_duplicate_of", 7), ("no gold", 3)]),
        spec: "salt = \"x\"\n# ``` inside\n".to_owned(),
        files: vec![
            file("train.jsonl", "train", ExportFormat::OpenAi),
            file("train.parquet", "train", ExportFormat::Parquet),
            file("test.json", "test", ExportFormat::Bfcl),
            file("possible_answer/test.json", "test", ExportFormat::Bfcl),
        ],
    }
}

/// Compares with a file that was written before; `LEDGER_BLESS=1` writes it anew.
fn is_golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/card").join(name);
    if std::env::var_os("LEDGER_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "{name}");
}

#[test]
fn cards_are_as_they_were() {
    is_golden("golden.md", &facts().markdown());
    let croissant = serde_json::to_string_pretty(&facts().croissant()).unwrap();
    is_golden("golden.json", &format!("{croissant}\n"));
}

#[test]
fn conditions_and_unknown_licences_are_loud() {
    let card = facts().markdown();
    for loud in [
        "> **Licence unknown for 10 rows.**",
        "all of them bind: `Apache-2.0`, `CC-BY-4.0`, `unknown`.",
        "`CC-BY-4.0` asks for attribution, and to say what was changed.",
        "- Salesforce: xLAM\n",
        "| found\\|somewhere | 10 |",
        "- Rows that also stand in CEP text: **2**.",
        "\n````\nsalt",
    ] {
        assert!(card.contains(loud), "{loud}\n{card}");
    }
    let mut quiet = facts();
    quiet.sources.truncate(2);
    (quiet.leakage, quiet.redaction_rules) = (Vec::new(), Vec::new());
    let card = quiet.markdown();
    assert!(!card.contains("unknown"));
    assert!(card.contains("Leakage: **not checked**") && card.contains("Redaction: **none**"));
}

#[test]
fn every_field_of_the_croissant_points_at_a_file_that_is_there() {
    let card = facts().croissant();
    let files: Vec<&Value> =
        card["distribution"].as_array().unwrap().iter().map(|file| &file["@id"]).collect();
    let sets = card["recordSet"].as_array().unwrap();
    assert_eq!((files.len(), sets.len()), (4, 3));
    for field in sets.iter().flat_map(|set| set["field"].as_array().unwrap()) {
        assert!(files.contains(&&field["source"]["fileObject"]["@id"]), "{field}");
    }
    assert_eq!(
        card["license"],
        json!([
            "https://spdx.org/licenses/Apache-2.0.html",
            "https://spdx.org/licenses/CC-BY-4.0.html",
            "unknown",
        ])
    );
}
