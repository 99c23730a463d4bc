//! What fuzzers call, and the tests that read the kept corpus again.
//!
//! Each function takes any bytes. It must return: what it asserts holds for every input, and no
//! input makes the code below it panic or run without end. `fuzz/README.md` says how to run them.

use std::io::BufReader;
use std::path::Path;

use serde_json::{Value, json};

use crate::episode::{Call, Episode, json_text};
use crate::gold::{first_call, read_golds, strict_call, write_wrapper};
use crate::ingest::{
    Format, IngestError, Reading, Row, SourceInfo, cep_of, detect, head, is_companion, read,
};
use crate::literal::{parse, parse_prefix};
use crate::manifest::Stored;
use crate::redact::Rules;
use crate::split::SplitManifest;
use crate::suite::SuiteManifest;

/// A file of rows: a byte that picks the format, one of options, then the file. No episode is
/// accepted that could not be stored and read back as the same.
pub fn ingest(data: &[u8]) {
    let Some(([pick, options], input)) = data.split_first_chunk::<2>() else { return };
    let first = head(input, 4096).unwrap_or_default();
    let path = Path::new("file.json");
    let told = detect(path, &first);
    assert!(told.is_none() || !is_companion(path, &first));
    let _ = cep_of(path, input);
    let picked = Format::ALL.get(usize::from(*pick));
    let Some(format) = picked.copied().or(told) else { return };
    let field = ["user", "a.b", ""].get(usize::from(options & 3)).map(|&field| field.to_owned());
    let reading = Reading { subject_field: field, ..format.into() };
    // Pieces of any size must be put together alike.
    let size = if options & 4 == 0 { 4096 } else { 1 + usize::from(options >> 3) };
    let source = SourceInfo::unknown(path);
    let rows: Vec<_> = read(BufReader::with_capacity(size, input), &source, &reading).collect();
    let mut last = 0;
    for row in rows.iter().flatten() {
        assert!(row.location.row > last, "rows are numbered upwards");
        last = row.location.row;
        for episode in row.result.iter().flatten() {
            let stored = episode.to_bytes();
            assert_eq!(Episode::from_stored(&stored).ok().as_ref(), Some(episode));
            assert!(episode.subject.is_none() || row.is_personal);
        }
    }
    let whole: Vec<_> = read(input, &source, &reading).collect();
    let failed = |rows: &[Result<Row, IngestError>]| rows.iter().any(Result::is_err);
    assert_eq!(failed(&whole), failed(&rows));
    // How much of a damaged packed file comes out before its failure depends on the pieces, and
    // with it how the file is laid out, as far as can be seen.
    if failed(&rows) {
        return;
    }
    assert_eq!(whole.len(), rows.len());
    for (one, other) in whole.iter().flatten().zip(rows.iter().flatten()) {
        assert_eq!(one, other);
    }
}

/// A text that is redacted under the rules of the first byte's bits. Taken out once is taken out
/// for good, and of an episode as of a text.
pub fn redact(data: &[u8]) {
    let Some((pick, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let names = ["secrets", "email", "phone", "card", "iban"];
    let names = names.iter().enumerate().filter(|(bit, _)| pick >> bit & 1 == 1);
    let names: Vec<_> = names.map(|(_, name)| *name).collect();
    let Ok(rules) = names.join(",").parse::<Rules>() else { return };
    let once = rules.redact_text(text);
    assert_eq!(rules.redact_text(&once), once);
    let row = json!({ "messages": [
        { "role": "user", "content": text },
        { "role": "assistant", "tool_calls": [{ "id": "c", "type": "function", "function": {
            "name": "f", "arguments": json!({ "value": text }).to_string(),
        } }] },
    ] });
    let reading = Reading { rules: Rules::none(), ..Format::OpenAi.into() };
    let (row, source) = (row.to_string(), SourceInfo::unknown(Path::new("file.json")));
    for row in read(row.as_bytes(), &source, &reading).flatten() {
        for mut episode in row.result.into_iter().flatten() {
            let before = episode.clone();
            let places = rules.redact(&mut episode);
            assert!(places > 0 || episode == before);
            assert_eq!(rules.redact(&mut episode), 0);
        }
    }
}

/// Stored bytes of an episode, a split or a suite. What is read is written in one way only.
pub fn manifest(data: &[u8]) {
    fn settles<T: Stored>(data: &[u8]) {
        let Ok(read) = T::from_stored(data) else { return };
        let written = read.to_stored();
        let again = T::from_stored(&written).map(|again| again.to_stored());
        assert_eq!(again.ok(), Some(written));
    }
    settles::<Episode>(data);
    settles::<SplitManifest>(data);
    settles::<SuiteManifest>(data);
}

/// A gold or an answer as text. What is read as calls can be written, and reads back the same.
pub fn gold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse_prefix(text);
    let _ = (first_call(text), strict_call(text));
    if let Ok((value, _)) = parse(text) {
        let written = json_text(&value);
        assert!(parse(&written).is_ok(), "{written}");
    }
    let Ok(golds) = read_golds(text) else { return };
    assert!(!golds.calls.is_empty());
    // Deeper than some is not read again; a quote in a name cannot be written.
    let is_flat = text.matches(['[', '{', '(']).count() < 100;
    for call in golds.calls.iter().filter(|call| is_flat && !call.name.contains('"')) {
        let again = strict_call(&write_wrapper(call));
        let text_of = |call: &Call| json_text(&Value::Object(call.arguments.clone()));
        let seen = again.as_ref().map(|call| (call.name.as_str(), text_of(call)));
        assert_eq!(seen, Some((call.name.as_str(), text_of(call))));
    }
}

#[cfg(test)]
mod tests;
