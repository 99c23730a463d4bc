//! One decoder layer with its adapters, as one operation.
//!
//! Forward and backward work on plain memory that is used again by the next layer. What the
//! backward pass cannot do without is kept from the forward pass: q, k, v, the attention's output,
//! the states between, gate and up; norms and activations are made again. Where memory is short
//! nothing is kept but the layer's input, and the backward pass begins with the forward pass
//! (Chen et al., 2016).

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::attention::{Attention, Place};
use super::lora_linear::{Branch, Linear};
use super::{Dropout, Rope, elements, with_elements};
use crate::buffers::Buffer;
use crate::config::DecoderConfig;
use crate::kernels::{Isa, rms_norm_back_row, rms_norm_row, swiglu_back_row, swiglu_row};
use crate::lora::Module;
use crate::weights::Layer;

/// Where the factors of a module stand among the numbers of a layer's adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// First number of A, [rank, inputs].
    pub a: usize,
    /// First number of B, [outputs, rank].
    pub b: usize,
    /// Behind its last number.
    pub end: usize,
    /// Scale of the update.
    pub scale: f32,
}

/// The slots of a layer, by module; none where one is not adapted.
pub type Slots = [Option<Slot>; Module::COUNT];

/// What a forward pass leaves for the backward pass.
pub enum Keep {
    /// Nothing: there will be none.
    Nothing,
    /// The layer's input alone; the rest is computed again.
    Input,
    /// What would be dear to compute again.
    Results(Mutex<Option<Kept>>),
}

/// A layer: x [tokens, hidden] and the numbers of its adapters -> [tokens, hidden].
pub struct Block {
    /// Shape of the model.
    pub config: DecoderConfig,
    /// Frozen weights.
    pub layer: Layer,
    /// Where the factors of each module stand.
    pub slots: Slots,
    /// Dropout of the first module; each later one has the next index.
    pub dropout: Option<Dropout>,
    /// Tokens of each packed row, in order.
    pub rows: Arc<[usize]>,
    /// Rotary tables, for the longest row at least.
    pub rope: Arc<Rope>,
    /// Path of the products.
    pub isa: Isa,
    /// What the backward pass will find.
    pub keep: Keep,
}

/// What is kept of a forward pass.
pub struct Kept {
    /// q, k and v: three, or one with all.
    projected: Vec<Buffer>,
    attended: Buffer,
    /// States after the attention.
    middle: Buffer,
    /// Gate and up: two, or one with both.
    widened: Vec<Buffer>,
    /// What the modules' updates are made of.
    branches: Branches,
}

type Branches = Vec<(Module, Branch)>;

impl Kept {
    fn branch(&self, module: Module) -> Option<&Branch> {
        self.branches.iter().find(|(one, _)| *one == module).map(|(_, branch)| branch)
    }
}

/// Gate and up of a range of tokens.
struct Gated<'a> {
    buffers: &'a [Buffer],
    wide: usize,
}

impl Gated<'_> {
    /// Returns gate and up of a token.
    fn row(&self, token: usize) -> (&[f32], &[f32]) {
        let wide = self.wide;
        match self.buffers {
            [gate, up] => {
                let at = token * wide..(token + 1) * wide;
                (&gate[at.clone()], &up[at])
            }
            buffers => buffers[0][2 * token * wide..][..2 * wide].split_at(wide),
        }
    }

    fn tokens(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.len()).sum::<usize>() / (2 * self.wide)
    }

    /// silu(gate) * up.
    fn activated(&self) -> Buffer {
        let mut out = Buffer::new(self.tokens() * self.wide);
        let rows = out.par_chunks_mut(self.wide).enumerate().with_min_len(8);
        rows.for_each(|(token, out)| {
            let (gate, up) = self.row(token);
            swiglu_row(gate, up, out);
        });
        out
    }

    /// Returns the gradients of gate and up, in tensors as these are.
    fn backward(&self, dactive: &[f32]) -> Vec<Buffer> {
        let wide = self.wide;
        let mut grads: Vec<Buffer> =
            self.buffers.iter().map(|buffer| Buffer::new(buffer.len())).collect();
        let upstream = dactive.par_chunks(wide).enumerate().with_min_len(8);
        let back = |token: usize, dy: &[f32], dgate: &mut [f32], dup: &mut [f32]| {
            let (gate, up) = self.row(token);
            swiglu_back_row(gate, up, dy, dgate, dup);
        };
        match grads.as_mut_slice() {
            [dgate, dup] => {
                let outs = dgate.par_chunks_mut(wide).zip(dup.par_chunks_mut(wide));
                upstream.zip(outs).for_each(|((token, dy), (dgate, dup))| {
                    back(token, dy, dgate, dup);
                });
            }
            grads => {
                let outs = grads[0].par_chunks_mut(2 * wide);
                upstream.zip(outs).for_each(|((token, dy), grads)| {
                    let (dgate, dup) = grads.split_at_mut(wide);
                    back(token, dy, dgate, dup);
                });
            }
        }
        grads
    }
}

/// Modules that read the normed state before attention, and before the feed-forward part.
fn readers(config: &DecoderConfig) -> (&'static [Module], &'static [Module]) {
    let modules = config.architecture.modules();
    if modules.contains(&Module::QkvProj) {
        return (&[Module::QkvProj], &[Module::GateUpProj]);
    }
    (&[Module::QProj, Module::KProj, Module::VProj], &[Module::GateProj, Module::UpProj])
}

impl Block {
    fn attention(&self) -> Attention {
        let (q, kv) = (self.config.q_dim(), self.config.kv_dim());
        let place = |tensor, stride, first| Place { tensor, stride, first };
        let places = if readers(&self.config).0.len() == 1 {
            let all = q + 2 * kv;
            [place(0, all, 0), place(0, all, q), place(0, all, q + kv)]
        } else {
            [place(0, q, 0), place(1, kv, 0), place(2, kv, 0)]
        };
        Attention {
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head: self.config.head_dim,
            places,
            rows: Arc::clone(&self.rows),
            rope: Arc::clone(&self.rope),
            isa: self.isa,
        }
    }

    fn linear<'a>(&'a self, module: Module, numbers: &'a [f32]) -> Linear<'a> {
        let slot = self.slots[module as usize];
        let dropout = self.dropout.as_ref();
        let frozen = self.layer.linear(module);
        Linear {
            weight: &frozen.weight,
            bias: frozen.bias.as_deref(),
            pair: slot.map(|slot| (&numbers[slot.a..slot.b], &numbers[slot.b..slot.end])),
            scale: slot.map_or(0.0, |slot| slot.scale),
            dropout: dropout.map(|dropout| Dropout {
                index: dropout.index + module.place(),
                ..dropout.clone()
            }),
        }
    }

    /// Computes several modules that read the same, and keeps what their updates are made of.
    fn read_by(
        &self,
        modules: &[Module],
        x: &[f32],
        numbers: &[f32],
        branches: &mut Branches,
    ) -> Vec<Buffer> {
        let linears: Vec<Linear<'_>> =
            modules.iter().map(|module| self.linear(*module, numbers)).collect();
        let tokens = x.len() / self.config.hidden_size;
        let sized = |linear: &Linear<'_>| Buffer::new(tokens * linear.weight.rows());
        let mut outs: Vec<Buffer> = linears.iter().map(sized).collect();
        let mut terms: Vec<(&Linear<'_>, &mut [f32])> =
            linears.iter().zip(outs.iter_mut().map(|out| &mut **out)).collect();
        let made = Linear::forward(self.isa, x, false, &mut terms);
        let made = modules.iter().zip(made);
        branches.extend(made.filter_map(|(module, made)| Some((*module, made?))));
        outs
    }

    /// Adds what a module makes of x to `out`, and keeps what its update is made of.
    fn add_to(
        &self,
        out: &mut [f32],
        module: Module,
        (x, numbers): (&[f32], &[f32]),
        branches: &mut Branches,
    ) {
        let linear = self.linear(module, numbers);
        let made = Linear::forward(self.isa, x, true, &mut [(&linear, out)]);
        branches.extend(made.into_iter().flatten().map(|made| (module, made)));
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Buffer {
        let (width, eps) = (weight.len(), self.config.rms_norm_eps);
        let mut out = Buffer::new(x.len());
        let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(32);
        rows.for_each(|(out, x)| {
            rms_norm_row(x, weight, eps, out);
        });
        out
    }

    /// Adds the gradient of a norm to `dx`.
    fn norm_back(&self, (x, weight): (&[f32], &[f32]), upstream: &[f32], dx: &mut [f32]) {
        let (width, eps) = (weight.len(), self.config.rms_norm_eps);
        let rows = dx.par_chunks_mut(width).zip(x.par_chunks(width));
        let rows = rows.zip(upstream.par_chunks(width)).with_min_len(32);
        rows.for_each_init(
            || vec![0.0; width],
            |made, ((dx, x), upstream)| {
                rms_norm_back_row(x, weight, upstream, eps, made);
                dx.iter_mut().zip(made.iter()).for_each(|(dx, v)| *dx += v);
            },
        );
    }

    fn gated<'a>(&self, buffers: &'a [Buffer]) -> Gated<'a> {
        Gated { buffers, wide: self.config.intermediate_size }
    }

    /// Computes what the backward pass needs.
    fn results(&self, x: &[f32], numbers: &[f32]) -> Kept {
        let (attention, feed_forward) = readers(&self.config);
        let h = self.norm(x, &self.layer.input_layernorm);
        let mut branches = Vec::with_capacity(Module::COUNT);
        let projected = self.read_by(attention, &h, numbers, &mut branches);
        drop(h);
        let tokens = x.len() / self.config.hidden_size;
        let mut attended = Buffer::new(tokens * self.config.q_dim());
        self.attention().forward(&projected, &mut attended);
        let mut middle = Buffer::new(x.len());
        middle.copy_from_slice(x);
        self.add_to(&mut middle, Module::OProj, (&attended, numbers), &mut branches);
        let h = self.norm(&middle, &self.layer.post_attention_layernorm);
        let widened = self.read_by(feed_forward, &h, numbers, &mut branches);
        Kept { projected, attended, middle, widened, branches }
    }

    fn forward(&self, x: &[f32], numbers: &[f32]) -> (Vec<f32>, Kept) {
        let mut kept = self.results(x, numbers);
        let active = self.gated(&kept.widened).activated();
        let mut out = kept.middle.to_vec();
        self.add_to(&mut out, Module::DownProj, (&active, numbers), &mut kept.branches);
        (out, kept)
    }

    /// Computes again what a forward pass would have kept.
    fn again(&self, x: &[f32], numbers: &[f32]) -> Kept {
        let mut kept = self.results(x, numbers);
        let linear = self.linear(Module::DownProj, numbers);
        if linear.pair.is_some() {
            let active = self.gated(&kept.widened).activated();
            let made = linear.down(self.isa, &active);
            kept.branches.extend(made.map(|made| (Module::DownProj, made)));
        }
        kept
    }

    /// Returns the gradients of x and of the adapters' numbers.
    fn backward(
        &self,
        (x, numbers): (&[f32], &[f32]),
        kept: &Kept,
        upstream: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let Kept { projected, attended, middle, widened, .. } = kept;
        let (attention, feed_forward) = readers(&self.config);
        let mut grads = vec![0.0; numbers.len()];
        let mut back = |module: Module, xy: (&[f32], &[f32]), dx: (&mut [f32], bool)| {
            let (da, db) = match self.slots[module as usize] {
                Some(slot) => grads[slot.a..slot.end].split_at_mut(slot.b - slot.a),
                None => (&mut [][..], &mut [][..]),
            };
            let (linear, branch) = (self.linear(module, numbers), kept.branch(module));
            linear.backward(self.isa, (xy.0, branch, xy.1), dx, (da, db));
        };
        let gated = self.gated(widened);
        let active = gated.activated();
        let mut dactive = Buffer::new(active.len());
        back(Module::DownProj, (&active, upstream), (&mut dactive, false));
        drop(active);
        let dwidened = gated.backward(&dactive);
        drop(dactive);
        let weight = &self.layer.post_attention_layernorm;
        let h = self.norm(middle, weight);
        let mut dh = Buffer::new(h.len());
        for (i, (module, dy)) in feed_forward.iter().zip(&dwidened).enumerate() {
            back(*module, (&h, dy), (&mut dh, i > 0));
        }
        drop(dwidened);
        let mut dx = upstream.to_vec();
        self.norm_back((middle, weight), &dh, &mut dx);
        let mut dattended = Buffer::new(attended.len());
        back(Module::OProj, (attended, &dx), (&mut dattended, false));
        let mut dprojected: Vec<Buffer> =
            projected.iter().map(|buffer| Buffer::new(buffer.len())).collect();
        self.attention().backward(projected, (attended, &dattended), &mut dprojected);
        let weight = &self.layer.input_layernorm;
        let h = self.norm(x, weight);
        for (i, (module, dy)) in attention.iter().zip(&dprojected).enumerate() {
            back(*module, (&h, dy), (&mut dh, i > 0));
        }
        self.norm_back((x, weight), &dh, &mut dx);
        (dx, grads)
    }
}

impl CustomOp2 for Block {
    fn name(&self) -> &'static str {
        "block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        numbers: &CpuStorage,
        numbers_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, numbers) = (elements(x, x_layout)?, elements(numbers, numbers_layout)?);
        let (out, made) = self.forward(x, numbers);
        if let Keep::Results(kept) = &self.keep {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        numbers: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let kept = match &self.keep {
            Keep::Nothing => None,
            Keep::Input => Some(with_elements(x, |xs| {
                with_elements(numbers, |numbers| self.again(xs, numbers))
            })??),
            Keep::Results(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let Some(kept) = kept else { bail!("a layer whose forward pass kept nothing") };
        let grad = grad.contiguous()?;
        let (dx, grads) = with_elements(x, |xs| {
            with_elements(numbers, |numbers| {
                with_elements(&grad, |dy| self.backward((xs, numbers), &kept, dy))
            })
        })???;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(grads, numbers.shape(), device)?),
        ))
    }
}
