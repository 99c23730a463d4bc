//! Rows, whatever lays them out: each is parsed, read by its format's reader, and finished.

use std::collections::BTreeMap;
use std::io::BufRead;

use ledger::catalogue::Location;
use serde_json::{Map, Value};

use super::gzip::{Opened, opened};
use super::make::{finish, place_ids, redact, subject_at};
use super::records::{Record, Records};
use super::values::has_long_number;
use super::{Beside, Format, IngestError, Reading, Row, SourceInfo, episodes};
use crate::episode::Episode;

/// Longest row that is read into memory.
const ROW_BYTES_MAX: usize = 64 << 20;

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
        records: Records::new(opened(input), reading.format.keys(), ROW_BYTES_MAX),
        source,
        reading,
        read,
        is_checked: false,
        is_done: false,
        ids: Ids::default(),
    })
}

struct Rows<'a, R> {
    records: Records<Opened<R>>,
    source: &'a SourceInfo,
    reading: &'a Reading,
    read: ReadRow,
    /// Some row has shown that the format is right.
    is_checked: bool,
    is_done: bool,
    ids: Ids,
}

impl<R: BufRead> Iterator for Rows<'_, R> {
    type Item = Result<Row, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let row = match self.records.next() {
            Ok(record) => self.row(&record?),
            Err(source) => {
                let (file, row) = (self.source.file.clone(), self.records.row());
                Err(IngestError::Io { file, row, source })
            }
        };
        self.is_done = row.is_err();
        Some(row)
    }
}

impl<R: BufRead> Rows<'_, R> {
    fn row(&mut self, record: &Record) -> Result<Row, IngestError> {
        let format = self.reading.format;
        let location = Location { file: self.source.file.clone(), row: record.row };
        let mut row = Row {
            location,
            content: record.content,
            is_personal: false,
            redacted: 0,
            result: Ok(Vec::new()),
        };
        let object = match object_of(record) {
            Ok(object) => object,
            Err(reason) => {
                // Nobody can say whose it is.
                row.is_personal =
                    format == Format::Episodes || self.reading.subject_field.is_some();
                row.result = Err(self.reading.rules.redact_text(&reason));
                return Ok(row);
            }
        };
        let absent: Vec<&str> =
            format.keys().iter().filter(|key| !object.contains_key(**key)).copied().collect();
        if !self.is_checked && absent.len() == format.keys().len() {
            return Err(IngestError::NotOfFormat {
                file: self.source.file.clone(),
                format,
                reason: format!("row {} has none of its keys ({})", record.row, absent.join(", ")),
            });
        }
        self.is_checked = true;
        row.is_personal = format == Format::Episodes && episodes::is_personal(&object);
        let absent = absent.first().map(|key| format!("no field {key:?}"));
        let read = self.read(&mut row, object, absent);
        let finished = read.and_then(|episodes| self.finish(&mut row, episodes, &record.bytes));
        row.result = finished.map_err(|reason| self.reading.rules.redact_text(&reason));
        Ok(row)
    }

    /// Finds whose the row is and what its reader makes of it, unless it is `wrong` already.
    fn read(
        &self,
        row: &mut Row,
        object: Map<String, Value>,
        wrong: Option<String>,
    ) -> Result<Vec<Episode>, String> {
        let subject = subject_of_row(self.reading, &[&object]);
        row.is_personal |= !matches!(subject, Ok(None));
        let (source, beside) = (self.source, &self.reading.beside);
        let input = Input { object, source, location: row.location.clone(), beside };
        let subject = subject?;
        let mut episodes = match wrong {
            Some(reason) => return Err(reason),
            None => (self.read)(&input)?,
        };
        for episode in &mut episodes {
            episode.subject = subject.clone().or(episode.subject.take());
        }
        Ok(episodes)
    }

    /// Brings the episodes of a row, whose bytes are `text`, into the form that is stored.
    fn finish(
        &mut self,
        row: &mut Row,
        mut episodes: Vec<Episode>,
        text: &[u8],
    ) -> Result<Vec<Episode>, String> {
        row.is_personal |= episodes.iter().any(|episode| episode.subject.is_some());
        place_ids(&mut episodes);
        let redacted = redact(&self.reading.rules, &mut episodes);
        let has_long_number = has_long_number(text);
        let mut finished = Vec::with_capacity(episodes.len());
        for episode in episodes {
            let episode = finish(episode, has_long_number)?;
            let keeps_id = self.reading.format == Format::Episodes;
            finished.push(if keeps_id { episode } else { self.ids.tell_apart(episode) });
        }
        row.redacted = redacted;
        Ok(finished)
    }
}

/// Finds whose a row is, where the reading asks for it: in the first of `objects` that says.
///
/// # Errors
/// When the member that should name a person is neither text nor number: whose the row is cannot
/// be told, so that it must not be taken for nobody's.
pub(super) fn subject_of_row(
    reading: &Reading,
    objects: &[&Map<String, Value>],
) -> Result<Option<String>, String> {
    let Some(path) = &reading.subject_field else { return Ok(None) };
    for object in objects {
        let found = subject_at(object, path)
            .map_err(|()| format!("the subject field {path:?} is neither text nor number"))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What is known of the ids of a file's episodes, to tell rows apart that share one.
///
/// Of an id and of a content, the first 8 bytes of their SHA-256 are kept: 16 bytes a row, where
/// ids are not shared, instead of the id and a digest. Two of a million ids would be taken for one
/// with a chance of 1 in 37 million; the second would be named `~2` then, and nothing be lost.
#[derive(Default)]
pub(super) struct Ids {
    /// First content of each id.
    first: BTreeMap<u64, u64>,
    /// How many contents each id has that has several.
    counts: BTreeMap<u64, u64>,
    /// Place of each further content of an id, from 1.
    further: BTreeMap<(u64, u64), u64>,
}

impl Ids {
    /// Gives a row that shares its id with another row of the file, but not its content, an id of
    /// its own. Rows that are wholly equal keep one id, so that the second is a repetition.
    pub(super) fn tell_apart(&mut self, mut episode: Episode) -> Episode {
        let id = short(ledger::Digest::of(episode.source.external_id.as_bytes()));
        let content = short(episode.content_digest());
        if *self.first.entry(id).or_insert(content) == content {
            return episode;
        }
        let count = self.counts.entry(id).or_insert(1);
        let place = *self.further.entry((id, content)).or_insert_with(|| {
            *count += 1;
            *count
        });
        episode.source.external_id = format!("{}~{place}", episode.source.external_id);
        episode
    }
}

/// Returns the first 8 bytes of a digest as a number.
fn short(digest: ledger::Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Parses a row, which must be an object.
pub(super) fn object_of(record: &Record) -> Result<Map<String, Value>, String> {
    if let Some(fault) = record.fault {
        return Err(fault.reason());
    }
    let text = std::str::from_utf8(&record.bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            // serde_json counts the lines of the row; most rows have one.
            let place = match text.contains('\n') {
                true => format!("line {line}, column {column} of the row"),
                false => format!("column {column}"),
            };
            Err(format!("broken JSON at {place}: {}", what(&error)))
        }
    }
}

fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}
