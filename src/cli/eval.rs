//! `ledger eval`.

use std::sync::Arc;

use datasets::Cep;
use models::kernels;
use serde_json::json;

use super::train::isa;
use super::{Globals, Output};
use crate::build::load_suite;
use crate::error::{AppError, Kind};
use crate::eval::{Arm, EvalWish, Evaluated, Local, Recorded, evaluate, propose_cep};
use crate::hub;
use crate::lab::Lab;
use crate::serve::engine;

/// Answer a suite and score the answers. Every evaluation is a look at the suite and is counted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Suite, by name or the start of its identity
    #[arg(long)]
    suite: String,
    /// Name of the arm in tables [default: base, base+cep, adapter, ... or the source]
    #[arg(long)]
    label: Option<String>,
    /// Score answers recorded in this source instead of running a model
    #[arg(long, conflicts_with_all = ["adapter", "cep"])]
    recorded: Option<String>,
    /// Base model: a known name or a GGUF file
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Adapter id, or the start of it
    #[arg(long)]
    adapter: Option<String>,
    /// Prefix: toolcall, or a text file
    #[arg(long)]
    cep: Option<String>,
    /// Most new tokens of an answer
    #[arg(long, default_value_t = 128)]
    max_new_tokens: u32,
    /// Look although the suite's questions stand in the training data; the arm is marked `leak`
    #[arg(long)]
    allow_leak: bool,
    /// Kernels: scalar, avx2, avx512, or amx-bf16, which reads prompts with factors rounded to
    /// bf16; the fastest of this machine that rounds nothing if left out
    #[arg(long)]
    kernels: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let evaluated = globals.with_lab(|lab| eval(lab, &args))?;
    let text = format!(
        "{}: deployment {}, n {}, exact {} strict, {} lenient{}",
        evaluated.run,
        evaluated.deployment_id.short(),
        evaluated.n,
        evaluated.exact_strict,
        evaluated.exact_lenient,
        if evaluated.known { " (the record had it)" } else { "" }
    );
    let document = json!({
        "run": evaluated.run,
        "deployment": evaluated.deployment,
        "deployment_id": evaluated.deployment_id,
        "n": evaluated.n,
        "exact_strict": evaluated.exact_strict,
        "exact_lenient": evaluated.exact_lenient,
    });
    Output::document(&document, text)
}

fn eval(lab: &Lab<'_>, args: &Args) -> Result<Evaluated, AppError> {
    let suite = load_suite(&lab.view(), &args.suite)?;
    let label = args.label.clone();
    if let Some(source) = &args.recorded {
        let arm = Arm::Recorded(Recorded { source: source.clone() });
        let label = label.unwrap_or_else(|| source.clone());
        return evaluate(lab, &EvalWish { suite: &suite, arm: &arm, label, allow_leak: false });
    }
    let base = hub::load(lab, &args.model)?;
    let cep = args.cep.as_deref().map(find_text).transpose()?;
    if let Some(cep) = &cep {
        propose_cep(lab, cep)?;
    }
    let mut local = Local {
        model: &base.model,
        adapter: None,
        numbers: None,
        trained_cep: "none".to_owned(),
        cep,
        max_new_tokens: args.max_new_tokens,
        isa: isa(args.kernels.as_deref())?.unwrap_or_else(|| kernels::isa().exact()),
    };
    if let Some(prefix) = &args.adapter {
        let id = whole_adapter_id(lab, prefix)?;
        let (adapter, trained_cep) = engine::adapter(&lab.view(), &base, &id)?;
        local.numbers = Some(Arc::new(adapter));
        local.adapter = id.parse().ok();
        local.trained_cep = trained_cep;
    }
    let label = label.unwrap_or_else(|| {
        let name = if local.adapter.is_some() { "adapter" } else { "base" };
        if local.cep.is_some() { format!("{name}+cep") } else { name.to_owned() }
    });
    let arm = Arm::Local(local);
    let allow_leak = args.allow_leak;
    evaluate(lab, &EvalWish { suite: &suite, arm: &arm, label, allow_leak })
}

fn find_text(name: &str) -> Result<Cep, AppError> {
    if name == "toolcall" {
        return Ok(Cep::toolcall());
    }
    let text = std::fs::read_to_string(name).map_err(AppError::file(name))?;
    let stem = std::path::Path::new(name).file_stem().map(|s| s.to_string_lossy().into_owned());
    Ok(Cep::new(stem.as_deref().unwrap_or(name), &text, &[]))
}

fn whole_adapter_id(lab: &Lab<'_>, prefix: &str) -> Result<String, AppError> {
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let ids = state.runs.runs.values().filter_map(|run| match &run.outcome {
        Some(ledger::catalogue::RunOutcome::Train { adapter, .. }) => Some(adapter.to_string()),
        _ => None,
    });
    let mut found: Vec<String> = ids.filter(|id| id.starts_with(prefix)).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(AppError::hinted(
            Kind::NotFound,
            format!("no run made adapter {prefix}"),
            "`ledger train` prints the id of what it makes",
        )),
        _ => Err(AppError::said(Kind::NotFound, format!("several adapters begin {prefix}"))),
    }
}
