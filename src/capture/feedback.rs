//! Taking feedback: scores, labels and corrections, on traces that are here or still on their way.
//!
//! What is said of a subject's call is encrypted for the subject. What comes before its trace may
//! be about anybody: it is encrypted under a key of its own, which goes when the trace turns out to
//! be of somebody who is forgotten.

use datasets::redact::Rules;
use ledger::catalogue::FeedbackRecorded;
use ledger::notebook::AppendError;
use ledger::{BlobError, Digest, SubjectKey};
use serde_json::{Value, json};

use super::targets::{Target, Targets};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// Takes feedback.
#[derive(Default)]
pub struct FeedbackIntake {
    targets: Targets,
}

/// Whose call feedback is about, as far as somebody knows beside the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// Nobody knows.
    #[default]
    Unknown,
    /// It is about no subject.
    Nobody,
    /// The subject of this name.
    Subject(String),
}

/// Feedback that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its event.
    pub seq: u64,
    /// What it is about is known.
    pub is_joined: bool,
}

/// Names the key of feedback that came before what it is about.
pub fn pending_subject(target: &str) -> String {
    format!("feedback on {target}")
}

/// Longest name of a subject, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// Keeps the name of a subject, or takes its digest where it is too long to be one.
pub fn bounded_name(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    format!("sha256:{}", Digest::of(name.as_bytes()))
}

/// Names the key of a page that is about several subjects.
pub fn page_subject(source: &str, event_id: &str) -> String {
    format!("page {source} {event_id}")
}

impl FeedbackIntake {
    /// Knows nothing of the record yet: the first feedback reads it through.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records feedback.
    ///
    /// # Errors
    /// When its subject was forgotten, or the record refuses it.
    pub fn take(&mut self, lab: &Lab<'_>, feedback: &FeedbackRecorded) -> Result<Judged, AppError> {
        self.take_as(lab, feedback, "")
    }

    /// Records feedback that has an id where it comes from: said alike by two, it is said twice.
    ///
    /// # Errors
    /// When its subject was forgotten, or the record refuses it.
    pub fn take_as(
        &mut self,
        lab: &Lab<'_>,
        feedback: &FeedbackRecorded,
        id: &str,
    ) -> Result<Judged, AppError> {
        self.record(lab, feedback, id, Whose::Unknown)
    }

    /// Records feedback on a call that may be known before its trace is.
    ///
    /// # Errors
    /// When its subject was forgotten, or the record refuses it.
    pub fn take_about(
        &mut self,
        lab: &Lab<'_>,
        feedback: &FeedbackRecorded,
        whose: Whose,
    ) -> Result<Judged, AppError> {
        self.record(lab, feedback, "", whose)
    }

    fn record(
        &mut self,
        lab: &Lab<'_>,
        feedback: &FeedbackRecorded,
        own_id: &str,
        whose: Whose,
    ) -> Result<Judged, AppError> {
        let mut open = FeedbackRecorded { body: None, ..feedback.clone() };
        let rules = Rules::default();
        rules.redact_json(&mut open.value);
        open.comment = open.comment.map(|comment| rules.redact_text(&comment));
        let id = self.id(lab, &open, own_id)?;
        let (key, is_joined) = self.key(lab, &open.target, whose)?;
        let feedback = match key {
            None => open,
            Some(key) => {
                let said = json!({ "value": open.value, "comment": open.comment });
                let said = serde_json::to_vec(&said)?;
                let body = Some(lab.notebook.blobs().put_for(&key, &said)?);
                FeedbackRecorded { value: Value::Null, comment: None, body, ..open }
            }
        };
        let event = lab.event("trace/feedback", &id, &feedback, Place::default())?;
        let seq = match lab.notebook.append_one(event) {
            Ok(appended) => appended.seq(),
            // It was said before anybody knew whose the call is, and stands in another form.
            Err(AppendError::IdReused { seq, .. }) => seq,
            Err(error) => return Err(error.into()),
        };
        Ok(Judged { seq, is_joined })
    }

    /// Names a piece of feedback by what it says, in whatever form it is stored.
    fn id(&self, lab: &Lab<'_>, said: &FeedbackRecorded, own_id: &str) -> Result<String, AppError> {
        let words = serde_json::to_vec(&(&said.value, &said.comment))?;
        let parts = [own_id.as_bytes(), said.target.as_bytes(), said.name.as_bytes(), &words];
        let subjects = lab.notebook.blobs().subjects();
        let digest = subjects.commit_unowned("feedback", &parts).map_err(BlobError::from)?;
        Ok(format!("feedback/{digest}"))
    }

    /// Finds the key that feedback on `target` is encrypted under; none where it is about nobody.
    fn key(
        &mut self,
        lab: &Lab<'_>,
        target: &str,
        whose: Whose,
    ) -> Result<(Option<SubjectKey>, bool), AppError> {
        let subjects = lab.notebook.blobs().subjects();
        let named = |name: &str| subjects.key_of(name).map_err(BlobError::from);
        let known = self.targets.find(&lab.notebook.reader(), target)?;
        if let Some(pseudonym) = known.as_ref().and_then(|known| known.subject.as_deref()) {
            let key = subjects.key(pseudonym).map_err(BlobError::from)?;
            let forgotten = "the call belongs to a forgotten subject";
            let key = key.ok_or_else(|| AppError::said(Kind::Erased, forgotten))?;
            return Ok((Some(key), true));
        }
        Ok(match whose {
            Whose::Subject(name) => (Some(named(&name)?), true),
            Whose::Nobody => (None, true),
            Whose::Unknown => match known {
                Some(Target { is_of_span: false, .. }) => (None, true),
                // A later span of its trace may name somebody.
                known => (Some(named(&pending_subject(target))?), known.is_some()),
            },
        })
    }
}
