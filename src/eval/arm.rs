//! Arms: what is evaluated, with its identity.

use std::sync::Arc;

use datasets::Cep;
use ledger::catalogue::{CepProposed, Decoding, Deployment};
use ledger::{Digest, Facts as _};
use models::Model;
use models::kernels::{self, Isa};
use models::lora::Adapter;

use crate::error::AppError;
use crate::lab::{Lab, Place};
use crate::rows::View;

/// Before the source of recorded answers, where a deployment names its base.
pub const RECORDED: &str = "recorded:";

/// What answers a suite.
pub enum Arm<'a> {
    /// A model that runs here.
    Local(Local<'a>),
    /// Answers that were recorded elsewhere.
    Recorded(Recorded),
}

/// A model that runs here.
pub struct Local<'a> {
    /// The base model.
    pub model: &'a Model,
    /// Adapter id.
    pub adapter: Option<Digest>,
    /// Numbers of the adapter.
    pub numbers: Option<Arc<Adapter>>,
    /// Prefix used in the adapter's training, or `none`.
    pub trained_cep: String,
    /// Prefix.
    pub cep: Option<Cep>,
    /// Most new tokens of an answer.
    pub max_new_tokens: u32,
    /// Path of the kernels.
    pub isa: Isa,
}

/// Answers that were recorded elsewhere.
pub struct Recorded {
    /// Source whose traces carry the answers.
    pub source: String,
}

/// Returns a prefix as a field of a deployment.
pub fn cep_factor(cep: Option<&Cep>) -> String {
    cep.map_or_else(|| "none".to_owned(), |cep| cep.digest().to_string())
}

impl Arm<'_> {
    /// Returns the deployment that is evaluated.
    pub fn deployment(&self) -> Deployment {
        match self {
            Self::Local(local) => local.deployment(),
            Self::Recorded(recorded) => {
                let unknown = || "unknown".to_owned();
                Deployment {
                    base: format!("{RECORDED}{}", recorded.source),
                    adapter: unknown(),
                    template: unknown(),
                    cep: unknown(),
                    decoding: Decoding { method: unknown(), max_new_tokens: 0 },
                }
            }
        }
    }

    /// Lists the marks that go with the arm.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Recorded(_) => vec!["recorded".to_owned()],
            Self::Local(local) => {
                let shift =
                    local.adapter.is_some() && local.trained_cep != cep_factor(local.cep.as_ref());
                if shift { vec!["cep-shift".to_owned()] } else { Vec::new() }
            }
        }
    }
}

impl Arm<'_> {
    /// Returns the path of the kernels; that of this machine where none computes.
    pub fn isa(&self) -> Isa {
        match self {
            Self::Local(local) => local.isa,
            Self::Recorded(_) => kernels::isa().exact(),
        }
    }
}

impl Local<'_> {
    /// Returns the deployment.
    pub fn deployment(&self) -> Deployment {
        Deployment {
            base: Digest::from_bytes(self.model.digest).to_string(),
            adapter: self.adapter.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            template: Digest::from_bytes(self.model.renderer.digest()).to_string(),
            cep: cep_factor(self.cep.as_ref()),
            decoding: Decoding { method: "greedy".to_owned(), max_new_tokens: self.max_new_tokens },
        }
    }
}

/// Records a prefix; the same text again changes nothing.
///
/// # Errors
/// When the record refuses it.
pub fn propose_cep(lab: &Lab<'_>, cep: &Cep) -> Result<u64, AppError> {
    let body = lab.notebook.blobs().put(cep.text.as_bytes())?;
    let facts = CepProposed {
        name: cep.name.clone(),
        cep: cep.digest(),
        body,
        parent: cep.parent,
        targets: cep.targets.clone(),
    };
    let id = format!("cep/{}/{}", cep.name, facts.cep);
    lab.record(&format!("cep/{}", cep.name), &id, &facts, Place::default())
}

/// Finds a recorded prefix by its identity.
///
/// # Errors
/// When the record cannot be read, or its text is missing or damaged.
pub fn find_cep(view: &View, identity: &str) -> Result<Option<Cep>, AppError> {
    for event in view.events()? {
        let event = event?;
        if event.kind != CepProposed::KIND {
            continue;
        }
        let facts: CepProposed = event.facts()?;
        if facts.cep.to_string() != identity {
            continue;
        }
        let text = String::from_utf8_lossy(&view.blobs().get(&facts.body)?).into_owned();
        let (parent, targets) = (facts.parent, facts.targets);
        return Ok(Some(Cep { name: facts.name, text, parent, targets }));
    }
    Ok(None)
}
