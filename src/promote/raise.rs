//! Promotion: an alias goes to a deployment whose gate passed, and to no other without an
//! override that names a reason and a second actor.

use std::path::PathBuf;

use ledger::catalogue::{Deployment, GateDecided, PromotionMade, PromotionOverridden, Verdict};
use ledger::{Digest, Notebook};
use queries::gate::verdict_word;
use queries::projection::{HeldBy, State};

use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// Why a promotion is made although the gate did not pass.
pub struct Override {
    /// Why.
    pub reason: String,
    /// Who else agreed.
    pub second_actor: String,
}

/// A promotion with its event.
pub struct Promoted {
    /// Event.
    pub event: u64,
    /// Facts.
    pub facts: PromotionMade,
    /// It was an override.
    pub overridden: bool,
}

/// Gives `alias` of `model` to the deployment that its newest gate judged.
///
/// # Errors
/// When no gate decided on the alias, its verdict is not PASS and there is no override, or the
/// record refuses the event.
pub fn promote(
    lab: &Lab<'_>,
    model: &str,
    alias: &str,
    force: Option<Override>,
) -> Result<Promoted, AppError> {
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let newest = state.catalog.gates.iter().rev().find(|(_, gate)| gate.facts.alias == alias);
    let Some((gate_event, gate)) = newest.map(|(event, entry)| (*event, &entry.facts)) else {
        return Err(AppError::hinted(
            Kind::Refused,
            format!("no gate has decided on alias {alias:?}"),
            "`ledger gate --policy <policy>` holds a policy against the newest report",
        ));
    };
    let passed = gate.verdict == Verdict::Pass;
    if !passed && force.is_none() {
        return Err(refused(alias, gate_event, gate));
    }
    let deployment = deployment_of(&state, gate)?;
    let held = state.catalog.holder(model, alias);
    let same = held.filter(|held| held.deployment_id == gate.deployment);
    let facts = PromotionMade {
        model: model.to_owned(),
        alias: alias.to_owned(),
        deployment,
        deployment_id: gate.deployment,
        gate: gate_event,
        previous: held.map(|held| held.deployment_id).filter(|id| *id != gate.deployment),
    };
    let overridden = !passed;
    let event = match (same.map(|held| (held.since, &held.by)), force) {
        // It holds the alias already, and in the same way.
        (Some((since, HeldBy::Promotion { .. })), _) if passed => since,
        (Some((since, HeldBy::Override { .. })), _) if !passed => since,
        (_, Some(force)) if !passed => override_with(lab, &facts, force)?,
        _ => {
            let id = format!("promotion/{model}/{alias}/{gate_event}");
            let place = Place::default().because(gate_event);
            lab.record(&format!("model/{model}"), &id, &facts, place)?
        }
    };
    selection_file(lab.notebook, model)?;
    lab.notebook.checkpoint()?;
    Ok(Promoted { event, facts, overridden })
}

/// Records a promotion whose gate did not pass.
fn override_with(
    lab: &Lab<'_>,
    promotion: &PromotionMade,
    force: Override,
) -> Result<u64, AppError> {
    let somebody = force.second_actor.trim();
    if somebody.is_empty() || somebody == lab.actor || force.reason.trim().is_empty() {
        return Err(AppError::hinted(
            Kind::Refused,
            "an override needs a reason and somebody else beside you",
            format!("--second-actor is {somebody:?}, --actor is {:?}", lab.actor),
        ));
    }
    let facts = PromotionOverridden {
        promotion: promotion.clone(),
        reason: force.reason,
        second_actor: force.second_actor,
    };
    let id = format!("override/{}", Digest::of_json(&facts)?);
    let place = Place::default().because(promotion.gate);
    lab.record(&format!("model/{}", promotion.model), &id, &facts, place)
}

fn refused(alias: &str, event: u64, gate: &GateDecided) -> AppError {
    let not_passed: Vec<String> = gate
        .rules
        .iter()
        .filter(|rule| rule.verdict != Verdict::Pass)
        .map(|rule| format!("{}: {}", rule.rule, rule.says))
        .collect();
    AppError::hinted(
        Kind::Refused,
        format!(
            "{} may not have alias {alias:?}: policy {} says {} (event {event}). {}",
            gate.label,
            gate.policy,
            verdict_word(gate.verdict),
            not_passed.join("; ")
        ),
        "only a PASS promotes; --override needs --reason and --second-actor and stays visible",
    )
}

fn deployment_of(state: &State, gate: &GateDecided) -> Result<Deployment, AppError> {
    match state.catalog.deployments.get(&gate.deployment) {
        Some(entry) => Ok(entry.deployment.clone()),
        None => {
            let what = format!("deployment {} stands in no run", gate.deployment);
            Err(AppError::said(Kind::Damaged, what))
        }
    }
}

/// Writes `model_selection.json`, a projection of the record, into the notebook.
///
/// # Errors
/// When the record cannot be folded or the file not be written.
pub fn selection_file(notebook: &Notebook, model: &str) -> Result<Option<PathBuf>, AppError> {
    let state = queries::projection::fold_all(&notebook.reader())?;
    let Some(bytes) = state.selection.model_selection(model)? else { return Ok(None) };
    let path = notebook.dir().join("model_selection.json");
    std::fs::write(&path, bytes).map_err(AppError::file(&path))?;
    Ok(Some(path))
}

/// Returns the start of a digest, for people.
pub fn short(id: &Digest) -> String {
    id.short()
}
