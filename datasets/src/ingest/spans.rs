//! Spans, read as episodes: one file per convention in which tracers write them.
//!
//! A span says what it did in attributes, and each tracer has names of its own for them. What a
//! span is, is told by the attributes that are made for it; what a model was shown and answered, by
//! the first convention that has both. Attributes may be values or JSON inside strings.

use ledger::catalogue::Location;
use serde_json::{Map, Value, json};

use super::chat::open;
use super::make::{finish, redact, start, subject_of};
use super::values::has_long_number;
use super::{Format, SourceInfo};
use crate::episode::{Episode, Source, Tool};
use crate::redact::Rules;
use crate::span::{SESSION_KEYS, SUBJECT_KEYS, Span};

mod content;
mod events;
mod genai;
mod indexed;
mod langfuse;
mod mastra;
mod messages;
mod openinference;
mod role;
mod tools;
mod vercel;

pub use role::Role;

/// Name and version of the mapper, as it stands on events. Any change of what it reads raises it.
pub const MAPPER: &str = "spans/2";

/// Attributes with the id of an answer, by which feedback may name it.
const RESPONSE_IDS: [&str; 3] = ["gen_ai.response.id", "ai.response.id", "llm.response.id"];
/// Attributes with the name of a model: of that which answered before that which was asked for.
const MODELS: [&str; 9] = [
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "ai.response.model",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.response.model",
    "llm.request.model",
    "embedding.model_name",
    "ai.model.id",
];
/// Attributes with the length of what was asked, in tokens.
const INPUT_TOKENS: [&str; 7] = [
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
    "ai.usage.tokens",
];
/// Attributes with the length of the answer, in tokens.
const OUTPUT_TOKENS: [&str; 6] = [
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
];

/// What a span is.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapped {
    /// What it is a step of.
    pub role: Role,
    /// Convention that was read: `genai`, `genai-events`, `genai-indexed`, `genai-prompt`,
    /// `mastra`, `openinference`, `vercel`, `langfuse` or `none`.
    pub form: &'static str,
    /// Person that it is about, where it says so.
    pub subject: Option<String>,
    /// Conversation that it is a part of, where it says so.
    pub session: Option<String>,
    /// Other ids by which feedback may name it, sorted, each once: of its trace, of the answer.
    pub aliases: Vec<String>,
    /// Tokens as `{"input": n, "output": n}`, as far as told; null where nothing is.
    pub usage: Value,
    /// Model that answered or, where that is not told, that was asked for.
    pub model: Option<String>,
    /// Places at which a placeholder was put into the episode.
    pub redacted: u64,
    /// The episode; none where the span is no call of a model. An error says why a call of a model
    /// cannot be read, and quotes nothing of it.
    pub episode: Result<Option<Episode>, String>,
}

/// Says what a span is and, where it is a call of a model, makes an episode of it.
///
/// The span should have gone through [`Span::redact`] before. Pieces of a text that stand in
/// several attributes are put together here, so the rules run over the episode as well.
pub fn map(span: &Span, source: &SourceInfo, rules: &Rules) -> Mapped {
    let attributes = &span.attributes;
    let (role, told_by) = role::of(span);
    let subject = first(attributes, &SUBJECT_KEYS, subject_of);
    let model = first(attributes, &MODELS, text_of);
    let mut mapped = Mapped {
        role,
        form: told_by,
        subject,
        session: first(attributes, &SESSION_KEYS, subject_of),
        aliases: aliases(span),
        usage: usage(attributes),
        model,
        redacted: 0,
        episode: Ok(None),
    };
    if role == Role::Generation {
        generation(span, source, rules, &mut mapped);
    }
    mapped
}

/// Makes an episode of a call of a model.
fn generation(span: &Span, source: &SourceInfo, rules: &Rules, mapped: &mut Mapped) {
    let begin = |form: &str| begin(span, source, mapped, form);
    let read = match content::read(span, mapped.model.as_deref(), begin) {
        Some((form, read)) => {
            mapped.form = form;
            read
        }
        None => Err(content::nothing(&span.attributes)),
    };
    mapped.episode = read.and_then(|episode| {
        let mut episodes = [episode];
        mapped.redacted = redact(rules, &mut episodes);
        let [mut episode] = episodes;
        // Ids of spans say nothing of the words, and the span itself is known by this one.
        episode.source.external_id = span.external_id();
        finish(episode, holds_long_number(span)).map(Some)
    });
}

fn begin(span: &Span, source: &SourceInfo, mapped: &Mapped, form: &str) -> Episode {
    let location = Location { file: String::new(), row: 0 };
    let id = span.external_id();
    let format = if form == langfuse::FORM { form.to_owned() } else { format!("otel-{form}") };
    let episode = start(source, location, Format::LangfuseExport, id);
    let source = Source { format, ..episode.source };
    Episode { subject: mapped.subject.clone(), source, ..episode }
}

/// Finds the tools on offer in the attributes of a span.
pub(super) fn tools_of(attributes: &Map<String, Value>) -> Vec<Tool> {
    tools::of(attributes, &Value::Null)
}

/// Says whether a whole number in the span may have lost digits.
fn holds_long_number(span: &Span) -> bool {
    let is_long =
        |members: &Map<String, Value>| serde_json::to_vec(members).map(|it| has_long_number(&it));
    let of_events = span.events.iter().map(|event| &event.attributes);
    // What cannot be written may hold anything.
    std::iter::once(&span.attributes).chain(of_events).any(|it| is_long(it).unwrap_or(true))
}

/// Returns the first attribute of several that can be read.
fn first<T>(
    attributes: &Map<String, Value>,
    keys: &[&str],
    read: impl Fn(Option<&Value>) -> Option<T>,
) -> Option<T> {
    keys.iter().find_map(|&key| read(attributes.get(key)))
}

/// Returns a text that is not blank.
fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// Says whether something stands there.
fn is_told(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn aliases(span: &Span) -> Vec<String> {
    let told = RESPONSE_IDS.iter().filter_map(|&key| text_of(span.attributes.get(key)));
    let outputs = ["langfuse.observation.output", "output.value"];
    let inside = outputs.iter().filter_map(|&key| response_id(span.attributes.get(key)?));
    // Two answers whose ids were taken out would have one name.
    let is_placeholder = |id: &String| id.contains('[') && id.contains(']');
    let ids = told.chain(inside).filter(|id| !is_placeholder(id));
    let trace = Some(span.trace_id.clone()).filter(|id| !id.is_empty());
    let mut all: Vec<String> = ids.chain(trace).collect();
    all.sort();
    all.dedup();
    all
}

/// Finds the id of a reply that was kept as the provider gave it.
fn response_id(output: &Value) -> Option<String> {
    let output = open(output);
    let is_reply = ["choices", "candidates", "output", "stop_reason"]
        .iter()
        .any(|&key| output.get(key).is_some_and(|value| !value.is_null()));
    text_of(output.get("id").or_else(|| output.get("responseId"))).filter(|_| is_reply)
}

fn usage(attributes: &Map<String, Value>) -> Value {
    let details = attributes.get("langfuse.observation.usage_details").map(open);
    let own = |keys: &[&str]| {
        let details = details.as_ref()?.as_object()?;
        first(details, keys, count_of)
    };
    let input = own(&["input", "input_tokens", "prompt_tokens", "promptTokens"])
        .or_else(|| first(attributes, &INPUT_TOKENS, count_of));
    let output = own(&["output", "output_tokens", "completion_tokens", "completionTokens"])
        .or_else(|| first(attributes, &OUTPUT_TOKENS, count_of));
    match (input, output) {
        (None, None) => Value::Null,
        (Some(input), Some(output)) => json!({ "input": input, "output": output }),
        (Some(input), None) => json!({ "input": input }),
        (None, Some(output)) => json!({ "output": output }),
    }
}

/// Reads a number of tokens, which some write as text or as a float.
fn count_of(value: Option<&Value>) -> Option<u64> {
    /// More tokens than this were never counted; beyond it a float is no whole number.
    const COUNT_MAX: f64 = (1_u64 << 53) as f64;
    let value = value?;
    let whole = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..COUNT_MAX).contains(n));
    let count = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64().or_else(|| whole().map(|n| n as u64)),
    };
    count.filter(|count| *count < 1 << 53)
}

#[cfg(test)]
mod exports_tests;
#[cfg(test)]
mod mastra_tests;
#[cfg(test)]
mod tests;
