//! `ledger catalog`.

use std::fmt::Write as _;

use queries::gate::verdict_word;
use queries::projection::fold_all;

use super::{Globals, Output};
use crate::error::AppError;

/// List deployments, what was decided on them, and who holds which alias.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(globals: &Globals, _args: Args) -> Result<Output, AppError> {
    let state = fold_all(&globals.reader()?)?;
    let mut text = String::new();
    for (id, entry) in &state.catalog.deployments {
        let labels: Vec<&str> = entry.labels.iter().map(String::as_str).collect();
        let base = entry.deployment.base.get(..12).unwrap_or(&entry.deployment.base);
        let short = |factor: &str| factor.get(..12).unwrap_or(factor).to_owned();
        let _ = writeln!(
            text,
            "{} {}: base {base}, adapter {}, cep {}, {}",
            id.short(),
            labels.join("/"),
            short(&entry.deployment.adapter),
            short(&entry.deployment.cep),
            entry.deployment.decoding.method
        );
        for event in &entry.gates {
            if let Some(gate) = state.catalog.gates.get(event) {
                let (policy, verdict) = (&gate.facts.policy, verdict_word(gate.facts.verdict));
                let _ = writeln!(text, "  {policy}: {verdict} (event {event})");
            }
        }
        for (model, alias) in state.catalog.aliases_of(id) {
            let _ = writeln!(text, "  holds {model}@{alias}");
        }
    }
    Output::document(&state.catalog, text)
}
