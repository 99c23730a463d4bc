//! Streams `run/<id>`: work that was asked for, done, and measured.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts;
use crate::event::BodyRef;
use crate::id::Digest;

/// One field of a deployment: a digest or a name, `none`, or `unknown` for what a recorded arm
/// does not tell.
pub type Factor = String;

/// What is evaluated, gated, promoted and served. Its identity is the digest of this struct.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// SHA-256 of the base model's file, or a recorded model's label.
    pub base: Factor,
    /// Adapter id, `none` or `unknown`.
    pub adapter: Factor,
    /// SHA-256 of chat template and renderer version, or `unknown`.
    pub template: Factor,
    /// SHA-256 of the context engineering prefix, `none` or `unknown`.
    pub cep: Factor,
    /// Decoding: method, most new tokens, stops; or `unknown`.
    pub decoding: Decoding,
}

/// How text is drawn from a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// `greedy`, or `unknown` for a recorded arm.
    pub method: String,
    /// Most tokens that an answer may have; 0 where unknown.
    pub max_new_tokens: u32,
}

/// Work was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRequested {
    /// Run id, which also names the stream.
    pub run: String,
    /// `train`, `eval` or `replay`.
    pub work: String,
    /// Everything that was asked.
    pub request: Value,
}

/// A worker took a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunClaimed {
    /// Run id.
    pub run: String,
}

/// Work began. Holds everything that a replay needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Run id.
    pub run: String,
    /// What is done on which inputs.
    pub inputs: RunInputs,
    /// Seed, in decimal (64 bits do not fit a JSON number).
    pub seed: String,
}

/// Inputs of a run, by the work that it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum RunInputs {
    /// Trains an adapter.
    Train {
        /// Name of the base model.
        model: String,
        /// SHA-256 of its file.
        base: Digest,
        /// SHA-256 of chat template and renderer version.
        template: Digest,
        /// Identity of the dataset.
        dataset: Digest,
        /// Event that built it.
        split: u64,
        /// Prefix used in training, or `none`.
        cep: Factor,
        /// The recipe as run, every field.
        recipe: Value,
        /// Digest of the recipe.
        recipe_digest: Digest,
    },
    /// Answers a suite and scores the answers.
    Eval {
        /// Name of the suite.
        name: String,
        /// Identity of the suite.
        suite: Digest,
        /// Event that built it.
        suite_event: u64,
        /// Identity of the scorer.
        scorer: Digest,
        /// What is evaluated.
        deployment: Deployment,
        /// Its identity.
        deployment_id: Digest,
        /// Name of the arm in tables.
        label: String,
        /// Marks such as `cep-shift`, `recorded`, `leak`.
        flags: Vec<String>,
        /// Cases of the suite whose question stands in the adapter's training side.
        leaked_questions: u64,
    },
}

/// One optimiser step was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// Step from 1, over all epochs.
    pub step: u64,
    /// Epoch from 1.
    pub epoch: u64,
    /// Mean loss over supervised tokens (nats).
    pub loss: f64,
    /// Learning rate of this step.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Tokens read.
    pub tokens: u64,
    /// Tokens that the loss covers.
    pub supervised: u64,
}

/// The adapter was stored as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointSaved {
    /// Step after which it was stored.
    pub step: u64,
    /// Epoch that it ends.
    pub epoch: u64,
    /// `adapter_model.safetensors`.
    pub weights: BodyRef,
    /// Optimiser state, so that a run can go on; none where the run ended here.
    pub optimiser: Option<BodyRef>,
    /// Mean loss over the dev side's supervised tokens (nats); none where there is no dev side.
    pub dev_loss: Option<f64>,
}

/// How an answer compares with its gold, in one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The answer could be read as a call (toolcall) or as JSON (structured).
    pub valid: bool,
    /// The tool's name is the gold's.
    pub name: bool,
    /// Arguments (toolcall) or the whole value (structured) equal the gold's.
    pub exact: bool,
    /// Leaves in both.
    pub true_positives: u32,
    /// Leaves in the answer only.
    pub false_positives: u32,
    /// Leaves in the gold only.
    pub false_negatives: u32,
}

/// One case was answered and scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseScored {
    /// Identity of the suite.
    pub suite: Digest,
    /// Identity of the deployment.
    pub deployment: Digest,
    /// Identity of the scorer.
    pub scorer: Digest,
    /// Case id in the suite.
    pub case: String,
    /// Place in the suite, from 0.
    pub index: u32,
    /// Stratum of the case.
    pub stratum: String,
    /// Tool that the gold calls.
    pub tool: String,
    /// Strict reading: the whole trimmed answer.
    pub strict: Reading,
    /// Lenient reading: the first call or value found in the answer.
    pub lenient: Reading,
    /// Issue tags of the strict reading.
    pub issues: Vec<String>,
    /// The answer's text; none where a recorded arm has no answer (which counts as a failure).
    pub answer: Option<BodyRef>,
    /// Tokens of the prompt, where known.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer, where known.
    pub answer_tokens: Option<u32>,
    /// Why the answer ended: `stop`, `length`, `recorded`, `missing`.
    pub ended: String,
}

/// Work was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFinished {
    /// Run id.
    pub run: String,
    /// What came out of it.
    pub outcome: RunOutcome,
}

/// Outcome of a run, by the work that it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
// One per run: the size of the smaller variant does not matter.
#[allow(clippy::large_enum_variant)]
pub enum RunOutcome {
    /// An adapter.
    Train {
        /// Adapter id: digest of base, tokenizer, recipe, dataset, prefix and weights.
        adapter: Digest,
        /// Event of the checkpoint that was chosen on the dev side.
        checkpoint_step: u64,
        /// Its epoch.
        epoch: u64,
        /// Its dev loss; none where there is no dev side and the last epoch was taken.
        dev_loss: Option<f64>,
        /// `adapter_config.json`.
        config: BodyRef,
        /// `adapter_model.safetensors`.
        weights: BodyRef,
        /// Rows whose answer was cut to fit, by event number of the trace.
        truncated: Vec<u64>,
    },
    /// Scores of a suite.
    Eval {
        /// Cases scored: always the suite's n.
        n: u64,
        /// Arguments exact in the strict reading.
        exact_strict: u64,
        /// Arguments exact in the lenient reading.
        exact_lenient: u64,
    },
}

/// Work broke off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailed {
    /// Run id.
    pub run: String,
    /// Why, in one line.
    pub reason: String,
}

/// A run was done again and its facts compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReplayed {
    /// Run that was replayed.
    pub run: String,
    /// Tier: `L1`, `L2`, ...
    pub tier: String,
    /// Events compared.
    pub compared: u64,
    /// Where it first differs, if it does.
    pub divergence: Option<Divergence>,
    /// What was changed on purpose (`seed=8`), if anything.
    pub changed: Vec<String>,
    /// What was left out (`steps after 20`), if anything.
    pub scope: Vec<String>,
}

/// The first fact that came out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Event of the first run.
    pub seq: u64,
    /// Its kind.
    pub kind: String,
    /// Path of the fact.
    pub path: String,
    /// Value in the log.
    pub recorded: Value,
    /// Value that came out.
    pub replayed: Value,
}

/// What a checkpoint stored is given up: `ledger gc` may remove it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointReleased {
    /// Run id.
    pub run: String,
    /// Step after which it was stored.
    pub step: u64,
    /// Bodies that no other event needs.
    pub bodies: Vec<BodyRef>,
    /// Why.
    pub why: String,
}

facts! {
    CheckpointReleased = "checkpoint.released" / 1,
    RunRequested = "run.requested" / 1,
    RunClaimed = "run.claimed" / 1,
    RunStarted = "run.started" / 1,
    StepCompleted = "step.completed" / 1,
    CheckpointSaved = "checkpoint.saved" / 1,
    CaseScored = "case.scored" / 1,
    RunFinished = "run.finished" / 1,
    RunFailed = "run.failed" / 1,
    RunReplayed = "run.replayed" / 1,
}
