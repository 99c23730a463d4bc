//! Which trace an id means: what feedback is about, and what a span that came again revises.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::catalogue::{TraceIngested, TraceRevised};
use ledger::{Digest, Facts as _, Reader};

use crate::error::AppError;

/// A trace that has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its newest event.
    pub(super) seq: u64,
    /// Pseudonym of its subject.
    pub(super) subject: Option<Arc<str>>,
}

/// The traces of a record by every id that they have, kept up as the record grows.
///
/// Ids are kept as eight bytes of their digests: about fifty megabytes for a million traces.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The first event that was not read yet.
    next: u64,
    by_id: BTreeMap<u64, Target>,
}

impl Targets {
    /// Finds the trace that an id means.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn find(&mut self, reader: &Reader, id: &str) -> Result<Option<Target>, AppError> {
        self.catch_up(reader)?;
        Ok(self.by_id.get(&key(id)).cloned())
    }

    fn catch_up(&mut self, reader: &Reader) -> Result<(), AppError> {
        for event in reader.events(self.next)? {
            let event = event?;
            let trace = match event.kind.as_str() {
                TraceIngested::KIND => Some(event.facts::<TraceIngested>()?),
                TraceRevised::KIND => Some(event.facts::<TraceRevised>()?.trace),
                _ => None,
            };
            if let Some(trace) = trace {
                self.put(event.seq, &trace);
            }
            self.next = event.seq + 1;
        }
        Ok(())
    }

    fn put(&mut self, seq: u64, trace: &TraceIngested) {
        let subject: Option<Arc<str>> = trace.body.subject.as_deref().map(Arc::from);
        for id in std::iter::once(&trace.external_id).chain(&trace.aliases) {
            let known = self.by_id.get(&key(id)).and_then(|target| target.subject.clone());
            // Several traces may have one id: then it belongs to whoever is a subject.
            let subject = subject.clone().or(known);
            self.by_id.insert(key(id), Target { seq, subject });
        }
    }
}

fn key(id: &str) -> u64 {
    let digest = Digest::of(id.as_bytes());
    u64::from_le_bytes(digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default())
}
