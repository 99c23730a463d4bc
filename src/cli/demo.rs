//! `ledger demo`.

use super::{Globals, Output};
use crate::demo::{DemoWish, run as run_demo};
use crate::error::AppError;

/// Run the whole loop on real input: ingest, suites, split, training, evaluation, comparison,
/// gates, promotion, serving, the next dataset, replay, verification. Broken off and run again
/// with the same --dir it goes on from where it was.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Base model: a known name or a GGUF file
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Recipe: paper, fledgling, or a file
    #[arg(long, default_value = "paper")]
    recipe: String,
    /// Most new tokens of an answer
    #[arg(long, default_value_t = 128)]
    max_new_tokens: u32,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let wish = DemoWish {
        dir: globals.dir.clone(),
        actor: globals.actor.clone(),
        model: args.model,
        recipe: args.recipe,
        max_new_tokens: args.max_new_tokens,
    };
    let summary = run_demo(&wish, globals.talk())?;
    Output::document(&summary.json(), summary.text())
}
