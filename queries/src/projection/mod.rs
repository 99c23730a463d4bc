//! Projections: what the record amounts to, folded from event 0.
//!
//! A projection is disposable. Folding the same events again gives the same canonical dump, byte
//! for byte.

mod catalog;
mod datasets;
mod lineage;
mod runs;
mod selection;

#[cfg(test)]
mod tests;

pub use catalog::{Catalog, DeploymentEntry, GateEntry, Held, HeldBy, ModelEntry, Override};
pub use datasets::{Built, Datasets, Look, SourceEntry};
pub use lineage::{Lineage, Node};
pub use runs::{CaseEntry, CheckpointEntry, ReplayEntry, Run, RunStatus, Runs, StepEntry};
pub use selection::{Selected, Selection};

use ledger::event::FactsError;
use ledger::{Envelope, ReadError, Reader};
use serde::Serialize;

/// A fold over the record.
pub trait Projection: Default + Serialize {
    /// Name of its dump.
    const NAME: &'static str;

    /// Takes the next event in. Kinds that are of no concern are passed over.
    ///
    /// # Errors
    /// When the event's facts do not have the form of their kind.
    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError>;

    /// Encodes the projection as canonical JSON.
    ///
    /// # Errors
    /// When a value has no JSON form.
    fn dump(&self) -> Result<Vec<u8>, serde_json::Error> {
        ledger::id::canonical_json(self)
    }
}

/// Says why the record could not be folded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event could not be understood.
    #[error(transparent)]
    Facts(#[from] FactsError),
}

/// Every projection, up to the same event.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The first event that is not folded in yet.
    pub next: u64,
    /// Models, deployments, verdicts and aliases.
    pub catalog: Catalog,
    /// Runs.
    pub runs: Runs,
    /// Sources, splits, suites and prefixes.
    pub datasets: Datasets,
    /// What came from what.
    pub lineage: Lineage,
    /// What each alias names now.
    pub selection: Selection,
}

impl State {
    /// Takes the next event into every projection.
    ///
    /// # Errors
    /// When the event's facts do not have the form of their kind.
    pub fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        self.catalog.apply(event)?;
        self.runs.apply(event)?;
        self.datasets.apply(event)?;
        self.lineage.apply(event)?;
        self.selection.apply(event)?;
        self.next = event.seq + 1;
        Ok(())
    }

    /// Takes in everything that was appended since.
    ///
    /// # Errors
    /// When the record cannot be read or an event not be understood.
    pub fn catch_up(&mut self, reader: &Reader) -> Result<(), FoldError> {
        for event in reader.events(self.next)? {
            self.apply(&event?)?;
        }
        Ok(())
    }

    /// Returns the canonical dump of every projection, by name.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub fn dumps(&self) -> Result<Vec<(&'static str, Vec<u8>)>, serde_json::Error> {
        Ok(vec![
            (Catalog::NAME, self.catalog.dump()?),
            (Datasets::NAME, self.datasets.dump()?),
            (Lineage::NAME, self.lineage.dump()?),
            (Runs::NAME, self.runs.dump()?),
            (Selection::NAME, self.selection.dump()?),
        ])
    }
}

/// Folds the whole record.
///
/// # Errors
/// When the record cannot be read or an event not be understood.
pub fn fold_all(reader: &Reader) -> Result<State, FoldError> {
    let mut state = State::default();
    state.catch_up(reader)?;
    Ok(state)
}
