//! Which bodies the log names, and which of them may be gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::blob::bodies_in;
use crate::catalogue::{BodyErased, CheckpointReleased, CheckpointSaved};
use crate::event::{Envelope, Facts, FactsError};
use crate::id::Digest;

/// A body that events name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// First and last event that names it.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Lengths that were said of it.
    pub(crate) lengths: BTreeSet<u64>,
    /// Pseudonym of its subject.
    pub(crate) subject: Option<String>,
    /// Some event names it that nobody gave up.
    firm: bool,
}

/// Why a body may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its subject was forgotten by this event.
    Erased(u64),
    /// It was given up by `checkpoint.released`.
    Released,
}

/// All bodies that a log names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies {
    pub(crate) named: BTreeMap<Digest, Named>,
    /// Last event that erased each subject.
    pub(crate) erased: BTreeMap<String, u64>,
    released: BTreeSet<Digest>,
}

impl Bodies {
    /// Takes up an event.
    pub(crate) fn fold(&mut self, event: &Envelope) -> Result<(), FactsError> {
        if event.kind == CheckpointReleased::KIND {
            let facts: CheckpointReleased = event.facts()?;
            self.released.extend(facts.bodies.iter().map(|body| body.digest));
            return Ok(());
        }
        if event.kind == BodyErased::KIND {
            let facts: BodyErased = event.facts()?;
            self.erased.insert(facts.subject, event.seq);
            return Ok(());
        }
        for body in bodies_in(&event.facts) {
            let named = self
                .named
                .entry(body.digest)
                .or_insert_with(|| Named { first: event.seq, ..Named::default() });
            named.last = event.seq;
            named.lengths.insert(body.length);
            named.subject = named.subject.take().or(body.subject);
            named.firm |= event.kind != CheckpointSaved::KIND;
        }
        Ok(())
    }

    /// Says why a body may be gone, if it may.
    pub(crate) fn gone(&self, digest: &Digest) -> Option<Gone> {
        let named = self.named.get(digest)?;
        if let Some(subject) = &named.subject
            && let Some(&seq) = self.erased.get(subject)
            && seq > named.last
        {
            return Some(Gone::Erased(seq));
        }
        (!named.firm && self.released.contains(digest)).then_some(Gone::Released)
    }
}
