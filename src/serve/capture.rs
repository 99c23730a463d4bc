//! Recording served calls. A call succeeds though its recording fails; the failure is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datasets::template::query_of;
use datasets::{Answer, Episode, Gold, Source, Turn};
use ledger::catalogue::{FeedbackRecorded, Location, TraceIngested};
use ledger::{BlobError, Digest, Facts as _, Notebook};
use models::decode::{Ended, Generation};
use serde_json::{Value, json};

use super::engine::Engine;
use crate::build::{CORRECTION, feedback_id};
use crate::capture::{Identity, trace_facts};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place, Talk};

/// Source of served calls.
const SERVED: &str = "serve";
/// Mark of a served call.
pub(crate) const SERVED_FLAG: &str = "served";
/// Before the identity of the deployment that answered.
pub(crate) const DEPLOYMENT_FLAG: &str = "deployment:";

/// Records what is served.
pub(super) struct Capture {
    notebook: Notebook,
    actor: String,
    calls: AtomicU64,
    lost: AtomicU64,
    under_way: Arc<()>,
    /// When the server began, so that ids that are made of no words differ too.
    began: i64,
}

/// Held while a call is answered and recorded.
pub(super) struct UnderWay(#[allow(dead_code)] Arc<()>);

/// A call that was answered.
pub(super) struct Served {
    /// Response id.
    pub(super) id: String,
    /// The conversation as it was asked.
    pub(super) turns: Vec<Turn>,
    /// Whose call it is.
    pub(super) subject: Option<String>,
    /// The answer's text.
    pub(super) text: String,
    /// Its tokens.
    pub(super) made: Generation,
    /// From request to the end of the answer, in milliseconds.
    pub(super) latency_ms: f64,
}

impl Capture {
    /// Makes a recorder.
    pub(super) fn new(notebook: Notebook, actor: &str) -> Self {
        let (calls, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = chrono::Utc::now().timestamp_micros();
        Self { notebook, actor: actor.to_owned(), calls, lost, under_way: Arc::new(()), began }
    }

    /// Marks a call as under way for as long as the mark is held.
    pub(super) fn begin(&self) -> UnderWay {
        UnderWay(Arc::clone(&self.under_way))
    }

    /// Says whether a call is being answered or recorded.
    pub(super) fn under_way(&self) -> bool {
        Arc::strong_count(&self.under_way) > 1
    }

    fn lab(&self) -> Lab<'_> {
        Lab { notebook: &self.notebook, actor: &self.actor, talk: Talk { quiet: true } }
    }

    /// Returns an id for the next response: unlike any before in this record.
    pub(super) fn next_id(&self, engine: &Engine, turns: &[Turn], subject: Option<&str>) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let head = self.notebook.reader().head().map(|head| head.size).unwrap_or_default();
        // The words of a subject must not be guessable from an id that stays.
        let said = if subject.is_some() { json!(self.began) } else { json!(turns) };
        let key = json!([engine.id, said, head, call, std::process::id()]);
        let digest = Digest::of_json(&key).unwrap_or_else(|_| Digest::of(&call.to_le_bytes()));
        format!("chatcmpl-{}", &digest.to_string()[..24])
    }

    /// Counts (calls, calls whose recording failed).
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// Records a call; a failure is counted and told, and nothing else.
    pub(super) fn record(&self, engine: &Engine, served: &Served) {
        if let Err(error) = self.try_record(engine, served) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            eprintln!("the call {} was answered but not recorded: {error}", served.id);
        }
    }

    fn try_record(&self, engine: &Engine, served: &Served) -> Result<u64, AppError> {
        let lab = self.lab();
        let mut flags = vec![SERVED_FLAG.to_owned(), format!("{DEPLOYMENT_FLAG}{}", engine.id)];
        flags.extend(engine.marks());
        flags.sort();
        let call = datasets::gold::strict_call(&served.text);
        let episode = Episode {
            schema: datasets::episode::EPISODE_SCHEMA,
            track: if call.is_some() { "toolcall" } else { "chat" }.to_owned(),
            tools: Vec::new(),
            turns: served.turns.clone(),
            gold: Gold::None,
            answer: Some(Answer {
                model: engine.id.to_string(),
                text: Some(served.text.clone()),
                calls: call.into_iter().collect(),
            }),
            query: query_of(last_user(&served.turns)),
            source: Source {
                name: SERVED.to_owned(),
                external_id: served.id.clone(),
                location: Location { file: String::new(), row: 0 },
                format: "openai-chat".to_owned(),
            },
            licence: "own".to_owned(),
            attribution: String::new(),
            subject: served.subject.clone(),
            flags,
        };
        let blobs = lab.notebook.blobs();
        // The response's id says nothing of the words, so it stays as it is: feedback names it.
        let identity =
            Identity { external_id: served.id.clone(), ..Identity::make(&episode, blobs)? };
        let stored = identity.stored(episode.to_bytes());
        blobs.put(&stored)?;
        let mut facts = trace_facts(&episode, &identity, identity.body(&stored));
        if let Some(answer) = &episode.answer {
            facts.tools.extend(answer.calls.iter().map(|call| call.name.clone()));
        }
        let measured = measured(engine, served);
        let id = format!("trace/{SERVED}/{}", served.id);
        lab.record(&format!("trace/{SERVED}"), &id, &facts, Place::default().measured(measured))
    }

    /// Records feedback.
    ///
    /// # Errors
    /// When the record refuses it.
    pub(super) fn feedback(&self, feedback: &FeedbackRecorded) -> Result<u64, AppError> {
        let text = feedback.value.as_str();
        if feedback.name == CORRECTION
            && text.is_none_or(|t| datasets::gold::read_calls(t).is_err())
        {
            let what = "a correction must be the answer that should have come, as text with a call";
            return Err(AppError::said(Kind::Input, what));
        }
        let feedback = self.sealed(feedback)?;
        let id = feedback_id(&feedback)?;
        self.lab().record("trace/feedback", &id, &feedback, Place::default())
    }

    /// Puts what was said of a subject's call into a body that can be forgotten.
    fn sealed(&self, feedback: &FeedbackRecorded) -> Result<FeedbackRecorded, AppError> {
        let mut of = None;
        for event in self.notebook.reader().events(0)? {
            let event = event?;
            if event.kind == TraceIngested::KIND {
                let trace: TraceIngested = event.facts()?;
                if trace.external_id == feedback.target {
                    of = trace.body.subject;
                }
            }
        }
        let open = FeedbackRecorded { body: None, ..feedback.clone() };
        let Some(subject) = of else { return Ok(open) };
        let blobs = self.notebook.blobs();
        let Some(key) = blobs.subjects().key(&subject).map_err(BlobError::from)? else {
            return Err(AppError::said(Kind::Erased, "the call belongs to a forgotten subject"));
        };
        let said = serde_json::to_vec(&json!({ "value": open.value, "comment": open.comment }))?;
        let body = Some(blobs.put_for(&key, &said)?);
        Ok(FeedbackRecorded { value: Value::Null, comment: None, body, ..open })
    }
}

/// Returns the last thing that the user said.
fn last_user(turns: &[Turn]) -> &str {
    let last = turns.iter().rfind(|turn| turn.role == "user");
    last.map(|turn| turn.content.as_str()).unwrap_or_default()
}

fn measured(engine: &Engine, served: &Served) -> Value {
    json!({
        "deployment": engine.id,
        "latency_ms": served.latency_ms,
        "prompt_tokens": served.made.prompt_tokens,
        "answer_tokens": served.made.ids.len(),
        "ended": match served.made.ended { Ended::Stop => "stop", Ended::Length => "length" },
    })
}
