//! Each operation against its twin: values and gradients.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::*;

fn filled(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

fn var(shape: (usize, usize), step: f32) -> Var {
    let data = filled(shape.0 * shape.1, step);
    Var::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Compares two results and their gradients for every variable under one uneven upstream.
fn check(ours: &Tensor, twin: &Tensor, vars: &[&Var]) {
    close(ours, twin, "value");
    let weights = Tensor::from_vec(filled(ours.elem_count(), 0.9), ours.shape(), &Device::Cpu);
    let weights = weights.unwrap();
    let grads = |t: &Tensor| (t * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let (ours, twin) = (grads(ours), grads(twin));
    for (i, var) in vars.iter().enumerate() {
        let what = format!("gradient {i}");
        close(ours.get(var).unwrap(), twin.get(var).unwrap(), &what);
    }
}

fn close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.elem_count(), b.elem_count(), "{what}");
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (i, (a, b)) in flat(a).iter().zip(flat(b)).enumerate() {
        assert!((a - b).abs() < 2e-4 * (1.0 + b.abs()), "{what} at {i}: {a} against {b}");
    }
}

#[test]
fn rms_norm_matches_its_twin() {
    let x = var((5, 24), 0.31);
    let weight = filled(24, 0.77);
    let op = RmsNorm { weight: weight.clone().into(), eps: 1e-5 };
    let weight = Tensor::from_vec(weight, 24, &Device::Cpu).unwrap();
    check(
        &x.as_tensor().apply_op1(op).unwrap(),
        &twin::rms_norm(x.as_tensor(), &weight, 1e-5).unwrap(),
        &[&x],
    );
}

#[test]
fn swiglu_matches_its_twin() {
    let (gate, up) = (var((7, 12), 1.3), var((7, 12), 0.4));
    check(
        &gate.as_tensor().apply_op2(up.as_tensor(), SwiGlu).unwrap(),
        &twin::swiglu(gate.as_tensor(), up.as_tensor()).unwrap(),
        &[&gate, &up],
    );
}

#[test]
fn lora_linear_matches_its_twin() {
    let (x, a, b) = (var((6, 10), 0.3), var((4, 10), 0.7), var((9, 4), 0.2));
    let weight = filled(9 * 10, 0.5);
    let op = LoraLinear { weight: weight.clone().into(), inputs: 10, scale: 1.5, dropout: None };
    let weight = Tensor::from_vec(weight, (9, 10), &Device::Cpu).unwrap();
    check(
        &x.as_tensor().apply_op3(a.as_tensor(), b.as_tensor(), op).unwrap(),
        &twin::lora_linear(x.as_tensor(), &weight, (a.as_tensor(), b.as_tensor()), 1.5).unwrap(),
        &[&x, &a, &b],
    );
}

#[test]
fn dropout_reaches_the_update_only_and_the_same_elements_backwards() {
    let (x, a, b) = (var((64, 32), 0.3), var((4, 32), 0.7), var((8, 4), 0.2));
    let op = |below| LoraLinear {
        weight: vec![0.0; 8 * 32].into(),
        inputs: 32,
        scale: 1.0,
        dropout: Some(Dropout { below, seed: 7, index: 3 }),
    };
    let run = |below| x.as_tensor().apply_op3(a.as_tensor(), b.as_tensor(), op(below)).unwrap();
    let (plain, dropped) = (run(0), run(128));
    assert_ne!(plain.to_vec2::<f32>().unwrap(), dropped.to_vec2::<f32>().unwrap());
    assert_eq!(run(128).to_vec2::<f32>().unwrap(), dropped.to_vec2::<f32>().unwrap());
    // With no frozen weight, dx is zero exactly where the element was dropped.
    let dx = dropped.sum_all().unwrap().backward().unwrap();
    let dx = dx.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let share = dx.iter().filter(|v| **v == 0.0).count() as f64 / dx.len() as f64;
    assert!((share - 0.5).abs() < 0.06, "{share}");
}

#[test]
fn attention_matches_its_twin_on_packed_rows() {
    let (heads, kv, head) = (4, 2, 6);
    let lens = [5_usize, 3];
    let tokens = 8;
    let q = var((tokens, heads * head), 0.31);
    let (k, v) = (var((tokens, kv * head), 0.53), var((tokens, kv * head), 0.17));
    let op = Attention {
        heads,
        kv_heads: kv,
        head,
        rows: Arc::from(lens),
        rope: Arc::new(Rope::new(head, 10_000.0, 16)),
    };
    let ours = q.as_tensor().apply_op3(k.as_tensor(), v.as_tensor(), op).unwrap();
    let mut start = 0;
    let parts = lens.map(|len| {
        let cut = |t: &Var| t.as_tensor().narrow(0, start, len).unwrap();
        let part =
            twin::attention([&cut(&q), &cut(&k), &cut(&v)], (heads, kv), head, 10_000.0).unwrap();
        start += len;
        part
    });
    check(&ours, &Tensor::cat(&parts, 0).unwrap(), &[&q, &k, &v]);
}

#[test]
fn cross_entropy_matches_its_twin() {
    let hidden = var((9, 8), 0.4);
    let head = filled(150 * 8, 0.23);
    let targets: Vec<(usize, u32)> = vec![(0, 3), (4, 149), (4, 7), (8, 0)];
    let op = CrossEntropy { head: head.clone().into(), width: 8, targets: targets.clone().into() };
    let head = Tensor::from_vec(head, (150, 8), &Device::Cpu).unwrap();
    let twin = twin::cross_entropy(hidden.as_tensor(), &head, &targets).unwrap();
    let twin = twin.reshape(1).unwrap();
    check(&hidden.as_tensor().apply_op1(op).unwrap(), &twin, &[&hidden]);
}
