//! `ledger train`.

use std::fmt::Write as _;

use models::kernels::Isa;
use models::trainer::Target;
use serde_json::json;

use super::{Globals, Output};
use crate::build::load_split;
use crate::error::{AppError, Kind};
use crate::hub;
use crate::lab::Lab;
use crate::train::{Means, Recipe, TrainWish, Trained, foresee, train, train_with_pilots};

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
    /// Train so many times, with the seed and those that follow it; rates are tried once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Say what it takes - steps, minutes, memory - and train nothing
    #[arg(long)]
    plan: bool,
    /// Kernels: scalar, avx2, avx512 or amx-bf16; the fastest of this machine if left out
    #[arg(long)]
    kernels: Option<String>,
    /// What computes: cpu, or cuda or cuda:1 in a program built with the feature cuda; stock is the
    /// processor with the operations that a GPU is given
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Memory to take at most, in MiB; what the machine has if left out
    #[arg(long, value_name = "MIB")]
    memory: Option<usize>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let mut recipe = Recipe::find(&args.recipe)?;
    for change in &args.changes {
        recipe = recipe.set(change)?;
    }
    let means = Means {
        isa: isa(args.kernels.as_deref())?,
        memory: args.memory.map(|m| m << 20),
        target: target(&args.device)?,
    };
    globals.with_lab(|lab| {
        let base = hub::load(lab, &args.model)?;
        let split = load_split(&lab.view(), &args.dataset)?;
        let wish = TrainWish {
            model: &base.model,
            model_name: base.name.clone(),
            split: &split,
            cep: None,
            recipe,
            means,
        };
        if args.plan {
            let forecast = foresee(lab, &wish)?.times(args.seeds);
            return Output::document(&forecast, forecast.text());
        }
        let (pilots, first) = train_with_pilots(lab, &wish)?;
        let trained = replicates(lab, &wish, first, args.seeds)?;
        report(&pilots, &trained)
    })
}

/// Finds kernels that this machine has by their name.
pub(super) fn isa(name: Option<&str>) -> Result<Option<Isa>, AppError> {
    let Some(name) = name else { return Ok(None) };
    let here: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_here()).map(Isa::name).collect();
    match Isa::named(name).filter(|isa| isa.is_here()) {
        Some(isa) => Ok(Some(isa)),
        None => Err(AppError::hinted(
            Kind::Usage,
            format!("this machine has no kernels {name:?}"),
            format!("it has {}", here.join(", ")),
        )),
    }
}

fn target(name: &str) -> Result<Target, AppError> {
    let Some(target) = Target::named(name) else {
        let what = format!("no device {name:?}");
        return Err(AppError::hinted(Kind::Usage, what, "devices are cpu, stock, cuda and cuda:N"));
    };
    target.check().map_err(|error| {
        let hint = "without --device, the processor trains; `cargo build --features cuda` needs \
                    CUDA's toolkit";
        AppError::hinted(Kind::Usage, error.to_string(), hint)
    })?;
    Ok(target)
}

/// Trains again with the seeds that follow that of the first run, at the rate that it took.
fn replicates(
    lab: &Lab<'_>,
    wish: &TrainWish<'_>,
    first: Trained,
    seeds: u64,
) -> Result<Vec<Trained>, AppError> {
    let seed = wish.recipe.seed_number();
    let mut trained = vec![first];
    for next in 1..seeds {
        let Some(rate) = trained.first().and_then(Trained::rate) else { break };
        let recipe = wish.recipe.with(rate, wish.recipe.epochs);
        let recipe = recipe.set(&format!("seed={}", seed.wrapping_add(next)))?;
        trained.push(train(lab, &TrainWish { recipe, ..wish.clone() })?);
    }
    Ok(trained)
}

fn report(pilots: &[Trained], trained: &[Trained]) -> Result<Output, AppError> {
    let mut text = String::new();
    for pilot in pilots {
        let _ = writeln!(text, "trial {}: dev loss {}", pilot.run, pilot.dev_loss_text());
    }
    for one in trained {
        let known = if one.known { " (the record had it)" } else { "" };
        let _ = writeln!(
            text,
            "{}: adapter {}, dev loss {}, event {}{known}",
            one.run,
            one.adapter().map(|id| id.to_string()).unwrap_or_default(),
            one.dev_loss_text(),
            one.event
        );
    }
    let losses: Vec<f64> = trained.iter().filter_map(Trained::dev_loss).collect();
    let spread = spread(&losses);
    if let Some((mean, deviation)) = spread {
        let count = losses.len();
        let _ =
            writeln!(text, "dev loss over {count} seeds: mean {mean:.4}, deviation {deviation:.4}");
    }
    let show = |trained: &Trained| json!({ "run": trained.run, "outcome": trained.outcome });
    let Some(first) = trained.first() else { return Output::document(&json!({}), text) };
    let document = json!({
        "run": first.run,
        "adapter": first.adapter().map(|id| id.to_string()).unwrap_or_default(),
        "outcome": first.outcome,
        "event": first.event,
        "pilots": pilots.iter().map(show).collect::<Vec<_>>(),
        "replicates": trained.iter().skip(1).map(show).collect::<Vec<_>>(),
        "dev_loss_mean": spread.map(|(mean, _)| mean),
        "dev_loss_deviation": spread.map(|(_, deviation)| deviation),
    });
    Output::document(&document, text)
}

/// Returns mean and sample standard deviation of two or more numbers.
fn spread(numbers: &[f64]) -> Option<(f64, f64)> {
    if numbers.len() < 2 {
        return None;
    }
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let squares: f64 = numbers.iter().map(|v| (v - mean).powi(2)).sum();
    Some((mean, (squares / (numbers.len() - 1) as f64).sqrt()))
}
