//! What a model was shown and answered, in whichever convention a span tells it.

use serde_json::{Map, Value};

use super::super::chat::open;
use super::super::make::last_user;
use super::{events, first, genai, indexed, is_told, langfuse, mastra, messages};
use super::{openinference, text_of, tools, vercel};
use crate::episode::{Answer, Episode, Gold};
use crate::span::Span;
use crate::template::query_of;

/// What one convention tells of a call; null where it tells nothing.
#[derive(Default)]
pub(super) struct Found {
    /// Name of the convention.
    pub(super) form: &'static str,
    /// Instructions that stand apart from the messages.
    pub(super) system: Value,
    /// What the model was shown.
    pub(super) input: Value,
    /// What it answered.
    pub(super) output: Value,
    /// Why it stopped, where that stands apart from the answer.
    pub(super) stopped: Value,
}

impl Found {
    fn is_something(&self) -> bool {
        is_told(&self.input) || is_told(&self.output)
    }

    fn is_whole(&self) -> bool {
        is_told(&self.input) && is_told(&self.output)
    }
}

/// All conventions that tell what was said. An earlier one wins.
const READERS: [fn(&Span) -> Found; 10] = [
    genai::of_attributes,
    genai::of_details,
    events::of_span,
    events::of_attribute,
    indexed::of_span,
    genai::of_prompt,
    vercel::of_span,
    mastra::of_span,
    openinference::of_span,
    plain,
];

/// Last resort: attributes of no convention.
fn plain(span: &Span) -> Found {
    let get = |key: &str| span.attributes.get(key).cloned().unwrap_or_default();
    Found { form: "none", input: get("input"), output: get("output"), ..Found::default() }
}

/// Finds what a span tells: the first convention that has both question and answer, or else the
/// first that has either.
fn find(span: &Span) -> Option<Found> {
    let mut half = None;
    for read in READERS {
        let found = read(span);
        if found.is_whole() {
            return Some(found);
        }
        if half.is_none() && found.is_something() {
            half = Some(found);
        }
    }
    half
}

/// Says whether a span tells anything of what was said.
pub(super) fn is_there(span: &Span) -> bool {
    langfuse::is_there(span) || find(span).is_some()
}

/// Reads a call of a model; none where the span tells nothing of what was said.
pub(super) fn read(
    span: &Span,
    model: Option<&str>,
    begin: impl Fn(&str) -> Episode,
) -> Option<(&'static str, Result<Episode, String>)> {
    let is_whole = langfuse::is_whole(span);
    let other = if is_whole { None } else { find(span) };
    if is_whole || (langfuse::is_there(span) && !other.as_ref().is_some_and(Found::is_whole)) {
        return Some((langfuse::FORM, langfuse::read(span, model, begin)));
    }
    let found = other?;
    let form = found.form;
    Some((form, episode(span, &found, model, begin(form))))
}

/// Makes an episode of what was found. No reason quotes it.
fn episode(
    span: &Span,
    found: &Found,
    model: Option<&str>,
    mut episode: Episode,
) -> Result<Episode, String> {
    if found.form == mastra::FORM {
        mastra::check_whole(&found.input).map_err(|reason| format!("input: {reason}"))?;
    }
    let turns = messages::turns(&found.system, &found.input);
    let turns = turns.map_err(|reason| format!("input: {reason}"))?;
    let answer = match messages::answer(&found.output) {
        // An error leaves no answer, or something that is none.
        Err(_) if span.is_error => None,
        answer => Some(answer.map_err(|reason| format!("output: {reason}"))?),
    };
    episode.tools = tools::of(&span.attributes, &found.input);
    episode.query = query_of(last_user(&turns));
    episode.turns = turns;
    let calls = answer.as_ref().map(|answer| answer.1.clone()).unwrap_or_default();
    if let Some((text, calls)) = answer {
        let model = model.unwrap_or("unknown").to_owned();
        episode.answer = Some(Answer { model, text, calls });
        episode.flags.push("answer.recorded".to_owned());
        if is_cut(&span.attributes, &found.stopped, &found.output) {
            episode.flags.push("answer.cut".to_owned());
        }
    }
    if span.is_error {
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

/// Says whether the answer stopped because it was as long as it might be.
pub(super) fn is_cut(attributes: &Map<String, Value>, stopped: &Value, output: &Value) -> bool {
    let told = ["gen_ai.response.finish_reasons", "ai.response.finishReason", "ai.finishReason"];
    let told = told.iter().filter_map(|&key| attributes.get(key));
    let output = open(output);
    // Of several answers the first is read.
    let output = output.get(0).unwrap_or(&output);
    let first = |key: &str| output.get(key)?.get(0);
    let places = [Some(output), first("choices"), first("candidates")];
    let keys = ["finish_reason", "finishReason", "stop_reason", "status"];
    let inside = places.into_iter().flatten();
    let inside = inside.flat_map(|place| keys.iter().filter_map(|&key| place.get(key)));
    told.chain([stopped]).chain(inside).any(|why| {
        let why = open(why);
        let why = why.get(0).unwrap_or(&why).as_str().unwrap_or_default();
        matches!(why, "length" | "max_tokens" | "MAX_TOKENS" | "incomplete")
    })
}

/// Says that a call tells nothing of what was said, and which switch would make it.
pub(super) fn nothing(attributes: &Map<String, Value>) -> String {
    let has = |start: &str| attributes.keys().any(|key| key.starts_with(start));
    let hint = if has("ai.operationId") {
        "recordInputs and recordOutputs in experimental_telemetry"
    } else if has("traceloop.") || first(attributes, &["llm.request.type"], text_of).is_some() {
        "TRACELOOP_TRACE_CONTENT=true"
    } else if has("openinference.") {
        "OPENINFERENCE_HIDE_INPUTS=false and OPENINFERENCE_HIDE_OUTPUTS=false"
    } else {
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true"
    };
    format!(
        "the span has no content: neither what was asked nor what was answered. Its tracer leaves \
         both out unless told otherwise: set {hint}"
    )
}
