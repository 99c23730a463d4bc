//! Reading episodes back: the traces of the record by event number and source.

use std::collections::BTreeMap;

use datasets::manifest::Stored as _;
use datasets::split::RowRef;
use datasets::{Episode, Gold};
use ledger::catalogue::{FeedbackRecorded, TraceIngested, TraceRevised};
use ledger::{Blobs, Digest, Envelope, Facts, ReadError, Reader};

use crate::build::CORRECTION;
use crate::error::{AppError, Kind};

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
                _ => continue,
            };
            let key = (trace.source.clone(), trace.external_id.clone());
            traces.newest.insert(key, event.seq);
            traces.by_seq.insert(event.seq, trace);
        }
        Ok(traces)
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

    fn take_feedback(&mut self, seq: u64, feedback: FeedbackRecorded) {
        let text = feedback.value.as_str().filter(|_| feedback.name == CORRECTION);
        if let Some(Ok(calls)) = text.map(datasets::gold::read_calls) {
            self.corrections.insert(seq, Gold::Calls { calls });
            self.corrected.insert(feedback.target, seq);
        }
    }

    /// Says what corrections say of a trace.
    pub fn correction(&self, seq: u64) -> Correction {
        let Some(trace) = self.by_seq.get(&seq) else { return Correction::None };
        let Some(event) = self.corrected.get(&trace.external_id) else { return Correction::None };
        let same = self.newest.keys().filter(|(_, id)| *id == trace.external_id);
        if same.count() > 1 { Correction::Ambiguous } else { Correction::By(*event) }
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
        seqs.retain(|&seq| !self.is_personal(seq));
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
