//! The work of evaluating, apart from recording it.

use std::ops::ControlFlow;
use std::time::Instant;

use datasets::{Case, SuiteManifest};
use indicatif::ProgressBar;
use ledger::Digest;
use ledger::catalogue::CaseScored;
use models::decode::{Decoder, Progress, Request};

use super::arm::Local;
use crate::error::AppError;
use crate::lab::body_ref;
use crate::prompt;
use crate::rows::Traces;

/// Rows that are answered together.
const ROWS: usize = 32;
/// Tokens of a prompt and its answer at most.
const CONTEXT: usize = 4096;

/// An answer to a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Tokens of the prompt, where known.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer, where known.
    pub answer_tokens: Option<u32>,
    /// `stop`, `length` or `recorded`.
    pub ended: &'static str,
}

/// An answer with what was measured.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer; none where a recorded arm has none.
    pub answer: Option<Answer>,
    /// From when there was room for it to its end, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Rows that were answered at once.
    pub batch: usize,
}

/// Makes the decoder of an arm, for the longest of the cases.
///
/// # Errors
/// When the adapter does not fit the model.
pub fn decoder(local: &Local<'_>) -> Result<Decoder, AppError> {
    let network = local.model.network.clone();
    Ok(Decoder::adapted(network, local.numbers.as_deref(), CONTEXT)?.by(local.isa))
}

/// Answers cases, in order.
///
/// # Errors
/// When a prompt does not fit the context.
pub fn answer_cases(
    local: &Local<'_>,
    cases: &[&Case],
    bar: &ProgressBar,
) -> Result<Vec<Answered>, AppError> {
    let decoder = decoder(local)?;
    let renderer = &local.model.renderer;
    let eos = renderer.tokenizer().eos();
    let max_new = local.max_new_tokens as usize;
    let request = |case: &&Case| {
        let messages = prompt::messages(&case.turns, local.cep.as_ref());
        let prompt = renderer.prompt(&messages)?;
        Ok(Request { prompt, max_new, ends: vec![eos], ..Request::default() })
    };
    let requests = cases.iter().map(request).collect::<Result<Vec<_>, AppError>>()?;
    let mut began = vec![None; cases.len()];
    let mut latencies = vec![None; cases.len()];
    let mut progress = |what: Progress<'_>| {
        match what {
            Progress::Begun { row } => began[row] = Some(Instant::now()),
            Progress::Done { row, .. } => {
                let seconds = began[row].map(|began: Instant| began.elapsed().as_secs_f64());
                latencies[row] = seconds.map(|seconds| seconds * 1000.0);
                bar.inc(1);
            }
            Progress::Read { .. } | Progress::Token { .. } => {}
        }
        ControlFlow::Continue(())
    };
    let made = decoder.answer(requests, ROWS, &mut progress)?;
    let batch = ROWS.min(cases.len());
    let answered = made.iter().zip(latencies).map(|(generation, latency_ms)| {
        let answer = Answer {
            text: renderer.tokenizer().decode(&generation.ids)?,
            prompt_tokens: u32::try_from(generation.prompt_tokens).ok(),
            answer_tokens: u32::try_from(generation.ids.len()).ok(),
            ended: generation.ended.name(),
        };
        Ok(Answered { answer: Some(answer), latency_ms, batch })
    });
    answered.collect()
}

/// Finds the recorded answers to all cases of a suite, in order.
///
/// # Errors
/// When the source is unknown or a body is missing or damaged.
pub fn answers_recorded(
    traces: &Traces,
    source: &str,
    manifest: &SuiteManifest,
) -> Result<Vec<Answered>, AppError> {
    let rows = traces.of_sources(&[source.to_owned()])?;
    let found = manifest.recorded_answers(&rows);
    let answer =
        |text: String| Answer { text, prompt_tokens: None, answer_tokens: None, ended: "recorded" };
    let answered = |recorded: Option<datasets::suite::Recorded>| Answered {
        answer: recorded.map(|recorded| answer(recorded.text)),
        latency_ms: None,
        batch: 1,
    };
    Ok(found.into_iter().map(answered).collect())
}

/// Returns the facts of one scored case.
pub fn case_facts(
    manifest: &SuiteManifest,
    (index, case): (usize, &Case),
    deployment: Digest,
    answered: &Answered,
) -> CaseScored {
    let answer = answered.answer.as_ref();
    let text = answer.map(|answer| answer.text.as_str());
    let score = datasets::score::score(manifest.track(), &case.expected, text);
    CaseScored {
        suite: manifest.identity(),
        deployment,
        scorer: manifest.scorer,
        case: case.id.clone(),
        index: u32::try_from(index).unwrap_or(u32::MAX),
        stratum: case.stratum.clone(),
        tool: case.tool.clone(),
        strict: score.strict,
        lenient: score.lenient,
        issues: score.issues,
        answer: text.map(|text| body_ref(text.as_bytes())),
        prompt_tokens: answer.and_then(|answer| answer.prompt_tokens),
        answer_tokens: answer.and_then(|answer| answer.answer_tokens),
        ended: answer.map_or("missing", |answer| answer.ended).to_owned(),
    }
}
