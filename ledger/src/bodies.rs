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
    /// Last event that gave each body up.
    released: BTreeMap<Digest, u64>,
}

impl Bodies {
    /// Takes up an event.
    pub(crate) fn fold(&mut self, event: &Envelope) -> Result<(), FactsError> {
        if event.kind == CheckpointReleased::KIND {
            let facts: CheckpointReleased = event.facts()?;
            let given_up = facts.bodies.iter().map(|body| (body.digest, event.seq));
            self.released.extend(given_up);
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
        // The key is gone and never comes back, so what was named later is erased as well.
        let erased = named.subject.as_ref().and_then(|subject| self.erased.get(subject));
        if let Some(&seq) = erased {
            return Some(Gone::Erased(seq));
        }
        let released = self.released.get(digest).is_some_and(|&seq| seq > named.last);
        (!named.firm && released).then_some(Gone::Released)
    }
}
