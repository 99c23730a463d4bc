//! The card as Croissant 1.1.

use super::{CardFacts, ExportFormat, FileFacts, Map, SourceFacts, UNKNOWN, Value, json};

/// Writes the card.
pub(super) fn write(facts: &CardFacts) -> Value {
    let mut card = Map::new();
    let mut add = |key: &str, value: Value| card.insert(key.to_owned(), value);
    add("@context", context());
    add("@type", json!("sc:Dataset"));
    add("conformsTo", json!("http://mlcommons.org/croissant/1.1"));
    add("name", json!(facts.name));
    if !facts.description.is_empty() {
        add("description", json!(facts.description));
    }
    add("version", json!(facts.identity));
    let licences = facts.licences_of_rows();
    add("license", licences.iter().map(|licence| licence_url(licence)).collect());
    for (key, text) in
        [("url", &facts.url), ("creator", &facts.creator), ("datePublished", &facts.published)]
    {
        if !text.is_empty() {
            add(key, json!(text));
        }
    }
    let mut named: Vec<&str> =
        facts.sources.iter().map(|source| source.attribution.trim()).collect();
    named.sort_unstable();
    named.dedup();
    named.retain(|name| !name.is_empty());
    if !named.is_empty() {
        add("creditText", json!(named.join("; ")));
    }
    add("prov:wasDerivedFrom", facts.sources.iter().map(source).collect());
    add("distribution", facts.files.iter().map(file).collect());
    add("recordSet", facts.files.iter().filter_map(records).collect());
    Value::Object(card)
}

fn source(source: &SourceFacts) -> Value {
    let SourceFacts { name, rows, licence, attribution } = source;
    let mut entity = Map::new();
    let mut add = |key: &str, value: Value| entity.insert(key.to_owned(), value);
    add("@type", json!("prov:Entity"));
    add("name", json!(name));
    add("license", licence_url(licence));
    add("description", json!(format!("{rows} rows")));
    if !attribution.is_empty() {
        add("creditText", json!(attribution));
    }
    Value::Object(entity)
}

fn file(file: &FileFacts) -> Value {
    let encoding = match file.format {
        ExportFormat::Parquet => "application/vnd.apache.parquet",
        _ => "application/jsonl",
    };
    json!({
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": format!("{} B", file.bytes),
        "encodingFormat": encoding,
        "sha256": file.sha256,
    })
}

/// Describes the rows of a file; the possible answers of BFCL belong to its questions.
fn records(file: &FileFacts) -> Option<Value> {
    if file.path.split('/').any(|part| part == "possible_answer") {
        return None;
    }
    let id = format!("rows/{}", file.path);
    let field = |&(name, is_json): &(&str, bool)| {
        let place = match file.format {
            ExportFormat::Parquet => json!({ "column": name }),
            _ => json!({ "jsonPath": format!("$.{name}") }),
        };
        // There is no type for a value whose shape differs from row to row: it is given as JSON.
        let description = if is_json { "As JSON." } else { "As text." };
        json!({
            "@type": "cr:Field",
            "@id": format!("{id}/{name}"),
            "name": name,
            "description": description,
            "dataType": "sc:Text",
            "source": { "fileObject": { "@id": file.path }, "extract": place },
        })
    };
    Some(json!({
        "@type": "cr:RecordSet",
        "@id": id,
        "name": file.side,
        "field": fields(file.format).iter().map(field).collect::<Value>(),
    }))
}

/// Names the members of a row, and says which are no plain text.
fn fields(format: ExportFormat) -> &'static [(&'static str, bool)] {
    match format {
        ExportFormat::OpenAi | ExportFormat::Trl => {
            &[("id", false), ("messages", true), ("tools", true), ("metadata", true)]
        }
        ExportFormat::ShareGpt => {
            &[("id", false), ("conversations", true), ("tools", true), ("metadata", true)]
        }
        ExportFormat::Xlam => &[
            ("id", false),
            ("query", false),
            ("tools", true),
            ("answers", true),
            ("metadata", true),
        ],
        ExportFormat::Bfcl => {
            &[("id", false), ("question", true), ("function", true), ("metadata", true)]
        }
        ExportFormat::Parquet => &[
            ("id", false),
            ("messages", true),
            ("tools", true),
            ("gold", true),
            ("query", false),
            ("track", false),
            ("source", false),
            ("licence", false),
            ("attribution", false),
            ("metadata", true),
        ],
    }
}

/// Names a licence by its address, as Croissant asks; an expression of several stays as it is.
fn licence_url(licence: &str) -> Value {
    let is_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    if licence == UNKNOWN || licence.is_empty() || !licence.chars().all(is_id) {
        return json!(licence);
    }
    json!(format!("https://spdx.org/licenses/{licence}.html"))
}

/// Names of the vocabulary, as the specification lists them.
fn context() -> Value {
    let context = json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "dct": "http://purl.org/dc/terms/",
        "prov": "http://www.w3.org/ns/prov#",
        "conformsTo": "dct:conformsTo",
        "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
    });
    let terms = ["column", "extract", "field", "fileObject", "jsonPath", "recordSet", "source"];
    let terms = terms.map(|term| (term.to_owned(), json!(format!("cr:{term}"))));
    let names = context.as_object().cloned().unwrap_or_default();
    Value::Object(names.into_iter().chain(terms).collect())
}
