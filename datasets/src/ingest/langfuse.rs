//! Langfuse exports: `{trace, observations: [...]}`, one document or an array of them.
//!
//! Each generation is a row, numbered by its place among the observations (over the whole file).
//! A generation that contains another generation is the wrapper of its framework around the same
//! request, and is passed over.

use std::collections::BTreeSet;
use std::io::BufRead;

use ledger::Digest;
use ledger::catalogue::Location;
use serde_json::Value;

use super::chat::{answer_of, open, tools_of, turns_of};
use super::make::{finish, last_user, start, subject_of};
use super::{Format, IngestError, Row, SourceInfo};
use crate::episode::{Answer, Episode, Gold, Tool};
use crate::template::query_of;

/// Reads the whole export.
pub(super) fn read(mut input: impl BufRead, source: &SourceInfo) -> Vec<Result<Row, IngestError>> {
    let mut bytes = Vec::new();
    if let Err(error) = input.read_to_end(&mut bytes) {
        return vec![Err(IngestError::Io { file: source.file.clone(), row: 1, source: error })];
    }
    let wrong = |reason: String| {
        let file = source.file.clone();
        vec![Err(IngestError::NotOfFormat { file, format: Format::LangfuseExport, reason })]
    };
    let document: Value = match serde_json::from_slice(&bytes) {
        Ok(document) => document,
        Err(error) => return wrong(format!("broken JSON: {error}")),
    };
    let exports = match &document {
        Value::Array(exports) => exports.iter().collect(),
        export => vec![export],
    };
    let mut rows = Vec::new();
    let mut row = 0;
    for export in exports {
        let Some(observations) = observations(export) else {
            return wrong("no array \"observations\"".to_owned());
        };
        let wrappers = wrappers(observations);
        for observation in observations {
            row += 1;
            let id = text(observation, "id");
            if is_generation(observation) && !id.is_some_and(|id| wrappers.contains(id)) {
                rows.push(Ok(row_of(export, observation, source, row)));
            }
        }
    }
    rows
}

fn observations(export: &Value) -> Option<&Vec<Value>> {
    let beside = export.get("observations").and_then(Value::as_array);
    beside.or_else(|| export.get("trace")?.get("observations")?.as_array())
}

fn is_generation(observation: &Value) -> bool {
    text(observation, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("generation"))
}

/// Returns the observations that are parents of a generation.
fn wrappers(observations: &[Value]) -> BTreeSet<&str> {
    let generations = observations.iter().filter(|observation| is_generation(observation));
    generations.filter_map(|observation| text(observation, "parentObservationId")).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn row_of(export: &Value, observation: &Value, source: &SourceInfo, row: u64) -> Row {
    let location = Location { file: source.file.clone(), row };
    let content = Digest::of(observation.to_string().as_bytes());
    let subject = subject_of(export.get("trace").and_then(|trace| trace.get("userId")));
    let is_personal = subject.is_some();
    let result = episode(observation, source, location.clone())
        .and_then(|episode| finish(Episode { subject, ..episode }))
        .map(|episode| vec![episode]);
    Row { location, content, is_personal, redacted: 0, result }
}

/// Reads a generation. No reason quotes it: reasons stay in the log when its words have to go.
fn episode(
    observation: &Value,
    source: &SourceInfo,
    location: Location,
) -> Result<Episode, String> {
    let id = text(observation, "id").ok_or("the observation has no id")?;
    let part = |key: &str| open(observation.get(key).unwrap_or(&Value::Null));
    let turns = turns_of(&part("input")).map_err(|reason| format!("input: {reason}"))?;
    let (answer, calls) =
        answer_of(&part("output")).map_err(|reason| format!("output: {reason}"))?;
    let mut episode = start(source, location, Format::LangfuseExport, id.to_owned());
    episode.tools = tools(observation);
    episode.query = query_of(last_user(&turns));
    episode.turns = turns;
    let model = text(observation, "model").or_else(|| text(observation, "providedModelName"));
    episode.answer = Some(Answer {
        model: model.unwrap_or("unknown").to_owned(),
        text: answer,
        calls: calls.clone(),
    });
    episode.flags.push("answer.recorded".to_owned());
    if !calls.is_empty() {
        // The model's own calls are all there is to learn from; nobody has checked them.
        episode.gold = Gold::Calls { calls };
        episode.flags.push("gold.unchecked".to_owned());
    }
    if episode.gold != Gold::None || !episode.tools.is_empty() {
        episode.track = "toolcall".to_owned();
    }
    Ok(episode)
}

/// Finds the tools on offer: Langfuse has no one field for them.
fn tools(observation: &Value) -> Vec<Tool> {
    let metadata = open(observation.get("metadata").unwrap_or(&Value::Null));
    let attributes = metadata.get("attributes").cloned().unwrap_or(Value::Null);
    let input = open(observation.get("input").unwrap_or(&Value::Null));
    let places = [
        observation.get("toolDefinitions"),
        input.get("tools"),
        metadata.get("tools"),
        attributes.get("ai.prompt.tools"),
        attributes.get("gen_ai.tool.definitions"),
    ];
    places.into_iter().flatten().map(tools_of).find(|tools| !tools.is_empty()).unwrap_or_default()
}
