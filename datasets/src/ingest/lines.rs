//! JSON lines: one row at a time, whatever the length of the file.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::make::finish;
use super::{Beside, Format, IngestError, Reading, Row, SourceInfo, episodes};
use crate::episode::Episode;

/// Longest line that is read into memory.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a reader of rows is given.
pub(super) struct Input<'a> {
    /// The row.
    pub(super) object: Map<String, Value>,
    pub(super) source: &'a SourceInfo,
    pub(super) location: Location,
    /// What lies in files beside the input.
    pub(super) beside: &'a Beside,
}

/// Reads one row: its episodes, or why not.
pub(super) type ReadRow = fn(&Input<'_>) -> Result<Vec<Episode>, String>;

/// Iterates over the rows of `input`.
pub(super) fn rows<'a, R: BufRead + 'a>(
    input: R,
    source: &'a SourceInfo,
    reading: &'a Reading,
    read: ReadRow,
) -> Box<dyn Iterator<Item = Result<Row, IngestError>> + 'a> {
    Box::new(Rows {
        input,
        source,
        format: reading.format,
        reading,
        read,
        line: 0,
        is_checked: false,
        is_done: false,
        ids: BTreeMap::new(),
    })
}

struct Rows<'a, R> {
    input: R,
    source: &'a SourceInfo,
    format: Format,
    reading: &'a Reading,
    read: ReadRow,
    line: u64,
    /// Some row has shown that the format is right.
    is_checked: bool,
    is_done: bool,
    /// Content digests of the episodes by external id, to tell rows apart that share an id.
    ids: BTreeMap<String, Vec<Digest>>,
}

/// One line as it was read.
struct Line {
    bytes: Vec<u8>,
    content: Digest,
    is_too_long: bool,
}

impl<R: BufRead> Iterator for Rows<'_, R> {
    type Item = Result<Row, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let line = match self.read_line() {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(error) => {
                    self.is_done = true;
                    return Some(Err(error));
                }
            };
            if line.bytes.trim_ascii().is_empty() && !line.is_too_long {
                continue;
            }
            let row = self.row(&line);
            self.is_done = row.is_err();
            return Some(row);
        }
        None
    }
}

impl<R: BufRead> Rows<'_, R> {
    fn read_line(&mut self) -> Result<Option<Line>, IngestError> {
        self.line += 1;
        let (file, row) = (&self.source.file, self.line);
        let failed = |source| IngestError::Io { file: file.clone(), row, source };
        let mut bytes = Vec::new();
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut bytes).map_err(failed)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let is_too_long = bytes.len() as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n');
        let mut hash = Sha256::new();
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        hash.update(&bytes);
        if is_too_long {
            bytes.clear();
            self.skip_line(&mut hash).map_err(failed)?;
        }
        if self.line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let content = Digest::from_bytes(hash.finalize().into());
        Ok(Some(Line { bytes, content, is_too_long }))
    }

    fn skip_line(&mut self, hash: &mut Sha256) -> std::io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            hash.update(buffer.get(..taken).unwrap_or_default());
            self.input.consume(taken);
            if end.is_some() || taken == 0 {
                return Ok(());
            }
        }
    }

    fn row(&mut self, line: &Line) -> Result<Row, IngestError> {
        let location = Location { file: self.source.file.clone(), row: self.line };
        let object = match object_of(line) {
            Ok(object) => object,
            Err(reason) => {
                // Nobody can say whose it is.
                let is_personal = self.format == Format::Episodes;
                let content = line.content;
                return Ok(Row {
                    location,
                    content,
                    is_personal,
                    redacted: 0,
                    result: Err(reason),
                });
            }
        };
        let is_personal = self.format == Format::Episodes && episodes::is_personal(&object);
        let absent: Vec<&str> =
            self.format.keys().iter().filter(|key| !object.contains_key(**key)).copied().collect();
        if !self.is_checked && absent.len() == self.format.keys().len() {
            return Err(IngestError::NotOfFormat {
                file: self.source.file.clone(),
                format: self.format,
                reason: format!("row {} has none of its keys ({})", self.line, absent.join(", ")),
            });
        }
        self.is_checked = true;
        if let Some(key) = absent.first() {
            let result = Err(format!("no field {key:?}"));
            return Ok(Row { location, content: line.content, is_personal, redacted: 0, result });
        }
        let (source, beside) = (self.source, &self.reading.beside);
        let input = Input { object, source, location: location.clone(), beside };
        let result = (self.read)(&input).and_then(|episodes| self.finish(episodes));
        Ok(Row { location, content: line.content, is_personal, redacted: 0, result })
    }

    fn finish(&mut self, episodes: Vec<Episode>) -> Result<Vec<Episode>, String> {
        episodes.into_iter().map(|episode| Ok(self.tell_apart(finish(episode)?))).collect()
    }

    /// Gives a row that shares its id with another row of the file, but not its content, an id of
    /// its own. Rows that are wholly equal keep one id, so that the second is a repetition.
    fn tell_apart(&mut self, mut episode: Episode) -> Episode {
        if self.format == Format::Episodes {
            return episode;
        }
        let content = episode.content_digest();
        let known = self.ids.entry(episode.source.external_id.clone()).or_default();
        let place = known.iter().position(|&other| other == content).unwrap_or_else(|| {
            known.push(content);
            known.len() - 1
        });
        if place > 0 {
            episode.source.external_id = format!("{}~{}", episode.source.external_id, place + 1);
        }
        episode
    }
}

fn object_of(line: &Line) -> Result<Map<String, Value>, String> {
    if line.is_too_long {
        return Err(format!("longer than {LINE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(&line.bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("not a JSON object".to_owned()),
        // serde_json counts lines in the row, where there is one: only the column helps.
        Err(error) => Err(format!("broken JSON at column {}: {}", error.column(), what(&error))),
    }
}

fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// Returns the keys of the first JSON object in `text`, which may end inside it.
pub(super) fn first_keys(text: &str) -> Vec<String> {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let start = start.strip_prefix('[').map_or(start, str::trim_start);
    let Some(inner) = start.strip_prefix('{') else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut is_key) = (0_u32, false, false, true);
    let mut written = String::new();
    for c in inner.chars() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    in_string = false;
                    if depth == 0 && is_key {
                        keys.push(std::mem::take(&mut written));
                    }
                }
                _ => written.push(c),
            }
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                written.clear();
            }
            ':' if depth == 0 => is_key = false,
            ',' if depth == 0 => is_key = true,
            '{' | '[' => depth += 1,
            '}' | ']' if depth == 0 => break,
            '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    keys
}
