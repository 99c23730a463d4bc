//! Taking spans: each is recorded as it came, and beside it the trace that it makes where it is a
//! call of a model.
//!
//! A span is known by its trace's id and its own. One that comes again adds nothing; one that comes
//! again with other content revises what came before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use datasets::Episode;
use datasets::ingest::{self, MAPPER, Mapped, SourceInfo};
use datasets::redact::Rules;
use datasets::span::Span;
use ledger::catalogue::{Location, SpanCaptured, TraceIngested, TraceRejected, TraceRevised};
use ledger::notebook::AppendError;
use ledger::{Appended, BlobError, BodyRef, Digest, NewEvent, SubjectKey};
use serde::Serialize;
use serde_json::json;

use super::targets::Targets;
use super::{Identity, trace_facts};
use crate::error::AppError;
use crate::lab::{Lab, Place, body_ref};

/// Spans that are made durable together.
const BATCH: usize = 512;
/// Traces whose subjects are remembered: a later span may not name them again.
const OWNERS_MAX: usize = 10_000;
/// Most bytes of a trace's facts: an event holds 65,535 in all.
const FACTS_BYTES_MAX: usize = 48 * 1024;

/// What came of some spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Spans that came.
    pub spans: u64,
    /// Spans that the record had already.
    pub duplicates: u64,
    /// Spans whose content changed since.
    pub revised: u64,
    /// Traces that were made of them.
    pub traces: u64,
    /// Calls of a model that cannot be read.
    pub rejected: u64,
    /// Names of the subjects that they are about.
    #[serde(skip)]
    pub subjects: BTreeSet<String>,
}

/// Takes spans.
#[derive(Default)]
pub struct SpanIntake {
    rules: Rules,
    owners: Owners,
    targets: Targets,
}

/// Whose the newest traces are.
#[derive(Default)]
struct Owners {
    by_trace: BTreeMap<String, String>,
    /// Traces, oldest first.
    order: VecDeque<String>,
}

impl Owners {
    fn put(&mut self, trace: &str, subject: &str) {
        if self.by_trace.insert(trace.to_owned(), subject.to_owned()).is_none() {
            self.order.push_back(trace.to_owned());
        }
        if self.order.len() > OWNERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_trace.remove(&oldest);
        }
    }
}

/// A span on its way to the record.
struct Coming {
    span: Span,
    redacted: u64,
    mapped: Mapped,
    subject: Option<String>,
}

/// What a span adds to the record.
struct Made {
    facts: SpanCaptured,
    /// Digest of the span in plain.
    content: Digest,
    bodies: Vec<Vec<u8>>,
    trace: Trace,
    measured: serde_json::Value,
}

/// What a span is beside itself.
enum Trace {
    None,
    Episode(Box<TraceIngested>),
    Rejected(TraceRejected),
}

impl SpanIntake {
    /// Knows nothing of the record yet; what it needs it reads when it does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records spans of a source. What was recorded before an error stays.
    ///
    /// # Errors
    /// When the record or a key cannot be read or written.
    pub fn take(
        &mut self,
        lab: &Lab<'_>,
        source: &str,
        spans: Vec<Span>,
    ) -> Result<Taken, AppError> {
        let mut taken = Taken { spans: spans.len() as u64, ..Taken::default() };
        let info = SourceInfo {
            name: source.to_owned(),
            licence: "own".to_owned(),
            ..SourceInfo::unknown(Path::new(""))
        };
        let mut coming: Vec<Coming> =
            spans.into_iter().map(|span| self.read(&info, span)).collect();
        self.share_subjects(&mut coming);
        taken.subjects = coming.iter().filter_map(|one| one.subject.clone()).collect();
        for batch in coming.chunks(BATCH) {
            self.record(lab, source, batch, &mut taken)?;
        }
        Ok(taken)
    }

    fn read(&self, info: &SourceInfo, mut span: Span) -> Coming {
        let redacted = span.redact(&self.rules);
        let mapped = ingest::map(&span, info, &self.rules);
        let subject = mapped.subject.clone();
        Coming { redacted: redacted + mapped.redacted, span, mapped, subject }
    }

    /// Gives every span the subject of its trace: often the root alone names the user.
    fn share_subjects(&mut self, coming: &mut [Coming]) {
        for one in coming.iter() {
            if let Some(subject) = &one.subject {
                self.owners.put(&one.span.trace_id, subject);
            }
        }
        for one in coming.iter_mut().filter(|one| one.subject.is_none()) {
            one.subject = self.owners.by_trace.get(&one.span.trace_id).cloned();
            if let Ok(Some(episode)) = &mut one.mapped.episode {
                episode.subject.clone_from(&one.subject);
            }
        }
    }

    fn record(
        &mut self,
        lab: &Lab<'_>,
        source: &str,
        batch: &[Coming],
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        let made = batch.iter().map(|one| self.make(lab, source, one));
        let mut made: Vec<Made> = made.collect::<Result<_, _>>()?;
        let bodies: Vec<Vec<u8>> =
            made.iter_mut().flat_map(|one| std::mem::take(&mut one.bodies)).collect();
        lab.notebook.blobs().put_many(&bodies)?;
        drop(bodies);
        let mut events = Vec::with_capacity(2 * made.len());
        for one in &made {
            events.extend(one.events(lab)?);
        }
        match lab.notebook.append(&[], events) {
            Ok(appended) => {
                let mut appended = appended.into_iter();
                for one in &made {
                    let is_new = matches!(appended.next(), Some(Appended::New(_)));
                    if one.has_trace() {
                        appended.next();
                    }
                    one.count(is_new, taken);
                }
                Ok(())
            }
            // One of them came before with other content.
            Err(AppendError::IdReused { .. }) => {
                made.iter().try_for_each(|one| self.record_alone(lab, one, taken))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn record_alone(
        &mut self,
        lab: &Lab<'_>,
        made: &Made,
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        match lab.notebook.append(&[], made.events(lab)?) {
            Ok(appended) => {
                made.count(matches!(appended.first(), Some(Appended::New(_))), taken);
                Ok(())
            }
            Err(AppendError::IdReused { seq, .. }) => self.revise(lab, made, seq, taken),
            Err(error) => Err(error.into()),
        }
    }

    /// Records a span that came before, in event `seq`, and not in the same form.
    fn revise(
        &mut self,
        lab: &Lab<'_>,
        made: &Made,
        seq: u64,
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        let reader = lab.notebook.reader();
        let earlier = reader.get(seq)?.map(|event| event.facts::<SpanCaptured>()).transpose()?;
        if let Some(earlier) = &earlier
            && is_same(lab, earlier, made)?
        {
            made.count(false, taken);
            return Ok(());
        }
        let external_id = format!("{}/{}", made.facts.trace_id, made.facts.span_id);
        let newest = self.targets.find(&reader, &external_id)?.map(|target| target.seq);
        let facts = SpanCaptured { revises: Some(seq), ..made.facts.clone() };
        let key = format!("{external_id}/{}", facts.content);
        let stream = format!("trace/{}", facts.source);
        let place = || Place::default().because(seq).measured(made.measured.clone());
        let mut events = vec![lab.event(&stream, &format!("span/{key}"), &facts, place())?];
        if let Trace::Episode(trace) = &made.trace {
            events.push(match newest {
                Some(newest) => {
                    let facts = TraceRevised { revises: newest, trace: (**trace).clone() };
                    lab.event(&stream, &format!("revise/{key}"), &facts, place())?
                }
                None => lab.event(&stream, &format!("trace/{key}"), &**trace, place())?,
            });
        }
        match lab.notebook.append(&[], events) {
            Ok(appended) if matches!(appended.first(), Some(Appended::New(_))) => {
                taken.revised += 1;
            }
            // This revision is known as well.
            Ok(_) | Err(AppendError::IdReused { .. }) => taken.duplicates += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn make(&self, lab: &Lab<'_>, source: &str, coming: &Coming) -> Result<Made, AppError> {
        let Coming { span, redacted, mapped, subject } = coming;
        let (bytes, subjects) = (span.to_bytes(), lab.notebook.blobs().subjects());
        let key = match subject {
            Some(name) => Some(subjects.key_of(name).map_err(BlobError::from)?),
            None => None,
        };
        let content = Digest::of(&bytes);
        let stored = key.as_ref().map_or(bytes.clone(), |key| key.seal(&bytes));
        let facts = SpanCaptured {
            source: source.to_owned(),
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            parent_id: span.parent_id.clone(),
            role: mapped.role.name().to_owned(),
            form: mapped.form.to_owned(),
            mapper: MAPPER.to_owned(),
            content: commitment(key.as_ref(), content),
            body: sealed_ref(key.as_ref(), &stored),
            rules: self.rules.names().to_vec(),
            redacted: *redacted,
            revises: None,
        };
        let mut bodies = vec![stored];
        let trace = match &mapped.episode {
            Ok(None) => Trace::None,
            Err(reason) => rejection(source, reason, content, key.as_ref()),
            Ok(Some(episode)) => self.trace(lab, (coming, episode), &mut bodies)?,
        };
        let latency_ms = span.end_us.map(|end| end.saturating_sub(span.start_us) as f64 / 1000.0);
        let measured = json!({
            "start_us": span.start_us,
            "latency_ms": latency_ms,
            "usage": mapped.usage,
            "model": mapped.model.as_ref().filter(|_| key.is_none()),
        });
        Ok(Made { facts, content, bodies, trace, measured })
    }

    fn trace(
        &self,
        lab: &Lab<'_>,
        (coming, episode): (&Coming, &Episode),
        bodies: &mut Vec<Vec<u8>>,
    ) -> Result<Trace, AppError> {
        let source = &episode.source;
        let named = Identity::make(episode, episode.content_digest(), lab.notebook.blobs())?;
        // Ids of spans say nothing of the words, so they stay as they are: feedback names them.
        let identity = Identity { external_id: source.external_id.clone(), ..named };
        let stored = identity.stored(episode.to_bytes());
        let mut facts = trace_facts(episode, &identity, identity.body(&stored));
        (facts.rules, facts.redacted) = (self.rules.names().to_vec(), coming.redacted);
        (facts.aliases, facts.mapper) = (coming.mapped.aliases.clone(), Some(MAPPER.to_owned()));
        if serde_json::to_vec(&facts)?.len() > FACTS_BYTES_MAX {
            let reason = format!("ids, tools and flags take more than {FACTS_BYTES_MAX} bytes");
            let content = episode.content_digest();
            return Ok(rejection(&source.name, &reason, content, identity.key.as_ref()));
        }
        bodies.push(stored);
        Ok(Trace::Episode(Box::new(facts)))
    }
}

impl Made {
    fn has_trace(&self) -> bool {
        !matches!(self.trace, Trace::None)
    }

    /// Makes the events of a span that is new: its own, and that of its trace behind it.
    fn events(&self, lab: &Lab<'_>) -> Result<Vec<NewEvent>, AppError> {
        let SpanCaptured { source, trace_id, span_id, .. } = &self.facts;
        let stream = format!("trace/{source}");
        let id = |what: &str| format!("{what}/{trace_id}/{span_id}");
        let place = || Place::default().measured(self.measured.clone());
        let mut events = vec![lab.event(&stream, &id("span"), &self.facts, place())?];
        match &self.trace {
            Trace::None => {}
            Trace::Episode(facts) => {
                events.push(lab.event(&stream, &id("trace"), &**facts, place())?);
            }
            Trace::Rejected(facts) => {
                events.push(lab.event(&stream, &id("reject"), facts, place())?);
            }
        }
        Ok(events)
    }

    fn count(&self, is_new: bool, taken: &mut Taken) {
        taken.duplicates += u64::from(!is_new);
        taken.traces += u64::from(is_new && matches!(self.trace, Trace::Episode(_)));
        taken.rejected += u64::from(is_new && matches!(self.trace, Trace::Rejected(_)));
    }
}

/// Says whether an earlier event has the same span, though perhaps read by another mapper, or
/// recorded before anybody knew whose it is.
fn is_same(lab: &Lab<'_>, earlier: &SpanCaptured, made: &Made) -> Result<bool, AppError> {
    let Some(pseudonym) = &earlier.body.subject else {
        return Ok(earlier.content == made.content);
    };
    let subjects = lab.notebook.blobs().subjects();
    let key = subjects.key(pseudonym).map_err(BlobError::from)?;
    // What was erased does not come back by being sent again.
    Ok(key.is_none_or(|key| earlier.content == commitment(Some(&key), made.content)))
}

fn commitment(key: Option<&SubjectKey>, content: Digest) -> Digest {
    key.map_or(content, |key| key.commit("content", &[content.as_bytes()]))
}

fn sealed_ref(key: Option<&SubjectKey>, stored: &[u8]) -> BodyRef {
    let subject = key.map(|key| key.pseudonym().to_owned());
    let cipher = key.map(|_| ledger::subject::CIPHER.to_owned());
    BodyRef { cipher, subject, ..body_ref(stored) }
}

fn rejection(source: &str, reason: &str, content: Digest, key: Option<&SubjectKey>) -> Trace {
    Trace::Rejected(TraceRejected {
        source: source.to_owned(),
        location: Location { file: String::new(), row: 0 },
        reason: reason.to_owned(),
        content: commitment(key, content),
    })
}
