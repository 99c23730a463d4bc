//! What an event is found by.

use std::collections::BTreeMap;

use datasets::manifest::Stored as _;
use datasets::{Episode, SuiteManifest};
use ledger::catalogue::{
    CaseScored, CepProposed, FeedbackRecorded, GateDecided, PromotionMade, PromotionOverridden,
    RollbackMade, RunFailed, RunInputs, RunStarted, SuiteBuilt, TraceIngested, TraceRejected,
    TraceRevised,
};
use ledger::event::FactsError;
use ledger::{Blobs, BodyRef, Digest, Envelope, Facts, Reader};
use tantivy::TantivyDocument;

use super::{Fields, SearchError};
use crate::gate::verdict_word;

/// Mark of a document whose body could not be read.
const NO_BODY: &str = "body.missing";

/// A document before it has tantivy's form.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Event.
    pub(super) seq: u64,
    /// An earlier event whose document this one takes the place of.
    pub(super) replaces: Option<u64>,
    title: String,
    text: String,
    exact: Vec<(&'static str, String)>,
}

impl Draft {
    fn new(event: &Envelope, family: &str) -> Self {
        let kinds = vec![("kind", event.kind.clone()), ("kind", family.to_owned())];
        Self { seq: event.seq, exact: kinds, ..Self::default() }
    }

    fn with(mut self, field: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.exact.push((field, value));
        }
        self
    }

    fn with_all<'a>(
        self,
        field: &'static str,
        values: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        values.into_iter().fold(self, |draft, value| draft.with(field, value))
    }

    fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    fn say(mut self, text: &str) -> Self {
        if !self.text.is_empty() && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self
    }

    /// Gives the draft tantivy's form.
    pub(super) fn document(&self, fields: &Fields) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_u64(fields.seq, self.seq);
        document.add_text(fields.title, &self.title);
        document.add_text(fields.text, &self.text);
        for (name, value) in &self.exact {
            if let Some(field) = fields.exact(name) {
                document.add_text(field, value);
            }
        }
        document
    }
}

/// What scored cases are looked up in: labels of runs and questions of suites.
#[derive(Debug, Default)]
pub(super) struct Context {
    next: u64,
    labels: BTreeMap<String, String>,
    questions: BTreeMap<Digest, BTreeMap<String, String>>,
}

impl Context {
    /// Reads on to the end of the record.
    pub(super) fn catch_up(&mut self, reader: &Reader) -> Result<(), SearchError> {
        for event in reader.events(self.next)? {
            let event = event?;
            self.next = event.seq + 1;
            if let Ok(RunStarted { run, inputs: RunInputs::Eval { label, .. }, .. }) = event.facts()
            {
                self.labels.insert(run, label);
            }
            if let Ok(SuiteBuilt { suite, manifest, .. }) = event.facts() {
                self.questions.insert(suite, questions(reader.blobs(), &manifest));
            }
        }
        Ok(())
    }
}

fn questions(blobs: &Blobs, manifest: &BodyRef) -> BTreeMap<String, String> {
    let manifest = blobs.get(manifest).ok().and_then(|b| SuiteManifest::from_stored(&b).ok());
    let cases = manifest.map(|manifest| manifest.cases).unwrap_or_default();
    cases.into_iter().map(|case| (case.id, case.query)).collect()
}

/// Says whether a kind needs the context.
pub(super) fn needs_context(kind: &str) -> bool {
    kind == CaseScored::KIND
}

/// Makes the document of an event; none for kinds that nobody searches.
pub(super) fn draft(
    event: &Envelope,
    context: &Context,
    blobs: &Blobs,
) -> Result<Option<Draft>, FactsError> {
    Ok(Some(match event.kind.as_str() {
        TraceIngested::KIND => trace(event, &event.facts()?, blobs),
        TraceRevised::KIND => {
            let facts: TraceRevised = event.facts()?;
            let mut draft = trace(event, &facts.trace, blobs);
            draft.replaces = Some(facts.revises);
            draft
        }
        TraceRejected::KIND => {
            let facts: TraceRejected = event.facts()?;
            let place = format!("{} row {}", facts.location.file, facts.location.row);
            let draft = Draft::new(event, "rejection").with("source", facts.source);
            draft.titled(&place).say(&facts.reason).say(&place)
        }
        CaseScored::KIND => case(event, &event.facts()?, context, blobs),
        CepProposed::KIND => {
            let facts: CepProposed = event.facts()?;
            let draft = Draft::new(event, "cep").titled(&facts.name).say(&facts.name);
            with_body(draft, &facts.body, blobs)
        }
        FeedbackRecorded::KIND => {
            let facts: FeedbackRecorded = event.facts()?;
            let draft = Draft::new(event, "feedback").titled(&facts.target);
            let comment = facts.comment.unwrap_or_default();
            draft.say(&format!("{} {}", facts.name, facts.value)).say(&comment)
        }
        _ => return decision(event),
    }))
}

fn trace(event: &Envelope, facts: &TraceIngested, blobs: &Blobs) -> Draft {
    let draft = Draft::new(event, "trace")
        .with("source", &facts.source)
        .with_all("tool", &facts.tools)
        .with_all("flag", &facts.flags);
    let Some(episode) =
        blobs.get(&facts.body).ok().and_then(|bytes| Episode::from_stored(&bytes).ok())
    else {
        return draft.titled(&facts.external_id).with("flag", NO_BODY);
    };
    let mut draft = draft.titled(&episode.query);
    for turn in &episode.turns {
        draft = draft.say(&turn.content);
    }
    let answer = episode.answer.as_ref().and_then(|answer| answer.text.clone());
    draft.say(&episode.gold_text()).say(&answer.unwrap_or_default())
}

fn case(event: &Envelope, facts: &CaseScored, context: &Context, blobs: &Blobs) -> Draft {
    let run = event.stream.strip_prefix("run/").unwrap_or_default();
    let label = context.labels.get(run).cloned().unwrap_or_default();
    let questions = context.questions.get(&facts.suite);
    let question = questions.and_then(|known| known.get(&facts.case)).cloned().unwrap_or_default();
    let title = if question.is_empty() { facts.case.clone() } else { question.clone() };
    let draft = Draft::new(event, "case")
        .titled(title)
        .with("case", &facts.case)
        .with("tool", &facts.tool)
        .with_all("issue", &facts.issues)
        .with("run", run)
        .with("label", label)
        .with("stratum", &facts.stratum)
        .with("outcome", if facts.strict.exact { "passed" } else { "failed" })
        .say(&question);
    match &facts.answer {
        Some(answer) => with_body(draft, answer, blobs),
        None => draft,
    }
}

fn with_body(draft: Draft, body: &BodyRef, blobs: &Blobs) -> Draft {
    match blobs.get(body) {
        Ok(bytes) => draft.say(&String::from_utf8_lossy(&bytes)),
        Err(_) => draft.with("flag", NO_BODY),
    }
}

fn decision(event: &Envelope) -> Result<Option<Draft>, FactsError> {
    let decision = Draft::new(event, "decision");
    Ok(Some(match event.kind.as_str() {
        GateDecided::KIND => {
            let facts: GateDecided = event.facts()?;
            let verdict = verdict_word(facts.verdict);
            let title = format!("{} of {}: {verdict}", facts.policy, facts.label);
            let draft = decision
                .with("label", &facts.label)
                .with("outcome", verdict.to_lowercase())
                .titled(&title)
                .say(&title);
            facts.rules.iter().fold(draft, |draft, rule| {
                let word = verdict_word(rule.verdict);
                draft.say(&format!("{} {word}: {} {}", rule.rule, rule.asks, rule.says))
            })
        }
        PromotionMade::KIND => promotion(decision, &event.facts()?, "promoted"),
        PromotionOverridden::KIND => {
            let facts: PromotionOverridden = event.facts()?;
            promotion(decision, &facts.promotion, "overridden").say(&facts.reason)
        }
        RollbackMade::KIND => {
            let facts: RollbackMade = event.facts()?;
            let title = format!("{}@{} rolled back", facts.model, facts.alias);
            let draft = decision.with("outcome", "rolled-back").titled(&title).say(&title);
            draft.say(&facts.deployment_id.to_string()).say(&facts.reason)
        }
        RunFailed::KIND => {
            let facts: RunFailed = event.facts()?;
            let draft = Draft::new(event, "run").with("run", &facts.run).with("outcome", "failed");
            draft.titled(&facts.run).say(&facts.reason)
        }
        _ => return Ok(None),
    }))
}

fn promotion(draft: Draft, made: &PromotionMade, outcome: &str) -> Draft {
    let title = format!("{}@{} {outcome}", made.model, made.alias);
    draft.with("outcome", outcome).titled(&title).say(&title).say(&made.deployment_id.to_string())
}
