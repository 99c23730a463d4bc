//! Each operation against its twin: values and gradients.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::lora_linear::Linear as LoraLinear;
use super::*;
use crate::architectures::Architecture;
use crate::config::{DecoderConfig, RopeConfig};
use crate::kernels::{Isa, Stored, isa};
use crate::lora::Module;
use crate::weights::{Layer, Linear};

fn filled(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

fn var(shape: (usize, usize), step: f32) -> Var {
    let data = filled(shape.0 * shape.1, step);
    Var::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Compares two results and their gradients for every variable under one uneven upstream.
fn check(isa: Isa, ours: &Tensor, twin: &Tensor, vars: &[&Var]) {
    close(isa, ours, twin, "value");
    let weights: Vec<f32> = filled(ours.elem_count(), 0.9).iter().map(|v| v + 0.7).collect();
    let weights = Tensor::from_vec(weights, ours.shape(), &Device::Cpu).unwrap();
    let grads = |t: &Tensor| (t * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let (ours, twin) = (grads(ours), grads(twin));
    for (i, var) in vars.iter().enumerate() {
        let what = format!("gradient {i}");
        close(isa, ours.get(var).unwrap(), twin.get(var).unwrap(), &what);
    }
}

/// Holds gradients against central differences of what they are gradients of: along each gradient
/// itself, where an error of any direction shows, and along another direction.
fn check_slopes(vars: &[&Var], of: impl Fn(&[Tensor]) -> Tensor) {
    const STEP: f64 = 2e-2;
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let plain: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let value = of(&plain);
    let weights: Vec<f32> = filled(value.elem_count(), 0.9).iter().map(|v| v + 0.7).collect();
    let sum = |t: &Tensor| -> f64 {
        flat(t).iter().zip(&weights).map(|(v, w)| f64::from(*v) * f64::from(*w)).sum()
    };
    let weighted = Tensor::from_vec(weights.clone(), value.shape(), &Device::Cpu).unwrap();
    let grads = (&value * &weighted).unwrap().sum_all().unwrap().backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let grad = flat(grads.get(var).unwrap());
        let length = |of: &[f32]| of.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let steep = length(&grad);
        for direction in [grad.clone(), filled(grad.len(), 0.61)] {
            let scale = 1.0 / length(&direction);
            let moved = |step: f64| {
                let by = |(x, d): (f32, &f32)| x + (step * scale * f64::from(*d)) as f32;
                let x = flat(&plain[i]).into_iter().zip(&direction).map(by).collect::<Vec<_>>();
                let mut all = plain.clone();
                all[i] = Tensor::from_vec(x, plain[i].shape(), &Device::Cpu).unwrap();
                sum(&of(&all))
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let along: f64 =
                grad.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let off = (slope - along * scale).abs();
            assert!(off < 5e-3 * steep, "variable {i}: {slope} instead of {}", along * scale);
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_what_is_computed() {
    for isa in here().filter(|isa| *isa != Isa::Amx) {
        for architecture in Architecture::ALL {
            let sample = Sample::new(architecture, architecture.modules());
            let x = var((11, sample.config.hidden_size), 0.31);
            let len = sample.numbers.len();
            let numbers = Var::from_vec(sample.numbers.clone(), len, &Device::Cpu).unwrap();
            for below in [0, 60] {
                check_slopes(&[&x, &numbers], |of| {
                    let mut op = sample.block(&[7, 4], isa, Keep::Results(Default::default()));
                    op.dropout = Some(Dropout { below, seed: 7, index: 3 });
                    of[0].apply_op2(&of[1], op).unwrap()
                });
            }
        }
        let hidden = var((9, 8), 0.4);
        let head = Stored::plain(filled(2500 * 8, 0.23), 8);
        let targets: Vec<(usize, u32)> = vec![(0, 3), (4, 2499), (4, 7), (8, 0)];
        check_slopes(&[&hidden], |of| {
            let op = CrossEntropy::new(head.clone(), targets.clone().into(), isa).with_gradient();
            of[0].apply_op1(op).unwrap()
        });
        let x = var((5, 24), 0.31);
        check_slopes(&[&x], |of| {
            let op = RmsNorm { weight: filled(24, 0.77).into(), eps: 1e-5 };
            of[0].apply_op1(op).unwrap()
        });
    }
}

/// Paths of this machine.
fn here() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_here())
}

fn close(isa: Isa, a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.elem_count(), b.elem_count(), "{what}");
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (flat(a), flat(b));
    if isa == Isa::Amx {
        // Rounding to bf16 moves each factor by 2^-9 of itself at most; over a whole layer with its
        // gradient the errors come to a few hundredths.
        let length = |all: &mut dyn Iterator<Item = f32>| all.map(|v| v * v).sum::<f32>().sqrt();
        let off = length(&mut a.iter().zip(&b).map(|(a, b)| a - b));
        let whole = length(&mut b.iter().copied());
        assert!(off <= 4e-2 * whole, "{what}: off by {off} of {whole}");
        return;
    }
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let may = 2e-4 * (1.0 + b.abs());
        assert!((a - b).abs() < may, "{isa:?}: {what} at {i}: {a} against {b}");
    }
}

#[test]
fn rms_norm_matches_its_twin() {
    let x = var((5, 24), 0.31);
    let weight = filled(24, 0.77);
    let op = RmsNorm { weight: weight.clone().into(), eps: 1e-5 };
    let weight = Tensor::from_vec(weight, 24, &Device::Cpu).unwrap();
    check(
        isa().exact(),
        &x.as_tensor().apply_op1(op).unwrap(),
        &twin::rms_norm(x.as_tensor(), &weight, 1e-5).unwrap(),
        &[&x],
    );
}

fn config(architecture: Architecture) -> DecoderConfig {
    // A part of each head turns, and sine and cosine are scaled.
    let rope = RopeConfig {
        theta: 10_000.0,
        dims: if architecture == Architecture::Phi3 { 4 } else { 6 },
        divisors: if architecture == Architecture::Phi3 { vec![1.5, 0.7] } else { Vec::new() },
        magnitude: if architecture == Architecture::Phi3 { 1.2 } else { 1.0 },
    };
    DecoderConfig {
        architecture,
        vocab_size: 7,
        hidden_size: 20,
        intermediate_size: 40,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        rms_norm_eps: 1e-5,
        rope,
        max_position_embeddings: 256,
    }
}

/// A layer with adapters of unequal ranks on some modules.
struct Sample {
    config: DecoderConfig,
    layer: Layer,
    slots: Slots,
    numbers: Vec<f32>,
}

impl Sample {
    fn new(architecture: Architecture, adapted: &[Module]) -> Self {
        let config = config(architecture);
        let (mut at, mut slots) = (0, [None; Module::COUNT]);
        for (i, module) in adapted.iter().enumerate() {
            let (outputs, inputs) = module.shape(&config);
            let (b, scale) = (at + (3 + i % 2) * inputs, 1.5 - 0.1 * i as f32);
            let end = b + outputs * (3 + i % 2);
            slots[*module as usize] = Some(Slot { a: at, b, end, scale });
            at = end;
        }
        let frozen = |module: &Module| {
            let (outputs, inputs) = module.shape(&config);
            let step = 0.5 + *module as usize as f32 * 0.01;
            let weight = filled(outputs * inputs, step).iter().map(|v| v * 0.3).collect::<Vec<_>>();
            let bias = architecture.has_bias(*module).then(|| filled(outputs, 0.45).into());
            (*module, Linear { weight: Stored::plain(weight, inputs), bias })
        };
        let norm = |step| -> Frozen { filled(config.hidden_size, step).into() };
        let layer = Layer {
            input_layernorm: norm(0.7),
            post_attention_layernorm: norm(0.6),
            linears: architecture.modules().iter().map(frozen).collect(),
        };
        let numbers = filled(at, 0.37).iter().map(|v| v * 0.2).collect();
        Self { config, layer, slots, numbers }
    }

    fn block(&self, lens: &[usize], isa: Isa, keep: Keep) -> Block {
        Block {
            config: self.config.clone(),
            layer: self.layer.clone(),
            slots: self.slots,
            dropout: None,
            rows: lens.into(),
            rope: Arc::new(Rope::of(&self.config, 256)),
            isa,
            keep,
        }
    }

    /// The layer composed of the twins of its parts.
    fn twin(&self, x: &Tensor, numbers: &Tensor) -> Tensor {
        let config = &self.config;
        let frozen = twin::FrozenLayer::new(&self.layer, &Device::Cpu).unwrap();
        let twin = twin::Layer { config, frozen: &frozen, slots: &self.slots, dropout: None };
        twin.forward(x, numbers, &[x.dim(0).unwrap()]).unwrap()
    }
}

#[test]
fn a_layer_matches_its_twin_on_packed_rows() {
    use Module::{DownProj, GateProj, GateUpProj, OProj, QProj, QkvProj, VProj};
    let cases: [(Architecture, &[Module], [usize; 2]); 5] = [
        // One row is longer than the queries that are looked at together.
        (Architecture::Llama, Architecture::Llama.modules(), [5, 3]),
        (Architecture::Llama, &[QProj, VProj, OProj, GateProj, DownProj], [7, 130]),
        (Architecture::Qwen2, Architecture::Qwen2.modules(), [9, 4]),
        (Architecture::Phi3, Architecture::Phi3.modules(), [6, 70]),
        (Architecture::Phi3, &[QkvProj, GateUpProj], [6, 3]),
    ];
    for (architecture, adapted, lens) in cases {
        let sample = Sample::new(architecture, adapted);
        let x = var((lens[0] + lens[1], sample.config.hidden_size), 0.31);
        let len = sample.numbers.len();
        let numbers = Var::from_vec(sample.numbers.clone(), len, &Device::Cpu).unwrap();
        let mut start = 0;
        let parts = lens.map(|len| {
            let part = x.as_tensor().narrow(0, start, len).unwrap();
            start += len;
            sample.twin(&part, numbers.as_tensor())
        });
        let twin = Tensor::cat(&parts, 0).unwrap();
        for isa in here() {
            for keep in [Keep::Results(std::sync::Mutex::default()), Keep::Input] {
                let op = sample.block(&lens, isa, keep);
                let ours = x.as_tensor().apply_op2(numbers.as_tensor(), op).unwrap();
                check(isa, &ours, &twin, &[&x, &numbers]);
            }
        }
    }
}

#[test]
fn dropout_reaches_the_update_only_and_the_same_elements_backwards() {
    let (x, a, b) = (filled(64 * 32, 0.3), filled(4 * 32, 0.7), filled(8 * 4, 0.2));
    let weight = Stored::plain(vec![0.0; 8 * 32], 32);
    let linear = |below| LoraLinear {
        weight: &weight,
        bias: None,
        pair: Some((&a, &b)),
        scale: 1.0,
        dropout: Some(Dropout { below, seed: 7, index: 3 }),
    };
    let run = |below| {
        let mut out = vec![0.0; 64 * 8];
        let mut made = LoraLinear::forward(isa(), &x, false, &mut [(&linear(below), &mut out)]);
        (out, made.remove(0))
    };
    let (plain, dropped) = (run(0), run(128));
    assert_ne!(plain.0, dropped.0);
    assert_eq!(run(128).0, dropped.0);
    // With no frozen weight, dx is zero exactly where the element was dropped.
    let (mut dx, mut da, mut db) = (vec![1.0; x.len()], vec![0.0; a.len()], vec![0.0; b.len()]);
    let upstream = vec![1.0; 64 * 8];
    let grads = (&mut da[..], &mut db[..]);
    linear(128).backward(isa(), (&x, dropped.1.as_ref(), &upstream), (&mut dx, false), grads);
    let share = dx.iter().filter(|v| **v == 0.0).count() as f64 / dx.len() as f64;
    assert!((share - 0.5).abs() < 0.06, "{share}");
}

#[test]
fn cross_entropy_matches_its_twin() {
    let hidden = var((9, 8), 0.4);
    // More ids than stand in a block.
    let ids = 2500;
    let head = filled(ids * 8, 0.23);
    let targets: Vec<(usize, u32)> = vec![(0, 3), (4, 2499), (4, 7), (8, 0)];
    let op = |isa| {
        let head = Stored::plain(head.clone(), 8);
        CrossEntropy::new(head, targets.clone().into(), isa).with_gradient()
    };
    let for_twin = Tensor::from_vec(head.clone(), (ids, 8), &Device::Cpu).unwrap();
    let twin = twin::cross_entropy(hidden.as_tensor(), &for_twin, &targets).unwrap();
    let twin = twin.reshape(1).unwrap();
    for isa in here() {
        check(isa, &hidden.as_tensor().apply_op1(op(isa)).unwrap(), &twin, &[&hidden]);
    }
}
