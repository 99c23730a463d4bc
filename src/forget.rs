//! What of a subject went into what was built: to be named when the subject is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use datasets::Case;
use datasets::manifest::Stored;
use datasets::split::SplitManifest;
use datasets::suite::SuiteManifest;
use ledger::catalogue::{
    CallCaptured, FeedbackRecorded, PagePulled, PromotionMade, PromotionOverridden, RunFinished,
    RunInputs, RunOutcome, RunStarted, SpanCaptured, SplitBuilt, SuiteBuilt, TraceIngested,
    TraceRevised,
};
use ledger::{BlobError, BodyRef, Digest, Envelope, Facts as _, Holdings, SubjectKey};
use serde::Serialize;

use crate::capture::{page_subject, pending_subject};
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
    /// Datasets and suites whose manifests cannot be read, so that nobody knows what is in them.
    pub unreadable: Vec<String>,
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
    let holdings = lab.notebook.reader().holdings(name)?;
    let downstream = downstream(&lab.view(), &holdings)?;
    // First, because nothing else has readable words: a forgetting that is cut short behind this
    // leaves none.
    drop_index(lab)?;
    for other in beside(&lab.view(), &holdings)? {
        lab.notebook.forget(&other, lab.actor)?;
    }
    let held = lab.notebook.forget(name, lab.actor)?;
    // Again, because a search may have built it from what could still be read in between.
    drop_index(lab)?;
    let Holdings { subjects, events, bodies, erased } = held;
    Ok(Forgotten { subjects, events, bodies, erased, downstream })
}

/// Names the keys under which words of a subject lie beside its own: feedback that came before
/// anybody knew whose it is about, and pages that are about several subjects.
fn beside(view: &View, held: &Holdings) -> Result<BTreeSet<String>, AppError> {
    let subjects = view.blobs().subjects();
    let mut found = Beside::default();
    for pseudonym in &held.subjects {
        found.keys.extend(subjects.key(pseudonym).map_err(BlobError::from)?);
    }
    for event in view.events()? {
        found.take(&event?, held)?;
    }
    let mut about: BTreeSet<String> = held.subjects.iter().cloned().collect();
    let mut names = BTreeSet::new();
    for target in found.early.iter().filter(|target| found.is_about(target)) {
        let name = pending_subject(target);
        about.extend(subjects.pseudonyms(&name).map_err(BlobError::from)?);
        names.insert(name);
    }
    for (page, subjects) in found.pages {
        if subjects.iter().any(|subject| about.contains(subject)) {
            names.insert(page);
        }
    }
    // A key that is gone needs no forgetting.
    let has_key = |name: &String| -> Result<bool, AppError> {
        for pseudonym in subjects.pseudonyms(name).map_err(BlobError::from)? {
            if subjects.key(&pseudonym).map_err(BlobError::from)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut with_keys = BTreeSet::new();
    for name in names {
        if has_key(&name)? {
            with_keys.insert(name);
        }
    }
    Ok(with_keys)
}

/// What lies beside a subject's own.
#[derive(Default)]
struct Beside {
    keys: Vec<SubjectKey>,
    /// Ids of what is the subject's, as the record has them, and sources of imported rows.
    ids: BTreeSet<String>,
    sources: BTreeSet<String>,
    /// Targets of feedback under keys of its own.
    early: BTreeSet<String>,
    /// Pages under keys of their own, with the subjects that they are about.
    pages: BTreeMap<String, Vec<String>>,
}

impl Beside {
    fn take(&mut self, event: &Envelope, held: &Holdings) -> Result<(), AppError> {
        let is_own = |body: &BodyRef| {
            body.subject.as_ref().is_some_and(|subject| held.subjects.contains(subject))
        };
        match event.kind.as_str() {
            TraceIngested::KIND => self.take_trace(event.facts()?, is_own),
            TraceRevised::KIND => self.take_trace(event.facts::<TraceRevised>()?.trace, is_own),
            SpanCaptured::KIND => {
                let span: SpanCaptured = event.facts()?;
                if is_own(&span.body) {
                    self.ids.insert(format!("{}/{}", span.trace_id, span.span_id));
                    self.ids.insert(span.trace_id);
                }
            }
            CallCaptured::KIND => {
                let call: CallCaptured = event.facts()?;
                if call.request.iter().chain(&call.response).any(is_own) {
                    self.ids.insert(call.external_id);
                }
            }
            FeedbackRecorded::KIND => {
                let facts: FeedbackRecorded = event.facts()?;
                if facts.body.as_ref().is_some_and(|body| !is_own(body)) {
                    self.early.insert(facts.target);
                }
            }
            PagePulled::KIND => {
                let facts: PagePulled = event.facts()?;
                if facts.body.subject.is_some() && !is_own(&facts.body) {
                    self.pages.insert(page_subject(&facts.source, &event.id), facts.subjects);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_trace(&mut self, trace: TraceIngested, is_own: impl Fn(&BodyRef) -> bool) {
        if is_own(&trace.body) {
            self.sources.insert(trace.source);
            self.ids.extend(std::iter::once(trace.external_id).chain(trace.aliases));
        }
    }

    /// Says whether feedback on `target` is about the subject. Ids of imported rows stand in the
    /// record as commitments.
    fn is_about(&self, target: &str) -> bool {
        self.ids.contains(target)
            || self.keys.iter().any(|key| {
                self.sources.iter().any(|source| {
                    let parts = [source.as_bytes(), target.as_bytes()];
                    self.ids.contains(&key.commit("external id", &parts).to_string())
                })
            })
    }
}

fn drop_index(lab: &Lab<'_>) -> Result<(), AppError> {
    let index = lab.notebook.dir().join("index");
    match fs::remove_dir_all(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(AppError::file(index)(error)),
        _ => Ok(()),
    }
}

/// Finds what contains rows of a subject, and what came of that.
///
/// # Errors
/// When the record cannot be read. A manifest that cannot be read is listed and stops nothing:
/// damage must not keep anybody from being forgotten.
pub fn downstream(view: &View, held: &Holdings) -> Result<Downstream, AppError> {
    let rows = held.events.iter().copied().collect();
    let mut finder = Finder { view, rows, datasets: BTreeSet::new(), found: Downstream::default() };
    for event in view.events()? {
        finder.take(&event?)?;
    }
    finder.found.adapters.sort();
    Ok(finder.found)
}

/// Finds what contains a subject. In the log, each thing stands before what is made of it.
struct Finder<'a> {
    view: &'a View,
    /// Events of the subject.
    rows: BTreeSet<u64>,
    /// Identities of datasets with such rows.
    datasets: BTreeSet<Digest>,
    found: Downstream,
}

impl Finder<'_> {
    fn take(&mut self, event: &Envelope) -> Result<(), AppError> {
        match event.kind.as_str() {
            SplitBuilt::KIND => self.dataset(event.facts()?),
            SuiteBuilt::KIND => self.suite(event.facts()?),
            RunStarted::KIND => self.run(event.facts()?),
            RunFinished::KIND => self.adapter(event.facts()?),
            PromotionMade::KIND => self.promotion(&event.facts()?, ""),
            PromotionOverridden::KIND => {
                let facts: PromotionOverridden = event.facts()?;
                self.promotion(&facts.promotion, " (overridden)");
            }
            _ => {}
        }
        Ok(())
    }

    fn dataset(&mut self, facts: SplitBuilt) {
        let Some(manifest) = self.manifest::<SplitManifest>(&facts.manifest) else {
            return push(&mut self.found.unreadable, format!("dataset {}", facts.name));
        };
        if manifest.rows.iter().any(|row| self.rows.contains(&row.seq)) {
            self.datasets.insert(facts.dataset);
            push(&mut self.found.datasets, facts.name);
        }
    }

    fn suite(&mut self, facts: SuiteBuilt) {
        let Some(manifest) = self.manifest::<SuiteManifest>(&facts.manifest) else {
            return push(&mut self.found.unreadable, format!("suite {}", facts.name));
        };
        let rows_of = |case: &Case| [Some(case.seq), Some(case.gold_seq), case.wider_seq];
        let mut rows = manifest.cases.iter().flat_map(rows_of).flatten();
        if rows.any(|seq| self.rows.contains(&seq)) {
            push(&mut self.found.suites, facts.name);
        }
    }

    fn manifest<M: Stored>(&self, body: &BodyRef) -> Option<M> {
        M::from_stored(&self.view.blobs().get(body).ok()?).ok()
    }

    fn run(&mut self, facts: RunStarted) {
        if matches!(&facts.inputs, RunInputs::Train { dataset, .. }
            if self.datasets.contains(dataset))
        {
            push(&mut self.found.runs, facts.run);
        }
    }

    fn adapter(&mut self, facts: RunFinished) {
        if let RunOutcome::Train { adapter, .. } = facts.outcome
            && self.found.runs.contains(&facts.run)
        {
            push(&mut self.found.adapters, adapter.to_string());
        }
    }

    fn promotion(&mut self, facts: &PromotionMade, how: &str) {
        if self.found.adapters.contains(&facts.deployment.adapter) {
            let name = format!("{} as {}{how}", facts.deployment_id, facts.alias);
            push(&mut self.found.promotions, name);
        }
    }
}

/// Adds a name once: what was built again under its name is told once.
fn push(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests;
