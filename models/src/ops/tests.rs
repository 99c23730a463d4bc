//! Each operation against its twin: values and gradients.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::lora_linear::Linear;
use super::*;
use crate::config::LlamaConfig;
use crate::kernels::{Isa, isa};
use crate::lora::Module;
use crate::weights::Layer;

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

const CONFIG: LlamaConfig = LlamaConfig {
    vocab_size: 7,
    hidden_size: 24,
    intermediate_size: 40,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000.0,
    max_position_embeddings: 256,
};
const RANK: usize = 4;

/// A layer whose modules are all adapted, or all but two, and the numbers of its adapters.
fn layer(adapted: &[Module]) -> (Layer, [Option<Slot>; 7], Vec<f32>) {
    let mut at = 0;
    let mut slots = [None; 7];
    for module in adapted {
        let (outputs, inputs) = module.shape(&CONFIG);
        let b = at + RANK * inputs;
        let end = b + outputs * RANK;
        slots[*module as usize] = Some(Slot { a: at, b, end });
        at = end;
    }
    let frozen = |module: Module| -> Frozen {
        let (outputs, inputs) = module.shape(&CONFIG);
        filled(outputs * inputs, 0.5 + module as usize as f32 * 0.01)
            .iter()
            .map(|v| v * 0.3)
            .collect()
    };
    let norm = |step| -> Frozen { filled(CONFIG.hidden_size, step).into() };
    let layer = Layer::new(norm(0.7), norm(0.6), Module::ALL.map(frozen));
    (layer, slots, filled(at, 0.37).iter().map(|v| v * 0.2).collect())
}

fn block(layer: &Layer, slots: [Option<Slot>; 7], lens: &[usize], isa: Isa) -> Block {
    Block {
        config: CONFIG,
        layer: layer.clone(),
        slots,
        scale: 1.5,
        dropout: None,
        rows: lens.into(),
        rope: Arc::new(Rope::new(CONFIG.head_dim(), CONFIG.rope_theta, 256)),
        isa,
        kept: Some(std::sync::Mutex::default()),
    }
}

/// The layer composed of the twins of its parts.
fn twin_block(layer: &Layer, slots: [Option<Slot>; 7], x: &Tensor, numbers: &Tensor) -> Tensor {
    let cut = |at: usize, end: usize, shape: (usize, usize)| {
        numbers.narrow(0, at, end - at).unwrap().reshape(shape).unwrap()
    };
    let linear = |module: Module, x: &Tensor| {
        let (outputs, inputs) = module.shape(&CONFIG);
        let weight = layer.linear(module).to_vec();
        let weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu).unwrap();
        let Some(Slot { a, b, end }) = slots[module as usize] else {
            return x.matmul(&weight.t().unwrap()).unwrap();
        };
        let ab = (cut(a, b, (RANK, inputs)), cut(b, end, (outputs, RANK)));
        twin::lora_linear(x, &weight, (&ab.0, &ab.1), 1.5).unwrap()
    };
    let norm = |x: &Tensor, weight: &Frozen| {
        let weight = Tensor::from_vec(weight.to_vec(), weight.len(), &Device::Cpu).unwrap();
        twin::rms_norm(x, &weight, 1e-5).unwrap()
    };
    let h = norm(x, &layer.input_layernorm);
    let [q, k, v] = [Module::QProj, Module::KProj, Module::VProj].map(|module| linear(module, &h));
    let heads = (CONFIG.num_attention_heads, CONFIG.num_key_value_heads);
    let attended = twin::attention([&q, &k, &v], heads, CONFIG.head_dim(), 10_000.0).unwrap();
    let middle = (x + linear(Module::OProj, &attended)).unwrap();
    let h = norm(&middle, &layer.post_attention_layernorm);
    let active = twin::swiglu(&linear(Module::GateProj, &h), &linear(Module::UpProj, &h)).unwrap();
    (&middle + linear(Module::DownProj, &active)).unwrap()
}

#[test]
fn a_layer_matches_its_twin_on_packed_rows() {
    let some = [Module::QProj, Module::VProj, Module::OProj, Module::GateProj, Module::DownProj];
    // One row is longer than the queries that are looked at together.
    for (adapted, lens) in [(&Module::ALL[..], [5, 3]), (&some, [7, 130])] {
        let (layer, slots, numbers) = layer(adapted);
        let x = var((lens[0] + lens[1], CONFIG.hidden_size), 0.31);
        let len = numbers.len();
        let numbers = Var::from_vec(numbers, len, &Device::Cpu).unwrap();
        let mut start = 0;
        let parts = lens.map(|len| {
            let part = x.as_tensor().narrow(0, start, len).unwrap();
            start += len;
            twin_block(&layer, slots, &part, numbers.as_tensor())
        });
        let twin = Tensor::cat(&parts, 0).unwrap();
        for isa in here() {
            let op = block(&layer, slots, &lens, isa);
            let ours = x.as_tensor().apply_op2(numbers.as_tensor(), op).unwrap();
            check(isa, &ours, &twin, &[&x, &numbers]);
        }
    }
}

#[test]
fn dropout_reaches_the_update_only_and_the_same_elements_backwards() {
    let (x, a, b) = (filled(64 * 32, 0.3), filled(4 * 32, 0.7), filled(8 * 4, 0.2));
    let weight = vec![0.0; 8 * 32];
    let linear = |below| Linear {
        weight: &weight,
        inputs: 32,
        pair: Some((&a, &b)),
        scale: 1.0,
        dropout: Some(Dropout { below, seed: 7, index: 3 }),
    };
    let run = |below| {
        let mut out = vec![0.0; 64 * 8];
        Linear::forward(isa(), &x, false, &mut [(&linear(below), &mut out)]);
        out
    };
    let (plain, dropped) = (run(0), run(128));
    assert_ne!(plain, dropped);
    assert_eq!(run(128), dropped);
    // With no frozen weight, dx is zero exactly where the element was dropped.
    let (mut dx, mut da, mut db) = (vec![1.0; x.len()], vec![0.0; a.len()], vec![0.0; b.len()]);
    let upstream = vec![1.0; 64 * 8];
    linear(128).backward(isa(), (&x, &upstream), (&mut dx, false), (&mut da, &mut db));
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
        CrossEntropy::new(head.clone().into(), 8, targets.clone().into(), isa).with_gradient()
    };
    let for_twin = Tensor::from_vec(head.clone(), (ids, 8), &Device::Cpu).unwrap();
    let twin = twin::cross_entropy(hidden.as_tensor(), &for_twin, &targets).unwrap();
    let twin = twin.reshape(1).unwrap();
    for isa in here() {
        check(isa, &hidden.as_tensor().apply_op1(op(isa)).unwrap(), &twin, &[&hidden]);
    }
}
