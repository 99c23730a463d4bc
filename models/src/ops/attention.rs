//! Rotary position and causal grouped-query attention over packed rows.
//!
//! Rows of a batch lie behind each other without padding; a token sees its own row only. Rotary
//! position pairs element i with i + head/2 (the order of Hugging Face checkpoints).

use std::sync::Arc;

use rayon::prelude::*;

use crate::buffers::Buffer;
use crate::config::DecoderConfig;
use crate::kernels::{Isa, Mat, MatMut, Product, dot, softmax_back_row, softmax_row};

/// Rotary tables (Su et al., 2021): sine and cosine of position * frequency.
pub struct Rope {
    /// Width of a head, of which the first `2 * half` numbers turn.
    head: usize,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Makes the tables for `positions` positions of a model.
    pub fn of(config: &DecoderConfig, positions: usize) -> Self {
        let frequencies = config.rope.frequencies();
        let magnitude = config.rope.magnitude;
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        Self {
            head: config.head_dim,
            half: frequencies.len(),
            cos: angles().map(|angle| magnitude * angle.cos()).collect(),
            sin: angles().map(|angle| magnitude * angle.sin()).collect(),
        }
    }

    /// Turns every head of `row` to `position`; `back` turns gradients the other way.
    pub fn turn(&self, row: &mut [f32], position: usize, back: bool) {
        let half = self.half;
        let cos = &self.cos[position * half..(position + 1) * half];
        let sin = &self.sin[position * half..(position + 1) * half];
        let sign = if back { -1.0 } else { 1.0 };
        for head in row.chunks_exact_mut(self.head) {
            let (low, high) = head[..2 * half].split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b) = (*low, *high);
                *low = a * cos - sign * b * sin;
                *high = b * cos + sign * a * sin;
            }
        }
    }
}

/// Where heads stand: in which tensor, how far its rows are apart, and where in a row they begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) tensor: usize,
    pub(super) stride: usize,
    pub(super) first: usize,
}

/// Queries whose scores are held at once, for each query head of a key head.
const QUERIES: usize = 64;

/// Attention. Shapes: q [tokens, heads * head], k and v [tokens, key heads * head], in tensors of
/// their own or side by side in one -> [tokens, heads * head].
#[derive(Clone)]
pub(super) struct Attention {
    /// Query heads.
    pub(super) heads: usize,
    /// Key heads.
    pub(super) kv_heads: usize,
    /// Width of a head.
    pub(super) head: usize,
    /// Where q, k and v stand.
    pub(super) places: [Place; 3],
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

    /// Returns where q, k and v of a task's heads begin in a row, and their widths.
    fn heads_of(&self, task: &Task, which: usize) -> (Place, usize) {
        let width = if which == 0 { self.group() * self.head } else { self.head };
        let place = self.places[which];
        (Place { first: place.first + task.kv * width, ..place }, width)
    }

    /// Where the output's heads of a task stand.
    fn outputs_of(&self, task: &Task) -> (Place, usize) {
        let width = self.group() * self.head;
        (Place { tensor: 0, stride: self.heads * self.head, first: task.kv * width }, width)
    }

    fn turn_all(&self, rows: &mut [f32], heads: usize, back: bool) {
        for (position, row) in rows.chunks_exact_mut(heads * self.head).enumerate() {
            self.rope.turn(row, position, back);
        }
    }

    fn inputs(&self, task: &Task, qkv: &[Buffer]) -> Inputs {
        let dense = |which: usize| {
            let (place, width) = self.heads_of(task, which);
            gathered(&qkv[place.tensor], task, place, width)
        };
        let (mut q, mut k, v) = (dense(0), dense(1), dense(2));
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

    fn forward_task(&self, task: &Task, qkv: &[Buffer]) -> Buffer {
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
    fn backward_task(&self, task: &Task, qkv: &[Buffer], out: &[f32], dout: &[f32]) -> Grads {
        let Inputs { q, k, v } = self.inputs(task, qkv);
        let (len, head) = (task.len, self.head);
        let (place, width) = self.outputs_of(task);
        let out = gathered(out, task, place, width);
        let dout = gathered(dout, task, place, width);
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
    pub(super) fn forward(&self, qkv: &[Buffer], to: &mut [f32]) {
        let tasks = self.tasks();
        let parts: Vec<Buffer> =
            tasks.par_iter().map(|task| self.forward_task(task, qkv)).collect();
        for (task, part) in tasks.iter().zip(&parts) {
            let (place, width) = self.outputs_of(task);
            put(to, task, place, (part, width));
        }
    }

    /// Computes the gradients of q, k and v from those of the output.
    pub(super) fn backward(
        &self,
        qkv: &[Buffer],
        (out, dout): (&[f32], &[f32]),
        grads: &mut [Buffer],
    ) {
        let tasks = self.tasks();
        let of = |task: &Task| self.backward_task(task, qkv, out, dout);
        let parts: Vec<Grads> = tasks.par_iter().map(of).collect();
        for (task, part) in tasks.iter().zip(&parts) {
            for (which, part) in [&part.q, &part.k, &part.v].into_iter().enumerate() {
                let (place, width) = self.heads_of(task, which);
                put(&mut grads[place.tensor], task, place, (part, width));
            }
        }
    }
}

/// Copies a task's heads out of a packed tensor.
fn gathered(data: &[f32], task: &Task, place: Place, width: usize) -> Buffer {
    let mut out = Buffer::new(task.len * width);
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        let at = (task.start + i) * place.stride + place.first;
        out.copy_from_slice(&data[at..at + width]);
    }
    out
}

/// Puts a task's dense heads back into a packed tensor.
fn put(to: &mut [f32], task: &Task, place: Place, (from, width): (&[f32], usize)) {
    for (i, row) in from.chunks_exact(width).enumerate() {
        let at = (task.start + i) * place.stride + place.first;
        to[at..at + width].copy_from_slice(row);
    }
}
