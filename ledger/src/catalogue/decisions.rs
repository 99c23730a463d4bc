//! Streams `gate/<name>` and `model/<name>`: reports, verdicts and promotions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts;
use super::runs::Deployment;
use crate::event::BodyRef;
use crate::id::Digest;

/// A base model was brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelImported {
    /// Name, which also names the stream.
    pub name: String,
    /// Architecture, as the file says (`llama`).
    pub architecture: String,
    /// SHA-256 of the file.
    pub weights: Digest,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of chat template and renderer version.
    pub template: Digest,
    /// Licence.
    pub licence: String,
}

/// A comparison was made. Facts and measurements are hashed apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportPublished {
    /// Name of the report.
    pub name: String,
    /// Identity of the suite.
    pub suite: Digest,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// Deployments compared, with the runs that scored them.
    pub arms: Vec<ReportArm>,
    /// The report's facts, as canonical JSON.
    pub facts: BodyRef,
    /// Looks at this suite up to here.
    pub looks: u64,
}

/// One arm of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportArm {
    /// Name in tables.
    pub label: String,
    /// Deployment that was scored.
    pub deployment: Deployment,
    /// Its identity.
    pub deployment_id: Digest,
    /// Run that scored it.
    pub run: String,
}

/// Outcome of a rule or of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// Shown to hold.
    Pass,
    /// The data do not tell.
    Inconclusive,
    /// Shown not to hold.
    Fail,
    /// The question cannot be asked of these data (an absent metric, say).
    Invalid,
}

/// One rule's verdict with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleDecided {
    /// Name of the rule in the policy.
    pub rule: String,
    /// What it asks, in one sentence.
    pub asks: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// The numbers behind it, by name.
    pub numbers: Value,
    /// What the numbers say, in one sentence.
    pub says: String,
}

/// A policy was held against a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateDecided {
    /// Name of the policy, which also names the stream.
    pub policy: String,
    /// SHA-256 of the policy file.
    pub policy_digest: Digest,
    /// The policy file.
    pub policy_body: BodyRef,
    /// Event of the report.
    pub report: u64,
    /// Deployment that is judged.
    pub deployment: Digest,
    /// Its label in the report.
    pub label: String,
    /// Alias that a PASS may be promoted to.
    pub alias: String,
    /// The worst of the rules' verdicts.
    pub verdict: Verdict,
    /// Rule by rule.
    pub rules: Vec<RuleDecided>,
    /// Looks at the suite up to here.
    pub looks: u64,
}

/// A deployment was given an alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromotionMade {
    /// Catalog name of the model.
    pub model: String,
    /// Alias that now names the deployment.
    pub alias: String,
    /// What is promoted.
    pub deployment: Deployment,
    /// Its identity.
    pub deployment_id: Digest,
    /// Event of the verdict that allows it.
    pub gate: u64,
    /// Deployment that held the alias before.
    pub previous: Option<Digest>,
}

/// A deployment was given an alias though its gate did not pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromotionOverridden {
    /// The promotion.
    pub promotion: PromotionMade,
    /// Why.
    pub reason: String,
    /// Who else agreed.
    pub second_actor: String,
}

/// An alias was given back to the deployment before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollbackMade {
    /// Catalog name of the model.
    pub model: String,
    /// Alias.
    pub alias: String,
    /// Deployment that holds the alias again.
    pub deployment_id: Digest,
    /// Why.
    pub reason: String,
}

facts! {
    ModelImported = "model.imported" / 1,
    ReportPublished = "report.published" / 1,
    GateDecided = "gate.decided" / 1,
    PromotionMade = "promotion.made" / 1,
    PromotionOverridden = "promotion.overridden" / 1,
    RollbackMade = "rollback.made" / 1,
}
