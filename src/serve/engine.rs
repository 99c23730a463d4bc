//! A deployment made ready to answer, checked against its identity.

use std::ops::ControlFlow;
use std::sync::Arc;

use datasets::Turn;
use ledger::Digest;
use ledger::catalogue::Deployment;
use models::decode::{Generation, Request, TextStream};
use models::kernels;
use queries::projection::State;

use crate::adapters;
use crate::error::{AppError, Kind};
use crate::eval::{Local, decoder, find_cep};
use crate::hub::Base;
use crate::prompt;
use crate::rows::View;
use crate::serve::running::Running;

/// A deployment ready to answer.
pub struct Engine {
    base: Base,
    running: Running,
    cep: Option<datasets::Cep>,
    /// The deployment.
    pub deployment: Deployment,
    /// Its identity.
    pub id: Digest,
    /// Aliases that it holds, as `model@alias`.
    pub aliases: Vec<String>,
    /// An override gave it an alias though its gate had not passed.
    pub overridden: bool,
}

/// Finds a deployment by alias (`canary` or `model@canary`) or by the start of its identity.
///
/// # Errors
/// When none or several fit.
pub fn find_deployment(state: &State, name: &str) -> Result<(Digest, Deployment), AppError> {
    let (model, alias) = name.split_once('@').map_or((None, name), |(m, a)| (Some(m), a));
    let models = state.catalog.aliases.keys();
    let models = models.filter(|known| model.is_none_or(|model| model == known.as_str()));
    let holders = models.filter_map(|known| state.catalog.holder(known, alias));
    let mut found: Vec<Digest> = holders.map(|held| held.deployment_id).collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        found = state.catalog.matching(name).copied().collect();
    }
    let [id] = found.as_slice() else {
        let what = if found.is_empty() { "no" } else { "more than one" };
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("{what} deployment fits {name:?}"),
            "`ledger catalog` lists deployments and aliases",
        ));
    };
    match state.catalog.deployments.get(id) {
        Some(entry) => Ok((*id, entry.deployment.clone())),
        None => Err(AppError::said(Kind::Damaged, format!("deployment {id} stands in no run"))),
    }
}

/// Makes a deployment ready to run with its base model, and checks that what was loaded is what
/// the identity says.
///
/// # Errors
/// When base, template, adapter or prefix are not the deployment's.
pub fn local<'a>(
    view: &View,
    base: &'a Base,
    deployment: &Deployment,
) -> Result<Local<'a>, AppError> {
    let (mut adapter_id, mut numbers) = (None, None);
    let mut trained_cep = "none".to_owned();
    if deployment.adapter != "none" {
        let (adapter, cep) = adapter(view, base, &deployment.adapter)?;
        numbers = Some(Arc::new(adapter));
        adapter_id = deployment.adapter.parse().ok();
        trained_cep = cep;
    }
    let local = Local {
        model: &base.model,
        adapter: adapter_id,
        numbers,
        trained_cep,
        cep: find_cep(view, &deployment.cep)?,
        max_new_tokens: deployment.decoding.max_new_tokens,
        isa: kernels::isa().exact(),
    };
    let made = local.deployment();
    if made != *deployment {
        return Err(AppError::said(
            Kind::Refused,
            format!("what was loaded is another deployment: {made:?} instead of {deployment:?}"),
        ));
    }
    Ok(local)
}

/// Reads the adapter of an id, with the prefix that it was trained under.
///
/// # Errors
/// When no run made it, it was made for another base, or its bodies are damaged.
pub fn adapter(
    view: &View,
    base: &Base,
    id: &str,
) -> Result<(models::lora::Adapter, String), AppError> {
    let found = adapters::find(view, id)?;
    Ok((found.read(view, base)?, found.cep))
}

impl Engine {
    /// Makes a deployment ready to serve.
    ///
    /// # Errors
    /// As [`local`].
    pub fn load(state: &State, view: &View, base: Base, name: &str) -> Result<Self, AppError> {
        let (id, deployment) = find_deployment(state, name)?;
        let (running, cep) = {
            let local = local(view, &base, &deployment)?;
            (Running::start(decoder(&local)?)?, local.cep)
        };
        let aliases = state.catalog.aliases_of(&id);
        let overridden = aliases.iter().any(|(model, alias)| {
            let selected = state.selection.selected(model, alias);
            selected.is_some_and(|selected| selected.overridden.is_some())
        });
        let aliases = aliases.iter().map(|(model, alias)| format!("{model}@{alias}")).collect();
        Ok(Self { base, running, cep, deployment, id, aliases, overridden })
    }

    /// Lists the marks that go with every answer.
    pub fn marks(&self) -> Vec<String> {
        let mut marks = Vec::new();
        if self.aliases.is_empty() {
            marks.push("unpromoted".to_owned());
        }
        if self.overridden {
            marks.push("overridden".to_owned());
        }
        marks
    }

    /// Says whether a request's model name means this deployment.
    pub fn answers_to(&self, name: &str) -> bool {
        let bare = |alias: &String| alias.split_once('@').is_some_and(|(_, bare)| bare == name);
        let id = self.id.to_string();
        (name.len() >= 6 && id.starts_with(name))
            || self.aliases.iter().any(|alias| alias == name || bare(alias))
    }

    /// Answers a conversation with at most `limit` new tokens, and no further than any of `stops`;
    /// `text` gets each new piece.
    ///
    /// # Errors
    /// When the prompt does not fit the context, or the template refuses the conversation.
    pub fn answer(
        &self,
        turns: &[Turn],
        (limit, stops): (Option<u32>, &[String]),
        text: &mut dyn FnMut(&str),
    ) -> Result<(Generation, String), AppError> {
        let renderer = &self.base.model.renderer;
        let tokenizer = renderer.tokenizer();
        let prompt = renderer.prompt(&prompt::messages(turns, self.cep.as_ref()))?;
        let most = self.deployment.decoding.max_new_tokens;
        let limit = limit.unwrap_or(most).min(most) as usize;
        let request =
            Request { prompt, max_new: limit, ends: vec![tokenizer.eos()], ..Request::default() };
        let mut stream = TextStream::new(tokenizer, stops);
        let mut all = String::new();
        let mut tell = |piece: String, text: &mut dyn FnMut(&str)| {
            if !piece.is_empty() {
                text(&piece);
                all.push_str(&piece);
            }
        };
        let made = self.running.answer(request, &mut |id| {
            // What cannot be decoded now is tried again at the end.
            tell(stream.push(id).unwrap_or_default(), text);
            match stream.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        tell(stream.finish()?, text);
        Ok((made, all))
    }
}
