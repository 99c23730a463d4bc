//! What an event is found by.

use std::borrow::Cow;

use datasets::episode::EPISODE_SCHEMA;
use datasets::gold::write_wrapper;
use datasets::{Answer, Call, Episode, Gold, Source};
use ledger::catalogue::{
    CaseScored, FeedbackRecorded, Location, TraceIngested, TraceRejected, TraceRevised,
};
use ledger::event::FactsError;
use ledger::{BodyRef, Envelope, Facts as _, Reader, bodies_in};
use serde::Deserialize;
use serde_json::Value;
use tantivy::TantivyDocument;

use super::context::Lookup;
use super::decisions;
use super::schema::{Exact, Fields};

/// Mark of a document whose body could not be read.
const NO_BODY: &str = "body.missing";

/// Marks of a trace that say how its call ended, with the outcome that they mean.
const OUTCOMES: [(&str, &str); 2] =
    [("outcome.success", "success"), ("outcome.failure", "failure")];

/// A document before it has tantivy's form.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Event.
    pub(super) seq: u64,
    /// When it was appended, in microseconds.
    pub(super) time: i64,
    /// How good an answer was.
    pub(super) score: Option<f64>,
    /// An earlier event whose document this one takes the place of.
    pub(super) replaces: Option<u64>,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) exact: Vec<(Exact, String)>,
}

impl Draft {
    /// Begins the document of an event. `family` is the other name of its kind.
    pub(super) fn new(event: &Envelope, family: &str) -> Self {
        let kinds = vec![(Exact::Kind, event.kind.clone()), (Exact::Kind, family.to_owned())];
        Self { seq: event.seq, time: event.at.timestamp_micros(), exact: kinds, ..Self::default() }
    }

    pub(super) fn with(mut self, field: Exact, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() && !self.has(field, &value) {
            self.exact.push((field, value));
        }
        self
    }

    fn has(&self, field: Exact, value: &str) -> bool {
        self.exact.iter().any(|(known, held)| *known == field && held == value)
    }

    pub(super) fn with_all<'a>(
        self,
        field: Exact,
        values: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        values.into_iter().fold(self, |draft, value| draft.with(field, value))
    }

    pub(super) fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    pub(super) fn scored(mut self, score: Option<f64>) -> Self {
        self.score = score.filter(|score| score.is_finite());
        self
    }

    pub(super) fn say(mut self, text: &str) -> Self {
        if !self.text.is_empty() && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self
    }

    fn say_calls(self, calls: &[Call]) -> Self {
        calls.iter().fold(self, |draft, call| draft.say(&write_wrapper(call)))
    }

    pub(super) fn say_body(self, body: &BodyRef, reader: &Reader) -> Self {
        match reader.blobs().get(body) {
            Ok(bytes) => self.say(&String::from_utf8_lossy(&bytes)),
            Err(_) => self.with(Exact::Flag, NO_BODY),
        }
    }

    /// Gives the draft tantivy's form.
    pub(super) fn document(&self, fields: &Fields) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_u64(fields.seq, self.seq);
        document.add_i64(fields.time, self.time);
        if let Some(score) = self.score {
            document.add_f64(fields.score, score);
        }
        document.add_text(fields.text, &self.text);
        for (name, value) in &self.exact {
            if let Some(field) = fields.exact(*name) {
                document.add_text(field, value);
            }
        }
        document
    }
}

/// Makes the document of an event; none for kinds that nobody searches.
pub(super) fn draft(
    event: &Envelope,
    lookup: &mut Lookup<'_>,
) -> Result<Option<Draft>, FactsError> {
    let reader = lookup.reader;
    let drafted = match event.kind.as_str() {
        TraceIngested::KIND => Some(trace(event, &event.facts()?, reader)),
        TraceRevised::KIND => {
            let facts: TraceRevised = event.facts()?;
            let mut draft = trace(event, &facts.trace, reader);
            draft.replaces = Some(facts.revises);
            Some(draft)
        }
        TraceRejected::KIND => {
            let facts: TraceRejected = event.facts()?;
            let place = format!("{} row {}", facts.location.file, facts.location.row);
            let draft = Draft::new(event, "rejection").with(Exact::Source, facts.source);
            let draft = draft.with(Exact::Outcome, "rejected");
            Some(draft.titled(&place).say(&facts.reason).say(&place))
        }
        CaseScored::KIND => Some(case(event, &event.facts()?, lookup)),
        FeedbackRecorded::KIND => Some(feedback(event, event.facts()?, reader)),
        _ => decisions::draft(event, lookup)?,
    };
    Ok(drafted.map(|draft| owned(draft, &event.facts)))
}

/// Names the subjects whose words a document may hold.
fn owned(draft: Draft, facts: &Value) -> Draft {
    let subjects = bodies_in(facts).into_iter().filter_map(|body| body.subject);
    subjects.fold(draft, |draft, subject| draft.with(Exact::Subject, subject))
}

fn trace(event: &Envelope, facts: &TraceIngested, reader: &Reader) -> Draft {
    let outcomes = OUTCOMES.iter().filter(|(flag, _)| facts.flags.iter().any(|f| f == flag));
    let draft = outcomes
        .fold(Draft::new(event, "trace"), |draft, (_, word)| draft.with(Exact::Outcome, *word))
        .with(Exact::Source, &facts.source)
        .with(Exact::Id, &facts.external_id)
        .with_all(Exact::Id, &facts.aliases)
        .with(Exact::Format, &facts.format)
        .with(Exact::Licence, &facts.licence)
        .with(Exact::Track, &facts.track)
        .with_all(Exact::Tool, &facts.tools)
        .with_all(Exact::Flag, &facts.flags);
    let bytes = reader.blobs().get(&facts.body).ok();
    let Some(said) = bytes.as_deref().and_then(Said::read) else {
        return draft.titled(&facts.external_id).with(Exact::Flag, NO_BODY);
    };
    said.tell(draft)
}

/// The words of an episode: what search needs of it, read without the tools on offer, which take
/// most of the room and are the same in many episodes.
#[derive(Deserialize)]
struct Said<'a> {
    schema: u32,
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(borrow)]
    turns: Vec<SaidTurn<'a>>,
    gold: Gold,
    answer: Option<Answer>,
}

#[derive(Deserialize)]
struct SaidTurn<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
    tool_calls: Vec<Call>,
}

impl<'a> Said<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let said: Self = serde_json::from_slice(bytes).ok()?;
        (said.schema <= EPISODE_SCHEMA).then_some(said)
    }

    fn tell(self, draft: Draft) -> Draft {
        let mut draft = draft.titled(self.query);
        for turn in &self.turns {
            draft = draft.say(&turn.content).say_calls(&turn.tool_calls);
        }
        let episode = only_answers(self.gold, self.answer);
        draft = draft.say(&episode.gold_text());
        let Some(answer) = &episode.answer else { return draft };
        let draft = draft.with(Exact::Model, &answer.model);
        draft.say(answer.text.as_deref().unwrap_or_default()).say_calls(&answer.calls)
    }
}

/// Makes an episode that holds gold and answer only.
fn only_answers(gold: Gold, answer: Option<Answer>) -> Episode {
    Episode {
        schema: EPISODE_SCHEMA,
        track: String::new(),
        tools: Vec::new(),
        turns: Vec::new(),
        gold,
        answer,
        query: String::new(),
        source: Source {
            name: String::new(),
            external_id: String::new(),
            location: Location { file: String::new(), row: 0 },
            format: String::new(),
        },
        licence: String::new(),
        attribution: String::new(),
        subject: None,
        flags: Vec::new(),
    }
}

fn case(event: &Envelope, facts: &CaseScored, lookup: &mut Lookup<'_>) -> Draft {
    let run = event.stream.strip_prefix("run/").unwrap_or_default();
    let arm = lookup.arm(run);
    let suite = lookup.suite(&facts.suite);
    let question = suite.questions.get(&facts.case).cloned().unwrap_or_default();
    let title = if question.is_empty() { facts.case.clone() } else { question.clone() };
    let draft = Draft::new(event, "case")
        .titled(title)
        .scored(Some(f1(facts)))
        .with(Exact::Case, &facts.case)
        .with(Exact::Tool, &facts.tool)
        .with_all(Exact::Issue, &facts.issues)
        .with(Exact::Run, run)
        .with(Exact::Label, &arm.label)
        .with(Exact::Model, &arm.label)
        .with(Exact::Model, &arm.base)
        .with(Exact::Suite, &suite.name)
        .with(Exact::Suite, facts.suite.to_string())
        .with(Exact::Stratum, &facts.stratum)
        .with(Exact::Outcome, if facts.strict.exact { "passed" } else { "failed" })
        .say(&question);
    match &facts.answer {
        Some(_) if suite.is_sealed => draft,
        Some(answer) => draft.say_body(answer, lookup.reader),
        None => draft,
    }
}

/// F1 over leaves of the strict reading, as reports give it per case; where gold and answer have
/// no leaves, whether they are equal.
fn f1(facts: &CaseScored) -> f64 {
    let reading = &facts.strict;
    let hits = 2.0 * f64::from(reading.true_positives);
    let all = hits + f64::from(reading.false_positives) + f64::from(reading.false_negatives);
    if all > 0.0 { hits / all } else { f64::from(u8::from(reading.exact)) }
}

/// Value and words of feedback on a subject's call, as they stand in its body.
#[derive(Deserialize)]
struct Sealed {
    value: Value,
    comment: Option<String>,
}

fn feedback(event: &Envelope, mut facts: FeedbackRecorded, reader: &Reader) -> Draft {
    let mut draft = Draft::new(event, "feedback")
        .titled(&facts.target)
        .with(Exact::Target, &facts.target)
        .with(Exact::Feedback, &facts.name);
    if let Some(body) = &facts.body {
        let bytes = reader.blobs().get(body).ok();
        match bytes.and_then(|bytes| serde_json::from_slice::<Sealed>(&bytes).ok()) {
            Some(sealed) => (facts.value, facts.comment) = (sealed.value, sealed.comment),
            None => draft = draft.with(Exact::Flag, NO_BODY),
        }
    }
    let score = match &facts.value {
        Value::Bool(good) => Some(f64::from(u8::from(*good))),
        value => value.as_f64(),
    };
    let said = match &facts.value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let comment = facts.comment.unwrap_or_default();
    draft.scored(score).say(&facts.name).say(&said).say(&comment)
}

#[cfg(test)]
mod tests;
