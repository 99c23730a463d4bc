//! The catalog: models, deployments, what was decided about them, and who held an alias when.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ledger::catalogue::{
    Deployment, GateDecided, ModelImported, PromotionMade, PromotionOverridden, ReportPublished,
    RollbackMade, RunInputs, RunStarted,
};
use ledger::event::FactsError;
use ledger::{Digest, Envelope, Facts};
use serde::Serialize;

use super::Projection;

/// Models, deployments, verdicts and aliases.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Catalog {
    /// Base models by name.
    pub models: BTreeMap<String, ModelEntry>,
    /// Everything that was ever evaluated, judged or promoted.
    pub deployments: BTreeMap<Digest, DeploymentEntry>,
    /// Reports by event.
    pub reports: BTreeMap<u64, ReportPublished>,
    /// Verdicts by event.
    pub gates: BTreeMap<u64, GateEntry>,
    /// By model and alias: who held it, in order.
    pub aliases: BTreeMap<String, BTreeMap<String, Vec<Held>>>,
}

/// A base model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// Event that brought it in.
    pub event: u64,
    /// Its facts.
    pub facts: ModelImported,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeploymentEntry {
    /// Its factors.
    pub deployment: Deployment,
    /// Names that it had in tables.
    pub labels: BTreeSet<String>,
    /// Runs that scored it.
    pub runs: BTreeSet<String>,
    /// Events of verdicts on it.
    pub gates: BTreeSet<u64>,
    /// Events that gave it an alias.
    pub promotions: BTreeSet<u64>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateEntry {
    /// When it fell.
    pub at: DateTime<Utc>,
    /// Its facts.
    pub facts: GateDecided,
}

/// Who held an alias from when on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The deployment.
    pub deployment_id: Digest,
    /// Event that gave it the alias.
    pub since: u64,
    /// When that was.
    pub at: DateTime<Utc>,
    /// Who did it.
    pub actor: String,
    /// How it came.
    pub by: HeldBy,
}

/// How a deployment came to hold an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum HeldBy {
    /// Its gate passed.
    Promotion {
        /// Event of the verdict.
        gate: u64,
    },
    /// Its gate did not pass and two people overrode it.
    Override {
        /// Event of the verdict.
        gate: u64,
        /// Why and by whom.
        why: Override,
    },
    /// The deployment after it was taken back.
    Rollback {
        /// Why.
        reason: String,
    },
}

/// Why a verdict was overridden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Override {
    /// Why.
    pub reason: String,
    /// Who else agreed.
    pub second_actor: String,
}

impl Catalog {
    /// Returns who holds an alias now.
    pub fn holder(&self, model: &str, alias: &str) -> Option<&Held> {
        self.aliases.get(model)?.get(alias)?.last()
    }

    /// Returns who held an alias at a moment.
    pub fn holder_at(&self, model: &str, alias: &str, at: DateTime<Utc>) -> Option<&Held> {
        self.aliases.get(model)?.get(alias)?.iter().rfind(|held| held.at <= at)
    }

    /// Lists the deployments whose identity starts with `prefix`.
    pub fn matching<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Digest> {
        self.deployments.keys().filter(move |id| id.to_string().starts_with(prefix))
    }

    /// Returns the aliases that a deployment holds now, as (model, alias).
    pub fn aliases_of(&self, deployment: &Digest) -> Vec<(&str, &str)> {
        let all = self.aliases.iter().flat_map(|(model, aliases)| {
            aliases.iter().map(move |(alias, held)| (model.as_str(), alias.as_str(), held.last()))
        });
        all.filter(|(_, _, held)| held.is_some_and(|held| held.deployment_id == *deployment))
            .map(|(model, alias, _)| (model, alias))
            .collect()
    }

    fn entry(&mut self, id: Digest, deployment: &Deployment) -> &mut DeploymentEntry {
        self.deployments.entry(id).or_insert_with(|| DeploymentEntry {
            deployment: deployment.clone(),
            labels: BTreeSet::new(),
            runs: BTreeSet::new(),
            gates: BTreeSet::new(),
            promotions: BTreeSet::new(),
        })
    }

    fn promote(&mut self, event: &Envelope, made: &PromotionMade, by: HeldBy) {
        self.entry(made.deployment_id, &made.deployment).promotions.insert(event.seq);
        self.hold(event, (&made.model, &made.alias), made.deployment_id, by);
    }

    fn hold(&mut self, event: &Envelope, name: (&str, &str), deployment_id: Digest, by: HeldBy) {
        let (model, alias) = name;
        let aliases = self.aliases.entry(model.to_owned()).or_default();
        aliases.entry(alias.to_owned()).or_default().push(Held {
            deployment_id,
            since: event.seq,
            at: event.at,
            actor: event.actor.clone(),
            by,
        });
    }
}

impl Projection for Catalog {
    const NAME: &'static str = "catalog";

    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        match event.kind.as_str() {
            ModelImported::KIND => {
                let facts: ModelImported = event.facts()?;
                self.models.insert(facts.name.clone(), ModelEntry { event: event.seq, facts });
            }
            RunStarted::KIND => {
                let facts: RunStarted = event.facts()?;
                if let RunInputs::Eval { deployment, deployment_id, label, .. } = facts.inputs {
                    let entry = self.entry(deployment_id, &deployment);
                    entry.labels.insert(label);
                    entry.runs.insert(facts.run);
                }
            }
            ReportPublished::KIND => {
                let facts: ReportPublished = event.facts()?;
                for arm in &facts.arms {
                    let entry = self.entry(arm.deployment_id, &arm.deployment);
                    entry.labels.insert(arm.label.clone());
                    entry.runs.insert(arm.run.clone());
                }
                self.reports.insert(event.seq, facts);
            }
            GateDecided::KIND => {
                let facts: GateDecided = event.facts()?;
                if let Some(entry) = self.deployments.get_mut(&facts.deployment) {
                    entry.gates.insert(event.seq);
                }
                self.gates.insert(event.seq, GateEntry { at: event.at, facts });
            }
            PromotionMade::KIND => {
                let made: PromotionMade = event.facts()?;
                self.promote(event, &made, HeldBy::Promotion { gate: made.gate });
            }
            PromotionOverridden::KIND => {
                let facts: PromotionOverridden = event.facts()?;
                let PromotionOverridden { promotion, reason, second_actor } = facts;
                let why = Override { reason, second_actor };
                let by = HeldBy::Override { gate: promotion.gate, why };
                self.promote(event, &promotion, by);
            }
            RollbackMade::KIND => {
                let facts: RollbackMade = event.facts()?;
                let by = HeldBy::Rollback { reason: facts.reason };
                self.hold(event, (&facts.model, &facts.alias), facts.deployment_id, by);
            }
            _ => {}
        }
        Ok(())
    }
}
