//! `ledger promote`.

use serde_json::json;

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::promote::{Override, promote};

/// Give an alias to the deployment that its newest gate judged. Only a PASS promotes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alias: canary, champion, or what the policy names
    #[arg(long)]
    alias: String,
    /// Name of the model in the catalog
    #[arg(long, default_value = "toolcall")]
    model: String,
    /// Promote although the gate did not pass; needs a reason and a second actor, and stays visible
    #[arg(long = "override", requires_all = ["reason", "second_actor"])]
    force: bool,
    /// Why the gate is overridden
    #[arg(long)]
    reason: Option<String>,
    /// Who else agreed to the override
    #[arg(long)]
    second_actor: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let force = match (args.force, args.reason, args.second_actor) {
        (false, _, _) => None,
        (true, Some(reason), Some(second_actor)) => Some(Override { reason, second_actor }),
        (true, _, _) => {
            return Err(AppError::said(
                Kind::Usage,
                "--override needs --reason and --second-actor",
            ));
        }
    };
    let promoted = globals.with_lab(|lab| promote(lab, &args.model, &args.alias, force))?;
    let loud = if promoted.overridden { " OVERRIDDEN: its gate did not pass" } else { "" };
    let text = format!(
        "{}@{} = deployment {} (event {}, gate {}){loud}",
        promoted.facts.model,
        promoted.facts.alias,
        promoted.facts.deployment_id,
        promoted.event,
        promoted.facts.gate
    );
    let document = json!({
        "event": promoted.event,
        "overridden": promoted.overridden,
        "promotion": promoted.facts,
    });
    Output::document(&document, text)
}
