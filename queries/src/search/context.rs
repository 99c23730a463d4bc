//! What documents of scored cases are made with, beside their event: the arm that a run scored,
//! and the questions of a suite. Both stand in earlier events, which the index finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use datasets::SuiteManifest;
use datasets::manifest::Stored as _;
use ledger::catalogue::{RunInputs, RunStarted, SuiteBuilt};
use ledger::{Blobs, Digest, Envelope, Facts as _, Reader};

/// The arm that a run scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arm {
    pub(super) label: String,
    /// Base model of the deployment: a digest, or a recorded model's label.
    pub(super) base: String,
}

/// A suite with the questions of its cases.
#[derive(Clone, Debug, Default)]
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) questions: BTreeMap<String, String>,
    /// Its questions are not to be read by chance: neither they nor answers to them are found.
    pub(super) is_sealed: bool,
    /// Events of traces that each case came from.
    pub(super) rows: BTreeMap<String, Vec<u64>>,
}

/// What is known of runs and suites so far.
#[derive(Debug, Default)]
pub(super) struct Context {
    arms: BTreeMap<String, Arm>,
    suites: BTreeMap<Digest, Arc<Suite>>,
}

impl Context {
    /// Takes up an event that later ones may refer to.
    fn take(&mut self, event: &Envelope, blobs: &Blobs) {
        match event.kind.as_str() {
            RunStarted::KIND => {
                if let Ok(RunStarted { run, inputs, .. }) = event.facts() {
                    self.arms.entry(run).or_insert_with(|| arm_of(inputs));
                }
            }
            SuiteBuilt::KIND => {
                if let Ok(facts) = event.facts::<SuiteBuilt>() {
                    let suite = || Arc::new(suite_of(&facts, blobs));
                    self.suites.entry(facts.suite).or_insert_with(suite);
                }
            }
            _ => {}
        }
    }

    /// Forgets the questions, which may have been somebody's.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn arm_of(inputs: RunInputs) -> Arm {
    match inputs {
        RunInputs::Eval { label, deployment, .. } => Arm { label, base: deployment.base },
        RunInputs::Train { .. } => Arm::default(),
    }
}

/// Reads a suite; one whose manifest is lost has no questions.
pub(super) fn suite_of(facts: &SuiteBuilt, blobs: &Blobs) -> Suite {
    let bytes = blobs.get(&facts.manifest).ok();
    let manifest = bytes.and_then(|bytes| SuiteManifest::from_stored(&bytes).ok());
    let mut suite = Suite { name: facts.name.clone(), ..Suite::default() };
    suite.is_sealed = manifest.as_ref().is_some_and(SuiteManifest::is_sealed);
    for case in manifest.map(|manifest| manifest.cases).unwrap_or_default() {
        let rows = [Some(case.seq), Some(case.gold_seq), case.wider_seq];
        suite.rows.insert(case.id.clone(), rows.into_iter().flatten().collect());
        // Whoever reads the questions of a sealed suite takes a look, which is an event.
        if !suite.is_sealed {
            suite.questions.insert(case.id, case.query);
        }
    }
    suite
}

/// Finds earlier events: the first of each, so that it is the same one at any time.
pub(super) trait Finder {
    /// Finds the event that started a run.
    fn run_started(&self, run: &str) -> Option<u64>;
    /// Finds the event that built a suite.
    fn suite_built(&self, suite: &Digest) -> Option<u64>;
}

/// The context together with where it finds what it does not know yet.
pub(super) struct Lookup<'a> {
    pub(super) reader: &'a Reader,
    context: &'a mut Context,
    finder: &'a dyn Finder,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(
        reader: &'a Reader,
        context: &'a mut Context,
        finder: &'a dyn Finder,
    ) -> Self {
        Self { reader, context, finder }
    }

    /// Takes up an event that later ones may refer to.
    pub(super) fn take(&mut self, event: &Envelope) {
        self.context.take(event, self.reader.blobs());
    }

    pub(super) fn arm(&mut self, run: &str) -> Arm {
        if !self.context.arms.contains_key(run) {
            self.fetch(self.finder.run_started(run));
        }
        self.context.arms.get(run).cloned().unwrap_or_default()
    }

    pub(super) fn suite(&mut self, suite: &Digest) -> Arc<Suite> {
        if !self.context.suites.contains_key(suite) {
            self.fetch(self.finder.suite_built(suite));
        }
        self.context.suites.get(suite).cloned().unwrap_or_default()
    }

    fn fetch(&mut self, seq: Option<u64>) {
        if let Some(Ok(Some(event))) = seq.map(|seq| self.reader.get(seq)) {
            self.take(&event);
        }
    }
}
