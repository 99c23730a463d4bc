//! One optimiser step after another: forward, backward, accumulate, clip, update.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use safetensors::tensor::SafeTensors;

use crate::error::ModelError;
use crate::graph::{DropoutKey, Graph, LoraVars, Packed};
use crate::kernels::Isa;
use crate::lora::Adapter;
use crate::optim::{AdamW, Schedule, clip, norm};
use crate::peft;
use crate::render::TrainingRow;
use crate::weights::Weights;

/// What a trainer needs to know of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    /// Full learning rate.
    pub rate: f64,
    /// Its shape over the run.
    pub schedule: Schedule,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Most that the gradient's norm may be.
    pub clip: f64,
    /// Seed of dropout.
    pub seed: u64,
    /// Most tokens in a row.
    pub longest: usize,
    /// Path of the products.
    pub isa: Isa,
    /// Compute a layer again in the backward pass instead of keeping its results.
    pub recompute: bool,
    /// What computes.
    pub target: Target,
}

/// What computes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Our operations on the processor.
    #[default]
    Processor,
    /// Stock operations on the processor: the reference for those on a GPU.
    Twins,
    /// Stock operations on a GPU; needs a build with the feature `cuda`.
    Cuda(usize),
}

impl Target {
    /// Name under which a run records it: `cpu`, `stock`, `cuda:0`.
    pub fn name(self) -> String {
        match self {
            Self::Processor => "cpu".to_owned(),
            Self::Twins => "stock".to_owned(),
            Self::Cuda(index) => format!("cuda:{index}"),
        }
    }

    /// Finds one by its name; `cuda` is the first GPU.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Processor),
            "stock" => Some(Self::Twins),
            "cuda" => Some(Self::Cuda(0)),
            _ => name.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }

    /// Says whether this machine and this program have it.
    ///
    /// # Errors
    /// Says what is lacking.
    pub fn check(self) -> Result<(), ModelError> {
        if let (Self::Cuda(_), false) = (self, cfg!(feature = "cuda")) {
            let what = "training on a GPU: this program was built without the feature cuda";
            return Err(ModelError::Unsupported(what.to_owned()));
        }
        self.device().map(|_| ())
    }

    /// Returns the device of stock operations; none where ours compute.
    fn device(self) -> Result<Option<Device>, ModelError> {
        Ok(match self {
            Self::Processor => None,
            Self::Twins => Some(Device::Cpu),
            Self::Cuda(index) => Some(Device::new_cuda(index)?),
        })
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        crate::buffers::release();
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Step from 1.
    pub step: u64,
    /// Mean loss over the supervised tokens (nats).
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Tokens read.
    pub tokens: u64,
    /// Tokens that the loss covers.
    pub supervised: u64,
}

/// An adapter in training.
pub struct Trainer {
    graph: Graph,
    vars: LoraVars,
    optimiser: AdamW,
    spec: TrainSpec,
}

impl Trainer {
    /// Begins training `adapter` on frozen `weights`.
    ///
    /// # Errors
    /// When the adapter does not fit.
    pub fn new(
        weights: Arc<Weights>,
        adapter: &Adapter,
        spec: TrainSpec,
    ) -> Result<Self, ModelError> {
        adapter.check(&weights.config)?;
        let device = spec.target.device()?;
        let vars = LoraVars::new(adapter, device.as_ref().unwrap_or(&Device::Cpu))?;
        let lengths: Vec<usize> = vars.all().iter().map(|var| var.elem_count()).collect();
        let optimiser = AdamW::new(&lengths, spec.weight_decay);
        let graph = Graph::new(weights, spec.longest, spec.isa).recomputing(spec.recompute);
        let graph = match &device {
            Some(device) => graph.on(device)?,
            None => graph,
        };
        Ok(Self { graph, vars, optimiser, spec })
    }

    /// Returns the steps made.
    pub fn steps_made(&self) -> u64 {
        self.optimiser.step
    }

    /// Makes one step over micro-batches of rows.
    ///
    /// # Errors
    /// When the loss or the gradient is not finite; the adapter is then left as it was.
    pub fn step(&mut self, micro_batches: &[Vec<&TrainingRow>]) -> Result<Step, ModelError> {
        let step = self.optimiser.step + 1;
        let (mut loss, mut tokens, mut supervised) = (0.0, 0, 0);
        let mut gradients: Vec<Vec<f32>> = Vec::new();
        for (i, rows) in micro_batches.iter().enumerate() {
            let packed = Packed::new(rows);
            // No run has 2^16 micro-batches in a step, so the key never repeats.
            let key = DropoutKey { seed: self.spec.seed, pass: (step << 16) | i as u64 };
            let sum = self.graph.loss(&packed, &self.vars, Some(key))?;
            loss += scalar(&sum)?;
            tokens += packed.tokens() as u64;
            supervised += packed.supervised() as u64;
            self.accumulate(&sum, &mut gradients)?;
        }
        let loss = loss / supervised as f64;
        let share = 1.0 / supervised as f32;
        gradients.iter_mut().flatten().for_each(|v| *v *= share);
        let gradient_norm = norm(&gradients);
        for (value, what) in [(loss, "the loss"), (gradient_norm, "the gradient's norm")] {
            if !value.is_finite() {
                return Err(ModelError::NotFinite { what, step });
            }
        }
        clip(&mut gradients, gradient_norm, self.spec.clip);
        let factor = self.spec.schedule.factor(step - 1, self.spec.warmup, self.spec.steps);
        let rate = self.spec.rate * factor;
        self.update(&gradients, rate)?;
        Ok(Step { step, loss, rate, gradient_norm, tokens, supervised })
    }

    /// Returns the mean loss over the supervised tokens of rows, and its gradient in the shape of
    /// the adapter.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn gradient(&self, rows: &[&TrainingRow]) -> Result<(f64, Adapter), ModelError> {
        let packed = Packed::new(rows);
        let key = DropoutKey { seed: self.spec.seed, pass: 0 };
        let sum = self.graph.loss(&packed, &self.vars, Some(key))?;
        let mut gradients = Vec::new();
        self.accumulate(&sum, &mut gradients)?;
        let share = 1.0 / packed.supervised() as f32;
        gradients.iter_mut().flatten().for_each(|v| *v *= share);
        Ok((scalar(&sum)? / packed.supervised() as f64, self.vars.shaped(&gradients)))
    }

    fn accumulate(&self, sum: &Tensor, gradients: &mut Vec<Vec<f32>>) -> Result<(), ModelError> {
        let store = sum.backward()?;
        for (i, var) in self.vars.all().into_iter().enumerate() {
            let gradient = match store.get(var) {
                Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>()?,
                None => vec![0.0; var.elem_count()],
            };
            match gradients.get_mut(i) {
                Some(total) => total.iter_mut().zip(&gradient).for_each(|(t, g)| *t += g),
                None => gradients.push(gradient),
            }
        }
        Ok(())
    }

    fn update(&mut self, gradients: &[Vec<f32>], rate: f64) -> Result<(), ModelError> {
        let corrections = self.optimiser.advance();
        for (i, (var, gradient)) in self.vars.all().into_iter().zip(gradients).enumerate() {
            let mut values = var.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            self.optimiser.update(i, &mut values, gradient, rate, corrections);
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }

    /// Returns the mean loss (nats) over the supervised tokens of rows, without dropout.
    ///
    /// # Errors
    /// When candle refuses an operation.
    pub fn mean_loss(&self, rows: &[TrainingRow], at_once: usize) -> Result<f64, ModelError> {
        let (mut loss, mut supervised) = (0.0, 0_usize);
        for rows in rows.chunks(at_once.max(1)) {
            let packed = Packed::new(&rows.iter().collect::<Vec<_>>());
            loss += scalar(&self.graph.loss(&packed, &self.vars, None)?)?;
            supervised += packed.supervised();
        }
        let loss = loss / supervised as f64;
        if !loss.is_finite() {
            let step = self.optimiser.step;
            return Err(ModelError::NotFinite { what: "the loss on held-out rows", step });
        }
        Ok(loss)
    }

    /// Copies the adapter out as it stands.
    ///
    /// # Errors
    /// When candle refuses a copy.
    pub fn adapter(&self) -> Result<Adapter, ModelError> {
        Ok(self.vars.adapter()?)
    }

    /// Returns the optimiser's state as a safetensors file.
    ///
    /// # Errors
    /// When the format refuses a tensor.
    pub fn optimiser_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let mut data = BTreeMap::new();
        let moments = [("first", &self.optimiser.first), ("second", &self.optimiser.second)];
        for (name, values) in moments {
            for (i, values) in values.iter().enumerate() {
                let key = format!("{name}.{i:05}");
                data.insert(key, (vec![values.len()], peft::bytes(values)));
            }
        }
        peft::tensors_bytes(&data)
    }

    /// Goes back to a checkpoint: the state after `step` steps.
    ///
    /// # Errors
    /// When adapter or state do not fit.
    pub fn resume(&mut self, adapter: &Adapter, state: &[u8], step: u64) -> Result<(), ModelError> {
        let failed = |e: safetensors::SafeTensorError| ModelError::Adapter(e.to_string());
        let file = SafeTensors::deserialize(state).map_err(failed)?;
        let moments =
            [("first", &mut self.optimiser.first), ("second", &mut self.optimiser.second)];
        for (name, moments) in moments {
            for (i, moment) in moments.iter_mut().enumerate() {
                let name = format!("{name}.{i:05}");
                let numbers = peft::numbers(&file, &name)?;
                if numbers.len() != moment.len() {
                    let (found, wanted) = (numbers.len(), moment.len());
                    let what = format!("{name} has {found} numbers where {wanted} are expected");
                    return Err(ModelError::Adapter(what));
                }
                *moment = numbers;
            }
        }
        let device = self.spec.target.device()?;
        self.vars = LoraVars::new(adapter, device.as_ref().unwrap_or(&Device::Cpu))?;
        self.optimiser.step = step;
        Ok(())
    }
}

fn scalar(tensor: &Tensor) -> Result<f64, ModelError> {
    let values = tensor.to_vec1::<f32>()?;
    Ok(values.first().copied().map_or(f64::NAN, f64::from))
}
