//! What of a subject went into what was built: to be named when the subject is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use datasets::manifest::Stored as _;
use datasets::split::SplitManifest;
use datasets::suite::SuiteManifest;
use ledger::catalogue::{
    PromotionMade, RunFinished, RunInputs, RunOutcome, RunStarted, SplitBuilt, SuiteBuilt,
};
use ledger::{Digest, Facts as _, Holdings};
use serde::Serialize;

use crate::error::AppError;
use crate::lab::Lab;
use crate::rows::View;

/// Everything that contains rows of a subject, or came of it. Weights cannot be unlearned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Downstream {
    /// Datasets.
    pub datasets: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Training runs.
    pub runs: Vec<String>,
    /// Adapters.
    pub adapters: Vec<String>,
    /// Aliases that were given to them.
    pub promotions: Vec<String>,
}

/// What forgetting did.
#[derive(Clone, Debug, Serialize)]
pub struct Forgotten {
    /// Pseudonyms.
    pub subjects: Vec<String>,
    /// Events that named bodies of the subject.
    pub events: Vec<u64>,
    /// Bodies that can no longer be read.
    pub bodies: u64,
    /// Event that says so.
    pub erased: Option<u64>,
    /// What contains the subject.
    pub downstream: Downstream,
}

/// Forgets a subject, and drops the search index: it is built again without the subject's words.
///
/// # Errors
/// When the record has nothing of the subject, or a step fails; then ask again.
pub fn forget(lab: &Lab<'_>, name: &str) -> Result<Forgotten, AppError> {
    let downstream = downstream(&lab.view(), &lab.notebook.reader().holdings(name)?)?;
    let held = lab.notebook.forget(name, lab.actor)?;
    let index = lab.notebook.dir().join("index");
    match fs::remove_dir_all(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(AppError::file(&index)(error));
        }
        _ => {}
    }
    let Holdings { subjects, events, bodies, erased } = held;
    Ok(Forgotten { subjects, events, bodies, erased, downstream })
}

/// Finds what contains rows of a subject, and what came of that.
///
/// # Errors
/// When the record or a manifest cannot be read.
pub fn downstream(view: &View, held: &Holdings) -> Result<Downstream, AppError> {
    let rows: BTreeSet<u64> = held.events.iter().copied().collect();
    let mut found = Downstream::default();
    let (mut datasets, mut adapters) = (BTreeSet::<Digest>::new(), BTreeSet::new());
    for event in view.events()? {
        let event = event?;
        match event.kind.as_str() {
            SplitBuilt::KIND => {
                let facts: SplitBuilt = event.facts()?;
                let manifest = SplitManifest::from_stored(&view.blobs().get(&facts.manifest)?)?;
                if manifest.rows.iter().any(|row| rows.contains(&row.seq)) {
                    datasets.insert(facts.dataset);
                    found.datasets.push(facts.name);
                }
            }
            SuiteBuilt::KIND => {
                let facts: SuiteBuilt = event.facts()?;
                let manifest = SuiteManifest::from_stored(&view.blobs().get(&facts.manifest)?)?;
                let mut cases = manifest.cases.iter();
                if cases.any(|case| rows.contains(&case.seq) || rows.contains(&case.gold_seq)) {
                    found.suites.push(facts.name);
                }
            }
            RunStarted::KIND => {
                let facts: RunStarted = event.facts()?;
                if matches!(&facts.inputs, RunInputs::Train { dataset, .. }
                    if datasets.contains(dataset))
                {
                    found.runs.push(facts.run);
                }
            }
            RunFinished::KIND => {
                let facts: RunFinished = event.facts()?;
                if let RunOutcome::Train { adapter, .. } = facts.outcome
                    && found.runs.contains(&facts.run)
                {
                    adapters.insert(adapter.to_string());
                }
            }
            PromotionMade::KIND => {
                let facts: PromotionMade = event.facts()?;
                if adapters.contains(&facts.deployment.adapter) {
                    found.promotions.push(format!("{} as {}", facts.deployment_id, facts.alias));
                }
            }
            _ => {}
        }
    }
    found.adapters = adapters.into_iter().collect();
    Ok(found)
}
