//! Lineage: which milestone came from which, as a graph over event numbers.

use std::collections::{BTreeMap, BTreeSet};

use ledger::catalogue::{
    CepProposed, DatasetImported, GateDecided, ModelImported, PromotionMade, PromotionOverridden,
    ReportPublished, RunFinished, RunInputs, RunOutcome, RunStarted, SplitBuilt, SuiteBuilt,
};
use ledger::event::FactsError;
use ledger::{Envelope, Facts};
use serde::Serialize;
use serde_json::Value;

use super::Projection;

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lineage {
    /// Milestones by event.
    pub nodes: BTreeMap<u64, Node>,
    /// The latest event that made a thing, by what refers to it.
    made: BTreeMap<String, u64>,
    /// Events of imports by source.
    imports: BTreeMap<String, BTreeSet<u64>>,
}

/// A milestone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Kind of its event.
    pub kind: String,
    /// What it made.
    pub name: String,
    /// Events that it came from.
    pub from: BTreeSet<u64>,
}

impl Lineage {
    /// Returns every milestone that `event` came from, itself included.
    pub fn upstream(&self, event: u64) -> BTreeSet<u64> {
        let from = |seq: u64| -> Vec<u64> {
            self.nodes.get(&seq).map(|node| node.from.iter().copied().collect()).unwrap_or_default()
        };
        reach(event, from)
    }

    /// Returns every milestone that came from `event`, itself included.
    pub fn downstream(&self, event: u64) -> BTreeSet<u64> {
        let to = |seq: u64| -> Vec<u64> {
            let nodes = self.nodes.iter().filter(|(_, node)| node.from.contains(&seq));
            nodes.map(|(to, _)| *to).collect()
        };
        reach(event, to)
    }

    fn add(&mut self, event: &Envelope, name: String, from: impl IntoIterator<Item = u64>) {
        let node = Node {
            kind: event.kind.clone(),
            name,
            from: from.into_iter().chain(event.cause).collect(),
        };
        self.nodes.insert(event.seq, node);
    }

    fn made(&self, thing: &str, id: &str) -> Option<u64> {
        self.made.get(&format!("{thing}/{id}")).copied()
    }

    fn make(&mut self, thing: &str, id: &str, seq: u64) {
        self.made.insert(format!("{thing}/{id}"), seq);
    }

    /// Returns the imports of the sources that a specification names, under `sources` or
    /// `source`, or in its parts.
    fn imports_of(&self, spec: &Value) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        match spec {
            Value::String(name) => found.extend(self.imports.get(name).into_iter().flatten()),
            Value::Array(parts) => {
                found.extend(parts.iter().flat_map(|part| self.imports_of(part)));
            }
            Value::Object(parts) => {
                found.extend(parts.values().flat_map(|part| self.imports_of(part)));
            }
            _ => {}
        }
        found
    }

    fn started(&mut self, event: &Envelope, facts: RunStarted) {
        let from: Vec<u64> = match &facts.inputs {
            RunInputs::Train { model, split, cep, .. } => {
                let (model, cep) = (self.made("model", model), self.made("cep", cep));
                [Some(*split), model, cep].into_iter().flatten().collect()
            }
            RunInputs::Eval { suite_event, deployment, .. } => {
                let adapter = self.made("adapter", &deployment.adapter);
                let (base, cep) =
                    (self.made("weights", &deployment.base), self.made("cep", &deployment.cep));
                [Some(*suite_event), adapter, base, cep].into_iter().flatten().collect()
            }
        };
        self.make("run", &facts.run, event.seq);
        self.add(event, facts.run, from);
    }

    fn finished(&mut self, event: &Envelope, facts: RunFinished) {
        let from = self.made("run", &facts.run);
        if let RunOutcome::Train { adapter, .. } = &facts.outcome {
            self.make("adapter", &adapter.to_string(), event.seq);
        }
        self.make("done", &facts.run, event.seq);
        self.add(event, facts.run, from);
    }

    fn promoted(&mut self, event: &Envelope, made: &PromotionMade) {
        self.add(event, format!("{}@{}", made.model, made.alias), [made.gate]);
    }
}

fn reach(start: u64, next: impl Fn(u64) -> Vec<u64>) -> BTreeSet<u64> {
    let (mut seen, mut open) = (BTreeSet::from([start]), vec![start]);
    while let Some(seq) = open.pop() {
        for other in next(seq) {
            if seen.insert(other) {
                open.push(other);
            }
        }
    }
    seen
}

impl Projection for Lineage {
    const NAME: &'static str = "lineage";

    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        match event.kind.as_str() {
            DatasetImported::KIND => {
                let facts: DatasetImported = event.facts()?;
                self.imports.entry(facts.source.clone()).or_default().insert(event.seq);
                self.add(event, facts.source, []);
            }
            ModelImported::KIND => {
                let facts: ModelImported = event.facts()?;
                self.make("model", &facts.name, event.seq);
                self.make("weights", &facts.weights.to_string(), event.seq);
                self.add(event, facts.name, []);
            }
            CepProposed::KIND => {
                let facts: CepProposed = event.facts()?;
                let parent = facts.parent.and_then(|id| self.made("cep", &id.to_string()));
                self.make("cep", &facts.cep.to_string(), event.seq);
                self.add(event, facts.name, parent);
            }
            SplitBuilt::KIND => {
                let facts: SplitBuilt = event.facts()?;
                let from = self.imports_of(&facts.spec);
                self.add(event, facts.name, from);
            }
            SuiteBuilt::KIND => {
                let facts: SuiteBuilt = event.facts()?;
                let from = self.imports_of(&facts.spec);
                self.add(event, facts.name, from);
            }
            RunStarted::KIND => self.started(event, event.facts()?),
            RunFinished::KIND => self.finished(event, event.facts()?),
            ReportPublished::KIND => {
                let facts: ReportPublished = event.facts()?;
                let from: Vec<u64> =
                    facts.arms.iter().filter_map(|arm| self.made("done", &arm.run)).collect();
                self.add(event, facts.name, from);
            }
            GateDecided::KIND => {
                let facts: GateDecided = event.facts()?;
                self.add(event, facts.policy, [facts.report]);
            }
            PromotionMade::KIND => {
                let made: PromotionMade = event.facts()?;
                self.promoted(event, &made);
            }
            PromotionOverridden::KIND => {
                let facts: PromotionOverridden = event.facts()?;
                self.promoted(event, &facts.promotion);
            }
            _ => {}
        }
        Ok(())
    }
}
