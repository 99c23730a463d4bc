//! `{prompt, completion}`: one prompt, one gold.

use serde_json::Value;

use super::Format;
use super::lines::Input;
use super::make::{gold_reason, id_of, start};
use crate::episode::{Episode, Gold, Turn};
use crate::gold::{Golds, read_golds};
use crate::template::{Parsed, Template, parse_prompt};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let prompt = text(input, "prompt")?;
    let completion = text(input, "completion")?;
    let mut episode =
        start(input.source, input.location.clone(), Format::PromptCompletion, id_of(prompt));
    fill(&mut episode, prompt, completion)?;
    Ok(vec![episode])
}

/// Fills in what prompt and gold tell.
pub(super) fn fill(episode: &mut Episode, prompt: &str, gold: &str) -> Result<(), String> {
    let parsed = parse_prompt(prompt);
    let template = parsed.as_ref().map(|parsed| parsed.template);
    let golds;
    (episode.track, golds) = read_gold(template, gold)?;
    match golds {
        Read::Calls(read) => {
            episode.flags.extend(read.flags);
            episode.gold = Gold::Calls { calls: read.calls };
        }
        Read::Json(value) => episode.gold = Gold::Json { value },
    }
    episode.turns = vec![Turn::text("user", prompt)];
    match parsed {
        Some(Parsed { query, tools, .. }) => (episode.query, episode.tools) = (query, tools),
        None => episode.query = prompt.trim().to_owned(),
    }
    Ok(())
}

enum Read {
    Calls(Golds),
    Json(Value),
}

/// Reads the gold as the template asks for it; without a template, calls where it holds any.
fn read_gold(template: Option<Template>, gold: &str) -> Result<(String, Read), String> {
    let calls = |track: &str| {
        let golds = read_golds(gold).map_err(|error| gold_reason(&error))?;
        Ok((track.to_owned(), Read::Calls(golds)))
    };
    match template {
        Some(Template::Toolcall | Template::ToolcallWide) => calls("toolcall"),
        Some(Template::StructuredWide) => calls("structured"),
        None if gold.contains("<tool_call") => calls("toolcall"),
        Some(Template::Structured) | None => serde_json::from_str(gold)
            .map(|value| ("structured".to_owned(), Read::Json(value)))
            .map_err(|error| format!("gold: neither call nor JSON at column {}", error.column())),
    }
}

/// Returns the text of `field`.
pub(super) fn text<'a>(input: &'a Input<'_>, field: &str) -> Result<&'a str, String> {
    let value = input.object.get(field).ok_or_else(|| format!("no field {field:?}"))?;
    value.as_str().ok_or_else(|| format!("field {field:?} is no text"))
}
