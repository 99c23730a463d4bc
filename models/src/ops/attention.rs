//! Rotary position and causal grouped-query attention over packed rows.
//!
//! Rows of a batch lie behind each other without padding; a token sees its own row only. Rotary
//! position pairs element i with i + head/2 (the order of Hugging Face checkpoints).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, with_elements};
use crate::config::LlamaConfig;
use crate::kernels::{Mat, MatMut, Threads, dot, matmul, softmax_row};

/// Rotary tables (Su et al., 2021): cos and sin of position * base^(-2i/head).
pub struct Rope {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Makes the tables for `positions` positions of a head `head` wide.
    pub fn new(head: usize, base: f32, positions: usize) -> Self {
        let half = head / 2;
        let frequency = |i: usize| 1.0 / base.powf(2.0 * i as f32 / head as f32);
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        Self { half, cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect() }
    }

    /// Makes the tables for a model.
    pub fn of(config: &LlamaConfig, positions: usize) -> Self {
        Self::new(config.head_dim(), config.rope_theta, positions)
    }

    /// Turns every head of `row` to `position`; `back` turns it the other way.
    pub fn turn(&self, row: &mut [f32], position: usize, back: bool) {
        let half = self.half;
        let cos = &self.cos[position * half..(position + 1) * half];
        let sin = &self.sin[position * half..(position + 1) * half];
        let sign = if back { -1.0 } else { 1.0 };
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b) = (*low, *high);
                *low = a * cos - sign * b * sin;
                *high = b * cos + sign * a * sin;
            }
        }
    }
}

/// Attention. Shapes: q [tokens, heads * head], k and v [tokens, key heads * head] ->
/// [tokens, heads * head].
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Tokens of each packed row, in order.
    pub rows: Arc<[usize]>,
    /// Rotary tables, for the longest row at least.
    pub rope: Arc<Rope>,
}

/// One packed row and one key head: what a task computes.
struct Task {
    start: usize,
    len: usize,
    kv: usize,
}

/// Gradients of one task, dense: q [len, group * head], k and v [len, head].
struct Grads {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn tasks(&self) -> Vec<Task> {
        let mut start = 0;
        let mut tasks = Vec::new();
        for len in self.rows.iter().copied() {
            tasks.extend((0..self.kv_heads).map(|kv| Task { start, len, kv }));
            start += len;
        }
        tasks
    }

    /// Copies the columns of one row's heads out of a packed tensor and turns them.
    fn heads_of(&self, data: &[f32], task: &Task, width: usize, heads: (usize, usize)) -> Vec<f32> {
        let (first, count) = heads;
        let mut out = Vec::with_capacity(task.len * count * self.head);
        for token in task.start..task.start + task.len {
            let at = token * width * self.head + first * self.head;
            out.extend_from_slice(&data[at..at + count * self.head]);
        }
        out
    }

    fn turn_all(&self, rows: &mut [f32], heads: usize, back: bool) {
        for (position, row) in rows.chunks_exact_mut(heads * self.head).enumerate() {
            self.rope.turn(row, position, back);
        }
    }

    /// Returns turned q [len, group * head], turned k and plain v [len, head].
    fn inputs(&self, task: &Task, qkv: [&[f32]; 3]) -> [Vec<f32>; 3] {
        let group = self.group();
        let mut q = self.heads_of(qkv[0], task, self.heads, (task.kv * group, group));
        let mut k = self.heads_of(qkv[1], task, self.kv_heads, (task.kv, 1));
        let v = self.heads_of(qkv[2], task, self.kv_heads, (task.kv, 1));
        self.turn_all(&mut q, group, false);
        self.turn_all(&mut k, 1, false);
        [q, k, v]
    }

    /// Returns the causal probabilities [len, len] of one query head.
    fn probabilities(&self, len: usize, q: Mat<'_>, k: &[f32]) -> Vec<f32> {
        let mut p = vec![0.0; len * len];
        let product = (q, Mat::new(k, self.head).t());
        matmul(MatMut::new(&mut p, len), false, self.scale(), product, Threads::One);
        for (i, row) in p.chunks_exact_mut(len).enumerate() {
            let (seen, hidden) = row.split_at_mut(i + 1);
            softmax_row(seen);
            hidden.fill(0.0);
        }
        p
    }

    fn forward_task(&self, task: &Task, qkv: [&[f32]; 3]) -> Vec<f32> {
        let [q, k, v] = self.inputs(task, qkv);
        let (len, width) = (task.len, self.group() * self.head);
        let mut out = vec![0.0; len * width];
        for h in 0..self.group() {
            let at = h * self.head;
            let q = Mat::strided(&q[at..], len, self.head, width);
            let p = self.probabilities(len, q, &k);
            let to = MatMut::strided(&mut out[at..], len, self.head, width);
            let product = (Mat::new(&p, len), Mat::new(&v, self.head));
            matmul(to, false, 1.0, product, Threads::One);
        }
        out
    }

    /// With P the probabilities and D the row sums of dO * O: dV = P^T dO,
    /// dS = P * (dO V^T - D) * scale, dQ = dS K, dK = dS^T Q.
    fn backward_task(&self, task: &Task, qkv: [&[f32]; 3], out: &[f32], dout: &[f32]) -> Grads {
        let [q, k, v] = self.inputs(task, qkv);
        let (len, head, group) = (task.len, self.head, self.group());
        let width = group * head;
        let heads = (task.kv * group, group);
        let out = self.heads_of(out, task, self.heads, heads);
        let dout = self.heads_of(dout, task, self.heads, heads);
        let mut grads =
            Grads { q: vec![0.0; q.len()], k: vec![0.0; k.len()], v: vec![0.0; v.len()] };
        let mut ds = vec![0.0; len * len];
        for h in 0..group {
            let at = h * head;
            let q_head = Mat::strided(&q[at..], len, head, width);
            let dout_head = Mat::strided(&dout[at..], len, head, width);
            let mut p = self.probabilities(len, q_head, &k);
            let product = (Mat::new(&p, len).t(), dout_head);
            matmul(MatMut::new(&mut grads.v, head), true, 1.0, product, Threads::One);
            let product = (dout_head, Mat::new(&v, head).t());
            matmul(MatMut::new(&mut ds, len), false, 1.0, product, Threads::One);
            for i in 0..len {
                let row = i * width + at..i * width + at + head;
                let shift = dot(&dout[row.clone()], &out[row]);
                let range = i * len..(i + 1) * len;
                for (p, ds) in p[range.clone()].iter_mut().zip(&ds[range]) {
                    *p *= (ds - shift) * self.scale();
                }
            }
            let to = MatMut::strided(&mut grads.q[at..], len, head, width);
            matmul(to, false, 1.0, (Mat::new(&p, len), Mat::new(&k, head)), Threads::One);
            let product = (Mat::new(&p, len).t(), q_head);
            matmul(MatMut::new(&mut grads.k, head), true, 1.0, product, Threads::One);
        }
        self.turn_all(&mut grads.q, group, true);
        self.turn_all(&mut grads.k, 1, true);
        grads
    }

    /// Puts a task's dense columns back into a packed tensor `width` heads wide.
    fn put(&self, to: &mut [f32], task: &Task, width: usize, from: (usize, usize, &[f32])) {
        let (first, count, data) = from;
        for (i, row) in data.chunks_exact(count * self.head).enumerate() {
            let at = ((task.start + i) * width + first) * self.head;
            to[at..at + row.len()].copy_from_slice(row);
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let qkv = [elements(q, q_layout)?, elements(k, k_layout)?, elements(v, v_layout)?];
        let tasks = self.tasks();
        let parts: Vec<_> = tasks.par_iter().map(|task| self.forward_task(task, qkv)).collect();
        let mut out = vec![0.0; qkv[0].len()];
        for (task, part) in tasks.iter().zip(&parts) {
            let group = self.group();
            self.put(&mut out, task, self.heads, (task.kv * group, group, part));
        }
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let tasks = self.tasks();
        let run = |q: &[f32], k: &[f32], v: &[f32], out: &[f32], dout: &[f32]| -> Vec<Grads> {
            let one = |task| self.backward_task(task, [q, k, v], out, dout);
            tasks.par_iter().map(one).collect()
        };
        let parts = with_elements(q, |q| {
            with_elements(k, |k| {
                with_elements(v, |v| {
                    with_elements(res, |o| with_elements(&grad, |g| run(q, k, v, o, g)))
                })
            })
        })?????;
        let mut dq = vec![0.0; q.elem_count()];
        let mut dk = vec![0.0; k.elem_count()];
        let mut dv = vec![0.0; v.elem_count()];
        let group = self.group();
        for (task, part) in tasks.iter().zip(&parts) {
            self.put(&mut dq, task, self.heads, (task.kv * group, group, &part.q));
            self.put(&mut dk, task, self.kv_heads, (task.kv, 1, &part.k));
            self.put(&mut dv, task, self.kv_heads, (task.kv, 1, &part.v));
        }
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), q.device())?),
            Some(Tensor::from_vec(dk, k.shape(), k.device())?),
            Some(Tensor::from_vec(dv, v.shape(), v.device())?),
        ))
    }
}
