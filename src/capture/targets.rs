//! What ids mean: which trace feedback is about, and whose a trace is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::catalogue::{CallCaptured, SpanCaptured, TraceIngested, TraceRevised};
use ledger::{Digest, Envelope, Facts as _, Reader};

use crate::error::AppError;

/// What has an id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Pseudonym of its subject.
    pub(super) subject: Option<Arc<str>>,
    /// It came as a span: the user of its trace may be named by one that comes later.
    pub(super) is_of_span: bool,
}

/// All that has an id in a record, kept up as the record grows.
///
/// Ids are kept as eight bytes of their digests: about sixty megabytes for a million of them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The first event that was not read yet.
    next: u64,
    by_id: BTreeMap<u64, Target>,
}

impl Targets {
    /// Finds what an id means.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn find(&mut self, reader: &Reader, id: &str) -> Result<Option<Target>, AppError> {
        for event in reader.events(self.next)? {
            let event = event?;
            self.take(&event)?;
            self.next = event.seq + 1;
        }
        Ok(self.by_id.get(&key(id)).cloned())
    }

    fn take(&mut self, event: &Envelope) -> Result<(), AppError> {
        match event.kind.as_str() {
            TraceIngested::KIND => self.put_trace(&event.facts()?),
            TraceRevised::KIND => self.put_trace(&event.facts::<TraceRevised>()?.trace),
            SpanCaptured::KIND => {
                let span: SpanCaptured = event.facts()?;
                let id = format!("{}/{}", span.trace_id, span.span_id);
                [&id, &span.trace_id]
                    .into_iter()
                    .for_each(|id| self.put(id, span.body.subject.as_deref(), true));
            }
            CallCaptured::KIND => {
                let call: CallCaptured = event.facts()?;
                let subject = call.request.as_ref().and_then(|body| body.subject.as_deref());
                self.put(&call.external_id, subject, false);
            }
            _ => {}
        }
        Ok(())
    }

    fn put_trace(&mut self, trace: &TraceIngested) {
        for id in std::iter::once(&trace.external_id).chain(&trace.aliases) {
            self.put(id, trace.body.subject.as_deref(), trace.mapper.is_some());
        }
    }

    /// Several may have one id: then it belongs to whoever is a subject.
    fn put(&mut self, id: &str, subject: Option<&str>, is_of_span: bool) {
        let target = self.by_id.entry(key(id)).or_default();
        target.subject = subject.map(Arc::from).or(target.subject.take());
        target.is_of_span |= is_of_span;
    }
}

/// Whose traces of spans are, kept up as the record grows. Traces of nobody take no room.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The first event that was not read yet.
    next: u64,
    /// Trace -> pseudonym of its subject.
    by_trace: BTreeMap<u64, Arc<str>>,
}

impl Owners {
    /// Reads what the record says by now.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn catch_up(&mut self, reader: &Reader) -> Result<(), AppError> {
        for event in reader.events(self.next)? {
            let event = event?;
            if event.kind == SpanCaptured::KIND {
                let span: SpanCaptured = event.facts()?;
                if let Some(subject) = span.body.subject {
                    self.put(&span.trace_id, &subject);
                }
            }
            self.next = event.seq + 1;
        }
        Ok(())
    }

    /// Notes whose a trace is.
    pub(super) fn put(&mut self, trace: &str, pseudonym: &str) {
        self.by_trace.insert(key(trace), Arc::from(pseudonym));
    }

    /// Returns the pseudonym of a trace's subject.
    pub(super) fn of(&self, trace: &str) -> Option<Arc<str>> {
        self.by_trace.get(&key(trace)).cloned()
    }
}

fn key(id: &str) -> u64 {
    let digest = Digest::of(id.as_bytes());
    u64::from_le_bytes(digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default())
}
