//! Recording served calls. A call succeeds though its recording fails; the failure is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datasets::redact::Rules;
use datasets::template::query_of;
use datasets::{Answer, Episode, Gold, Source, Turn};
use ledger::catalogue::{FeedbackRecorded, Location};
use ledger::{Digest, Notebook};
use models::decode::Generation;
use serde_json::{Value, json};

use super::engine::Engine;
use crate::build::CORRECTION;
use crate::capture::{FeedbackIntake, Gap, Identity, Judged, Whose, trace_facts};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place, Talk};

/// Source of served calls.
const SERVED: &str = "serve";
/// Mark of a served call.
pub(crate) const SERVED_FLAG: &str = "served";
/// Before the identity of the deployment that answered.
pub(crate) const DEPLOYMENT_FLAG: &str = "deployment:";
/// Calls whose subjects are kept in memory.
const NEWEST_MAX: usize = 10_000;
/// Longest target and name of feedback, and longest value and comment, in bytes.
const NAME_BYTES_MAX: usize = 512;
const WORDS_BYTES_MAX: usize = 32 << 10;

/// Records what is served.
pub(super) struct Capture {
    notebook: Notebook,
    actor: String,
    calls: AtomicU64,
    lost: AtomicU64,
    gap: Arc<Gap>,
    feedback: Mutex<FeedbackIntake>,
    under_way: Arc<()>,
    newest: Arc<Mutex<Newest>>,
    /// When the server began, so that ids that are made of no words differ too.
    began: i64,
}

/// Held while a call is answered and recorded.
#[derive(Clone)]
pub(super) struct UnderWay(#[allow(dead_code)] Arc<()>);

/// The newest calls of this server: feedback may come before a call is recorded, or though its
/// recording failed, and must be encrypted for its subject all the same.
#[derive(Default)]
pub(super) struct Newest {
    /// Response id -> name of the subject, where the call has one.
    subjects: BTreeMap<String, Option<String>>,
    /// Response ids, oldest first.
    order: VecDeque<String>,
}

impl Newest {
    pub(super) fn put(&mut self, id: &str, subject: Option<&str>) {
        if self.subjects.insert(id.to_owned(), subject.map(str::to_owned)).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > NEWEST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.subjects.remove(&oldest);
        }
    }
}

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
        let (actor, under_way, newest) = (actor.to_owned(), Arc::default(), Arc::default());
        let (gap, feedback) = (Arc::new(Gap::open(notebook.dir())), Mutex::default());
        Self { notebook, actor, calls, lost, gap, feedback, under_way, newest, began }
    }

    /// Marks a call as under way for as long as the mark is held, and keeps whose it is. To be
    /// called before anything of the answer leaves.
    pub(super) fn begin(&self, id: &str, subject: Option<&str>) -> UnderWay {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).put(id, subject);
        self.enter()
    }

    /// Returns where the newest calls are told.
    pub(super) fn newest(&self) -> Arc<Mutex<Newest>> {
        Arc::clone(&self.newest)
    }

    /// Returns where losses are counted.
    pub(super) fn gap(&self) -> Arc<Gap> {
        Arc::clone(&self.gap)
    }

    /// Marks a call as under way whose id the teacher will give.
    pub(super) fn enter(&self) -> UnderWay {
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
            if self.gap.lose(SERVED, 1, &error.to_string()) {
                eprintln!("the call {} was answered but not recorded: {error}", served.id);
            }
        }
    }

    fn try_record(&self, engine: &Engine, served: &Served) -> Result<u64, AppError> {
        let lab = self.lab();
        let mut flags = vec![SERVED_FLAG.to_owned(), format!("{DEPLOYMENT_FLAG}{}", engine.id)];
        flags.extend(engine.marks());
        flags.sort();
        let call = datasets::gold::strict_call(&served.text);
        let mut episode = Episode {
            schema: 1,
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
        let rules = Rules::default();
        let redacted = rules.redact(&mut episode);
        let (blobs, content) = (lab.notebook.blobs(), episode.content_digest());
        // The response's id says nothing of the words, so it stays as it is: feedback names it.
        let identity = Identity {
            external_id: served.id.clone(),
            ..Identity::make(&episode, content, blobs)?
        };
        let stored = identity.stored(episode.to_bytes());
        lab.notebook.ready(stored.len() as u64)?;
        blobs.put(&stored)?;
        let mut facts = trace_facts(&episode, &identity, identity.body(&stored));
        (facts.rules, facts.redacted) = (rules.names().to_vec(), redacted);
        // What a subject's answer calls is made of its words, and facts cannot be forgotten.
        if let Some(answer) = episode.answer.as_ref().filter(|_| identity.key.is_none()) {
            facts.tools.extend(answer.calls.iter().map(|call| call.name.clone()));
        }
        let measured = measured(engine, served);
        let id = format!("trace/{SERVED}/{}", served.id);
        lab.record(&format!("trace/{SERVED}"), &id, &facts, Place::default().measured(measured))
    }

    /// Records feedback, also on a call that is not here yet.
    ///
    /// # Errors
    /// When it is no feedback, its subject was forgotten, or the record refuses it.
    pub(super) fn feedback(&self, feedback: &FeedbackRecorded) -> Result<Judged, AppError> {
        check(feedback)?;
        let whose = {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            match newest.subjects.get(&feedback.target) {
                None => Whose::Unknown,
                Some(None) => Whose::Nobody,
                Some(Some(name)) => Whose::Subject(name.clone()),
            }
        };
        let mut intake = self.feedback.lock().unwrap_or_else(PoisonError::into_inner);
        intake.take_about(&self.lab(), feedback, whose)
    }
}

/// Checks what a caller says of a call.
fn check(feedback: &FeedbackRecorded) -> Result<(), AppError> {
    let wrong = |what: &str| Err(AppError::said(Kind::Input, what));
    if feedback.target.trim().is_empty() || feedback.name.trim().is_empty() {
        return wrong("feedback needs a target (the id of a response or a trace) and a name");
    }
    if feedback.target.len() > NAME_BYTES_MAX || feedback.name.len() > NAME_BYTES_MAX {
        return wrong("target and name of feedback are no longer than 512 bytes");
    }
    let words = serde_json::to_vec(&(&feedback.value, &feedback.comment))?;
    if words.len() > WORDS_BYTES_MAX {
        return wrong("value and comment of feedback take no more than 32768 bytes");
    }
    let text = feedback.value.as_str();
    if feedback.name == CORRECTION && text.is_none_or(|t| datasets::gold::read_calls(t).is_err()) {
        return wrong("a correction must be the answer that should have come, as text with a call");
    }
    Ok(())
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
        "ended": served.made.ended.name(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use ledger::SystemClock;

    use super::*;

    fn said(target: &str) -> FeedbackRecorded {
        FeedbackRecorded {
            target: target.to_owned(),
            name: "thumb".to_owned(),
            value: json!("the heliotrope walrus"),
            comment: Some("ask ann about it".to_owned()),
            body: None,
        }
    }

    #[test]
    fn feedback_on_a_call_that_was_not_recorded_is_sealed_for_its_subject() {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "ada").unwrap();
        let capture = Capture::new(notebook.clone(), "ada");
        drop((capture.begin("call-1", Some("ann")), capture.begin("call-2", None)));
        let seq = capture.feedback(&said("call-1")).unwrap().seq;
        let event = notebook.reader().get(seq).unwrap().unwrap();
        let facts: FeedbackRecorded = event.facts().unwrap();
        assert_eq!((&facts.value, &facts.comment), (&Value::Null, &None));
        let ann = notebook.blobs().subjects().key_of("ann").unwrap();
        let body = facts.body.unwrap();
        assert_eq!(body.subject.as_deref(), Some(ann.pseudonym()));
        let words = String::from_utf8(notebook.blobs().get(&body).unwrap()).unwrap();
        assert!(words.contains("heliotrope walrus") && words.contains("ask ann"), "{words}");
        // Said again, it is the same piece of feedback.
        let again = capture.feedback(&said("call-1")).unwrap();
        assert_eq!(again, Judged { seq, is_joined: true });

        let open = capture.feedback(&said("call-2")).unwrap();
        let event = notebook.reader().get(open.seq).unwrap().unwrap();
        assert_eq!(event.facts::<FeedbackRecorded>().unwrap(), said("call-2"));

        // It may be about anybody, so nobody's words are left in the open.
        let early = capture.feedback(&said("call-3")).unwrap();
        assert!(!early.is_joined);
        let event = notebook.reader().get(early.seq).unwrap().unwrap();
        let facts: FeedbackRecorded = event.facts().unwrap();
        assert_eq!((&facts.value, &facts.comment), (&Value::Null, &None));
        assert!(facts.body.unwrap().subject.is_some());
        let error = capture.feedback(&said(" ")).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
    }

    #[test]
    fn only_the_newest_calls_are_kept() {
        let mut newest = Newest::default();
        for call in 0..=NEWEST_MAX {
            newest.put(&call.to_string(), Some("ann"));
            newest.put(&call.to_string(), Some("bea"));
        }
        assert_eq!((newest.subjects.len(), newest.order.len()), (NEWEST_MAX, NEWEST_MAX));
        assert!(!newest.subjects.contains_key("0"));
        assert_eq!(newest.subjects["1"].as_deref(), Some("bea"));
    }
}
