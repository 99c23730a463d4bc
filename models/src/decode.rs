//! Batched greedy decoding with a key-value cache.
//!
//! A row's tokens do not depend on what else is in the batch: every product, norm and attention
//! sum of a row runs in an order of its own.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::ModelError;
use crate::foreign::Foreign;
use crate::kernels::{argmax, attend_head, matmul_nt, rms_norm_row, swiglu_row};
use crate::lora::Module;
use crate::network::Network;
use crate::ops::Rope;
use crate::weights::{Layer, Weights};

/// Tokens that one forward pass takes at most, which bounds its memory.
const PASS: usize = 512;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The model said the end token.
    Stop,
    /// The limit of new tokens was reached.
    Length,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// New ids, without the end token.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// What is known while decoding goes on.
pub enum Progress<'a> {
    /// Another prompt was read.
    Read,
    /// A row got a token.
    Token {
        /// Row, in the order of the prompts.
        row: usize,
        /// Its new id.
        id: u32,
    },
    /// A row ended.
    Done {
        /// Row, in the order of the prompts.
        row: usize,
        /// Its answer.
        answer: &'a Generation,
    },
}

/// Greedy decoding over a network.
pub struct Decoder {
    network: Reader,
    context: usize,
}

enum Reader {
    Ours(Ours),
    Foreign(Arc<Foreign>),
}

/// Greedy decoding over frozen (or merged) weights.
struct Ours {
    weights: Arc<Weights>,
    rope: Rope,
}

/// Keys (turned) and values of one row: for each layer [tokens, kv].
#[derive(Clone)]
struct Cache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    len: usize,
}

/// One token to read: its row's place among the caches, its id and position.
#[derive(Clone, Copy)]
struct Token {
    row: usize,
    id: u32,
    position: usize,
}

/// A row being answered.
struct Row {
    prompt_tokens: usize,
    ids: Vec<u32>,
    place: usize,
}

impl Decoder {
    /// Makes a decoder for texts of up to `context` tokens.
    pub fn new(weights: Arc<Weights>, context: usize) -> Self {
        Self::of(Network::Ours(weights), context)
    }

    /// Makes a decoder of a network for texts of up to `context` tokens.
    pub fn of(network: Network, context: usize) -> Self {
        match network {
            Network::Ours(weights) => {
                let context = context.min(weights.config.max_position_embeddings);
                let rope = Rope::of(&weights.config, context);
                Self { network: Reader::Ours(Ours { weights, rope }), context }
            }
            Network::Foreign(foreign) => {
                let context = context.min(foreign.context());
                Self { network: Reader::Foreign(foreign), context }
            }
        }
    }

    /// Answers all prompts, `batch` at a time; what all prompts of a batch begin with is read once.
    ///
    /// # Errors
    /// When a prompt is empty or does not fit the context with `max_new` tokens behind it.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        eos: u32,
        batch: usize,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Generation>, ModelError> {
        for prompt in prompts {
            let tokens = prompt.len();
            if tokens == 0 || tokens + max_new > self.context {
                return Err(ModelError::Context { tokens, new: max_new, context: self.context });
            }
        }
        self.check(prompts.iter().flatten())?;
        let ours = match &self.network {
            Reader::Ours(ours) => ours,
            Reader::Foreign(foreign) => {
                return answer_alone(foreign, prompts, max_new, eos, progress);
            }
        };
        let mut answers = vec![None; prompts.len()];
        let batch = batch.max(1);
        for (i, prompts) in prompts.chunks(batch).enumerate() {
            let limits = Limits { max_new, eos, first: i * batch };
            ours.answer_batch(prompts, &limits, &mut answers, progress);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn check<'a>(&self, ids: impl Iterator<Item = &'a u32>) -> Result<(), ModelError> {
        check_ids(
            ids,
            match &self.network {
                Reader::Ours(ours) => ours.weights.config.vocab_size,
                Reader::Foreign(foreign) => foreign.vocabulary(),
            },
        )
    }

    /// Returns the logits [tokens, vocabulary] behind each token of one text.
    ///
    /// # Errors
    /// When the text is empty or does not fit the context.
    pub fn text_logits(&self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        if ids.is_empty() || ids.len() > self.context {
            let tokens = ids.len();
            return Err(ModelError::Context { tokens, new: 0, context: self.context });
        }
        self.check(ids.iter())?;
        match &self.network {
            Reader::Ours(ours) => Ok(ours.text_logits(ids)),
            Reader::Foreign(foreign) => foreign.text_logits(ids),
        }
    }
}

/// Says whether a model knows all ids: a tokenizer may have more than it.
///
/// # Errors
/// Names the first that it does not know.
pub fn check_ids<'a>(
    mut ids: impl Iterator<Item = &'a u32>,
    vocabulary: usize,
) -> Result<(), ModelError> {
    match ids.find(|id| **id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => Err(ModelError::Tokenizer(format!(
            "token {id} stands in the text, and the model knows {vocabulary}"
        ))),
    }
}

/// Answers prompts one after another.
fn answer_alone(
    foreign: &Foreign,
    prompts: &[Vec<u32>],
    max_new: usize,
    eos: u32,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Generation>, ModelError> {
    let mut answers = Vec::with_capacity(prompts.len());
    for (row, prompt) in prompts.iter().enumerate() {
        progress(Progress::Read);
        let mut said = |id| progress(Progress::Token { row, id });
        let (ids, is_ended) = foreign.answer(prompt, max_new, eos, &mut said)?;
        let ended = if is_ended { Ended::Stop } else { Ended::Length };
        let answer = Generation { ids, ended, prompt_tokens: prompt.len() };
        progress(Progress::Done { row, answer: &answer });
        answers.push(answer);
    }
    Ok(answers)
}

impl Ours {
    fn answer_batch(
        &self,
        prompts: &[Vec<u32>],
        limits: &Limits,
        answers: &mut [Option<Generation>],
        progress: &mut dyn FnMut(Progress<'_>),
    ) {
        let mut caches = Vec::with_capacity(prompts.len());
        let mut active: Vec<(Row, u32)> = Vec::with_capacity(prompts.len());
        let shared = common_prefix(prompts);
        let mut beginning = vec![Cache::new(self.weights.layers.len())];
        if let Some(prompt) = prompts.first() {
            self.read(&prompt[..shared], &mut beginning, 0);
        }
        for (place, prompt) in prompts.iter().enumerate() {
            caches.push(beginning[0].clone());
            let hidden = self.read(&prompt[shared..], &mut caches, place);
            let next = self.choose(&hidden);
            let row = Row { prompt_tokens: prompt.len(), ids: Vec::new(), place };
            active.push((row, next.first().copied().unwrap_or(limits.eos)));
            progress(Progress::Read);
        }
        drop(beginning);
        while !active.is_empty() {
            active = settle(active, limits, answers, progress);
            let position = |row: &Row| row.prompt_tokens + row.ids.len() - 1;
            let token =
                |(row, id): &(Row, u32)| Token { row: row.place, id: *id, position: position(row) };
            let tokens: Vec<Token> = active.iter().map(token).collect();
            if tokens.is_empty() {
                break;
            }
            let next = self.choose(&self.forward(&tokens, &mut caches));
            for ((_, id), next) in active.iter_mut().zip(next) {
                *id = next;
            }
        }
    }

    /// Reads a text behind what the cache at `place` holds; returns the last hidden state.
    fn read(&self, ids: &[u32], caches: &mut [Cache], place: usize) -> Vec<f32> {
        let width = self.weights.config.hidden_size;
        let mut hidden = Vec::new();
        for ids in ids.chunks(PASS) {
            let start = caches[place].len;
            let token = |(i, id): (usize, &u32)| Token { row: place, id: *id, position: start + i };
            let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
            hidden = self.forward(&tokens, caches);
            hidden.drain(..hidden.len() - width);
        }
        hidden
    }

    /// Reads tokens into the caches; returns the normed last states [tokens, hidden].
    fn forward(&self, tokens: &[Token], caches: &mut [Cache]) -> Vec<f32> {
        let width = self.weights.config.hidden_size;
        let mut x = vec![0.0; tokens.len() * width];
        for (token, row) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            self.weights.embed_tokens.read(token.id as usize, 0, row);
        }
        for (i, layer) in self.weights.layers.iter().enumerate() {
            self.attend(&mut x, layer, i, tokens, caches);
            self.feed_forward(&mut x, layer);
        }
        for token in tokens {
            caches[token.row].len = token.position + 1;
        }
        self.norm(&x, &self.weights.norm)
    }

    fn attend(
        &self,
        x: &mut [f32],
        layer: &Layer,
        i: usize,
        tokens: &[Token],
        caches: &mut [Cache],
    ) {
        let config = &self.weights.config;
        let (width, kv) = (config.q_dim(), config.kv_dim());
        let h = self.norm(x, &layer.input_layernorm);
        let widths = [(Module::QProj, width), (Module::KProj, kv), (Module::VProj, kv)];
        let parts = self.parts(&h, layer, Module::QkvProj, &widths);
        let Ok([mut q, mut k, v]) = <[Vec<f32>; 3]>::try_from(parts) else { return };
        let rows = q.chunks_exact_mut(width).zip(k.chunks_exact_mut(kv)).zip(v.chunks_exact(kv));
        for (((q, k), v), token) in rows.zip(tokens) {
            self.rope.turn(q, token.position, false);
            self.rope.turn(k, token.position, false);
            let cache = &mut caches[token.row];
            cache.keys[i].truncate(token.position * kv);
            cache.values[i].truncate(token.position * kv);
            cache.keys[i].extend_from_slice(k);
            cache.values[i].extend_from_slice(v);
        }
        let caches: &[Cache] = caches;
        let mut out = vec![0.0; q.len()];
        out.par_chunks_mut(width).zip(q.par_chunks(width)).zip(tokens).for_each(
            |((out, q), token)| {
                let cache = &caches[token.row];
                self.attention_row(out, q, (&cache.keys[i], &cache.values[i]), token.position + 1);
            },
        );
        add(x, &matmul_nt(&out, &layer.linear(Module::OProj).weight));
    }

    /// Computes one token's attention over `len` cached tokens.
    fn attention_row(&self, out: &mut [f32], q: &[f32], kv: (&[f32], &[f32]), len: usize) {
        let config = &self.weights.config;
        let (head, width, group) = (config.head_dim, config.kv_dim(), config.group());
        let mut scores = vec![0.0; len];
        for (h, (out, q)) in out.chunks_exact_mut(head).zip(q.chunks_exact(head)).enumerate() {
            let at = h / group * head;
            attend_head(q, (&kv.0[at..], &kv.1[at..]), width, &mut scores, out);
        }
    }

    fn feed_forward(&self, x: &mut [f32], layer: &Layer) {
        let config = &self.weights.config;
        let wide = config.intermediate_size;
        let h = self.norm(x, &layer.post_attention_layernorm);
        let widths = [(Module::GateProj, wide), (Module::UpProj, wide)];
        let parts = self.parts(&h, layer, Module::GateUpProj, &widths);
        let Ok([gate, up]) = <[Vec<f32>; 2]>::try_from(parts) else { return };
        let mut act = vec![0.0; gate.len()];
        let rows = act.par_chunks_mut(wide).zip(gate.par_chunks(wide));
        rows.zip(up.par_chunks(wide)).for_each(|((out, gate), up)| swiglu_row(gate, up, out));
        add(x, &matmul_nt(&act, &layer.linear(Module::DownProj).weight));
    }

    /// Computes modules that read the same: each for itself, or as parts of `whole` where the
    /// architecture holds them in one.
    fn parts(
        &self,
        x: &[f32],
        layer: &Layer,
        whole: Module,
        widths: &[(Module, usize)],
    ) -> Vec<Vec<f32>> {
        let linear = |module: Module| {
            let linear = layer.linear(module);
            let mut out = matmul_nt(x, &linear.weight);
            if let Some(bias) = &linear.bias {
                out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
            }
            out
        };
        if !self.weights.config.architecture.modules().contains(&whole) {
            return widths.iter().map(|(module, _)| linear(*module)).collect();
        }
        let all = linear(whole);
        let line: usize = widths.iter().map(|(_, width)| width).sum();
        let mut at = 0;
        let cut = |(_, width): &(Module, usize)| {
            let part = all.chunks_exact(line).flat_map(|row| &row[at..at + width]);
            let part = part.copied().collect();
            at += width;
            part
        };
        widths.iter().map(cut).collect()
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let eps = self.weights.config.rms_norm_eps;
        for (out, x) in out.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
            rms_norm_row(x, weight, eps, out);
        }
        out
    }

    /// Returns the likeliest next id of each state; of equal ones the lowest.
    fn choose(&self, hidden: &[f32]) -> Vec<u32> {
        let logits = self.logits(hidden);
        let vocabulary = self.weights.config.vocab_size;
        logits.par_chunks(vocabulary).map(argmax).collect()
    }

    fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        matmul_nt(hidden, &self.weights.lm_head)
    }

    fn text_logits(&self, ids: &[u32]) -> Vec<f32> {
        let mut caches = vec![Cache::new(self.weights.layers.len())];
        let token = |(position, id): (usize, &u32)| Token { row: 0, id: *id, position };
        let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
        let hidden: Vec<f32> =
            tokens.chunks(PASS).flat_map(|tokens| self.forward(tokens, &mut caches)).collect();
        self.logits(&hidden)
    }
}

/// What ends the rows of a batch, and where the batch begins among all prompts.
struct Limits {
    max_new: usize,
    eos: u32,
    first: usize,
}

impl Cache {
    fn new(layers: usize) -> Self {
        Self { keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers], len: 0 }
    }
}

/// Takes the chosen tokens into their rows and moves out the rows that end.
fn settle(
    active: Vec<(Row, u32)>,
    limits: &Limits,
    answers: &mut [Option<Generation>],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Vec<(Row, u32)> {
    let mut going = Vec::with_capacity(active.len());
    for (mut row, id) in active {
        let at = limits.first + row.place;
        let stop = id == limits.eos;
        if !stop && row.ids.len() < limits.max_new {
            row.ids.push(id);
            progress(Progress::Token { row: at, id });
        }
        if !stop && row.ids.len() < limits.max_new {
            going.push((row, id));
            continue;
        }
        let ended = if stop { Ended::Stop } else { Ended::Length };
        let answer = Generation { ids: row.ids, ended, prompt_tokens: row.prompt_tokens };
        progress(Progress::Done { row: at, answer: &answer });
        answers[at] = Some(answer);
    }
    going
}

/// Returns how many ids all prompts begin with, leaving at least one to each.
fn common_prefix(prompts: &[Vec<u32>]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    let shared = |other: &Vec<u32>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shortest = prompts.iter().map(Vec::len).min().unwrap_or(0);
    rest.iter().map(shared).min().unwrap_or(0).min(shortest.saturating_sub(1))
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
