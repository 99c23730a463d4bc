//! One decoder layer with its adapters, as one operation.
//!
//! Forward and backward work on plain memory that is used again by the next layer. What the
//! backward pass cannot do without is kept from the forward pass: q, k, v, the attention's output,
//! the states between, gate and up; norms and activations are made again.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::attention::Attention;
use super::buffers::Buffer;
use super::lora_linear::Linear;
use super::{Dropout, Rope, elements, with_elements};
use crate::config::LlamaConfig;
use crate::kernels::{Isa, rms_norm_back_row, rms_norm_row, swiglu_back_row, swiglu_row};
use crate::lora::Module;
use crate::weights::Layer;

/// Numbers that one task of an elementwise operation takes.
const CHUNK: usize = 16_384;

/// Where the factors of a module stand among the numbers of a layer's adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// First number of A, [rank, inputs].
    pub a: usize,
    /// First number of B, [outputs, rank].
    pub b: usize,
    /// Behind its last number.
    pub end: usize,
}

/// A layer: x [tokens, hidden] and the numbers of its adapters -> [tokens, hidden].
pub struct Block {
    /// Shape of the model.
    pub config: LlamaConfig,
    /// Frozen weights.
    pub layer: Layer,
    /// Where the factors of each module stand; none where it is not adapted.
    pub slots: [Option<Slot>; 7],
    /// Scale of the updates.
    pub scale: f32,
    /// Dropout of the first module; each later one has the next index.
    pub dropout: Option<Dropout>,
    /// Tokens of each packed row, in order.
    pub rows: Arc<[usize]>,
    /// Rotary tables, for the longest row at least.
    pub rope: Arc<Rope>,
    /// Path of the products.
    pub isa: Isa,
    /// What the backward pass needs; nothing is kept where there will be none.
    pub kept: Option<Mutex<Option<Kept>>>,
}

/// What is kept of a forward pass.
pub struct Kept {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    /// States after the attention.
    middle: Buffer,
    gate: Buffer,
    up: Buffer,
}

impl Block {
    fn attention(&self) -> Attention {
        Attention {
            heads: self.config.num_attention_heads,
            kv_heads: self.config.num_key_value_heads,
            head: self.config.head_dim(),
            rows: Arc::clone(&self.rows),
            rope: Arc::clone(&self.rope),
            isa: self.isa,
        }
    }

    fn linear<'a>(&'a self, module: Module, numbers: &'a [f32]) -> Linear<'a> {
        let pair = self.slots[module as usize];
        let dropout = self.dropout.as_ref();
        Linear {
            weight: self.layer.linear(module),
            inputs: module.shape(&self.config).1,
            pair: pair.map(|slot| (&numbers[slot.a..slot.b], &numbers[slot.b..slot.end])),
            scale: self.scale,
            dropout: dropout
                .map(|dropout| Dropout { index: dropout.index + module as u64, ..dropout.clone() }),
        }
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

    fn activated(gate: &[f32], up: &[f32]) -> Buffer {
        let mut out = Buffer::new(gate.len());
        let parts = out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK));
        parts.zip(up.par_chunks(CHUNK)).for_each(|((out, gate), up)| swiglu_row(gate, up, out));
        out
    }

    fn forward(&self, x: &[f32], numbers: &[f32]) -> (Vec<f32>, Kept) {
        let tokens = x.len() / self.config.hidden_size;
        let sized = |module: Module| Buffer::new(tokens * module.shape(&self.config).0);
        let linear = |module| self.linear(module, numbers);
        let h = self.norm(x, &self.layer.input_layernorm);
        let (mut q, mut k, mut v) =
            (sized(Module::QProj), sized(Module::KProj), sized(Module::VProj));
        let [of_q, of_k, of_v] = [Module::QProj, Module::KProj, Module::VProj].map(linear);
        let outs = &mut [(&of_q, &mut *q), (&of_k, &mut *k), (&of_v, &mut *v)];
        Linear::forward(self.isa, &h, false, outs);
        let mut attended = Buffer::new(q.len());
        self.attention().forward([&q, &k, &v], &mut attended);
        let mut middle = Buffer::new(x.len());
        middle.copy_from_slice(x);
        let of_o = linear(Module::OProj);
        Linear::forward(self.isa, &attended, true, &mut [(&of_o, &mut middle)]);
        let h = self.norm(&middle, &self.layer.post_attention_layernorm);
        let (mut gate, mut up) = (sized(Module::GateProj), sized(Module::UpProj));
        let (of_gate, of_up) = (linear(Module::GateProj), linear(Module::UpProj));
        let outs = &mut [(&of_gate, &mut *gate), (&of_up, &mut *up)];
        Linear::forward(self.isa, &h, false, outs);
        let active = Self::activated(&gate, &up);
        let mut out = middle.to_vec();
        let of_down = linear(Module::DownProj);
        Linear::forward(self.isa, &active, true, &mut [(&of_down, &mut out)]);
        (out, Kept { q, k, v, attended, middle, gate, up })
    }

    /// Returns the gradients of x and of the adapters' numbers.
    fn backward(
        &self,
        (x, numbers): (&[f32], &[f32]),
        kept: &Kept,
        upstream: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let Kept { q, k, v, attended, middle, gate, up } = kept;
        let mut grads = vec![0.0; numbers.len()];
        let mut back = |module: Module, xy: (&[f32], &[f32]), dx: (&mut [f32], bool)| {
            let (da, db) = match self.slots[module as usize] {
                Some(slot) => grads[slot.a..slot.end].split_at_mut(slot.b - slot.a),
                None => (&mut [][..], &mut [][..]),
            };
            self.linear(module, numbers).backward(self.isa, xy, dx, (da, db));
        };
        let active = Self::activated(gate, up);
        let mut dactive = Buffer::new(active.len());
        back(Module::DownProj, (&active, upstream), (&mut dactive, false));
        drop(active);
        let (mut dgate, mut dup) = (Buffer::new(gate.len()), Buffer::new(up.len()));
        let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK));
        let outputs = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK));
        inputs
            .zip(dactive.par_chunks(CHUNK))
            .zip(outputs)
            .for_each(|(((gate, up), dy), (dgate, dup))| swiglu_back_row(gate, up, dy, dgate, dup));
        drop(dactive);
        let weight = &self.layer.post_attention_layernorm;
        let h = self.norm(middle, weight);
        let mut dh = Buffer::new(h.len());
        back(Module::GateProj, (&h, &dgate), (&mut dh, false));
        back(Module::UpProj, (&h, &dup), (&mut dh, true));
        let mut dx = upstream.to_vec();
        self.norm_back((middle, weight), &dh, &mut dx);
        let mut dattended = Buffer::new(attended.len());
        back(Module::OProj, (attended, &dx), (&mut dattended, false));
        let (mut dq, mut dk, mut dv) =
            (Buffer::new(q.len()), Buffer::new(k.len()), Buffer::new(v.len()));
        let of_qkv = [&mut *dq, &mut *dk, &mut *dv];
        self.attention().backward([q, k, v], (attended, &dattended), of_qkv);
        let weight = &self.layer.input_layernorm;
        let h = self.norm(x, weight);
        back(Module::QProj, (&h, &dq), (&mut dh, false));
        back(Module::KProj, (&h, &dk), (&mut dh, true));
        back(Module::VProj, (&h, &dv), (&mut dh, true));
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
        if let Some(kept) = &self.kept {
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
        let kept = self.kept.as_ref();
        let kept = kept.and_then(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).take());
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
