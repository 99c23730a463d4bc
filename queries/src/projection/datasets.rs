//! Datasets: what came in from where, and what was frozen from it.

use std::collections::BTreeMap;

use ledger::catalogue::{
    CaptureLost, CepProposed, DatasetImported, SplitBuilt, SuiteBuilt, TestLookedAt, TraceIngested,
    TraceRejected, TraceRevised,
};
use ledger::event::FactsError;
use ledger::{Digest, Envelope, Facts};
use serde::Serialize;

use super::Projection;

/// Sources, splits, suites and prefixes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Datasets {
    /// Sources by name.
    pub sources: BTreeMap<String, SourceEntry>,
    /// Splits, in the order they were built.
    pub splits: Vec<Built<SplitBuilt>>,
    /// Suites, in the order they were built.
    pub suites: Vec<Built<SuiteBuilt>>,
    /// Prefixes, in the order they were put forward.
    pub ceps: Vec<Built<CepProposed>>,
    /// Scorings of each suite.
    pub looks: BTreeMap<Digest, Vec<Look>>,
}

/// What came in from one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceEntry {
    /// Traces taken in.
    pub traces: u64,
    /// Traces whose content changed later.
    pub revised: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Calls that were answered, and that the record could not take.
    pub lost: u64,
    /// First event.
    pub first: u64,
    /// Last event.
    pub last: u64,
    /// Traces by licence.
    pub licences: BTreeMap<String, u64>,
    /// Traces by track.
    pub tracks: BTreeMap<String, u64>,
    /// Events that tell of a file read to its end.
    pub imports: Vec<u64>,
}

/// Something frozen, with its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Built<T> {
    /// Event.
    pub event: u64,
    /// Its facts.
    pub facts: T,
}

/// A scoring of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Look {
    /// Event.
    pub event: u64,
    /// Deployment that was scored; none where somebody read the questions.
    pub deployment: Option<Digest>,
    /// `eval` or `replay`.
    pub purpose: String,
}

impl Datasets {
    /// Finds the latest split with this name, or whose identity starts with it.
    pub fn split(&self, name: &str) -> Option<&Built<SplitBuilt>> {
        let named = self.splits.iter().rfind(|built| built.facts.name == name);
        named.or_else(|| self.splits.iter().rfind(|built| is(&built.facts.dataset, name)))
    }

    /// Finds the latest suite with this name, or whose identity starts with it.
    pub fn suite(&self, name: &str) -> Option<&Built<SuiteBuilt>> {
        let named = self.suites.iter().rfind(|built| built.facts.name == name);
        named.or_else(|| self.suites.iter().rfind(|built| is(&built.facts.suite, name)))
    }

    /// Finds the latest prefix with this name, or whose identity starts with it.
    pub fn cep(&self, name: &str) -> Option<&Built<CepProposed>> {
        let named = self.ceps.iter().rfind(|built| built.facts.name == name);
        named.or_else(|| self.ceps.iter().rfind(|built| is(&built.facts.cep, name)))
    }

    /// Counts the scorings of a suite.
    pub fn looks(&self, suite: &Digest) -> u64 {
        self.looks.get(suite).map_or(0, Vec::len) as u64
    }

    /// Counts the calls that were answered and not recorded, over all sources.
    pub fn lost(&self) -> u64 {
        self.sources.values().map(|source| source.lost).sum()
    }

    fn source(&mut self, name: &str, seq: u64) -> &mut SourceEntry {
        let entry = self
            .sources
            .entry(name.to_owned())
            .or_insert_with(|| SourceEntry { first: seq, ..SourceEntry::default() });
        entry.last = seq;
        entry
    }
}

/// Says whether a prefix of at least four digits names the digest.
fn is(digest: &Digest, prefix: &str) -> bool {
    prefix.len() >= 4 && digest.to_string().starts_with(prefix)
}

impl Projection for Datasets {
    const NAME: &'static str = "datasets";

    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        let seq = event.seq;
        match event.kind.as_str() {
            TraceIngested::KIND => {
                let facts: TraceIngested = event.facts()?;
                let source = self.source(&facts.source, seq);
                source.traces += 1;
                *source.licences.entry(facts.licence).or_default() += 1;
                *source.tracks.entry(facts.track).or_default() += 1;
            }
            TraceRevised::KIND => {
                let facts: TraceRevised = event.facts()?;
                self.source(&facts.trace.source, seq).revised += 1;
            }
            TraceRejected::KIND => {
                let facts: TraceRejected = event.facts()?;
                self.source(&facts.source, seq).rejected += 1;
            }
            CaptureLost::KIND => {
                let facts: CaptureLost = event.facts()?;
                self.source(&facts.source, seq).lost += facts.calls;
            }
            DatasetImported::KIND => {
                let facts: DatasetImported = event.facts()?;
                self.source(&facts.source, seq).imports.push(seq);
            }
            SplitBuilt::KIND => self.splits.push(Built { event: seq, facts: event.facts()? }),
            SuiteBuilt::KIND => self.suites.push(Built { event: seq, facts: event.facts()? }),
            CepProposed::KIND => self.ceps.push(Built { event: seq, facts: event.facts()? }),
            TestLookedAt::KIND => {
                let TestLookedAt { suite, deployment, purpose, .. } = event.facts()?;
                let look = Look { event: seq, deployment, purpose };
                self.looks.entry(suite).or_default().push(look);
            }
            _ => {}
        }
        Ok(())
    }
}
