//! Taking spans: each is recorded as it came, and beside it the trace that it makes where it is a
//! call of a model.
//!
//! A span is known by its trace's id and its own. One that comes again adds nothing; one that comes
//! again with other content revises what came before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use datasets::Episode;
use datasets::ingest::{self, MAPPER, Mapped, SourceInfo};
use datasets::redact::Rules;
use datasets::span::Span;
use ledger::Facts as _;
use ledger::catalogue::{Location, SpanCaptured, TraceIngested, TraceRejected, TraceRevised};
use ledger::notebook::AppendError;
use ledger::{Appended, BlobError, Digest, NewEvent, SubjectKey};
use serde::Serialize;
use serde_json::json;

use super::targets::Owners;
use super::{Identity, bounded_name, trace_facts};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// Spans that are made durable together.
const BATCH: usize = 512;
/// Longest other id of a trace, and longest name of a model beside it.
const ALIAS_MAX: usize = 128;
const MODEL_MAX: usize = 200;
/// Revisions of a span among which its trace is looked for.
const REVISIONS_MAX: usize = 64;
/// Attributes by which a tracer tells the id of an answer.
const RESPONSE_IDS: [&str; 3] = ["gen_ai.response.id", "ai.response.id", "llm.response.id"];
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
    /// Spans that are too large, so that the record cannot have them.
    pub refused: u64,
    /// Names of the subjects that they are about.
    #[serde(skip)]
    pub subjects: BTreeSet<String>,
}

/// Takes spans.
#[derive(Default)]
pub struct SpanIntake {
    rules: Rules,
    owners: Owners,
}

/// A span on its way to the record.
struct Coming {
    source: String,
    span: Span,
    redacted: u64,
    mapped: Mapped,
    /// Name of its subject, where the span itself says it.
    named: Option<String>,
}

/// What a span adds to the record.
struct Made {
    facts: SpanCaptured,
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

/// Whose a span is.
enum Whose {
    Nobody,
    Subject(SubjectKey),
    /// Of somebody who was forgotten: nothing of it is to be stored.
    Forgotten,
}

impl SpanIntake {
    /// Knows nothing of the record yet; what it needs it reads when it does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what the record says of subjects, so that the first spans need not wait for it.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn prepare(&mut self, lab: &Lab<'_>) -> Result<(), AppError> {
        self.owners.catch_up(&lab.notebook.reader())
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
        self.take_all(lab, BTreeMap::from([(source.to_owned(), spans)]))
    }

    /// Records spans of several sources. A user that any of them names holds for all of its trace.
    ///
    /// # Errors
    /// When the record or a key cannot be read or written.
    pub fn take_all(
        &mut self,
        lab: &Lab<'_>,
        sources: BTreeMap<String, Vec<Span>>,
    ) -> Result<Taken, AppError> {
        let mut coming = Vec::new();
        for (source, spans) in sources {
            let info = SourceInfo {
                name: source,
                licence: "own".to_owned(),
                ..SourceInfo::unknown(Path::new(""))
            };
            coming.extend(spans.into_iter().map(|span| self.read(&info, span)));
        }
        let mut taken = Taken { spans: coming.len() as u64, ..Taken::default() };
        taken.subjects = coming.iter().filter_map(|one| one.named.clone()).collect();
        self.owners.catch_up(&lab.notebook.reader())?;
        let subjects = lab.notebook.blobs().subjects();
        for one in &coming {
            if let Some(name) = &one.named {
                let key = subjects.key_of(name).map_err(BlobError::from)?;
                self.owners.put(&one.span.trace_id, key.pseudonym());
            }
        }
        for batch in coming.chunks(BATCH) {
            self.record(lab, batch, &mut taken)?;
        }
        Ok(taken)
    }

    fn read(&self, info: &SourceInfo, mut span: Span) -> Coming {
        let redacted = span.redact(&self.rules);
        let mapped = ingest::map(&span, info, &self.rules);
        let named = mapped.subject.clone().map(bounded_name);
        let redacted = redacted + mapped.redacted;
        Coming { source: info.name.clone(), redacted, span, mapped, named }
    }

    /// Says whose a span is: of whom it names, or whom another span of its trace named.
    fn whose(&self, lab: &Lab<'_>, coming: &Coming) -> Result<Whose, AppError> {
        let subjects = lab.notebook.blobs().subjects();
        if let Some(name) = &coming.named {
            return Ok(Whose::Subject(subjects.key_of(name).map_err(BlobError::from)?));
        }
        let Some(pseudonym) = self.owners.of(&coming.span.trace_id) else {
            return Ok(Whose::Nobody);
        };
        let key = subjects.key(&pseudonym).map_err(BlobError::from)?;
        Ok(key.map_or(Whose::Forgotten, Whose::Subject))
    }

    fn record(&self, lab: &Lab<'_>, batch: &[Coming], taken: &mut Taken) -> Result<(), AppError> {
        // Few spans were revised before: those that were are told by the second of each pair.
        let ids = |one: &Coming| {
            [0, 1].map(|number| id_of("span", number, &one.span.trace_id, &one.span.span_id))
        };
        let ids: Vec<String> = batch.iter().flat_map(ids).collect();
        let known = lab.notebook.seqs_of(&ids)?;
        let mut fresh = Vec::new();
        for (one, known) in batch.iter().zip(known.chunks(2)) {
            let key = match self.whose(lab, one)? {
                Whose::Nobody => None,
                Whose::Subject(key) => Some(key),
                Whose::Forgotten => {
                    taken.duplicates += 1;
                    continue;
                }
            };
            match known {
                [Some(seq), None] => self.known_before(lab, (one, key), (0, *seq), taken)?,
                [Some(_), _] => self.known_before(lab, (one, key), newest_of(lab, one)?, taken)?,
                _ => fresh.push((one, self.make(one, key)?)),
            }
        }
        let mut bodies = Vec::new();
        let mut events = Vec::with_capacity(2 * fresh.len());
        for (_, made) in &mut fresh {
            bodies.append(&mut made.bodies);
            events.extend(made.events(lab, 0)?);
        }
        store(lab, &bodies)?;
        drop(bodies);
        match lab.notebook.append(&[], events) {
            Ok(appended) => {
                let mut appended = appended.into_iter();
                for (_, made) in &fresh {
                    let is_new = matches!(appended.next(), Some(Appended::New(_)));
                    if !matches!(made.trace, Trace::None) {
                        appended.next();
                    }
                    made.count(is_new, taken);
                }
                Ok(())
            }
            // One span stands twice among them, with other content; or one cannot be recorded.
            Err(error) if is_of_one(&error) => {
                fresh.iter().try_for_each(|(one, made)| self.record_alone(lab, one, made, taken))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records a span whose bodies are stored.
    fn record_alone(
        &self,
        lab: &Lab<'_>,
        coming: &Coming,
        made: &Made,
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        match lab.notebook.append(&[], made.events(lab, 0)?) {
            Ok(appended) => {
                made.count(matches!(appended.first(), Some(Appended::New(_))), taken);
                Ok(())
            }
            Err(AppendError::IdReused { .. }) => {
                let newest = newest_of(lab, coming)?;
                match self.whose(lab, coming)? {
                    Whose::Nobody => self.known_before(lab, (coming, None), newest, taken),
                    Whose::Subject(key) => {
                        self.known_before(lab, (coming, Some(key)), newest, taken)
                    }
                    Whose::Forgotten => Ok(()),
                }
            }
            Err(error) if is_of_one(&error) => {
                taken.refused += 1;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a span that the record has: nothing where it is the same as the newest revision, else
    /// another one. Revisions of a span are numbered, so that whoever sends one again finds it.
    fn known_before(
        &self,
        lab: &Lab<'_>,
        (coming, key): (&Coming, Option<SubjectKey>),
        (number, seq): (u64, u64),
        taken: &mut Taken,
    ) -> Result<(), AppError> {
        let reader = lab.notebook.reader();
        let event = reader.get(seq)?.filter(|event| event.kind == SpanCaptured::KIND);
        let Some(event) = event else {
            taken.duplicates += 1;
            return Ok(());
        };
        let earlier: SpanCaptured = event.facts()?;
        if is_same(lab, &earlier, coming.span.digest())? {
            taken.duplicates += 1;
            return Ok(());
        }
        let mut made = self.make(coming, key)?;
        made.facts.revises = Some(seq);
        store(lab, &made.bodies)?;
        let mut events = made.events(lab, number + 1)?;
        if let Trace::Episode(trace) = &made.trace
            && let Some(revises) = trace_before(lab, &coming.span, number)?
            && let Some(last) = events.last_mut()
        {
            let facts = TraceRevised { revises, trace: (**trace).clone() };
            let place = Place::default().because(seq).measured(made.measured.clone());
            *last = lab.event(&last.stream.clone(), &last.id.clone(), &facts, place)?;
        }
        match lab.notebook.append(&[], events) {
            Ok(_) => taken.revised += 1,
            // Somebody else was quicker.
            Err(AppendError::IdReused { .. }) => taken.duplicates += 1,
            Err(error) if is_of_one(&error) => taken.refused += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn make(&self, coming: &Coming, key: Option<SubjectKey>) -> Result<Made, AppError> {
        let Coming { source, span, redacted, mapped, .. } = coming;
        let bytes = span.to_bytes();
        let content = Digest::of(&bytes);
        let external_id = span.external_id();
        let mut identity =
            Identity { external_id, content: commitment(key.as_ref(), content), key };
        let stored = identity.stored(bytes);
        let facts = SpanCaptured {
            source: source.clone(),
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            parent_id: span.parent_id.clone(),
            role: mapped.role.name().to_owned(),
            form: mapped.form.to_owned(),
            mapper: MAPPER.to_owned(),
            content: identity.content,
            body: identity.body(&stored),
            rules: self.rules.names().to_vec(),
            redacted: *redacted,
            revises: None,
        };
        let mut bodies = vec![stored];
        let trace = match &mapped.episode {
            Ok(None) => Trace::None,
            Err(reason) => rejection(source, reason, identity.content),
            Ok(Some(episode)) => self.trace((coming, episode), &mut identity, &mut bodies)?,
        };
        let model = mapped.model.as_ref().filter(|_| identity.key.is_none());
        let model = model.map(|model| model.chars().take(MODEL_MAX).collect::<String>());
        let latency_ms = span.end_us.map(|end| end.saturating_sub(span.start_us) as f64 / 1000.0);
        let measured = json!({
            "start_us": span.start_us,
            "latency_ms": latency_ms,
            "usage": mapped.usage,
            "model": model,
        });
        Ok(Made { facts, bodies, trace, measured })
    }

    fn trace(
        &self,
        (coming, episode): (&Coming, &Episode),
        identity: &mut Identity,
        bodies: &mut Vec<Vec<u8>>,
    ) -> Result<Trace, AppError> {
        let mut episode = episode.clone();
        // Another span of the trace may have named whose it is; the key alone says so here.
        let pseudonym = identity.key.as_ref().map(|key| key.pseudonym().to_owned());
        episode.subject = coming.named.clone().or(pseudonym);
        // Ids of spans say nothing of the words, so they stay as they are: feedback names them.
        identity.content = commitment(identity.key.as_ref(), episode.content_digest());
        let stored = identity.stored(episode.to_bytes());
        let mut facts = trace_facts(&episode, identity, identity.body(&stored));
        (facts.rules, facts.redacted) = (self.rules.names().to_vec(), coming.redacted);
        facts.aliases = aliases(coming, identity.key.is_some());
        facts.mapper = Some(MAPPER.to_owned());
        if serde_json::to_vec(&facts)?.len() > FACTS_BYTES_MAX {
            let reason = format!("ids, tools and flags take more than {FACTS_BYTES_MAX} bytes");
            return Ok(rejection(&coming.source, &reason, identity.content));
        }
        bodies.push(stored);
        Ok(Trace::Episode(Box::new(facts)))
    }
}

/// Returns the ids that feedback may name a trace by. What stands in an answer may be words, which
/// could not be forgotten; an id that the tracer told for one is none.
fn aliases(coming: &Coming, is_of_subject: bool) -> Vec<String> {
    let told = |id: &String| {
        *id == coming.span.trace_id
            || RESPONSE_IDS
                .iter()
                .any(|&key| coming.span.attributes.get(key).and_then(|v| v.as_str()) == Some(id))
    };
    let is_plain = |id: &&String| {
        id.len() <= ALIAS_MAX
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
    };
    let all = coming.mapped.aliases.iter().filter(is_plain);
    all.filter(|id| !is_of_subject || told(id)).cloned().collect()
}

/// Stores bodies, unless the events that name them would be refused.
fn store(lab: &Lab<'_>, bodies: &[Vec<u8>]) -> Result<(), AppError> {
    lab.notebook.ready(bodies.iter().map(|body| body.len() as u64).sum())?;
    lab.notebook.blobs().put_many(bodies)?;
    Ok(())
}

/// Says whether one event is the matter, and not the log.
fn is_of_one(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::IdReused { .. }
            | AppendError::TooLarge { .. }
            | AppendError::TooDeep { .. }
            | AppendError::Name { .. }
    )
}

/// Names an event of a span, in one of its revisions.
fn id_of(what: &str, number: u64, trace_id: &str, span_id: &str) -> String {
    match number {
        0 => format!("{what}/{trace_id}/{span_id}"),
        _ => format!("{what}#{number}/{trace_id}/{span_id}"),
    }
}

/// Finds the newest revision of a span: its number, and its event.
fn newest_of(lab: &Lab<'_>, coming: &Coming) -> Result<(u64, u64), AppError> {
    let seq_of = |number: u64| -> Result<Option<u64>, AppError> {
        let id = id_of("span", number, &coming.span.trace_id, &coming.span.span_id);
        Ok(lab.notebook.seqs_of(&[id])?.pop().flatten())
    };
    // Numbers have no holes, so the last one is found by halves.
    let (mut has, mut step) = (0, 1);
    while seq_of(has + step)?.is_some() {
        (has, step) = (has + step, step * 2);
    }
    while step > 1 {
        step /= 2;
        if seq_of(has + step)?.is_some() {
            has += step;
        }
    }
    let lost = || AppError::said(Kind::Damaged, "a span that came before cannot be found");
    Ok((has, seq_of(has)?.ok_or_else(lost)?))
}

/// Finds the newest trace that was made of a span, up to one of its revisions.
fn trace_before(lab: &Lab<'_>, span: &Span, number: u64) -> Result<Option<u64>, AppError> {
    let ids: Vec<String> = (0..=number)
        .rev()
        .take(REVISIONS_MAX)
        .map(|number| id_of("trace", number, &span.trace_id, &span.span_id))
        .collect();
    Ok(lab.notebook.seqs_of(&ids)?.into_iter().flatten().next())
}

impl Made {
    /// Makes the events of a span: its own, and that of its trace behind it.
    fn events(&self, lab: &Lab<'_>, number: u64) -> Result<Vec<NewEvent>, AppError> {
        let stream = format!("trace/{}", self.facts.source);
        let id = |what: &str| id_of(what, number, &self.facts.trace_id, &self.facts.span_id);
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
fn is_same(lab: &Lab<'_>, earlier: &SpanCaptured, content: Digest) -> Result<bool, AppError> {
    let Some(pseudonym) = &earlier.body.subject else {
        return Ok(earlier.content == content);
    };
    let subjects = lab.notebook.blobs().subjects();
    let key = subjects.key(pseudonym).map_err(BlobError::from)?;
    // What was erased does not come back by being sent again.
    Ok(key.is_none_or(|key| earlier.content == commitment(Some(&key), content)))
}

fn commitment(key: Option<&SubjectKey>, content: Digest) -> Digest {
    key.map_or(content, |key| key.commit("content", &[content.as_bytes()]))
}

fn rejection(source: &str, reason: &str, content: Digest) -> Trace {
    Trace::Rejected(TraceRejected {
        source: source.to_owned(),
        location: Location { file: String::new(), row: 0 },
        reason: reason.to_owned(),
        content,
    })
}
