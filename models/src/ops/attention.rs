//! Rotary position and causal grouped-query attention over packed rows.
//!
//! Rows of a batch lie behind each other without padding; a token sees its own row only. Rotary
//! position pairs element i with i + head/2 (the order of Hugging Face checkpoints).

use std::sync::Arc;

use rayon::prelude::*;

use super::buffers::Buffer;
use crate::config::LlamaConfig;
use crate::kernels::{Isa, Mat, MatMut, Product, dot, softmax_back_row, softmax_row};

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

/// Queries whose scores are held at once, for each query head of a key head.
const QUERIES: usize = 64;

/// Attention. Shapes: q [tokens, heads * head], k and v [tokens, key heads * head] ->
/// [tokens, heads * head].
#[derive(Clone)]
pub(super) struct Attention {
    /// Query heads.
    pub(super) heads: usize,
    /// Key heads.
    pub(super) kv_heads: usize,
    /// Width of a head.
    pub(super) head: usize,
    /// Tokens of each packed row, in order.
    pub(super) rows: Arc<[usize]>,
    /// Rotary tables, for the longest row at least.
    pub(super) rope: Arc<Rope>,
    /// Path of its products.
    pub(super) isa: Isa,
}

/// One packed row and one key head: what a task computes.
struct Task {
    start: usize,
    len: usize,
    kv: usize,
}

/// What a task reads, dense: turned q [len, group * head], turned k and v [len, head].
struct Inputs {
    q: Buffer,
    k: Buffer,
    v: Buffer,
}

/// Gradients of a task's inputs.
type Grads = Inputs;

impl Attention {
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }

    /// A task is computed on one thread.
    fn product(&self) -> Product {
        Product::new(self.isa).alone()
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

    /// Returns which of `width` heads are a task's: the first, and how many.
    fn place(&self, task: &Task, width: usize) -> (usize, usize) {
        let count = width / self.kv_heads;
        (task.kv * count, count)
    }

    /// Copies the columns of a task's heads out of a packed tensor of `width` heads.
    fn heads_of(&self, data: &[f32], task: &Task, width: usize) -> Buffer {
        let (first, count) = self.place(task, width);
        let mut out = Buffer::new(task.len * count * self.head);
        for (i, out) in out.chunks_exact_mut(count * self.head).enumerate() {
            let at = ((task.start + i) * width + first) * self.head;
            out.copy_from_slice(&data[at..at + out.len()]);
        }
        out
    }

    /// Puts a task's dense columns back into a packed tensor of `width` heads.
    fn put(&self, to: &mut [f32], task: &Task, width: usize, from: &[f32]) {
        let (first, count) = self.place(task, width);
        for (i, row) in from.chunks_exact(count * self.head).enumerate() {
            let at = ((task.start + i) * width + first) * self.head;
            to[at..at + row.len()].copy_from_slice(row);
        }
    }

    fn turn_all(&self, rows: &mut [f32], heads: usize, back: bool) {
        for (position, row) in rows.chunks_exact_mut(heads * self.head).enumerate() {
            self.rope.turn(row, position, back);
        }
    }

    fn inputs(&self, task: &Task, qkv: [&[f32]; 3]) -> Inputs {
        let mut q = self.heads_of(qkv[0], task, self.heads);
        let mut k = self.heads_of(qkv[1], task, self.kv_heads);
        let v = self.heads_of(qkv[2], task, self.kv_heads);
        self.turn_all(&mut q, self.group(), false);
        self.turn_all(&mut k, 1, false);
        Inputs { q, k, v }
    }

    /// Returns the places of queries from `from` on in what has a line for each query head, and how
    /// many keys the last of them sees.
    fn block(&self, from: usize, len: usize) -> (std::ops::Range<usize>, usize) {
        let seen = (from + QUERIES).min(len);
        let width = self.group() * self.head;
        (from * width..seen * width, seen)
    }

    /// Returns the causal probabilities [queries * group, seen] of queries from `from` on.
    fn probabilities(&self, from: usize, q: &[f32], k: &[f32]) -> Buffer {
        let seen = k.len() / self.head;
        let mut p = Buffer::new(q.len() / self.head * seen);
        let product = self.product().scaled(self.scale());
        let (q, k) = (Mat::new(q, self.head), Mat::new(k, self.head).t());
        product.run(MatMut::new(&mut p, seen), q, k);
        for (i, row) in p.chunks_exact_mut(seen).enumerate() {
            let (past, future) = row.split_at_mut(from + i / self.group() + 1);
            softmax_row(past);
            future.fill(0.0);
        }
        p
    }

    fn forward_task(&self, task: &Task, qkv: [&[f32]; 3]) -> Buffer {
        let Inputs { q, k, v } = self.inputs(task, qkv);
        let mut out = Buffer::new(q.len());
        for from in (0..task.len).step_by(QUERIES) {
            let (at, seen) = self.block(from, task.len);
            let p = self.probabilities(from, &q[at.clone()], &k[..seen * self.head]);
            let v = Mat::new(&v[..seen * self.head], self.head);
            self.product().run(MatMut::new(&mut out[at], self.head), Mat::new(&p, seen), v);
        }
        out
    }

    /// With P the probabilities and D the row sums of dO * O: dV = P^T dO,
    /// dS = P * (dO V^T - D) * scale, dQ = dS K, dK = dS^T Q.
    fn backward_task(&self, task: &Task, qkv: [&[f32]; 3], out: &[f32], dout: &[f32]) -> Grads {
        let Inputs { q, k, v } = self.inputs(task, qkv);
        let (len, head) = (task.len, self.head);
        let out = self.heads_of(out, task, self.heads);
        let dout = self.heads_of(dout, task, self.heads);
        let (product, sum) = (self.product(), self.product().added());
        let mut grads =
            Grads { q: Buffer::new(q.len()), k: Buffer::zeros(k.len()), v: Buffer::zeros(v.len()) };
        for from in (0..len).step_by(QUERIES) {
            let (at, seen) = self.block(from, len);
            let keys = ..seen * head;
            let (q_at, dout_at) = (Mat::new(&q[at.clone()], head), &dout[at.clone()]);
            let mut p = self.probabilities(from, &q[at.clone()], &k[keys]);
            let dout_mat = Mat::new(dout_at, head);
            sum.run(MatMut::new(&mut grads.v[keys], head), Mat::new(&p, seen).t(), dout_mat);
            let mut ds = Buffer::new(p.len());
            product.run(MatMut::new(&mut ds, seen), dout_mat, Mat::new(&v[keys], head).t());
            let lines = dout_at.chunks_exact(head).zip(out[at.clone()].chunks_exact(head));
            let scores = p.chunks_exact_mut(seen).zip(ds.chunks_exact(seen));
            for ((p, ds), (dout, out)) in scores.zip(lines) {
                softmax_back_row(p, ds, dot(dout, out), self.scale());
            }
            let p = Mat::new(&p, seen);
            product.run(MatMut::new(&mut grads.q[at], head), p, Mat::new(&k[keys], head));
            sum.run(MatMut::new(&mut grads.k[keys], head), p.t(), q_at);
        }
        self.turn_all(&mut grads.q, self.group(), true);
        self.turn_all(&mut grads.k, 1, true);
        grads
    }

    /// Computes the output from q, k and v.
    pub(super) fn forward(&self, qkv: [&[f32]; 3], to: &mut [f32]) {
        let tasks = self.tasks();
        let parts: Vec<Buffer> =
            tasks.par_iter().map(|task| self.forward_task(task, qkv)).collect();
        for (task, part) in tasks.iter().zip(&parts) {
            self.put(to, task, self.heads, part);
        }
    }

    /// Computes the gradients of q, k and v from those of the output.
    pub(super) fn backward(
        &self,
        qkv: [&[f32]; 3],
        (out, dout): (&[f32], &[f32]),
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let tasks = self.tasks();
        let of = |task: &Task| self.backward_task(task, qkv, out, dout);
        let parts: Vec<Grads> = tasks.par_iter().map(of).collect();
        for (task, part) in tasks.iter().zip(&parts) {
            self.put(dq, task, self.heads, &part.q);
            self.put(dk, task, self.kv_heads, &part.k);
            self.put(dv, task, self.kv_heads, &part.v);
        }
    }
}
