//! The training executor: request, claim, steps, checkpoints, outcome, all as events.

use std::time::Instant;

use datasets::Cep;
use ledger::catalogue::{
    CheckpointSaved, RunClaimed, RunFailed, RunFinished, RunOutcome, RunRequested,
};
use ledger::{Digest, Facts as _};
use models::kernels::{self, Isa};
use models::trainer::Target;
use models::{Model, peft};
use serde_json::{Value, json};

use super::forecast::{Forecast, forecast, memory};
use super::recipe::Recipe;
use super::work::{Made, Plan, RowSet, Start, Work, outcome, started, way_of};
use crate::build::Split;
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};
use crate::measure;
use crate::rows::Traces;

/// What should be trained.
#[derive(Clone)]
pub struct TrainWish<'a> {
    /// The base model.
    pub model: &'a Model,
    /// Its name.
    pub model_name: String,
    /// The dataset.
    pub split: &'a Split,
    /// Prefix that the rows carry.
    pub cep: Option<&'a Cep>,
    /// The recipe.
    pub recipe: Recipe,
    /// What the machine is asked for.
    pub means: Means,
}

/// What a run may ask of the machine; a run that goes on takes the path that it began on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means {
    /// Path of the kernels; the fastest where none is named.
    pub isa: Option<Isa>,
    /// Bytes of memory at most; what the machine has where none are named.
    pub memory: Option<usize>,
    /// What computes.
    pub target: Target,
}

/// A finished training run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Run id.
    pub run: String,
    /// Event that finished it.
    pub event: u64,
    /// What came out.
    pub outcome: RunOutcome,
    /// The record had it already.
    pub known: bool,
    /// Learning rate.
    rate: Option<f64>,
}

impl Trained {
    /// Returns the dev loss of the chosen checkpoint.
    pub fn dev_loss(&self) -> Option<f64> {
        match &self.outcome {
            RunOutcome::Train { dev_loss, .. } => *dev_loss,
            RunOutcome::Eval { .. } => None,
        }
    }

    /// Says the dev loss, for people.
    pub fn dev_loss_text(&self) -> String {
        self.dev_loss().map_or("none (no dev side)".to_owned(), |loss| format!("{loss:.4}"))
    }

    /// Returns the learning rate.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Returns the adapter id.
    pub fn adapter(&self) -> Option<Digest> {
        match &self.outcome {
            RunOutcome::Train { adapter, .. } => Some(*adapter),
            RunOutcome::Eval { .. } => None,
        }
    }
}

/// Trains with the rate that does best on the dev side: each is tried for the recipe's pilot
/// epochs, as a run of its own. Returns the trials and the run.
///
/// # Errors
/// As [`train`].
pub fn train_with_pilots(
    lab: &Lab<'_>,
    wish: &TrainWish<'_>,
) -> Result<(Vec<Trained>, Trained), AppError> {
    let recipe = &wish.recipe;
    let with = |recipe: Recipe| TrainWish {
        model: wish.model,
        model_name: wish.model_name.clone(),
        split: wish.split,
        cep: wish.cep,
        recipe,
        means: wish.means,
    };
    let mut pilots = Vec::new();
    let mut best = recipe.rates.first().copied().unwrap_or_default();
    if recipe.rates.len() > 1 {
        if wish.split.facts.dev == 0 {
            return Err(AppError::hinted(
                Kind::Refused,
                format!("{} rates and no dev side to choose on", recipe.rates.len()),
                "name one with --set rates=[0.0006], or hold rows out with --dev-fraction",
            ));
        }
        let mut lowest = f64::INFINITY;
        for rate in &recipe.rates {
            let pilot = train(lab, &with(recipe.with(*rate, recipe.pilot_epochs)))?;
            lab.talk.say(format!("  rate {rate}: dev loss {}", pilot.dev_loss_text()));
            if let Some(loss) = pilot.dev_loss().filter(|loss| *loss < lowest) {
                (lowest, best) = (loss, *rate);
            }
            pilots.push(pilot);
        }
    }
    let trained = train(lab, &with(recipe.with(best, recipe.epochs)))?;
    Ok((pilots, trained))
}

/// Trains an adapter. A run that the record has finished is returned as it is; one that broke off
/// goes on from its last checkpoint and ends in the same bytes.
///
/// # Errors
/// When the record refuses an event, a body is damaged, or the numbers leave the finite.
pub fn train(lab: &Lab<'_>, wish: &TrainWish<'_>) -> Result<Trained, AppError> {
    let request = request(wish)?;
    let rate = wish.recipe.rates.first().copied();
    let run = format!("train-{}", Digest::of_json(&request)?.short());
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    if let Some(known) = state.runs.get(&run)
        && let (Some(event), Some(outcome)) = (known.ended, known.outcome.clone())
    {
        return Ok(Trained { run, event, outcome, known: true, rate });
    }
    let (mut plan, rows) = prepare(lab, wish, run.clone())?;
    plan.recompute =
        memory(wish.model, &plan.lora, (&plan.recipe, &rows), wish.means.memory)?.recompute;
    let stream = format!("run/{run}");
    let began = begin(lab, &plan, wish.model, request)?;
    // A run that broke off goes on as it began, or it would end in other bytes.
    if let Some(event) = lab.notebook.reader().get(began)? {
        (plan.isa, plan.target) = way_of(&event)?;
    }
    let earlier: Vec<CheckpointSaved> = state
        .runs
        .get(&run)
        .map(|known| known.checkpoints.iter().map(|c| c.facts.clone()).collect())
        .unwrap_or_default();
    match finish(lab, wish, (&plan, &rows), earlier) {
        Ok((outcome, seconds)) => {
            let facts = RunFinished { run: run.clone(), outcome: outcome.clone() };
            let measured = json!({ "seconds": seconds, "peak_rss_mb": measure::peak_rss_mb() });
            let place = Place::run(&run).because(began).measured(measured);
            let event = lab.record(&stream, &format!("{run}/finished"), &facts, place)?;
            Ok(Trained { run, event, outcome, known: false, rate })
        }
        Err(error) => {
            let facts = RunFailed { run: run.clone(), reason: error.to_string() };
            let id = format!("{run}/failed/{}", Digest::of_json(&facts)?.short());
            // What failed matters more than that its record could not be written.
            let _ = lab.record(&stream, &id, &facts, Place::run(&run).because(began));
            Err(error)
        }
    }
}

/// Renders the rows of a run and settles how it is computed.
fn prepare(lab: &Lab<'_>, wish: &TrainWish<'_>, run: String) -> Result<(Plan, RowSet), AppError> {
    let traces = Traces::list(&lab.view())?;
    let limit = wish.recipe.max_tokens;
    let rows = RowSet::render(&traces, wish.split, wish.model, wish.cep, limit)?;
    let plan = Plan {
        run,
        recipe: wish.recipe.clone(),
        model: wish.model_name.clone(),
        cep: crate::eval::cep_factor(wish.cep),
        dataset: wish.split.facts.dataset,
        split: wish.split.event,
        lora: wish.recipe.lora().of_family(wish.model.weights()?.config.architecture)?,
        isa: wish.means.isa.unwrap_or_else(kernels::isa),
        recompute: false,
        target: wish.means.target,
    };
    Ok((plan, rows))
}

/// Says what training would take, and trains nothing.
///
/// # Errors
/// When it would not fit into memory, or the rows cannot be rendered.
pub fn foresee(lab: &Lab<'_>, wish: &TrainWish<'_>) -> Result<Forecast, AppError> {
    let (plan, rows) = prepare(lab, wish, "plan".to_owned())?;
    // What would stop the run before its first step stops its plan.
    Work::new(&plan, wish.model, &rows, None)?;
    forecast(wish.model, &plan, &rows, wish.means.memory)
}

fn request(wish: &TrainWish<'_>) -> Result<Value, AppError> {
    Ok(json!({
        "work": "train",
        "model": wish.model_name,
        "base": Digest::from_bytes(wish.model.digest),
        "dataset": wish.split.facts.dataset,
        "split_event": wish.split.event,
        "cep": crate::eval::cep_factor(wish.cep),
        "recipe": wish.recipe,
    }))
}

/// Appends what stands before the first step; returns the event of the start.
fn begin(lab: &Lab<'_>, plan: &Plan, model: &Model, request: Value) -> Result<u64, AppError> {
    let run = &plan.run;
    let stream = format!("run/{run}");
    let requested = RunRequested { run: run.clone(), work: "train".to_owned(), request };
    let place = Place::run(run).because(plan.split);
    let asked = lab.record(&stream, &format!("{run}/requested"), &requested, place)?;
    let claimed = RunClaimed { run: run.clone() };
    let place = Place::run(run).because(asked);
    let claimed = lab.record(&stream, &format!("{run}/claimed"), &claimed, place)?;
    let place =
        Place::run(run).because(claimed).measured(measure::environment(plan.isa, plan.target));
    lab.record(&stream, &format!("{run}/started"), &started(plan, model)?, place)
}

fn finish(
    lab: &Lab<'_>,
    wish: &TrainWish<'_>,
    (plan, rows): (&Plan, &RowSet),
    earlier: Vec<CheckpointSaved>,
) -> Result<(RunOutcome, f64), AppError> {
    let began = Instant::now();
    let start = resume_point(lab, wish, plan, &earlier)?;
    let mut checkpoints = earlier;
    checkpoints.retain(|saved| start.as_ref().is_some_and(|start| saved.step <= start.step));
    let mut work = Work::new(plan, wish.model, rows, start.as_ref())?;
    let bar = lab.talk.bar(work.steps(), &plan.run);
    bar.set_position(start.as_ref().map_or(0, |start| start.step));
    let stream = format!("run/{}", plan.run);
    let run = &plan.run;
    let mut last = Instant::now();
    work.run(&mut |made| {
        match made {
            Made::Step(facts) => {
                let seconds = last.elapsed().as_secs_f64();
                let rate = facts.tokens as f64 / seconds;
                let measured = json!({ "seconds": seconds, "tokens_per_second": rate });
                let id = format!("{run}/step/{}", facts.step);
                lab.record(&stream, &id, &facts, Place::run(run).measured(measured))?;
                bar.set_message(format!("{run} loss {:.3}", facts.loss));
                bar.inc(1);
            }
            Made::Checkpoint(facts, bodies) => {
                lab.notebook.blobs().put_many(&bodies)?;
                let id = format!("{run}/checkpoint/{}", facts.step);
                lab.record(&stream, &id, &facts, Place::run(run))?;
                checkpoints.push(facts);
            }
        }
        last = Instant::now();
        Ok(true)
    })?;
    bar.finish_and_clear();
    let facts = started(plan, wish.model)?;
    let (outcome, config) = outcome(&facts, &plan.lora, &checkpoints, rows.truncated())?;
    lab.notebook.blobs().put(&config)?;
    Ok((outcome, began.elapsed().as_secs_f64()))
}

/// Finds the last checkpoint that a run can go on from.
fn resume_point(
    lab: &Lab<'_>,
    wish: &TrainWish<'_>,
    plan: &Plan,
    checkpoints: &[CheckpointSaved],
) -> Result<Option<Start>, AppError> {
    let Some(saved) = checkpoints.iter().rev().find(|saved| saved.optimiser.is_some()) else {
        return Ok(None);
    };
    let Some(optimiser) = &saved.optimiser else { return Ok(None) };
    let config = serde_json::to_vec(&peft::config_json(&plan.lora, &wish.model_name))?;
    let blobs = lab.notebook.blobs();
    let weights = blobs.get(&saved.weights)?;
    let adapter = peft::read(&config, &weights, &wish.model.weights()?.config)?;
    let optimiser = blobs.get(optimiser)?;
    lab.talk.say(format!("  going on from {} after step {}", CheckpointSaved::KIND, saved.step));
    let so_far = checkpoints.iter().filter(|one| one.step <= saved.step);
    let dev_losses = so_far.filter_map(|one| one.dev_loss).collect();
    Ok(Some(Start { step: saved.step, adapter, optimiser, dev_losses }))
}
