//! One pass of a decoder over tokens of several rows.
//!
//! Tokens of prompts and tokens that were said take different products, each with an order of sums
//! of its own: which one a token takes depends on what it is, never on what is beside it. Blocks of
//! queries and pages of keys begin at fixed positions, so that a state depends on the text before
//! it alone, wherever a pass began.

use std::sync::Arc;

use rayon::prelude::*;

use super::apart::Apart;
use super::pages::{PAGE, Page};
use crate::buffers::Buffer;
use crate::kernels::{
    Dots, Factor, Isa, Mat, MatMut, Product, Term, Threads, add_scaled, dots_all, each_chunk,
    matmul_nt, page_scores, page_values, rms_norm_row, run_all, softmax_row, swiglu_row, together,
};
use crate::lora::Module;
use crate::ops::Rope;
use crate::weights::{Layer, Weights};

/// What the tokens of a pass are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Parts of prompts.
    Prompt,
    /// Tokens that were said, one of each row.
    Said,
}

/// Tokens of a row, behind each other.
pub(super) struct Span<'a> {
    /// Position of the first.
    pub(super) first: usize,
    /// Their ids.
    pub(super) ids: &'a [u32],
    /// Pages of the row; those that the tokens are put into are its own.
    pub(super) pages: &'a mut [Arc<Page>],
    /// Which adapter is added.
    pub(super) adapter: Option<usize>,
}

/// What computes: weights, and adapters apart from them.
pub(super) struct Network {
    pub(super) weights: Arc<Weights>,
    pub(super) rope: Rope,
    pub(super) apart: Vec<Apart>,
    /// The one that rows take which name no other.
    pub(super) own: Option<usize>,
    /// Path of prompts; tokens that were said take the same with products that round nothing.
    pub(super) isa: Isa,
}

/// A pass in progress.
struct Pass<'n, 's, 'a> {
    network: &'n Network,
    spans: &'s mut [Span<'a>],
    kind: Kind,
    /// Place of each span's first token among all.
    starts: Vec<usize>,
    tokens: usize,
}

impl Network {
    /// Reads tokens into their pages; returns the normed last states, [tokens, hidden].
    pub(super) fn forward(&self, spans: &mut [Span<'_>], kind: Kind) -> Buffer {
        let mut starts = Vec::with_capacity(spans.len());
        let mut tokens = 0;
        for span in spans.iter() {
            starts.push(tokens);
            tokens += span.ids.len();
        }
        let pass = Pass { network: self, spans, kind, starts, tokens };
        match kind {
            // All regions of a pass run on the pool, so that none waits for it to wake up.
            Kind::Prompt => rayon::scope(|_| pass.run()),
            Kind::Said => together(|| pass.run()),
        }
    }

    /// Returns the logits of states, [rows, vocabulary].
    pub(super) fn logits(&self, states: &[f32]) -> Vec<f32> {
        matmul_nt(self.isa.exact(), states, &self.weights.lm_head)
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Buffer {
        let mut out = Buffer::new(x.len());
        let (width, eps) = (weight.len(), self.weights.config.rms_norm_eps);
        each_chunk(&mut out, 32 * width, |at, rows| {
            let x = &x[32 * width * at..][..rows.len()];
            for (out, x) in rows.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                rms_norm_row(x, weight, eps, out);
            }
        });
        out
    }
}

impl Pass<'_, '_, '_> {
    fn run(mut self) -> Buffer {
        let network = self.network;
        let weights = &network.weights;
        let width = weights.config.hidden_size;
        let mut x = Buffer::new(self.tokens * width);
        let ids = self.spans.iter().flat_map(|span| span.ids);
        for (id, row) in ids.zip(x.chunks_exact_mut(width)) {
            weights.embed_tokens.read(*id as usize, 0, row);
        }
        for (at, layer) in weights.layers.iter().enumerate() {
            self.attend(&mut x, (at, layer));
            self.feed_forward(&mut x, (at, layer));
        }
        network.norm(&x, &weights.norm)
    }

    fn attend(&mut self, x: &mut [f32], (at, layer): (usize, &Layer)) {
        let config = &self.network.weights.config;
        let h = self.network.norm(x, &layer.input_layernorm);
        let (q, kv) = (config.q_dim(), config.kv_dim());
        let parts = [(Module::QProj, q), (Module::KProj, kv), (Module::VProj, kv)];
        let [mut q, mut k, v] = self.parts(&h, (at, layer), Module::QkvProj, parts);
        self.turn(&mut q);
        self.turn(&mut k);
        self.put(at, &k, &v);
        let mut attended = Buffer::new(q.len());
        match self.kind {
            Kind::Prompt => self.attend_prompts(at, &q, &mut attended),
            Kind::Said => self.attend_said(at, &q, &mut attended),
        }
        self.linears(&attended, (at, layer), true, &mut [(Module::OProj, x)]);
    }

    fn feed_forward(&self, x: &mut [f32], (at, layer): (usize, &Layer)) {
        let wide = self.network.weights.config.intermediate_size;
        let h = self.network.norm(x, &layer.post_attention_layernorm);
        let parts = [(Module::GateProj, wide), (Module::UpProj, wide)];
        let [gate, up] = self.parts(&h, (at, layer), Module::GateUpProj, parts);
        let mut active = Buffer::new(gate.len());
        each_chunk(&mut active, 8 * wide, |at, rows| {
            for (i, out) in rows.chunks_exact_mut(wide).enumerate() {
                let from = (8 * at + i) * wide;
                swiglu_row(&gate[from..from + wide], &up[from..from + wide], out);
            }
        });
        self.linears(&active, (at, layer), true, &mut [(Module::DownProj, x)]);
    }

    /// Computes modules that read the same: each for itself, or as parts of `whole` where the
    /// architecture holds them in one.
    fn parts<const N: usize>(
        &self,
        x: &[f32],
        of: (usize, &Layer),
        whole: Module,
        parts: [(Module, usize); N],
    ) -> [Buffer; N] {
        let mut made = parts.map(|(_, width)| Buffer::new(self.tokens * width));
        if !self.network.weights.config.architecture.modules().contains(&whole) {
            let modules = parts.iter().map(|(module, _)| *module);
            let outs = made.iter_mut().map(|out| &mut **out);
            let mut outs: Vec<(Module, &mut [f32])> = modules.zip(outs).collect();
            self.linears(x, of, false, &mut outs);
            return made;
        }
        let line: usize = parts.iter().map(|(_, width)| width).sum();
        let mut all = Buffer::new(self.tokens * line);
        self.linears(x, of, false, &mut [(whole, &mut all)]);
        let mut from = 0;
        for (out, (_, width)) in made.iter_mut().zip(parts) {
            for (out, all) in out.chunks_exact_mut(width).zip(all.chunks_exact(line)) {
                out.copy_from_slice(&all[from..from + width]);
            }
            from += width;
        }
        made
    }

    /// Computes modules with the same input, or adds them to what stands there.
    fn linears(
        &self,
        x: &[f32],
        (at, layer): (usize, &Layer),
        add: bool,
        outs: &mut [(Module, &mut [f32])],
    ) {
        let isa = self.network.isa;
        match self.kind {
            Kind::Prompt => {
                let inputs = layer.linear(outs[0].0).weight.cols();
                let terms = outs.iter_mut().map(|(module, out)| {
                    let w = &layer.linear(*module).weight;
                    Term { add, ..Term::new(MatMut::new(out, w.rows()), Factor::turned(w)) }
                });
                run_all(isa, Threads::All, Mat::new(x, inputs), terms.collect());
            }
            Kind::Said => {
                let mut products: Vec<Dots<'_>> = outs
                    .iter_mut()
                    .map(|(module, out)| Dots { w: &layer.linear(*module).weight, out, add })
                    .collect();
                dots_all(isa.exact(), x, &mut products);
            }
        }
        for (module, out) in outs {
            if let Some(bias) = &layer.linear(*module).bias {
                out.chunks_exact_mut(bias.len()).for_each(|row| add_scaled(row, bias, 1.0));
            }
            self.add_adapters((at, *module), x, out);
        }
    }

    /// Adds the updates of adapters, for neighbours with the same one together.
    fn add_adapters(&self, (layer, module): (usize, Module), x: &[f32], out: &mut [f32]) {
        let (inputs, outputs) = (x.len() / self.tokens, out.len() / self.tokens);
        let mut span = 0;
        while span < self.spans.len() {
            let adapter = self.spans[span].adapter;
            let from = self.starts[span];
            while span < self.spans.len() && self.spans[span].adapter == adapter {
                span += 1;
            }
            let to = self.starts.get(span).copied().unwrap_or(self.tokens);
            let Some(apart) = adapter.and_then(|at| self.network.apart.get(at)) else { continue };
            let (x, out) = (&x[from * inputs..to * inputs], &mut out[from * outputs..to * outputs]);
            apart.add(self.network.isa.exact(), (layer, module), x, out);
        }
    }

    /// Turns heads to their positions.
    fn turn(&self, rows: &mut [f32]) {
        let width = rows.len() / self.tokens;
        let of = |span: &Span<'_>| span.first..span.first + span.ids.len();
        let positions: Vec<usize> = self.spans.iter().flat_map(of).collect();
        each_chunk(rows, 32 * width, |at, rows| {
            for (row, position) in rows.chunks_exact_mut(width).zip(&positions[32 * at..]) {
                self.network.rope.turn(row, *position, false);
            }
        });
    }

    /// Puts keys and values into the pages.
    fn put(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let width = k.len() / self.tokens;
        let mut rows = k.chunks_exact(width).zip(v.chunks_exact(width));
        for span in self.spans.iter_mut() {
            let positions = span.first..span.first + span.ids.len();
            for (position, (k, v)) in positions.zip(&mut rows) {
                // A page that others read is full, and nothing is put into it.
                if let Some(page) = Arc::get_mut(&mut span.pages[position / PAGE]) {
                    page.put(layer, position % PAGE, k, v);
                }
            }
        }
    }

    /// Attends from blocks of queries of prompts, page by page.
    fn attend_prompts(&self, layer: usize, q: &[f32], out: &mut [f32]) {
        let config = &self.network.weights.config;
        let (heads, group, head) = (config.num_key_value_heads, config.group(), config.head_dim);
        let line = config.q_dim();
        let mut tasks = Vec::new();
        for (span, start) in self.spans.iter().zip(&self.starts) {
            let end = span.first + span.ids.len();
            for block in span.first / PAGE..end.div_ceil(PAGE) {
                let (from, to) = ((block * PAGE).max(span.first), ((block + 1) * PAGE).min(end));
                let at = start + from - span.first;
                let of = |kv| Queries { span, kv, from, count: to - from, at };
                tasks.extend((0..heads).map(of));
            }
        }
        let made = tasks.par_iter().map(|task| self.attend_block(layer, q, task));
        let made: Vec<Buffer> = made.collect();
        for (task, made) in tasks.iter().zip(&made) {
            for (i, made) in made.chunks_exact(group * head).enumerate() {
                let at = (task.at + i) * line + task.kv * group * head;
                out[at..at + group * head].copy_from_slice(made);
            }
        }
    }

    /// Attends from the queries of a block, for the query heads of a key head.
    fn attend_block(&self, layer: usize, q: &[f32], task: &Queries<'_, '_>) -> Buffer {
        let config = &self.network.weights.config;
        let (group, head, line) = (config.group(), config.head_dim, config.q_dim());
        let product = Product::new(self.network.isa).alone();
        let mut dense = Buffer::new(task.count * group * head);
        for (i, dense) in dense.chunks_exact_mut(group * head).enumerate() {
            let at = (task.at + i) * line + task.kv * group * head;
            dense.copy_from_slice(&q[at..at + group * head]);
        }
        let pages = &task.span.pages[..task.from / PAGE + 1];
        let (rows, seen) = (task.count * group, pages.len() * PAGE);
        let mut p = Buffer::new(rows * seen);
        let scores = product.scaled(1.0 / (head as f32).sqrt());
        for (i, page) in pages.iter().enumerate() {
            let (keys, _) = page.of(layer, task.kv);
            let to = MatMut::strided(&mut p[i * PAGE..], rows, PAGE, seen);
            scores.run(to, Mat::new(&dense, head), Mat::new(keys, PAGE));
        }
        for (i, row) in p.chunks_exact_mut(seen).enumerate() {
            let (past, future) = row.split_at_mut(task.from + i / group + 1);
            softmax_row(past);
            future.fill(0.0);
        }
        // The queries are no longer needed.
        let mut out = dense;
        for (i, page) in pages.iter().enumerate() {
            let (_, values) = page.of(layer, task.kv);
            let product = if i == 0 { product } else { product.added() };
            let p = Mat::strided(&p[i * PAGE..], rows, PAGE, seen);
            product.run(MatMut::new(&mut out, head), p, Mat::new(values, head));
        }
        out
    }

    /// Attends from tokens that were said.
    fn attend_said(&self, layer: usize, q: &[f32], out: &mut [f32]) {
        let config = &self.network.weights.config;
        let (heads, group, head) = (config.num_attention_heads, config.group(), config.head_dim);
        let scale = 1.0 / (head as f32).sqrt();
        let spans: &[Span<'_>] = self.spans;
        each_chunk(out, head, |task, out| {
            let (span, kv) = (&spans[task / heads], task % heads / group);
            let q = &q[task * head..][..head];
            let len = span.first + 1;
            let mut scores = Buffer::new(len.next_multiple_of(PAGE));
            for (scores, page) in scores.chunks_exact_mut(PAGE).zip(span.pages.iter()) {
                page_scores(q, page.of(layer, kv).0, scale, scores);
            }
            softmax_row(&mut scores[..len]);
            out.fill(0.0);
            for (weights, page) in scores[..len].chunks(PAGE).zip(span.pages.iter()) {
                page_values(weights, page.of(layer, kv).1, out);
            }
        });
    }
}

/// Queries of a block of a span, for a key head.
struct Queries<'s, 'a> {
    span: &'s Span<'a>,
    kv: usize,
    /// Position of the first, and how many there are.
    from: usize,
    count: usize,
    /// Place of the first among all tokens of the pass.
    at: usize,
}
