//! Langfuse exports: `{trace, observations: [...]}`, one document or an array of them.
//!
//! Each generation is a row, numbered by its place among the observations (over the whole file);
//! its id is that of its trace and its own. Exports are read one at a time.
//! One of level `ERROR` is marked `outcome.failure` and has no gold.
//! A generation that contains another generation is the wrapper of its framework around the same
//! request, and is passed over.

mod input;

use std::collections::BTreeSet;
use std::io::BufRead;

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::{Map, Value};

use self::input::Input;
use super::chat::{answer_of, open, tools_of, turns_of};
use super::gzip::{Opened, opened};
use super::lines::{Ids, object_of, subject_of_row};
use super::make::{finish, last_user, redact, start, subject_of};
use super::records::{Record, Records};
use super::values::has_long_number;
use super::{Format, IngestError, Reading, Row, SourceInfo, spans};
use crate::episode::{Answer, Episode, Gold, Tool, Turn};
use crate::template::query_of;

/// Longest export that is read into memory. A file may hold any number of them.
const EXPORT_BYTES_MAX: usize = 256 << 20;

/// Reads export by export.
pub(super) fn rows<'a, R: BufRead + 'a>(
    input: R,
    source: &'a SourceInfo,
    reading: &'a Reading,
) -> Box<dyn Iterator<Item = Result<Row, IngestError>> + 'a> {
    Box::new(Exports {
        records: Records::new(opened(input), &[], EXPORT_BYTES_MAX),
        source,
        reading,
        export: None,
        row: 0,
        is_done: false,
        is_checked: false,
        ids: Ids::default(),
    })
}

struct Exports<'a, R> {
    records: Records<Opened<R>>,
    source: &'a SourceInfo,
    reading: &'a Reading,
    /// The export that is being read.
    export: Option<Export>,
    /// Number of the observation, over the whole file.
    row: u64,
    is_done: bool,
    /// Some export has shown that the format is right.
    is_checked: bool,
    ids: Ids,
}

struct Export {
    /// Everything but the observations.
    rest: Map<String, Value>,
    observations: std::vec::IntoIter<Value>,
    /// Observations that are parents of a generation.
    wrappers: BTreeSet<String>,
    /// Its text holds a whole number that may have lost digits.
    has_long_number: bool,
}

impl<R: BufRead> Iterator for Exports<'_, R> {
    type Item = Result<Row, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let next = self.export.as_mut();
            let next =
                next.and_then(|export| next_row(export, &mut self.row, self.source, self.reading));
            if let Some(mut row) = next {
                let told = |episode| self.ids.tell_apart(episode);
                row.result = row.result.map(|all| all.into_iter().map(told).collect());
                return Some(Ok(row));
            }
            let record = match self.records.next() {
                Ok(record) => record?,
                Err(source) => {
                    self.is_done = true;
                    let (file, row) = (self.source.file.clone(), self.row + 1);
                    return Some(Err(IngestError::Io { file, row, source }));
                }
            };
            match export_of(&record) {
                Ok(export) => (self.export, self.is_checked) = (Some(export), true),
                Err(reason) => return Some(self.broken(&record, reason)),
            }
        }
        None
    }
}

impl<R: BufRead> Exports<'_, R> {
    /// Says that an export cannot be read. If it is the first, the whole file is of another format;
    /// of any other nobody can say whose it is, or how many rows it would have.
    fn broken(&mut self, record: &Record, reason: String) -> Result<Row, IngestError> {
        let file = self.source.file.clone();
        self.export = None;
        if !self.is_checked {
            self.is_done = true;
            return Err(IngestError::NotOfFormat { file, format: Format::LangfuseExport, reason });
        }
        self.row += 1;
        let reason = format!("export {} of the file: {reason}", record.row);
        Ok(Row {
            location: Location { file, row: self.row },
            content: record.content,
            is_personal: true,
            redacted: 0,
            result: Err(self.reading.rules.redact_text(&reason)),
        })
    }
}

fn export_of(record: &Record) -> Result<Export, String> {
    let mut rest = object_of(record)?;
    let beside = rest.remove("observations");
    let inside = || rest.get_mut("trace")?.as_object_mut()?.remove("observations");
    let found = beside.filter(Value::is_array).or_else(inside);
    let Some(Value::Array(observations)) = found else {
        return Err("no array \"observations\"".to_owned());
    };
    let wrappers = wrappers(&observations);
    let has_long_number = has_long_number(&record.bytes);
    Ok(Export { rest, observations: observations.into_iter(), wrappers, has_long_number })
}

/// Reads the next generation of an export.
fn next_row(
    export: &mut Export,
    row: &mut u64,
    source: &SourceInfo,
    reading: &Reading,
) -> Option<Row> {
    loop {
        let observation = export.observations.next()?;
        *row += 1;
        let is_wrapper = text(&observation, "id").is_some_and(|id| export.wrappers.contains(id));
        if is_generation(&observation) && !is_wrapper {
            let location = Location { file: source.file.clone(), row: *row };
            return Some(row_of(export, &observation, source, (reading, location)));
        }
    }
}

fn is_generation(observation: &Value) -> bool {
    text(observation, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("generation"))
}

/// Returns the observations that are parents of a generation.
fn wrappers(observations: &[Value]) -> BTreeSet<String> {
    let generations = || observations.iter().filter(|observation| is_generation(observation));
    let parent = |one| text(one, "parentObservationId");
    let parents: BTreeSet<(&str, &str)> =
        generations().filter_map(|one| Some((text(one, "id")?, parent(one)?))).collect();
    // What is its own parent, at once or over another, contains nothing.
    let is_ring = |one: &Value, parent: &str| {
        text(one, "id").is_some_and(|id| id == parent || parents.contains(&(parent, id)))
    };
    let wrapper = |one| parent(one).filter(|parent| !is_ring(one, parent)).map(str::to_owned);
    generations().filter_map(wrapper).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn row_of(
    export: &Export,
    observation: &Value,
    source: &SourceInfo,
    (reading, location): (&Reading, Location),
) -> Row {
    let content = Digest::of(observation.to_string().as_bytes());
    let (export, has_long_number) = (&export.rest, export.has_long_number);
    let trace = export.get("trace");
    let nothing = Map::new();
    let own = observation.as_object().unwrap_or(&nothing);
    let subject = subject_of_row(reading, &[own, export]).map(|subject| {
        subject
            .or_else(|| subject_of(own.get("userId")))
            .or_else(|| subject_of(trace.and_then(|trace| trace.get("userId"))))
    });
    let is_personal = !matches!(subject, Ok(None));
    let mut redacted = 0;
    let trace_id = text(observation, "traceId")
        .or_else(|| trace.and_then(|trace| text(trace, "id")))
        .filter(|id| !id.is_empty());
    let result = subject
        .and_then(|subject| {
            let start = |id: &str| {
                // Two exports may count their observations alike.
                let id = trace_id.map_or_else(|| id.to_owned(), |trace| format!("{trace}/{id}"));
                Episode { subject, ..start(source, location.clone(), Format::LangfuseExport, id) }
            };
            let mut episodes = vec![episode(observation, start)?];
            redacted = redact(&reading.rules, &mut episodes);
            episodes.into_iter().map(|episode| finish(episode, has_long_number)).collect()
        })
        .map_err(|reason| reading.rules.redact_text(&reason));
    Row { location, content, is_personal, redacted, result }
}

/// Reads a generation. No reason quotes it: reasons stay in the log when its words have to go.
pub(super) fn episode(
    observation: &Value,
    start: impl FnOnce(&str) -> Episode,
) -> Result<Episode, String> {
    let id = text(observation, "id").ok_or("the observation has no id")?;
    let part = |key: &str| open(observation.get(key).unwrap_or(&Value::Null));
    let (turns, in_input) = asked(part("input")).map_err(|reason| format!("input: {reason}"))?;
    let is_error =
        text(observation, "level").is_some_and(|level| level.eq_ignore_ascii_case("error"));
    let answer = match answer_of(&part("output")) {
        // An error leaves no answer, or something that is none.
        Err(_) if is_error => None,
        answer => Some(answer.map_err(|reason| format!("output: {reason}"))?),
    };
    let mut episode = start(id);
    episode.tools = tools(observation);
    if episode.tools.is_empty() {
        episode.tools = in_input;
    }
    episode.query = query_of(last_user(&turns));
    episode.turns = turns;
    let model = text(observation, "model").or_else(|| text(observation, "providedModelName"));
    let calls = answer.as_ref().map(|answer| answer.1.clone()).unwrap_or_default();
    if let Some((text, calls)) = answer {
        let model = model.unwrap_or("unknown").to_owned();
        episode.answer = Some(Answer { model, text, calls });
        episode.flags.push("answer.recorded".to_owned());
    }
    if is_error {
        episode.flags.push("outcome.failure".to_owned());
    } else if !calls.is_empty() {
        // The model's own calls are all there is to learn from; nobody has checked them.
        episode.gold = Gold::Calls { calls };
        episode.flags.push("gold.unchecked".to_owned());
    }
    if episode.gold != Gold::None || !episode.tools.is_empty() {
        episode.track = "toolcall".to_owned();
    }
    Ok(episode)
}

/// Reads what was asked: its turns, and the tools that stand in it.
pub(super) fn asked(input: Value) -> Result<(Vec<Turn>, Vec<Tool>), String> {
    let Input { conversation, tools } = input::apart(input);
    Ok((turns_of(&conversation)?, tools))
}

/// Finds the tools on offer: Langfuse has no one field for them.
fn tools(observation: &Value) -> Vec<Tool> {
    let metadata = open(observation.get("metadata").unwrap_or(&Value::Null));
    let attributes = metadata.get("attributes").map(open).unwrap_or_default();
    let input = open(observation.get("input").unwrap_or(&Value::Null));
    let places = [
        observation.get("toolDefinitions"),
        input.get("tools"),
        metadata.get("tools"),
        attributes.get("ai.prompt.tools"),
        attributes.get("gen_ai.tool.definitions"),
    ];
    let told = places.into_iter().flatten().map(tools_of).find(|tools| !tools.is_empty());
    // The attributes are those of the span that the observation was made from.
    let of_span = || attributes.as_object().map(spans::tools_of);
    told.or_else(of_span).unwrap_or_default()
}

#[cfg(test)]
mod tests;
