//! How rows may be laid out in a file.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::tests::{GOOD, info, read_all, read_owned, reason};
use super::*;

const FORMAT: Format = Format::PromptCompletion;

fn row(n: u32) -> String {
    format!("{{\"prompt\": \"Say {n}.\", \"completion\": \"{{\\\"n\\\":{n}}}\"}}")
}

fn pretty(n: u32) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(&row(n)).unwrap()).unwrap()
}

/// Places, and for rejected rows the reasons.
fn outline(text: &str) -> Vec<(u64, String)> {
    let rows = read_all(text.as_bytes(), FORMAT);
    let said = |row: &Row| row.result.as_ref().err().cloned().unwrap_or_default();
    let outline: Vec<(u64, String)> =
        rows.iter().map(|row| (row.location.row, said(row))).collect();
    // However the bytes arrive, they are read alike.
    for size in [1, 2, 3, 7] {
        let info = info();
        let reading = FORMAT.into();
        let rows = read(BufReader::with_capacity(size, text.as_bytes()), &info, &reading);
        let again: Vec<(u64, String)> =
            rows.map(Result::unwrap).map(|row| (row.location.row, said(&row))).collect();
        assert_eq!(again, outline, "{size} bytes at a time");
    }
    outline
}

fn whole(text: &str) -> Vec<u64> {
    let outline = outline(text);
    assert!(outline.iter().all(|(_, said)| said.is_empty()), "{outline:?}");
    outline.into_iter().map(|(row, _)| row).collect()
}

#[test]
fn arrays_documents_and_lines_hold_the_same_rows() {
    let rows: Vec<String> = (0..3).map(row).collect();
    let documents: Vec<String> = (0..3).map(pretty).collect();
    assert_eq!(whole(&format!("[{}]", rows.join(","))), [1, 2, 3]);
    assert_eq!(whole(&format!("\u{feff} \r\n[\n  {},\n]\n", documents.join(",\r\n"))), [1, 2, 3]);
    assert_eq!(whole(&documents.join("\n")), [1, 2, 3]);
    assert_eq!(whole(&documents.join("")), [1, 2, 3]);
    assert_eq!(whole(&documents.join("\n").replace('\n', "\r\n")), [1, 2, 3]);
    assert_eq!(whole(&documents[0]), [1]);
    assert_eq!(whole(&rows.join("\n")), [1, 2, 3]);
    assert_eq!(whole(&format!("\n\n{}\n\n{}", rows[0], rows[1])), [3, 5], "lines are counted");
    assert_eq!(whole(&format!("[{}]\n[{}]", rows[0], rows[1])), [1, 2], "arrays follow arrays");
    assert_eq!(whole("[]"), [0; 0]);
    assert_eq!(whole("[ ]\n"), [0; 0]);
    let contents = |text: &str| {
        let rows = read_all(text.as_bytes(), FORMAT);
        rows.into_iter().map(|row| row.content).collect::<Vec<_>>()
    };
    assert_eq!(contents(&rows.join("\n")), contents(&format!("[{}]", rows.join(" , "))));
}

#[test]
fn a_broken_element_costs_itself() {
    let (a, b) = (row(0), row(1));
    let cases = [
        ("{\"prompt\": \"x\" \"y\"}", "broken JSON at column 16: "),
        ("{\"prompt\": [}", "broken JSON at column 13: "),
        ("{\"prompt\": {\"x\": [1, 2}", "broken JSON at column 23: "),
        ("{\"prompt\": }", "broken JSON at column 12: "),
        ("{\"prompt\": 1\n \"x\": 2}", "broken JSON at line 2, column 2 of the row: "),
        ("nothing", "broken JSON at column 2: "),
        ("\"a, text]\"", "not a JSON object"),
        ("12", "not a JSON object"),
        ("[{\"prompt\": 1}]", "not a JSON object"),
        ("", "nothing stands between two commas"),
    ];
    for (broken, said) in cases {
        let outline = outline(&format!("[{a},\n {broken}, \n{b}]"));
        let places: Vec<u64> = outline.iter().map(|(row, _)| *row).collect();
        assert_eq!(places, [1, 2, 3], "{broken}");
        assert!(outline[0].1.is_empty() && outline[2].1.is_empty(), "{broken}: {outline:?}");
        assert!(outline[1].1.starts_with(said), "{broken}: {outline:?}");
    }
    // So it does among documents, where the next begins a line.
    let said =
        outline(&format!("{}\n{{\"prompt\": \"x\",\n \"y\": [1}}\n{}", pretty(0), pretty(1)));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].1.is_empty() && !said[1].1.is_empty() && said[2].1.is_empty(), "{said:?}");
    let said = outline(&format!("{}\n{{\"prompt\": \"x\",\n \"y\": 1\n{}", pretty(0), pretty(1)));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].1.is_empty() && !said[1].1.is_empty() && said[2].1.is_empty(), "{said:?}");
    // A bracket too many ends the array early; what follows is read all the same.
    let outline = outline(&format!("[{a}, {{\"prompt\": 1], \"x\": 2}},\n{b}]"));
    assert!(outline.iter().filter(|(_, said)| said.is_empty()).count() == 2, "{outline:?}");
}

#[test]
fn files_that_end_too_early_say_so() {
    let (a, b) = (row(0), row(1));
    let cut = "the file ends inside this row: it was cut off";
    let cut_array = "the file ends inside its array: it was cut off";
    let of = |text: String| {
        let mut outline = outline(&text);
        let last = outline.pop().unwrap();
        assert!(outline.iter().all(|(_, said)| said.is_empty()), "{outline:?}");
        last
    };
    assert_eq!(of(format!("[{a}, {b}, {}", &a[..30])), (3, cut.to_owned()));
    assert_eq!(of(format!("[{a}, {b},")), (3, cut_array.to_owned()));
    assert_eq!(of(format!("[{a}, {b}")), (3, cut_array.to_owned()));
    assert_eq!(of("[".to_owned()), (1, cut_array.to_owned()));
    assert_eq!(of(format!("{}\n{}", pretty(0), &pretty(1)[..30])), (2, cut.to_owned()));
    assert_eq!(of(pretty(0)[..30].to_owned()), (1, cut.to_owned()));
    let (row, said) = of(a[..30].to_owned());
    assert!(row == 1 && said.starts_with("broken JSON at column 30"), "{said}");
}

#[test]
fn a_broken_first_line_does_not_make_a_document_of_lines() {
    let lines = (0..3).map(row).collect::<Vec<_>>().join("\n");
    for broken in [
        "{\"prompt\": \"x\", \"completion\": ",
        "{\"prompt\": \"x",
        "{\"prompt\": {\"x\": [",
        "{",
        "{\"prompt\": \"x\", \"completion\": }",
        "{\"prompt\": \"x\"}}",
        "prompt,completion",
        "}",
        "\"",
        "{\n{\"prompt\":\n{\"prompt\": {",
    ] {
        let outline = outline(&format!("{broken}\n{lines}"));
        let n = broken.lines().count();
        assert_eq!(outline.len(), n + 3, "{broken}: {outline:?}");
        assert!(outline[..n].iter().all(|(_, said)| !said.is_empty()), "{broken}: {outline:?}");
        assert!(outline[n..].iter().all(|(_, said)| said.is_empty()), "{broken}: {outline:?}");
        assert_eq!(outline[n].0, n as u64 + 1);
    }
    // A document may hold whole objects on lines of their own: they lack the keys of a row.
    let document = "{\"prompt\": \"x\", \"completion\": \"{}\",\n\"more\": [\n{\"id\": 1}\n]}";
    assert_eq!(whole(document), [1]);
}

#[test]
fn packed_files_are_read_like_others() {
    let text = (0..3).map(row).collect::<Vec<_>>().join("\n");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let rows = read_all(&packed, FORMAT);
    assert_eq!(rows, read_all(text.as_bytes(), FORMAT));
    let first = head(&packed[..], 64 * 1024).unwrap();
    assert_eq!(detect(Path::new("x.jsonl.gz"), &first), Some(FORMAT));
    let (info, reading) = (info(), FORMAT.into());
    let cut = read(&packed[..packed.len() - 9], &info, &reading).last().unwrap();
    let error = cut.unwrap_err();
    assert!(matches!(&error, IngestError::Io { .. }), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("cut off"), "{source}");
}

fn asking(format: Format, path: &str) -> Reading {
    Reading { subject_field: Some(path.to_owned()), ..format.into() }
}

#[test]
fn the_subject_field_says_whose_a_row_is() {
    let with = |member: &str| format!("{}, {member}}}", &GOOD[..GOOD.len() - 1]);
    let cases = [
        (with("\"meta\": {\"user\": \" ann \"}"), Some("ann"), true),
        (with("\"meta\": {\"user\": 17}"), Some("17"), true),
        (with("\"meta.user\": \"ann\""), Some("ann"), true),
        (with("\"meta\": \"{\\\"user\\\": \\\"ann\\\"}\""), Some("ann"), true),
        (with("\"meta\": {\"user\": \" \"}"), None, false),
        (with("\"meta\": {\"user\": null}"), None, false),
        (with("\"meta\": {\"other\": \"ann\"}"), None, false),
        (GOOD.to_owned(), None, false),
    ];
    let (info, reading) = (info(), asking(FORMAT, "meta.user"));
    for (text, subject, is_personal) in cases {
        let row = read(text.as_bytes(), &info, &reading).next().unwrap().unwrap();
        assert_eq!(row.is_personal, is_personal, "{text}");
        assert_eq!(row.result.unwrap()[0].subject.as_deref(), subject, "{text}");
    }
    let of = |text: &str| read(text.as_bytes(), &info, &reading).next().unwrap().unwrap();
    let broken = of("{\"prompt\": \"x\", ");
    assert!(broken.is_personal && broken.result.is_err(), "nobody can say whose it is");
    let odd = of(&with("\"meta\": {\"user\": [\"ann\"]}"));
    assert!(odd.is_personal);
    assert_eq!(reason(&odd), "the subject field \"meta.user\" is neither text nor number");
    let incomplete = of("{\"prompt\": \"x\", \"meta\": {\"user\": \"ann\"}}");
    assert!(incomplete.is_personal && incomplete.result.is_err());
    // Without the option, nothing is asked.
    assert!(!read_all(b"{\"prompt\": \"x\", ", FORMAT)[0].is_personal);
}

fn export(trace: Value, observation: &str, text: &str) -> Value {
    json!({ "trace": trace, "observations": [{
        "id": observation, "type": "GENERATION", "input": text, "output": "ho",
        "metadata": { "customer": 5 },
    }] })
}

#[test]
fn exports_are_read_one_at_a_time_and_ids_name_their_trace() {
    let (a, b) = (export(json!({ "id": "t" }), "o", "hi"), export(json!({}), "o", "hey"));
    for text in [format!("[{a}, {b}]"), format!("{a}\n{b}"), format!("{a:#}{b:#}")] {
        let rows = read_all(text.as_bytes(), Format::LangfuseExport);
        let ids = rows.iter().map(|row| row.result.as_ref().unwrap()[0].source.external_id.clone());
        assert_eq!(ids.collect::<Vec<_>>(), ["t/o", "o"]);
        assert_eq!(rows.iter().map(|row| row.location.row).collect::<Vec<_>>(), [1, 2]);
    }
    let rows =
        read_owned(&format!("[{a}, {{\"trace\": 1}}, {b}, {{\"trace\": "), Format::LangfuseExport);
    let rows: Vec<Row> = rows.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row.location.row).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(reason(&rows[1]), "export 2 of the file: no array \"observations\"");
    assert!(reason(&rows[3]).contains("cut off"), "{}", reason(&rows[3]));
    assert!(rows[1].is_personal && rows[3].is_personal);
    let (info, reading) = (info(), asking(Format::LangfuseExport, "metadata.customer"));
    let text = a.to_string();
    let row = read(text.as_bytes(), &info, &reading).next().unwrap().unwrap();
    assert_eq!(row.result.unwrap()[0].subject.as_deref(), Some("5"));
}

#[test]
fn rows_that_share_an_id_are_counted_by_content() {
    let ask = |id: u32, answer: &str| {
        let (request, response) = (json!({ "prompt": "p" }), json!({ "completion": answer }));
        json!({ "id": id, "request": request, "response": response })
    };
    let rows = [ask(1, "a"), ask(1, "b"), ask(2, "a"), ask(1, "c"), ask(1, "b"), ask(1, "a")];
    let text = rows.map(|row| row.to_string()).join("\n");
    let rows = read_all(text.as_bytes(), Format::Exchange);
    let ids = rows.iter().map(|row| row.result.as_ref().unwrap()[0].source.external_id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["1", "1~2", "2", "1~3", "1~2", "1"]);
}

#[test]
fn a_prefix_is_no_trace() {
    let mut rows = read_owned("{\"cep\": \"Be brief.\"}", Format::CepText);
    let error = rows.remove(0).unwrap_err().to_string();
    assert!(error.contains("no trace") && rows.is_empty(), "{error}");
}

#[test]
fn only_what_is_asked_for_is_read() {
    let text = format!("[{},\n", row(0));
    let endless = std::io::repeat(b' ');
    let input = std::io::BufReader::new(std::io::Read::chain(text.as_bytes(), endless));
    assert!(input.buffer().is_empty());
    let (info, reading) = (info(), FORMAT.into());
    let first = read(input, &info, &reading).next().unwrap().unwrap();
    assert!(first.result.is_ok());
    let mut plain = opened(&b"x"[..]);
    assert_eq!(plain.fill_buf().unwrap(), b"x");
}

/// Has one quote too many, or too few, in its prompt.
fn quoted(text: &str) -> String {
    text.replace("Say 1.", "array \"question 1")
}

#[test]
fn a_quote_too_many_costs_its_row_whatever_the_layout() {
    let talk = |n: u32| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Say {n}.\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{{\\\"n\\\":{n}}}\"}}]}}"
        )
    };
    let long = |n: u32| {
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&talk(n)).unwrap()).unwrap()
    };
    let shifted = |text: String| text.replace('\n', "\n  ");
    let make = |one: &dyn Fn(u32) -> String| (0..1_000).map(|n| quoted(&one(n))).collect();
    let lines: Vec<String> = make(&row);
    let documents: Vec<String> = make(&pretty);
    let talks: Vec<String> = make(&talk);
    let longs: Vec<String> = make(&long);
    let inner: Vec<String> = make(&|n| shifted(long(n)));
    let cases = [
        (FORMAT, format!("[\n{}\n]", lines.join(",\n"))),
        (FORMAT, format!("[{}]", lines.join(",\n "))),
        (FORMAT, format!("[\n  {}\n]\n", lines.join(",\n  "))),
        (FORMAT, lines.join("\n")),
        (FORMAT, format!("[{}]", documents.join(",\n"))),
        (FORMAT, documents.join("\n")),
        (Format::OpenAi, format!("[\n{}\n]", talks.join(",\n"))),
        (Format::OpenAi, format!("[\n  {}\n]", inner.join(",\n  "))),
        (Format::OpenAi, longs.join("\n")),
    ];
    for (place, (format, text)) in cases.iter().enumerate() {
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let rows = read_all(text.as_bytes(), *format);
            let rejected: Vec<u64> =
                rows.iter().filter(|row| row.result.is_err()).map(|row| row.location.row).collect();
            assert_eq!((rows.len(), rejected), (1_000, vec![2]), "layout {place}");
        }
    }
    // The last row may be the broken one, and then the array ends all the same.
    let last = format!("[\n{},\n{}\n]", talk(0), quoted(&talk(1)));
    let rows = read_all(last.as_bytes(), Format::OpenAi);
    assert_eq!(rows.len(), 2);
    assert!(reason(&rows[1]).starts_with("broken JSON"), "{}", reason(&rows[1]));
}
