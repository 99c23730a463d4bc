//! The selection: what each alias names now, in the form that a runtime reads.

use std::collections::BTreeMap;

use ledger::catalogue::{Deployment, PromotionMade, PromotionOverridden, RollbackMade};
use ledger::event::FactsError;
use ledger::{Digest, Envelope, Facts};
use serde::Serialize;
use serde_json::json;

use super::Projection;

/// What each alias names now, by model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Selection {
    /// By model, then alias.
    pub models: BTreeMap<String, BTreeMap<String, Selected>>,
    /// Deployments that were ever promoted, for rollbacks.
    deployments: BTreeMap<Digest, Deployment>,
}

/// What an alias names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selected {
    /// The deployment.
    pub deployment: Digest,
    /// SHA-256 of its base model.
    pub base: String,
    /// Its adapter, or `none`.
    pub adapter: String,
    /// Its template.
    pub template: String,
    /// Its prefix, or `none`.
    pub cep: String,
    /// Event that gave it the alias.
    pub since: u64,
    /// Why its gate was overridden, where it was.
    pub overridden: Option<String>,
}

impl Selection {
    /// Returns what an alias names now.
    pub fn selected(&self, model: &str, alias: &str) -> Option<&Selected> {
        self.models.get(model)?.get(alias)
    }

    /// Encodes one model's selection as `model_selection.json` has it; none for a model without
    /// any alias.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub fn model_selection(&self, model: &str) -> Result<Option<Vec<u8>>, serde_json::Error> {
        let Some(aliases) = self.models.get(model) else { return Ok(None) };
        let document = json!({ "model": model, "aliases": aliases });
        ledger::id::canonical_json(&document).map(Some)
    }

    fn select(
        &mut self,
        seq: u64,
        (model, alias): (String, String),
        id: Digest,
        overridden: Option<String>,
    ) {
        // A rollback names only the identity; one that was never promoted has no known factors.
        let factor = |of: fn(&Deployment) -> &String| {
            self.deployments.get(&id).map_or_else(|| "unknown".to_owned(), |d| of(d).clone())
        };
        let selected = Selected {
            deployment: id,
            base: factor(|deployment| &deployment.base),
            adapter: factor(|deployment| &deployment.adapter),
            template: factor(|deployment| &deployment.template),
            cep: factor(|deployment| &deployment.cep),
            since: seq,
            overridden,
        };
        self.models.entry(model).or_default().insert(alias, selected);
    }

    fn promote(&mut self, seq: u64, made: PromotionMade, overridden: Option<String>) {
        self.deployments.insert(made.deployment_id, made.deployment);
        self.select(seq, (made.model, made.alias), made.deployment_id, overridden);
    }
}

impl Projection for Selection {
    const NAME: &'static str = "selection";

    fn apply(&mut self, event: &Envelope) -> Result<(), FactsError> {
        match event.kind.as_str() {
            PromotionMade::KIND => self.promote(event.seq, event.facts()?, None),
            PromotionOverridden::KIND => {
                let facts: PromotionOverridden = event.facts()?;
                self.promote(event.seq, facts.promotion, Some(facts.reason));
            }
            RollbackMade::KIND => {
                let facts: RollbackMade = event.facts()?;
                self.select(event.seq, (facts.model, facts.alias), facts.deployment_id, None);
            }
            _ => {}
        }
        Ok(())
    }
}
