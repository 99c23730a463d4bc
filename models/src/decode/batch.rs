//! A running batch: rows join it and leave it between passes.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::forward::{Kind, Network, Span};
use super::pages::{PAGE, Page, Pool};
use super::sample::LogProbs;
use super::{Ended, Generation, Progress, Request};
use crate::error::ModelError;

/// Tokens of prompts that one pass takes at most, which bounds its memory and how long those that
/// are already answered wait.
const PASS: usize = 512;

/// Rows that are answered together.
pub struct Batch<'d> {
    network: &'d Network,
    context: usize,
    /// Rows that are answered at once.
    most: usize,
    pool: Pool,
    waiting: VecDeque<Row>,
    active: Vec<Row>,
    joined: usize,
}

/// A row being answered.
struct Row {
    id: usize,
    request: Request,
    /// Tokens of the prompt whose keys and values stand in pages.
    read: usize,
    /// The prompt, and what was said.
    text: Vec<u32>,
    /// Logarithms of probabilities of what was said, where they are wanted.
    logprobs: Vec<LogProbs>,
    pages: Vec<Arc<Page>>,
    promised: usize,
    /// Pages that are known, and the name of the last of them.
    named: usize,
    name: u64,
    ended: Option<Ended>,
}

impl Row {
    fn prompt(&self) -> usize {
        self.request.prompt.len()
    }

    fn said(&self) -> usize {
        self.text.len() - self.prompt()
    }

    /// Takes pages that are known, as long as something of the prompt is left to read.
    fn take_known(&mut self, pool: &mut Pool) {
        while self.read.is_multiple_of(PAGE) && self.read + PAGE < self.prompt() {
            let ids = &self.text[self.read..self.read + PAGE];
            let Some((page, name)) = pool.find(self.name, ids) else { return };
            self.pages.push(page);
            self.read += PAGE;
            self.named += 1;
            self.name = name;
        }
    }

    /// The next page of the prompt, if all of it is to be read: what others may want too.
    fn next_page(&self) -> Option<(u64, Vec<u32>)> {
        let is_whole = self.read.is_multiple_of(PAGE) && self.read + PAGE < self.prompt();
        is_whole.then(|| (self.name, self.text[self.read..self.read + PAGE].to_vec()))
    }

    /// Makes the pages that the next `len` tokens are put into.
    fn take_pages(&mut self, from: usize, len: usize, pool: &Pool) {
        while self.pages.len() * PAGE < from + len {
            self.pages.push(pool.take());
        }
    }

    /// Tells others of the pages that the prompt has filled.
    fn name_pages(&mut self, pool: &mut Pool) {
        while (self.named + 1) * PAGE <= self.read {
            let at = self.named * PAGE;
            let page = &self.pages[self.named];
            self.name = pool.keep(self.name, &self.text[at..at + PAGE], page);
            self.named += 1;
        }
    }

    /// Takes a token that was chosen.
    fn take(&mut self, id: u32, logits: &[f32], progress: &mut OnProgress<'_>) {
        let row = self.id;
        if self.request.ends.contains(&id) {
            self.ended = Some(Ended::Stop);
            return;
        }
        if self.said() >= self.request.max_new {
            self.ended = Some(Ended::Length);
            return;
        }
        let logprobs = self.request.logprobs.map(|count| LogProbs::of(logits, id, count));
        self.text.push(id);
        let token = Progress::Token { row, id, logprobs: logprobs.as_ref() };
        let goes_on = progress(token).is_continue();
        self.logprobs.extend(logprobs);
        if !goes_on {
            self.ended = Some(Ended::Stop);
        } else if self.said() >= self.request.max_new {
            self.ended = Some(Ended::Length);
        }
    }

    fn answer(self) -> Generation {
        let prompt_tokens = self.request.prompt.len();
        Generation {
            ids: self.text[prompt_tokens..].to_vec(),
            ended: self.ended.unwrap_or(Ended::Left),
            prompt_tokens,
            logprobs: self.logprobs,
        }
    }
}

/// Is told what happens; a break behind a token ends its row.
pub type OnProgress<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

impl<'d> Batch<'d> {
    /// Makes an empty batch of at most `most` rows, whose keys and values take at most `memory`
    /// bytes.
    pub(super) fn new(network: &'d Network, context: usize, most: usize, memory: usize) -> Self {
        Self {
            network,
            context,
            most: most.max(1),
            pool: Pool::new(&network.weights.config, memory),
            waiting: VecDeque::new(),
            active: Vec::new(),
            joined: 0,
        }
    }

    /// Lets a row join, behind those that wait; returns its number. It is answered as soon as
    /// there is room.
    ///
    /// # Errors
    /// When the prompt is empty, does not fit the context or the pages with its new tokens behind
    /// it, holds what the model does not know, or names what there is not.
    pub fn join(&mut self, mut request: Request) -> Result<usize, ModelError> {
        request.adapter = request.adapter.or(self.network.own);
        let (tokens, new) = (request.prompt.len(), request.max_new);
        let whole = tokens.saturating_add(new);
        if tokens == 0 || whole > self.context {
            return Err(ModelError::Context { tokens, new, context: self.context });
        }
        super::check_ids(request.prompt.iter(), self.network.weights.config.vocab_size)?;
        request.sampling.check().map_err(ModelError::Sampling)?;
        if request.adapter.is_some_and(|adapter| adapter >= self.network.apart.len()) {
            return Err(ModelError::Adapter("no such adapter was loaded".to_owned()));
        }
        let promised = whole.div_ceil(PAGE);
        if promised > self.pool.most() {
            let most = self.pool.most();
            return Err(ModelError::Pages { tokens: whole, needed: promised, most });
        }
        let id = self.joined;
        self.joined += 1;
        // Rows with another adapter read other keys and values.
        let name = request.adapter.map_or(0, |adapter| adapter as u64 + 1);
        self.waiting.push_back(Row {
            id,
            read: 0,
            text: request.prompt.clone(),
            logprobs: Vec::new(),
            pages: Vec::new(),
            promised,
            named: 0,
            name,
            ended: None,
            request,
        });
        Ok(id)
    }

    /// Lets a row leave before it has ended; returns what it has said.
    pub fn leave(&mut self, id: usize) -> Option<Generation> {
        if let Some(at) = self.waiting.iter().position(|row| row.id == id) {
            return self.waiting.remove(at).map(Row::answer);
        }
        let at = self.active.iter().position(|row| row.id == id)?;
        let row = self.active.remove(at);
        self.pool.release(row.promised);
        Some(row.answer())
    }

    /// Says whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// Returns how many rows wait, and how many are being answered.
    pub fn rows(&self) -> (usize, usize) {
        (self.waiting.len(), self.active.len())
    }

    /// Reads a part of the prompts that were not read yet, and says a token of each row whose
    /// prompt was.
    pub fn step(&mut self, progress: &mut OnProgress<'_>) {
        while self.active.len() < self.most
            && self.waiting.front().is_some_and(|row| self.pool.promise(row.promised))
        {
            let Some(row) = self.waiting.pop_front() else { break };
            let _ = progress(Progress::Begun { row: row.id });
            self.active.push(row);
        }
        self.read(progress);
        self.settle(progress);
        self.say(progress);
        self.settle(progress);
    }

    fn read(&mut self, progress: &mut OnProgress<'_>) {
        let mut left = PASS;
        let mut being_read: HashSet<(u64, Vec<u32>)> = HashSet::new();
        let mut lengths = vec![0; self.active.len()];
        for (row, length) in self.active.iter_mut().zip(&mut lengths) {
            if row.read == row.prompt() || left == 0 {
                continue;
            }
            row.take_known(&mut self.pool);
            // What another row is reading in this pass is known after it.
            if row.next_page().is_some_and(|page| !being_read.insert(page)) {
                continue;
            }
            *length = left.min(row.prompt() - row.read);
            row.take_pages(row.read, *length, &self.pool);
            left -= *length;
        }
        let readers = self.active.iter_mut().zip(&lengths).filter(|(_, length)| **length > 0);
        let mut spans: Vec<Span<'_>> = readers
            .map(|(row, length)| Span {
                first: row.read,
                ids: &row.text[row.read..row.read + length],
                pages: &mut row.pages,
                adapter: row.request.adapter,
            })
            .collect();
        if spans.is_empty() {
            return;
        }
        let states = self.network.forward(&mut spans, Kind::Prompt);
        let width = self.network.weights.config.hidden_size;
        let (mut behind, mut lasts, mut at) = (Vec::new(), Vec::new(), 0);
        for (i, (row, length)) in self.active.iter_mut().zip(&lengths).enumerate() {
            if *length == 0 {
                continue;
            }
            row.read += length;
            at += length;
            row.name_pages(&mut self.pool);
            if row.read == row.prompt() {
                behind.push(i);
                lasts.extend_from_slice(&states[(at - 1) * width..at * width]);
                let _ = progress(Progress::Read { row: row.id });
            }
        }
        self.choose(&lasts, &behind, progress);
    }

    /// Says the next token of all rows whose prompt was read and that have said one.
    fn say(&mut self, progress: &mut OnProgress<'_>) {
        let pool = &self.pool;
        let mut behind = Vec::new();
        let mut spans = Vec::new();
        for (i, row) in self.active.iter_mut().enumerate() {
            if row.read < row.prompt() || row.said() == 0 {
                continue;
            }
            let first = row.text.len() - 1;
            row.take_pages(first, 1, pool);
            behind.push(i);
            spans.push(Span {
                first,
                ids: &row.text[first..],
                pages: &mut row.pages,
                adapter: row.request.adapter,
            });
        }
        if spans.is_empty() {
            return;
        }
        let states = self.network.forward(&mut spans, Kind::Said);
        self.choose(&states, &behind, progress);
    }

    /// Chooses the tokens behind states, which are of the rows `behind`.
    fn choose(&mut self, states: &[f32], behind: &[usize], progress: &mut OnProgress<'_>) {
        if behind.is_empty() {
            return;
        }
        let mut logits = self.network.logits(states);
        let vocabulary = self.network.weights.config.vocab_size;
        for (i, logits) in behind.iter().zip(logits.chunks_exact_mut(vocabulary)) {
            let row = &mut self.active[*i];
            let said = row.said();
            if let Some(mask) = &mut row.request.mask {
                mask.apply(&row.text[row.request.prompt.len()..], logits);
            }
            let sampling = &row.request.sampling;
            // Probabilities are told as the model gives them, before anything is changed.
            let plain = row.request.logprobs.is_some().then(|| logits.to_vec());
            let id = sampling.choose(logits, &row.text, said);
            row.take(id, plain.as_deref().unwrap_or_default(), progress);
        }
    }

    /// Moves out the rows that have ended.
    fn settle(&mut self, progress: &mut OnProgress<'_>) {
        let mut at = 0;
        while at < self.active.len() {
            if self.active[at].ended.is_none() {
                at += 1;
                continue;
            }
            let row = self.active.remove(at);
            self.pool.release(row.promised);
            let id = row.id;
            let answer = row.answer();
            let _ = progress(Progress::Done { row: id, answer: &answer });
        }
    }
}
