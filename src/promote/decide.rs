//! Holding a policy against a report.

use std::path::Path;

use ledger::Digest;
use ledger::catalogue::GateDecided;
use queries::gate::{self, Decision, Policy};
use queries::projection::GateEntry;
use queries::report::Report;

use super::publish::Published;
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};

/// A verdict with its event.
pub struct Decided {
    /// Event.
    pub event: u64,
    /// Facts of the event.
    pub facts: GateDecided,
    /// The policy.
    pub policy: Policy,
    /// Its verdict.
    pub decision: Decision,
}

/// Finds a policy by name or file. Returns it with its text.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn find_policy(name: &str) -> Result<(Policy, String), AppError> {
    let text = match Policy::shipped(name) {
        Some(text) => text.to_owned(),
        None if Path::new(name).exists() => {
            std::fs::read_to_string(name).map_err(AppError::file(name))?
        }
        None => {
            let known = Policy::shipped_names().collect::<Vec<_>>().join(", ");
            return Err(AppError::hinted(
                Kind::NotFound,
                format!("no policy {name:?}"),
                format!("name a file, or one of: {known}"),
            ));
        }
    };
    let parsed = Policy::parse(&text);
    let policy = parsed.map_err(|source| AppError::Policy { name: name.to_owned(), source })?;
    Ok((policy, text))
}

/// Holds a policy against one arm of a published report and records the verdict.
///
/// # Errors
/// When the policy cannot be found, the report has no such arm, or the record refuses the event.
pub fn decide(
    lab: &Lab<'_>,
    published: &Published,
    policy: &str,
    candidate: &str,
) -> Result<Decided, AppError> {
    let (policy, text) = find_policy(policy)?;
    let report: &Report = &published.report;
    let Some(arm) = report.facts.arm(candidate) else {
        let labels: Vec<&str> = report.facts.arms.iter().map(|a| a.label.as_str()).collect();
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("report {} has no arm {candidate:?}", published.event),
            format!("its arms: {}", labels.join(", ")),
        ));
    };
    let decision = gate::decide(&policy, report, candidate);
    let facts = GateDecided {
        policy: policy.name.clone(),
        policy_digest: Digest::of(text.as_bytes()),
        policy_body: lab.notebook.blobs().put(text.as_bytes())?,
        report: published.event,
        deployment: arm.deployment_id,
        label: candidate.to_owned(),
        alias: policy.alias.clone(),
        verdict: decision.verdict,
        rules: decision.rules.clone(),
        looks: report.facts.looks,
    };
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let of_alias = |entry: &&GateEntry| entry.facts.alias == facts.alias;
    let newest = state.catalog.gates.iter().rev().find(|(_, entry)| of_alias(entry));
    if let Some((event, entry)) = newest
        && entry.facts == facts
    {
        return Ok(Decided { event: *event, facts, policy, decision });
    }
    // The newest verdict on an alias is the one that counts, also when it was given before.
    let after = newest.map_or(0, |(event, _)| *event);
    let id = format!("gate/{}/{}/{after}", policy.name, Digest::of_json(&facts)?);
    let place = Place::default().because(published.event);
    let event = lab.record(&format!("gate/{}", policy.name), &id, &facts, place)?;
    Ok(Decided { event, facts, policy, decision })
}
