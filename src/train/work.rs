//! The work of training, apart from recording it: what the executor appends and what a replay
//! compares come out of the same function.

use datasets::split::RowRef;
use datasets::{Cep, Side};
use ledger::catalogue::{CheckpointSaved, RunInputs, RunOutcome, RunStarted, StepCompleted};
use ledger::{Digest, Envelope};
use models::kernels::{self, Isa};
use models::lora::{Adapter, LoraConfig};
use models::render::TrainingRow;
use models::trainer::{Target, TrainSpec, Trainer};
use models::{Model, peft, rng};
use serde_json::{Value, json};

use super::recipe::Recipe;
use crate::build::Split;
use crate::error::{AppError, Kind};
use crate::lab::body_ref;
use crate::prompt;
use crate::rows::Traces;

/// Rows of a dataset, as a model reads them.
pub struct RowSet {
    /// Rows to train on, with the events they came from.
    pub train: Vec<(u64, TrainingRow)>,
    /// Rows held out.
    pub dev: Vec<TrainingRow>,
}

impl RowSet {
    /// Renders the rows of a dataset.
    ///
    /// # Errors
    /// When a body is missing or damaged, or a prompt alone fills the limit.
    pub fn render(
        traces: &Traces,
        split: &Split,
        model: &Model,
        cep: Option<&Cep>,
        limit: usize,
    ) -> Result<Self, AppError> {
        let row = |at: &RowRef| -> Result<TrainingRow, AppError> {
            let episode = traces.row(at)?;
            let messages = prompt::messages(episode.prompt_turns(), cep);
            Ok(model.renderer.training_row(&messages, &prompt::trained_answer(&episode), limit)?)
        };
        let side = |side| split.manifest.side(side);
        let train = side(Side::Train).map(|at| Ok((at.seq, row(at)?)));
        let dev = side(Side::Dev).map(row).collect::<Result<_, AppError>>()?;
        Ok(Self { train: train.collect::<Result<_, AppError>>()?, dev })
    }

    /// Lists the events of rows whose answer was cut.
    pub fn truncated(&self) -> Vec<u64> {
        self.train.iter().filter(|(_, row)| row.truncated).map(|(seq, _)| *seq).collect()
    }
}

/// Everything that training needs to know beside its rows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Run id.
    pub run: String,
    /// Recipe with one rate.
    pub recipe: Recipe,
    /// Name of the base model.
    pub model: String,
    /// Prefix that the rows carry, or `none`.
    pub cep: String,
    /// Identity of the dataset.
    pub dataset: Digest,
    /// Event that built it.
    pub split: u64,
    /// Shape of the adapter, for the model's family.
    pub lora: LoraConfig,
    /// Path of the products.
    pub isa: Isa,
    /// Compute results again in the backward pass; the bits are the same.
    pub recompute: bool,
    /// What computes.
    pub target: Target,
}

/// Returns the path that a run took and what computed it, as the event of its start tells.
///
/// # Errors
/// When this machine lacks either, or the program's arithmetic is another.
pub fn way_of(started: &Envelope) -> Result<(Isa, Target), AppError> {
    let device = started.measured.get("device").and_then(Value::as_str).unwrap_or("cpu");
    let Some(target) = Target::named(device) else {
        let what = format!("the run computed on {device:?}, which this program does not know");
        return Err(AppError::said(Kind::Refused, what));
    };
    target.check()?;
    let name = started.measured.get("kernels").and_then(Value::as_str).unwrap_or_default();
    let arithmetic = started.measured.get("arithmetic").and_then(Value::as_u64).unwrap_or(1);
    if arithmetic != kernels::ARITHMETIC {
        let now = kernels::ARITHMETIC;
        let what = format!("the run computed by arithmetic {arithmetic}, this program has {now}");
        let hint = "a program of that time goes on with it; here it would end in other bytes";
        return Err(AppError::hinted(Kind::Refused, what, hint));
    }
    let here: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_here()).collect();
    let found = here.iter().find(|isa| isa.name() == name).map(|isa| (*isa, target));
    found.ok_or_else(|| {
        let names: Vec<&str> = here.iter().map(|isa| isa.name()).collect();
        let what = format!("the run computed by {name:?}, which this machine lacks");
        let hint = format!("it has {}; other paths end in other bytes", names.join(", "));
        AppError::hinted(Kind::Refused, what, hint)
    })
}

/// Where to go on.
pub struct Start {
    /// Steps made.
    pub step: u64,
    /// The adapter after them.
    pub adapter: Adapter,
    /// Optimiser state after them.
    pub optimiser: Vec<u8>,
    /// Losses on the held-out rows after each epoch so far.
    pub dev_losses: Vec<f64>,
}

/// Something that training made.
pub enum Made {
    /// A step.
    Step(StepCompleted),
    /// A checkpoint with its bodies.
    Checkpoint(CheckpointSaved, Vec<Vec<u8>>),
}

/// Takes what training makes; says whether to go on.
pub type Sink<'a> = dyn FnMut(Made) -> Result<bool, AppError> + 'a;

/// Returns the facts with which a run of this plan starts.
///
/// # Errors
/// When the recipe has no JSON form.
pub fn started(plan: &Plan, model: &Model) -> Result<RunStarted, AppError> {
    Ok(RunStarted {
        run: plan.run.clone(),
        inputs: RunInputs::Train {
            model: plan.model.clone(),
            base: Digest::from_bytes(model.digest),
            template: Digest::from_bytes(model.renderer.digest()),
            dataset: plan.dataset,
            split: plan.split,
            cep: plan.cep.clone(),
            recipe: serde_json::to_value(&plan.recipe)?,
            recipe_digest: Digest::of_json(&plan.recipe)?,
        },
        seed: plan.recipe.seed.clone(),
    })
}

/// Training in progress.
pub struct Work<'a> {
    plan: &'a Plan,
    rows: &'a RowSet,
    trainer: Trainer,
    steps_per_epoch: u64,
    dev_losses: Vec<f64>,
}

/// Returns what the trainer needs to know of a plan for a run of so many steps.
pub(super) fn spec_of(plan: &Plan, steps: u64) -> TrainSpec {
    let recipe = &plan.recipe;
    TrainSpec {
        rate: recipe.rates.first().copied().unwrap_or_default(),
        schedule: recipe.schedule,
        warmup: (recipe.warmup * steps as f64).ceil() as u64,
        steps,
        weight_decay: recipe.weight_decay,
        clip: recipe.clip,
        seed: recipe.seed_number(),
        longest: recipe.max_tokens,
        isa: plan.isa,
        recompute: plan.recompute,
        target: plan.target,
    }
}

impl<'a> Work<'a> {
    /// Prepares training, from the beginning or from a checkpoint.
    ///
    /// # Errors
    /// When there are no rows, or the checkpoint does not fit.
    pub fn new(
        plan: &'a Plan,
        model: &Model,
        rows: &'a RowSet,
        start: Option<&Start>,
    ) -> Result<Self, AppError> {
        if rows.train.is_empty() {
            return Err(AppError::said(Kind::Input, "the dataset has no row to train on"));
        }
        let recipe = &plan.recipe;
        let per_step = (recipe.batch * recipe.accumulate) as u64;
        let steps_per_epoch = (rows.train.len() as u64).div_ceil(per_step);
        let steps = steps_per_epoch * recipe.epochs;
        let longest = rows.train.iter().map(|(_, row)| row).chain(&rows.dev);
        let longest = longest.map(|row| row.ids.len()).max().unwrap_or(0);
        let spec = TrainSpec { longest, ..spec_of(plan, steps) };
        let config = &model.weights()?.config;
        let context = config.max_position_embeddings;
        let rows_of = rows.train.iter().map(|(_, row)| row).chain(&rows.dev);
        if let Some(tokens) = rows_of.map(|row| row.ids.len()).find(|len| *len > context) {
            let what = format!("a row of {tokens} tokens, and the model reads at most {context}");
            let hint = format!("--set max_tokens={context} cuts answers there");
            return Err(AppError::hinted(Kind::Input, what, hint));
        }
        let ids = rows.train.iter().map(|(_, row)| row).chain(&rows.dev).flat_map(|row| &row.ids);
        models::decode::check_ids(ids, config.vocab_size)?;
        if recipe.patience.is_some() && rows.dev.is_empty() {
            let what = "patience waits for the dev loss, and the dataset has no dev side";
            let hint = "hold rows out with --dev-fraction, or leave patience out";
            return Err(AppError::hinted(Kind::Input, what, hint));
        }
        let fresh = Adapter::fresh(&plan.lora, config, recipe.seed_number());
        let weights = std::sync::Arc::clone(model.weights()?);
        let mut trainer = Trainer::new(weights, &fresh, spec)?;
        if let Some(start) = start {
            trainer.resume(&start.adapter, &start.optimiser, start.step)?;
        }
        let dev_losses = start.map(|start| start.dev_losses.clone()).unwrap_or_default();
        Ok(Self { plan, rows, trainer, steps_per_epoch, dev_losses })
    }

    /// Says whether the loss on held-out rows has not fallen for as long as the recipe waits.
    fn has_waited(&self) -> bool {
        let Some(patience) = self.plan.recipe.patience else { return false };
        let lowest = self.dev_losses.iter().copied().fold(f64::INFINITY, f64::min);
        let best = self.dev_losses.iter().position(|loss| *loss == lowest);
        best.is_some_and(|best| (self.dev_losses.len() - 1 - best) as u64 >= patience)
    }

    /// Says whether the run is over.
    pub fn is_over(&self) -> bool {
        self.trainer.steps_made() >= self.steps() || self.has_waited()
    }

    /// Returns the steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.steps_per_epoch * self.plan.recipe.epochs
    }

    /// Trains to the end, or until the sink says stop.
    ///
    /// # Errors
    /// When the numbers are not finite, or the sink fails.
    pub fn run(&mut self, sink: &mut Sink<'_>) -> Result<(), AppError> {
        while !self.is_over() {
            let made = self.trainer.steps_made();
            let epoch = made / self.steps_per_epoch + 1;
            let order = self.order(epoch);
            let recipe = &self.plan.recipe;
            let at = (made % self.steps_per_epoch) as usize * recipe.batch * recipe.accumulate;
            let rows = order.iter().skip(at).take(recipe.batch * recipe.accumulate);
            let rows: Vec<&TrainingRow> = rows.map(|i| &self.rows.train[*i].1).collect();
            let micro: Vec<Vec<&TrainingRow>> =
                rows.chunks(recipe.batch).map(<[_]>::to_vec).collect();
            let step = self.trainer.step(&micro)?;
            let facts = StepCompleted {
                step: step.step,
                epoch,
                loss: step.loss,
                rate: step.rate,
                gradient_norm: step.gradient_norm,
                tokens: step.tokens,
                supervised: step.supervised,
            };
            if !sink(Made::Step(facts))? {
                return Ok(());
            }
            if step.step % self.steps_per_epoch == 0 && !self.checkpoint(epoch, sink)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the order of an epoch's rows.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.train.len()).collect();
        let seed = self.plan.recipe.seed_number();
        rng::shuffle(&mut rng::stream(seed, "epoch-order", epoch), &mut order);
        order
    }

    fn checkpoint(&mut self, epoch: u64, sink: &mut Sink<'_>) -> Result<bool, AppError> {
        let weights = peft::weights_bytes(&self.trainer.adapter()?)?;
        let last = epoch == self.plan.recipe.epochs;
        let optimiser = if last { None } else { Some(self.trainer.optimiser_bytes()?) };
        let dev_loss = if self.rows.dev.is_empty() {
            None
        } else {
            let loss = self.trainer.mean_loss(&self.rows.dev, self.plan.recipe.batch)?;
            self.dev_losses.push(loss);
            Some(loss)
        };
        let facts = CheckpointSaved {
            step: self.trainer.steps_made(),
            epoch,
            weights: body_ref(&weights),
            optimiser: optimiser.as_deref().map(body_ref),
            dev_loss,
        };
        sink(Made::Checkpoint(facts, std::iter::once(weights).chain(optimiser).collect()))
    }
}

/// Returns the outcome of a run from its checkpoints: the one with the lowest dev loss, of equal
/// ones the first. Also returns the bytes of `adapter_config.json`.
///
/// # Errors
/// When there is no checkpoint, or something has no JSON form.
pub fn outcome(
    started: &RunStarted,
    lora: &LoraConfig,
    checkpoints: &[CheckpointSaved],
    truncated: Vec<u64>,
) -> Result<(RunOutcome, Vec<u8>), AppError> {
    let RunInputs::Train { model, base, template, dataset, cep, recipe_digest, .. } =
        &started.inputs
    else {
        return Err(AppError::said(Kind::Internal, "the outcome of a run that does not train"));
    };
    let judged = checkpoints.iter().filter_map(|saved| Some((saved.dev_loss?, saved)));
    let best = judged.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, saved)| saved);
    // Without a dev side nothing can be chosen: the last epoch is taken.
    let best = best.or(checkpoints.last());
    let Some(best) = best else {
        return Err(AppError::said(Kind::Internal, "a training run without a checkpoint"));
    };
    let config = peft::config_json(lora, model);
    let config = ledger::id::canonical_json(&config)?;
    let identity = json!({
        "base": base,
        "tokenizer_and_template": template,
        "recipe": recipe_digest,
        "dataset": dataset,
        "cep": cep,
        "weights": best.weights.digest,
    });
    let outcome = RunOutcome::Train {
        adapter: Digest::of_json(&identity)?,
        checkpoint_step: best.step,
        epoch: best.epoch,
        dev_loss: best.dev_loss,
        config: body_ref(&config),
        weights: best.weights.clone(),
        truncated,
    };
    Ok((outcome, config))
}
