//! Reading episodes back: the traces of the record by event number and source.

use std::collections::{BTreeMap, BTreeSet};

use datasets::manifest::Stored as _;
use datasets::split::RowRef;
use datasets::{Episode, Gold};
use ledger::catalogue::{FeedbackRecorded, SpanCaptured, TraceIngested, TraceRevised};
use ledger::{Blobs, Digest, Envelope, Facts, ReadError, Reader};
use serde_json::Value;

use crate::build::CORRECTION;
use crate::error::{AppError, Kind};

/// Role of a span that is a call of a model.
const GENERATION: &str = "generation";

/// The record up to an event: what somebody at that point could know.
#[derive(Clone)]
pub struct View {
    reader: Reader,
    before: u64,
}

impl View {
    /// Sees everything.
    pub fn now(reader: Reader) -> Self {
        Self { reader, before: u64::MAX }
    }

    /// Sees what stood before event `seq`.
    pub fn before(reader: Reader, seq: u64) -> Self {
        Self { reader, before: seq }
    }

    /// Runs through the events.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn events(
        &self,
    ) -> Result<impl Iterator<Item = Result<Envelope, AppError>> + use<>, AppError> {
        let before = self.before;
        let seen = move |event: &Result<Envelope, ReadError>| {
            event.as_ref().map_or(true, |event| event.seq < before)
        };
        Ok(self.reader.events(0)?.take_while(seen).map(|event| Ok(event?)))
    }

    /// Finds the newest event of kind `F` whose facts fit.
    ///
    /// # Errors
    /// When the record cannot be read, or the facts of such an event are of another form.
    pub fn newest<F: Facts>(
        &self,
        fits: impl Fn(&F) -> bool,
    ) -> Result<Option<(u64, F)>, AppError> {
        let mut found = None;
        for event in self.events()? {
            let event = event?;
            if event.kind == F::KIND {
                let facts: F = event.facts()?;
                if fits(&facts) {
                    found = Some((event.seq, facts));
                }
            }
        }
        Ok(found)
    }

    /// Returns the reader behind the view, which sees everything.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Returns the bodies beside the record.
    pub fn blobs(&self) -> &Blobs {
        self.reader.blobs()
    }

    /// Returns one event.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn get(&self, seq: u64) -> Result<Option<Envelope>, AppError> {
        if seq >= self.before { Ok(None) } else { Ok(self.reader.get(seq)?) }
    }
}

/// The traces that stand in a record. Their text is read when asked for.
pub struct Traces {
    blobs: Blobs,
    by_seq: BTreeMap<u64, TraceIngested>,
    /// (source, external id) -> newest event, so that a revised trace is taken in its last form.
    newest: BTreeMap<(String, String), u64>,
    /// Feedback event -> the calls that should have come.
    corrections: BTreeMap<u64, Gold>,
    /// Response or trace id -> its newest correction.
    corrected: BTreeMap<String, u64>,
    /// Id that was corrected -> how many traces have it for their own, or that of the trace around
    /// them. Traces that have it for the id of the answer are one call, told by several.
    called: BTreeMap<String, usize>,
    /// Spans around calls of a model, by the id that a trace of theirs has: where that is a call as
    /// well, it is its framework's wrapper around the same request.
    around: BTreeSet<String>,
}

/// Lists the ids that a trace may be called by.
fn names(trace: &TraceIngested) -> impl Iterator<Item = &String> {
    std::iter::once(&trace.external_id).chain(&trace.aliases)
}

/// What a correction says of a trace.
pub enum Correction {
    /// There is none.
    None,
    /// The newest one, by its event.
    By(u64),
    /// Its id is that of several traces, so that nobody can say which one is meant.
    Ambiguous,
}

impl Traces {
    /// Lists the traces of a record.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn list(view: &View) -> Result<Self, AppError> {
        let mut traces = Self {
            blobs: view.blobs().clone(),
            by_seq: BTreeMap::new(),
            newest: BTreeMap::new(),
            corrections: BTreeMap::new(),
            corrected: BTreeMap::new(),
            called: BTreeMap::new(),
            around: BTreeSet::new(),
        };
        for event in view.events()? {
            let event = event?;
            if event.kind == FeedbackRecorded::KIND {
                traces.take_feedback(event.seq, event.facts()?);
                continue;
            }
            let trace = match event.kind.as_str() {
                TraceIngested::KIND => event.facts::<TraceIngested>()?,
                TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
                SpanCaptured::KIND => {
                    traces.take_span(event.facts()?);
                    continue;
                }
                _ => continue,
            };
            let key = (trace.source.clone(), trace.external_id.clone());
            traces.newest.insert(key, event.seq);
            traces.by_seq.insert(event.seq, trace);
        }
        traces.join();
        Ok(traces)
    }

    fn take_span(&mut self, span: SpanCaptured) {
        let is_call = span.role == GENERATION && span.parent_id.as_ref() != Some(&span.span_id);
        if let Some(parent) = span.parent_id.filter(|_| is_call) {
            self.around.insert(format!("{}/{parent}", span.trace_id));
        }
    }

    /// Finds which traces corrections are about, whichever came first.
    fn join(&mut self) {
        if self.corrected.is_empty() {
            return;
        }
        for seq in self.newest.values() {
            let Some(trace) = self.by_seq.get(seq) else { continue };
            if self.is_wrapper(*seq) {
                continue;
            }
            let is_around = |id: &String| trace.external_id.starts_with(&format!("{id}/"));
            for id in names(trace).filter(|id| self.corrected.contains_key(*id)) {
                let counts = is_around(id) || *id == trace.external_id;
                *self.called.entry(id.clone()).or_default() += usize::from(counts);
            }
        }
    }

    /// Returns, by external id, the newest event of a source's traces and its content.
    pub fn contents(&self, source: &str) -> BTreeMap<String, (Option<u64>, Digest)> {
        let of_source = self.newest.iter().filter(|((name, _), _)| name == source);
        of_source
            .filter_map(|((_, id), seq)| {
                Some((id.clone(), (Some(*seq), self.by_seq.get(seq)?.content)))
            })
            .collect()
    }

    fn take_feedback(&mut self, seq: u64, mut feedback: FeedbackRecorded) {
        if feedback.name != CORRECTION {
            return;
        }
        // What came before its trace, or is about a subject's, stands in a body. One that was
        // erased corrects nothing.
        let said = feedback.body.as_ref().and_then(|body| self.blobs.get(body).ok());
        let said = said.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let Some(value) = said.and_then(|said| said.get("value").cloned()) {
            feedback.value = value;
        }
        let text = feedback.value.as_str();
        if let Some(Ok(calls)) = text.map(datasets::gold::read_calls) {
            self.corrections.insert(seq, Gold::Calls { calls });
            self.corrected.insert(feedback.target, seq);
        }
    }

    /// Says what corrections say of a trace.
    pub fn correction(&self, seq: u64) -> Correction {
        let Some(trace) = self.by_seq.get(&seq) else { return Correction::None };
        let said = |id: &String| Some((*self.corrected.get(id)?, *self.called.get(id)?));
        match names(trace).filter_map(said).max() {
            None => Correction::None,
            Some((_, traces)) if traces > 1 => Correction::Ambiguous,
            Some((event, _)) => Correction::By(event),
        }
    }

    /// Reads an episode with a correction in the place of its gold.
    ///
    /// # Errors
    /// When the event is no trace, its body is missing or damaged, or there is no such correction.
    pub fn corrected(&self, seq: u64, correction: Option<u64>) -> Result<Episode, AppError> {
        let mut episode = self.episode(seq)?;
        let Some(event) = correction else { return Ok(episode) };
        let gold = self.corrections.get(&event).ok_or_else(|| {
            AppError::said(Kind::Damaged, format!("event {event} is no correction"))
        })?;
        episode.gold = gold.clone();
        episode.add_flag("gold.corrected");
        episode.schema = episode.lowest_schema();
        Ok(episode)
    }

    /// Reads a row of a dataset as it was frozen.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was frozen.
    pub fn row(&self, row: &RowRef) -> Result<Episode, AppError> {
        let episode = self.corrected(row.seq, row.correction)?;
        if episode.content_digest() == row.content {
            return Ok(episode);
        }
        Err(AppError::hinted(
            Kind::Damaged,
            format!("row {} is not what the dataset froze", row.seq),
            "a dataset of corrections that an older version built must be built again",
        ))
    }

    /// Returns the facts of a trace.
    pub fn facts(&self, seq: u64) -> Option<&TraceIngested> {
        self.by_seq.get(&seq)
    }

    /// Tells whether a trace belongs to a subject.
    pub fn is_personal(&self, seq: u64) -> bool {
        self.by_seq.get(&seq).is_some_and(|trace| trace.body.subject.is_some())
    }

    /// Tells whether a trace is a framework's wrapper around a call that is here as well.
    fn is_wrapper(&self, seq: u64) -> bool {
        let trace = self.by_seq.get(&seq).filter(|trace| trace.mapper.is_some());
        trace.is_some_and(|trace| self.around.contains(&trace.external_id))
    }

    /// Counts the traces of a source that belong to subjects.
    pub fn personal(&self, source: &str) -> usize {
        let of_source = self.newest.iter().filter(|((name, _), _)| name == source);
        of_source.filter(|(_, seq)| self.is_personal(**seq)).count()
    }

    /// Lists all sources, sorted.
    pub fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> =
            self.newest.keys().map(|(source, _)| source.clone()).collect();
        sources.dedup();
        sources
    }

    /// Reads the episode that an event brought in.
    ///
    /// # Errors
    /// When the event is no trace, or its body is missing or damaged.
    pub fn episode(&self, seq: u64) -> Result<Episode, AppError> {
        let Some(trace) = self.by_seq.get(&seq) else {
            return Err(AppError::said(Kind::Damaged, format!("event {seq} is no trace")));
        };
        let bytes = self.blobs.get(&trace.body)?;
        Ok(Episode::from_stored(&bytes)?)
    }

    /// Reads all episodes of a source that belong to no subject, in the order of the record.
    ///
    /// What is built of rows copies their words (a suite its questions, a report its answers), and
    /// a copy could not be forgotten. So rows of subjects are searched and shown, but not built of.
    ///
    /// # Errors
    /// When a body is missing or damaged.
    pub fn of_source(&self, source: &str) -> Result<Vec<(u64, Episode)>, AppError> {
        let of = |((name, _), seq): (&(String, String), &u64)| (name == source).then_some(*seq);
        let mut seqs: Vec<u64> = self.newest.iter().filter_map(of).collect();
        seqs.sort_unstable();
        seqs.retain(|&seq| !self.is_personal(seq) && !self.is_wrapper(seq));
        seqs.into_iter().map(|seq| Ok((seq, self.episode(seq)?))).collect()
    }

    /// Reads all episodes of several sources; a source without rows is an error.
    ///
    /// # Errors
    /// When a source is unknown, or a body is missing or damaged.
    pub fn of_sources(&self, sources: &[String]) -> Result<Vec<(u64, Episode)>, AppError> {
        let mut rows = Vec::new();
        for source in sources {
            let found = self.of_source(source)?;
            if found.is_empty() && self.personal(source) > 0 {
                return Err(AppError::hinted(
                    Kind::Refused,
                    format!("all rows of source {source:?} belong to subjects"),
                    "what is built of rows copies their words, which could not be forgotten",
                ));
            }
            if found.is_empty() {
                return Err(AppError::hinted(
                    Kind::NotFound,
                    format!("no trace came from source {source:?}"),
                    format!("known sources: {}", self.sources().join(", ")),
                ));
            }
            rows.extend(found);
        }
        rows.sort_by_key(|(seq, _)| *seq);
        // A source that is named twice is still one source.
        rows.dedup_by_key(|(seq, _)| *seq);
        Ok(rows)
    }
}
