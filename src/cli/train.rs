//! `ledger train`.

use std::fmt::Write as _;

use serde_json::json;

use super::{Globals, Output};
use crate::build::load_split;
use crate::error::AppError;
use crate::hub;
use crate::train::{Recipe, TrainWish, Trained, train_with_pilots};

/// Train an adapter. Rates are tried and epochs chosen on the dev side; a run that broke off goes
/// on from its last checkpoint.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Dataset, by name or the start of its identity
    #[arg(long)]
    dataset: String,
    /// Recipe: paper, fledgling, or a file
    #[arg(long, default_value = "paper")]
    recipe: String,
    /// Base model: a known name or a GGUF file
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Change a field of the recipe, as seed=8 or epochs=1
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    changes: Vec<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let mut recipe = Recipe::find(&args.recipe)?;
    for change in &args.changes {
        recipe = recipe.set(change)?;
    }
    let (pilots, trained) = globals.with_lab(|lab| {
        let base = hub::load(lab, &args.model)?;
        let split = load_split(&lab.view(), &args.dataset)?;
        let wish = TrainWish {
            model: &base.model,
            model_name: base.name.clone(),
            split: &split,
            cep: None,
            recipe,
        };
        train_with_pilots(lab, &wish)
    })?;
    let mut text = String::new();
    for pilot in &pilots {
        let _ = writeln!(text, "trial {}: dev loss {}", pilot.run, pilot.dev_loss_text());
    }
    let known = if trained.known { " (the record had it)" } else { "" };
    let adapter = trained.adapter().map(|id| id.to_string()).unwrap_or_default();
    let _ = writeln!(
        text,
        "{}: adapter {adapter}, dev loss {}, event {}{known}",
        trained.run,
        trained.dev_loss_text(),
        trained.event
    );
    let show = |trained: &Trained| json!({ "run": trained.run, "outcome": trained.outcome });
    let document = json!({
        "run": trained.run,
        "adapter": adapter,
        "outcome": trained.outcome,
        "event": trained.event,
        "pilots": pilots.iter().map(show).collect::<Vec<_>>(),
    });
    Output::document(&document, text)
}
