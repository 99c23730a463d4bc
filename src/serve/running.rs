//! The thread that answers all calls of a deployment together.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};

use models::ModelError;
use models::decode::{Batch, Decoder, Ended, Generation, Progress, Request};

use crate::error::{AppError, Kind};

/// Calls that are answered at once.
const ROWS: usize = 32;

/// What a call is told.
enum Said {
    Token(u32),
    Done(Generation),
    Refused(ModelError),
}

struct Job {
    request: Request,
    said: Sender<Said>,
}

/// Hands calls to the thread; it ends when this is dropped and all calls are answered.
pub(super) struct Running {
    jobs: Sender<Job>,
}

impl Running {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn start(decoder: Decoder) -> Result<Self, AppError> {
        let (jobs, came) = channel();
        std::thread::Builder::new()
            .name("decoder".to_owned())
            .spawn(move || match decoder.batch(ROWS) {
                Some(batch) => together(batch, &came),
                None => one_by_one(&decoder, &came),
            })
            .map_err(|error| AppError::said(Kind::Internal, format!("no thread: {error}")))?;
        Ok(Self { jobs })
    }

    /// Answers a request; `token` gets each new id, and ends the answer with a break.
    ///
    /// # Errors
    /// When the request is refused.
    pub(super) fn answer(
        &self,
        request: Request,
        token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation, AppError> {
        let (said, hears) = channel();
        let gone = || AppError::said(Kind::Internal, "the answer broke off");
        let prompt_tokens = request.prompt.len();
        self.jobs.send(Job { request, said }).map_err(|_| gone())?;
        let mut ids = Vec::new();
        loop {
            match hears.recv().map_err(|_| gone())? {
                Said::Token(id) => {
                    ids.push(id);
                    if token(id).is_break() {
                        break;
                    }
                }
                Said::Done(made) => return Ok(made),
                Said::Refused(error) => return Err(error.into()),
            }
        }
        // Whoever says more finds nobody who hears it, and ends the row.
        Ok(Generation { ids, ended: Ended::Stop, prompt_tokens, logprobs: Vec::new() })
    }
}

fn together(mut batch: Batch<'_>, came: &Receiver<Job>) {
    let mut hearers: HashMap<usize, Sender<Said>> = HashMap::new();
    loop {
        let first = if batch.is_empty() { came.recv().ok() } else { None };
        if first.is_none() && batch.is_empty() {
            return;
        }
        for Job { request, said } in first.into_iter().chain(came.try_iter()) {
            match batch.join(request) {
                Ok(row) => drop(hearers.insert(row, said)),
                Err(error) => drop(said.send(Said::Refused(error))),
            }
        }
        batch.step(&mut |what| tell(&mut hearers, &what));
    }
}

fn tell(hearers: &mut HashMap<usize, Sender<Said>>, what: &Progress<'_>) -> ControlFlow<()> {
    match what {
        Progress::Begun { .. } | Progress::Read { .. } => ControlFlow::Continue(()),
        Progress::Token { row, id, .. } => {
            let heard = hearers.get(row).is_some_and(|said| said.send(Said::Token(*id)).is_ok());
            if heard { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }
        Progress::Done { row, answer } => {
            if let Some(said) = hearers.remove(row) {
                let _ = said.send(Said::Done((*answer).clone()));
            }
            ControlFlow::Continue(())
        }
    }
}

/// Answers calls one after another, where the network knows no batches.
fn one_by_one(decoder: &Decoder, came: &Receiver<Job>) {
    for Job { request, said } in came {
        let mut hearers = HashMap::from([(0, said.clone())]);
        let made = decoder.answer(vec![request], 1, &mut |what| tell(&mut hearers, &what));
        if let Err(error) = made {
            let _ = said.send(Said::Refused(error));
        }
    }
}
