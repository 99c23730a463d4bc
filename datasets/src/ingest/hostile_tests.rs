//! Inputs that somebody made to do harm, or that came out of a broken program.
//!
//! `LEDGER_HOSTILE=all` makes the long ones as long as they are meant to be.
#![allow(clippy::unwrap_used)]

use std::io::{BufReader, Cursor, Read, Write};

use super::records::{Fault, Record, Records};
use super::tests::{GOOD, info, read_all, reason};
use super::*;

/// Longest row of a format of rows.
const LONGEST: u64 = 64 << 20;

fn is_full() -> bool {
    std::env::var("LEDGER_HOSTILE").is_ok_and(|what| what == "all")
}

#[test]
fn nesting_a_hundred_thousand_deep_is_rejected_clearly() {
    const DEPTH: usize = 100_000;
    let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
    let row = format!("{{\"prompt\": \"x\", \"completion\": {open}1{close}}}");
    let objects = format!("{}1{}", "{\"prompt\":".repeat(DEPTH), "}".repeat(DEPTH));
    let texts = [
        format!("{row}\n{GOOD}"),
        format!("[{row},{GOOD}]"),
        format!("[{open}{close},{GOOD}]"),
        format!("{objects}\n{GOOD}"),
        format!("[{objects},{GOOD}]"),
        format!("{}\n{GOOD}", objects.replacen(':', ":\n", 3)),
    ];
    for text in texts {
        let rows = read_all(text.as_bytes(), Format::PromptCompletion);
        assert_eq!(rows.len(), 2);
        assert!(reason(&rows[0]).contains("recursion limit"), "{}", reason(&rows[0]));
        assert!(rows[1].result.is_ok());
    }
    let cut = read_all(open.as_bytes(), Format::PromptCompletion);
    assert_eq!(reason(&cut[0]), "the file ends inside this row: it was cut off");
    // The nesting may also stand inside a text that a reader opens.
    let inside = serde_json::json!({ "prompt": "x", "completion": format!("{open}{close}") });
    let called = "<tool_call>".to_owned() + &objects;
    let tagged = serde_json::json!({ "prompt": "x", "completion": called });
    for row in [inside, tagged] {
        let rows = read_all(row.to_string().as_bytes(), Format::PromptCompletion);
        assert!(rows[0].result.is_err());
    }
}

#[test]
fn what_would_be_too_deep_to_be_read_again_is_rejected() {
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let row = |n: usize| {
        let arguments = format!("{{\"x\": {}}}", deep(n));
        let call = serde_json::json!({ "function": { "name": "f", "arguments": arguments } });
        let message = serde_json::json!({ "role": "assistant", "tool_calls": [call] });
        serde_json::json!({ "task_id": 1, "reward": 1, "traj": [message] }).to_string()
    };
    let mut kept = 0;
    for n in 100..128 {
        let rows = read_all(row(n).as_bytes(), Format::TauBench);
        match &rows[0].result {
            Ok(_) => kept += 1,
            Err(reason) => assert!(
                reason == "nested more than 127 levels deep" || reason.contains("name or arg"),
                "{reason}"
            ),
        }
    }
    assert!((1..28).contains(&kept), "{kept}");
}

/// Gives an input without end in pieces, and says how much was read of it at a time.
fn endless(start: &str, byte: u8, length: u64, end: &str) -> impl Read + use<> {
    let middle = std::io::repeat(byte).take(length);
    Cursor::new(start.to_owned()).chain(middle).chain(Cursor::new(end.to_owned()))
}

/// What stands around a row that goes on and on: what is before it, its start, the byte that it
/// repeats, what follows up to the next row, and what is behind that.
const LONG: [(&str, &str, u8, &str, &str); 5] = [
    ("", "{\"prompt\": \"", b'x', "\"}\n", ""),
    ("[", "{\"prompt\": \"", b'x', "\"},", "]"),
    ("", "{\n\"prompt\": \"", b'x', "\"\n}\n", ""),
    ("[", "", b'7', ",", "]"),
    ("", "{\"prompt\": ", b'[', "\n", ""),
];

#[test]
fn a_row_longer_than_the_longest_is_passed_over_without_being_held() {
    // A row is held up to the limit; the rest only passes through the hash.
    let (length, cases) =
        if is_full() { (1 << 30, &LONG[..]) } else { (LONGEST + (1 << 20), &LONG[1..2]) };
    for (before, start, byte, end, after) in cases {
        let rest = format!("{end}{GOOD}{after}");
        let input = endless(&format!("{before}{start}"), *byte, length, &rest);
        let (info, reading) = (info(), Format::PromptCompletion.into());
        let rows = read(BufReader::new(input), &info, &reading);
        let rows: Vec<Row> = rows.map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2, "{start}");
        assert_eq!(reason(&rows[0]), format!("longer than {LONGEST} bytes"), "{start}");
        assert!(rows[1].result.is_ok(), "{start}");
    }
}

#[test]
fn the_longest_row_is_read_and_one_byte_more_is_too_long() {
    let keys = Format::PromptCompletion.keys();
    let read = |text: &str, longest: usize| {
        let mut records = Records::new(text.as_bytes(), keys, longest);
        std::iter::from_fn(move || records.next().unwrap()).collect::<Vec<_>>()
    };
    for text in [GOOD.to_owned(), format!("[{GOOD}]"), format!("{GOOD}\n{GOOD}")] {
        let records = read(&text, GOOD.len());
        assert!(records.iter().all(|record| record.bytes == GOOD.as_bytes()), "{text}");
        let records = read(&text, GOOD.len() - 1);
        let is_passed = |record: &Record| {
            record.bytes.is_empty() && record.fault == Some(Fault::TooLong(GOOD.len() - 1))
        };
        assert!(records.iter().all(is_passed), "{text}");
        let contents =
            records.iter().all(|record| record.content == ledger::Digest::of(GOOD.as_bytes()));
        assert!(contents, "what is passed over is known by the same digest");
    }
    for (before, start, byte, end, after) in LONG {
        for length in [2_000, 100_000] {
            let rest = format!("{end}{GOOD}{after}");
            let input = endless(&format!("{before}{start}"), byte, length, &rest);
            let mut records = Records::new(BufReader::new(input), keys, 1_000);
            let first = records.next().unwrap().unwrap();
            assert_eq!((first.bytes.len(), first.fault), (0, Some(Fault::TooLong(1_000))));
            assert_eq!(records.next().unwrap().unwrap().bytes, GOOD.as_bytes(), "{start}");
            assert!(records.next().unwrap().is_none());
        }
    }
    // So is one that never ends.
    let input = endless("[{\"prompt\": \"", b'x', 100_000, "");
    let mut records = Records::new(BufReader::new(input), keys, 1_000);
    assert_eq!(records.next().unwrap().unwrap().fault, Some(Fault::TooLong(1_000)));
    assert!(records.next().unwrap().is_none());
}

#[test]
fn a_gzip_bomb_is_an_error_with_its_row() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(GOOD.as_bytes()).unwrap();
    let blank = [vec![b' '; (1 << 20) - 1], vec![b'\n']].concat();
    (0..if is_full() { 1_024 } else { 96 }).for_each(|_| encoder.write_all(&blank).unwrap());
    let bomb = encoder.finish().unwrap();
    let (info, reading) = (info(), Format::PromptCompletion.into());
    let mut rows = read(&bomb[..], &info, &reading);
    assert!(rows.next().unwrap().unwrap().result.is_ok());
    let error = rows.next().unwrap().unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("200 to 1") && said.contains("unpack"), "{said}");
    assert!(rows.next().is_none());
}

#[test]
fn odd_bytes_cost_the_row_that_holds_them() {
    let mut text = Vec::new();
    text.extend_from_slice(b"\xef\xbb\xbf");
    for line in [
        GOOD.as_bytes(),
        b"{\"prompt\": \"\0\", \"completion\": \"1\"}",
        b"\0\0\0\0",
        b"{\"prompt\": \"\xc3\", \"completion\": \"1\"}",
        b"\xef\xbb\xbf{\"prompt\": \"x\", \"completion\": \"1\"}",
        b"{\"prompt\": \"\\ud800\", \"completion\": \"1\"}",
        b"{\"prompt\": 1e999, \"completion\": \"1\"}",
        b"{\"prompt\": \"x\", \"prompt\": \"y\", \"completion\": \"1\"}",
        b"{\"prompt\": \"\\u0000\", \"completion\": \"1\"}",
    ] {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    let rows = read_all(&text, Format::PromptCompletion);
    let said: Vec<&str> = rows
        .iter()
        .map(|row| row.result.as_ref().err().map_or("", |reason| reason.as_str()))
        .collect();
    assert_eq!(said.len(), 9);
    assert_eq!((said[0], said[7], said[8]), ("", "", ""));
    assert!(said[1].starts_with("broken JSON at column 13: control character"), "{said:?}");
    assert!(said[2].starts_with("broken JSON at column 1: expected value"), "{said:?}");
    assert_eq!(said[3], "not UTF-8 at byte 12");
    assert!(
        said[4].starts_with("broken JSON at column 1: "),
        "a mark stands at the beginning only"
    );
    assert!(said[5].contains("hex escape"), "{said:?}");
    assert!(said[6].contains("number out of range"), "{said:?}");
    // Sixteen bits a character are no UTF-8, with or without a mark.
    let wide: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = read_all(&[&b"\xff\xfe"[..], &wide].concat(), Format::PromptCompletion);
    assert_eq!(reason(&wide[0]), "not UTF-8 at byte 0");
}
