//! Batched decoding with a paged cache of keys and values.
//!
//! A row's tokens do not depend on what else is in the batch, nor on when it joined: every product,
//! norm and attention sum of a row runs in an order of its own. Weights are read in the precision
//! of their file, with activations in f32.

mod apart;
mod batch;
mod forward;
mod pages;
mod sample;
mod text;

use std::ops::ControlFlow;
use std::sync::Arc;

use apart::Apart;
pub use batch::{Batch, OnProgress};
use forward::{Kind, Span};
use pages::{PAGE, Pool};
pub use sample::{LogProbs, Sampling};
pub use text::TextStream;

use crate::error::ModelError;
use crate::foreign::Foreign;
use crate::kernels::{self, Isa};
use crate::lora::Adapter;
use crate::network::Network;
use crate::ops::Rope;
use crate::weights::Weights;

/// Bytes of keys and values that a batch takes at most where nothing else is said.
const MEMORY: usize = 2 << 30;
/// Tokens that one pass over a text takes.
const PASS: usize = 512;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The model said an end token, or who was told of its tokens ended it.
    Stop,
    /// The limit of new tokens was reached.
    Length,
    /// The row left before it had ended.
    Left,
}

impl Ended {
    /// Name as OpenAI's clients know it, and as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Left => "left",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New ids, without the end token.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Logarithms of probabilities of the new ids, where they were asked for.
    pub logprobs: Vec<LogProbs>,
}

/// What is known while decoding goes on. Rows are counted in the order in which they joined.
pub enum Progress<'a> {
    /// A row is being answered: there was room for it.
    Begun {
        /// Row.
        row: usize,
    },
    /// A prompt was read.
    Read {
        /// Row.
        row: usize,
    },
    /// A row got a token.
    Token {
        /// Row.
        row: usize,
        /// Its new id.
        id: u32,
        /// Logarithms of probabilities, where they were asked for.
        logprobs: Option<&'a LogProbs>,
    },
    /// A row ended.
    Done {
        /// Row.
        row: usize,
        /// Its answer.
        answer: &'a Generation,
    },
}

/// Hides tokens that must not be said: where constrained decoding takes hold.
pub trait TokenMask: Send {
    /// Sets the logits of tokens that may not follow what was said to negative infinity.
    fn apply(&mut self, said: &[u32], logits: &mut [f32]);
}

/// What is asked for.
#[derive(Default)]
pub struct Request {
    /// Ids of the prompt.
    pub prompt: Vec<u32>,
    /// New tokens at most.
    pub max_new: usize,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which of the decoder's adapters is added; its own where none is named.
    pub adapter: Option<usize>,
    /// Tell the logarithms of probabilities, and those of so many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// Hides tokens.
    pub mask: Option<Box<dyn TokenMask>>,
}

/// Decoding over a network.
pub struct Decoder {
    network: Reader,
    context: usize,
    memory: usize,
}

enum Reader {
    Ours(Box<forward::Network>),
    Foreign(Arc<Foreign>),
}

impl Decoder {
    /// Makes a decoder for texts of up to `context` tokens.
    pub fn new(weights: Arc<Weights>, context: usize) -> Self {
        Self::of(Network::Ours(weights), context)
    }

    /// Makes a decoder of a network for texts of up to `context` tokens. Its products round
    /// nothing.
    pub fn of(network: Network, context: usize) -> Self {
        match network {
            Network::Ours(weights) => {
                let context = context.min(weights.config.max_position_embeddings);
                let rope = Rope::of(&weights.config, context);
                let isa = kernels::isa().exact();
                let ours = forward::Network { weights, rope, apart: Vec::new(), own: None, isa };
                Self { network: Reader::Ours(Box::new(ours)), context, memory: MEMORY }
            }
            Network::Foreign(foreign) => {
                let context = context.min(foreign.context());
                Self { network: Reader::Foreign(foreign), context, memory: MEMORY }
            }
        }
    }

    /// Makes a decoder of a network with an adapter, which every row takes that names no other. It
    /// is added to weights that stand in memory as they are, and stays apart from packed ones, so
    /// that these stay small.
    ///
    /// # Errors
    /// When the adapter does not fit, or the network is not one of ours.
    pub fn adapted(
        network: Network,
        adapter: Option<&Adapter>,
        context: usize,
    ) -> Result<Self, ModelError> {
        let Some(adapter) = adapter else { return Ok(Self::of(network, context)) };
        let weights = network.weights()?;
        if !weights.is_packed() {
            return Ok(Self::new(Arc::new(weights.merged(adapter)?), context));
        }
        let mut decoder = Self::of(network, context);
        let own = decoder.add_adapter(adapter)?;
        if let Reader::Ours(ours) = &mut decoder.network {
            ours.own = Some(own);
        }
        Ok(decoder)
    }

    /// Takes another path: with tiles, prompts are read with factors rounded to bf16.
    #[must_use]
    pub fn by(mut self, isa: Isa) -> Self {
        if let Reader::Ours(ours) = &mut self.network {
            ours.isa = isa;
        }
        self
    }

    /// Takes at most so many bytes for keys and values.
    #[must_use]
    pub fn within(self, memory: usize) -> Self {
        Self { memory, ..self }
    }

    /// Adds an adapter, which stays apart from the weights; returns its number.
    ///
    /// # Errors
    /// When it does not fit the model, or the model is none of ours.
    pub fn add_adapter(&mut self, adapter: &Adapter) -> Result<usize, ModelError> {
        match &mut self.network {
            Reader::Ours(ours) => {
                ours.apart.push(Apart::new(adapter, &ours.weights.config)?);
                Ok(ours.apart.len() - 1)
            }
            Reader::Foreign(foreign) => {
                let what = format!("{} is evaluated without adapters", foreign.family());
                Err(ModelError::Unsupported(what))
            }
        }
    }

    /// Ids that the model knows.
    pub fn vocabulary(&self) -> usize {
        match &self.network {
            Reader::Ours(ours) => ours.weights.config.vocab_size,
            Reader::Foreign(foreign) => foreign.vocabulary(),
        }
    }

    /// Tokens that a text may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Makes an empty batch of at most `rows` rows; none where the network is not one of ours.
    pub fn batch(&self, rows: usize) -> Option<Batch<'_>> {
        match &self.network {
            Reader::Ours(ours) => Some(Batch::new(ours, self.context, rows, self.memory)),
            Reader::Foreign(_) => None,
        }
    }

    /// Answers all requests, `rows` at once.
    ///
    /// # Errors
    /// Before anything is read: when a request is refused, as by [`Batch::join`]; a network that
    /// is not one of ours answers the likeliest tokens only.
    pub fn answer(
        &self,
        requests: Vec<Request>,
        rows: usize,
        progress: &mut OnProgress<'_>,
    ) -> Result<Vec<Generation>, ModelError> {
        let Some(mut batch) = self.batch(rows) else {
            return self.answer_alone(requests, progress);
        };
        let mut answers = vec![None; requests.len()];
        for request in requests {
            batch.join(request)?;
        }
        let mut keep = |what: Progress<'_>| {
            if let Progress::Done { row, answer } = &what {
                answers[*row] = Some((*answer).clone());
            }
            progress(what)
        };
        while !batch.is_empty() {
            batch.step(&mut keep);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Answers requests one after another.
    fn answer_alone(
        &self,
        requests: Vec<Request>,
        progress: &mut OnProgress<'_>,
    ) -> Result<Vec<Generation>, ModelError> {
        let Reader::Foreign(foreign) = &self.network else { return Ok(Vec::new()) };
        for request in &requests {
            let (tokens, new) = (request.prompt.len(), request.max_new);
            if tokens == 0 || tokens + new > self.context {
                return Err(ModelError::Context { tokens, new, context: self.context });
            }
            check_ids(request.prompt.iter(), foreign.vocabulary())?;
            let is_plain = request.sampling == Sampling::default()
                && request.logprobs.is_none()
                && request.mask.is_none();
            if !is_plain {
                let family = foreign.family();
                let what = format!("{family} is evaluated with the likeliest tokens only");
                return Err(ModelError::Unsupported(what));
            }
        }
        let mut answers = Vec::with_capacity(requests.len());
        for (row, request) in requests.iter().enumerate() {
            let _ = progress(Progress::Begun { row });
            let _ = progress(Progress::Read { row });
            let mut said = |id| {
                let _ = progress(Progress::Token { row, id, logprobs: None });
            };
            let eos = request.ends.first().copied().unwrap_or(u32::MAX);
            let (ids, is_ended) =
                foreign.answer(&request.prompt, request.max_new, eos, &mut said)?;
            let ended = if is_ended { Ended::Stop } else { Ended::Length };
            let prompt_tokens = request.prompt.len();
            let answer = Generation { ids, ended, prompt_tokens, logprobs: Vec::new() };
            let _ = progress(Progress::Done { row, answer: &answer });
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Answers prompts with the likeliest tokens, `rows` at once.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        max_new: usize,
        eos: u32,
        rows: usize,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Generation>, ModelError> {
        let request = |prompt: &Vec<u32>| Request {
            prompt: prompt.clone(),
            max_new,
            ends: vec![eos],
            ..Request::default()
        };
        self.answer(prompts.iter().map(request).collect(), rows, &mut |what| {
            progress(what);
            ControlFlow::Continue(())
        })
    }

    /// Returns the logits [tokens, vocabulary] behind each token of one text.
    ///
    /// # Errors
    /// When the text is empty or does not fit the context.
    pub fn text_logits(&self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut all = Vec::new();
        self.each_logits(ids, &mut |logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// Gives the logits behind each token of one text, a part of it at a time: [part, vocabulary].
    ///
    /// # Errors
    /// When the text is empty or does not fit the context.
    pub fn each_logits(&self, ids: &[u32], take: &mut dyn FnMut(&[f32])) -> Result<(), ModelError> {
        if ids.is_empty() || ids.len() > self.context {
            let tokens = ids.len();
            return Err(ModelError::Context { tokens, new: 0, context: self.context });
        }
        let ours = match &self.network {
            Reader::Ours(ours) => ours,
            Reader::Foreign(foreign) => {
                check_ids(ids.iter(), foreign.vocabulary())?;
                take(&foreign.text_logits(ids)?);
                return Ok(());
            }
        };
        check_ids(ids.iter(), ours.weights.config.vocab_size)?;
        let pool = Pool::new(&ours.weights.config, usize::MAX);
        let mut pages: Vec<_> = (0..ids.len().div_ceil(PAGE)).map(|_| pool.take()).collect();
        for (at, ids) in ids.chunks(PASS).enumerate() {
            let span = Span { first: at * PASS, ids, pages: &mut pages, adapter: None };
            let states = ours.forward(&mut [span], Kind::Prompt);
            let width = ours.weights.config.hidden_size;
            states.chunks(64 * width).for_each(|states| take(&ours.logits(states)));
        }
        Ok(())
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
