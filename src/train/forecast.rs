//! What a training run will take, told before it begins: steps, minutes and memory.

use std::sync::Arc;
use std::time::Instant;

use models::Model;
use models::estimate::Estimate;
use models::lora::{Adapter, LoraConfig};
use models::render::TrainingRow;
use models::trainer::{TrainSpec, Trainer};
use serde::Serialize;

use super::recipe::Recipe;
use super::work::{Plan, RowSet, spec_of};
use crate::error::{AppError, Kind};
use crate::measure;

/// What a run will take.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Rows to train on, and held out.
    pub rows: usize,
    /// Rows held out.
    pub dev_rows: usize,
    /// Tokens of an epoch.
    pub tokens: usize,
    /// Tokens of an epoch that the loss covers.
    pub supervised: usize,
    /// Tokens of the longest row.
    pub longest: usize,
    /// Rows whose answer is cut.
    pub cut: usize,
    /// Steps of the run.
    pub steps: u64,
    /// Runs that only try rates, and their steps together.
    pub trials: usize,
    /// Steps of all trials together.
    pub trial_steps: u64,
    /// Tokens in a second, as a micro-batch of this run took.
    pub tokens_per_second: f64,
    /// Minutes of trials and run.
    pub minutes: f64,
    /// Memory.
    pub memory: Memory,
}

/// What a run will hold in memory, in MiB.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Frozen weights.
    pub weights_mib: usize,
    /// At most, when results are kept for the backward pass.
    pub keeping_mib: usize,
    /// At most, when they are computed again.
    pub recomputing_mib: usize,
    /// What the machine can give, the weights that are loaded included.
    pub available_mib: Option<usize>,
    /// What the run will do.
    pub recompute: bool,
    /// Rows of a micro-batch that would fit, all as long as the longest: keeping, recomputing.
    pub batch_that_fits: Option<(usize, usize)>,
}

const MIB: usize = 1 << 20;

/// Returns the tokens of the micro-batch that holds most: those of the longest rows, and of these
/// the supervised.
fn largest(rows: &RowSet, batch: usize) -> (usize, usize) {
    let mut lengths: Vec<(usize, usize)> = rows
        .train
        .iter()
        .map(|(_, row)| row)
        .chain(&rows.dev)
        .map(|row| (row.ids.len(), row.supervised_tokens()))
        .collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let most = lengths.iter().take(batch);
    most.fold((0, 0), |(tokens, supervised), (t, s)| (tokens + t, supervised + s))
}

/// Compares what a run takes with what the machine has.
///
/// # Errors
/// When it does not fit even where results are computed again.
pub fn memory(
    model: &Model,
    lora: &LoraConfig,
    (recipe, rows): (&Recipe, &RowSet),
    limit: Option<usize>,
) -> Result<Memory, AppError> {
    let weights = model.weights()?;
    let of = |tokens, recompute| Estimate::of(weights, lora, tokens, recompute).total();
    let tokens = largest(rows, recipe.batch);
    let (keeping, recomputing) = (of(tokens, false), of(tokens, true));
    let loaded = weights.size();
    let available = limit.or_else(|| measure::available_bytes().map(|free| free + loaded));
    let longest = largest(rows, 1);
    let fits = |recompute: bool, most: usize| {
        let fits = |batch: &usize| of((longest.0 * batch, longest.1 * batch), recompute) <= most;
        (1..=4096).take_while(fits).last().unwrap_or(0)
    };
    let memory = Memory {
        weights_mib: loaded / MIB,
        keeping_mib: keeping / MIB,
        recomputing_mib: recomputing / MIB,
        available_mib: available.map(|bytes| bytes / MIB),
        recompute: available.is_some_and(|most| keeping > most),
        batch_that_fits: available.map(|most| (fits(false, most), fits(true, most))),
    };
    let Some(most) = available.filter(|most| recomputing > *most) else { return Ok(memory) };
    let what = format!(
        "training takes about {} MiB and {} can be had: {} of weights, rows of up to {} tokens, {} \
         at once",
        recomputing / MIB,
        most / MIB,
        loaded / MIB,
        longest.0,
        recipe.batch,
    );
    let hint = match fits(true, most) {
        0 => "not even one row fits: set max_tokens lower, or take a smaller or quantised model"
            .to_owned(),
        batch => format!("--set batch={batch} fits; accumulate more to keep the step"),
    };
    Err(AppError::hinted(Kind::Refused, what, hint))
}

/// Says what a run will take; a micro-batch is computed to learn how fast the machine is.
///
/// # Errors
/// When it does not fit into memory, or cannot be trained.
pub(super) fn forecast(
    model: &Model,
    plan: &Plan,
    rows: &RowSet,
    limit: Option<usize>,
) -> Result<Forecast, AppError> {
    let recipe = &plan.recipe;
    let memory = memory(model, &plan.lora, (recipe, rows), limit)?;
    let sum = |of: fn(&TrainingRow) -> usize| rows.train.iter().map(|(_, row)| of(row)).sum();
    let tokens: usize = sum(|row| row.ids.len());
    let dev: usize = rows.dev.iter().map(|row| row.ids.len()).sum();
    let rate = speed(model, plan, rows, memory.recompute)?;
    let per_epoch = (rows.train.len() as u64).div_ceil((recipe.batch * recipe.accumulate) as u64);
    let trials = if recipe.rates.len() > 1 { recipe.rates.len() } else { 0 };
    let epochs = recipe.epochs + trials as u64 * recipe.pilot_epochs;
    // Held-out rows are read forwards only: about a third of the work.
    let seconds = epochs as f64 * (tokens as f64 + dev as f64 / 3.0) / rate;
    Ok(Forecast {
        rows: rows.train.len(),
        dev_rows: rows.dev.len(),
        tokens,
        supervised: sum(TrainingRow::supervised_tokens),
        longest: rows.train.iter().map(|(_, row)| row.ids.len()).max().unwrap_or(0),
        cut: rows.truncated().len(),
        steps: per_epoch * recipe.epochs,
        trials,
        trial_steps: per_epoch * recipe.pilot_epochs * trials as u64,
        tokens_per_second: rate,
        minutes: seconds / 60.0,
        memory,
    })
}

/// Returns the tokens in a second of the first micro-batch, computed a second time.
fn speed(model: &Model, plan: &Plan, rows: &RowSet, recompute: bool) -> Result<f64, AppError> {
    let batch: Vec<&TrainingRow> =
        rows.train.iter().take(plan.recipe.batch).map(|(_, row)| row).collect();
    let tokens: usize = batch.iter().map(|row| row.ids.len()).sum();
    let fresh = Adapter::fresh(&plan.lora, &model.weights()?.config, plan.recipe.seed_number());
    let longest = batch.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let spec = TrainSpec { longest, ..spec_of(&Plan { recompute, ..plan.clone() }, 1) };
    let trainer = Trainer::new(Arc::clone(model.weights()?), &fresh, spec)?;
    trainer.gradient(&batch)?;
    let begun = Instant::now();
    trainer.gradient(&batch)?;
    Ok(tokens as f64 / begun.elapsed().as_secs_f64())
}

impl Forecast {
    /// Adds runs with other seeds, which try no rates again.
    #[must_use]
    pub fn times(self, seeds: u64) -> Self {
        let all = (self.steps + self.trial_steps).max(1) as f64;
        let more = (self.steps * seeds + self.trial_steps) as f64;
        Self { steps: self.steps * seeds, minutes: self.minutes * more / all, ..self }
    }

    /// Says it for people.
    pub fn text(&self) -> String {
        let memory = &self.memory;
        let dev = self.dev_rows;
        let trials = match self.trials {
            0 => String::new(),
            trials => format!(", and {} in {trials} trials of a rate", self.trial_steps),
        };
        let way = if memory.recompute {
            "results are computed again in the backward pass"
        } else {
            "results are kept for the backward pass"
        };
        let available = match memory.available_mib {
            Some(mib) => format!(" of {mib} MiB that can be had"),
            None => String::new(),
        };
        let fits = match memory.batch_that_fits {
            Some((keeping, recomputing)) => format!(
                "\nfits      {keeping} rows of {} tokens at once, {recomputing} where results are \
                 computed again",
                self.longest
            ),
            None => String::new(),
        };
        format!(
            "rows      {} to train on, {dev} held out; {} cut\n\
             tokens    {} in an epoch, {} of them supervised; the longest row has {}\n\
             steps     {}{trials}\n\
             time      about {:.1} minutes at {:.0} tokens/s\n\
             memory    about {} MiB{available}: {way} ({} keeping, {} recomputing)\
             {fits}\n",
            self.rows,
            self.cut,
            self.tokens,
            self.supervised,
            self.longest,
            self.steps,
            self.minutes,
            self.tokens_per_second,
            if memory.recompute { memory.recomputing_mib } else { memory.keeping_mib },
            memory.keeping_mib,
            memory.recomputing_mib,
        )
    }
}
