//! The evaluation executor: one look at the suite, one event for each case, the outcome.

use std::collections::BTreeSet;
use std::time::Instant;

use datasets::leak::{in_text, leakage};
use datasets::{Case, SuiteManifest};
use ledger::Digest;
use ledger::catalogue::{
    CaseScored, Deployment, RunClaimed, RunFinished, RunInputs, RunOutcome, RunRequested,
    RunStarted, TestLookedAt,
};
use models::trainer::Target;
use serde_json::{Value, json};

use super::arm::Arm;
use super::work::{Answered, answer_cases, answers_recorded, case_facts};
use crate::build::{Suite, is_of_dev, load_split};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};
use crate::measure;
use crate::rows::Traces;

/// What should be evaluated.
pub struct EvalWish<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The arm.
    pub arm: &'a Arm<'a>,
    /// Name of the arm in tables.
    pub label: String,
    /// Go on although the suite's questions stand in the adapter's training side or the prefix.
    pub allow_leak: bool,
}

/// A finished evaluation.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Run id.
    pub run: String,
    /// What was evaluated.
    pub deployment: Deployment,
    /// Its identity.
    pub deployment_id: Digest,
    /// Cases.
    pub n: u64,
    /// Exact in the strict reading.
    pub exact_strict: u64,
    /// Exact in the lenient reading.
    pub exact_lenient: u64,
    /// The record had it already.
    pub known: bool,
}

/// Evaluates an arm on a suite. A finished evaluation is returned as it is; one that broke off
/// answers what is missing.
///
/// # Errors
/// When the suite leaks into the arm, a body is damaged, or the record refuses an event.
pub fn evaluate(lab: &Lab<'_>, wish: &EvalWish<'_>) -> Result<Evaluated, AppError> {
    let deployment = wish.arm.deployment();
    let deployment_id = Digest::of_json(&deployment)?;
    let request = json!({
        "work": "eval",
        "suite": wish.suite.facts.suite,
        "suite_event": wish.suite.event,
        "deployment": deployment,
        "label": wish.label,
        "scorer": wish.suite.facts.scorer,
    });
    let run = format!("eval-{}", Digest::of_json(&request)?.short());
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let known = state.runs.get(&run);
    let done = |outcome: &RunOutcome, known| match outcome {
        RunOutcome::Eval { n, exact_strict, exact_lenient } => Some(Evaluated {
            run: run.clone(),
            deployment: deployment.clone(),
            deployment_id,
            n: *n,
            exact_strict: *exact_strict,
            exact_lenient: *exact_lenient,
            known,
        }),
        RunOutcome::Train { .. } => None,
    };
    if let Some(done) = known.and_then(|k| k.outcome.as_ref()).and_then(|o| done(o, true)) {
        if let Some(RunInputs::Eval { leaked_questions, .. }) =
            known.and_then(|k| k.inputs.as_ref())
        {
            refuse_leak(wish, *leaked_questions)?;
        }
        return Ok(done);
    }
    let leaked = leaked_questions(lab, &wish.suite.manifest, wish.arm)?;
    refuse_leak(wish, leaked)?;
    let started = eval_started(wish.suite, wish.arm, (&run, &wish.label), leaked)?;
    let scored: BTreeSet<String> =
        known.map(|k| k.cases.iter().map(|c| c.facts.case.clone()).collect()).unwrap_or_default();
    begin(lab, wish, &started, request)?;
    let rate = answer(lab, wish, (&run, deployment_id), &scored)?;
    let outcome = finish(lab, wish, &run, rate)?;
    done(&outcome, false)
        .ok_or_else(|| AppError::said(Kind::Internal, "an evaluation with another outcome"))
}

/// Counts the suite's questions that stand in the arm's training data (as its questions or in its
/// prompts), or in its prefix, with their golds.
///
/// # Errors
/// When a body is missing or damaged.
pub fn leaked_questions(
    lab: &Lab<'_>,
    manifest: &SuiteManifest,
    arm: &Arm<'_>,
) -> Result<u64, AppError> {
    let Arm::Local(local) = arm else { return Ok(0) };
    let in_prefix = local.cep.iter().flat_map(|cep| in_text(manifest, &cep.text));
    let mut leaked: BTreeSet<String> = in_prefix.map(|found| found.case).collect();
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let training = state.runs.training_of(&local.deployment().adapter);
    let Some(RunInputs::Train { dataset, .. }) = training.and_then(|run| run.inputs.as_ref())
    else {
        return Ok(leaked.len() as u64);
    };
    let view = lab.view();
    let split = load_split(&view, &dataset.to_string())?;
    let traces = Traces::list(&view)?;
    // What a choice was made on is known to the adapter as well, so both sides count; but a dev
    // side that is looked at as a suite is just that.
    let choosing = is_of_dev(&manifest.spec);
    let kept = split.manifest.rows.iter();
    let kept = kept.filter(|row| !choosing || row.side == datasets::Side::Train);
    let rows =
        kept.map(|row| Ok((row.seq, traces.row(row)?))).collect::<Result<Vec<_>, AppError>>()?;
    let rows: Vec<(u64, &datasets::Episode)> = rows.iter().map(|(s, e)| (*s, e)).collect();
    let found = leakage(&rows, manifest);
    let cases = found.shared_questions.into_iter().chain(found.in_context);
    leaked.extend(cases.map(|shared| shared.case));
    Ok(leaked.len() as u64)
}

fn refuse_leak(wish: &EvalWish<'_>, leaked: u64) -> Result<(), AppError> {
    if leaked == 0 || wish.allow_leak {
        return Ok(());
    }
    let (name, n) = (wish.suite.manifest.name(), wish.suite.manifest.n());
    Err(AppError::hinted(
        Kind::Refused,
        format!(
            "suite {name} is contaminated for {}: {leaked} of its {n} questions stand in its \
             training data or prefix, whatever the template",
            wish.label
        ),
        "train without them (`ledger split --keep-out`), or look all the same with \
         --allow-leak: the arm is then marked `leak`, and no gate passes it",
    ))
}

/// Returns the facts with which an evaluation starts.
///
/// # Errors
/// When the deployment has no JSON form.
pub fn eval_started(
    suite: &Suite,
    arm: &Arm<'_>,
    (run, label): (&str, &str),
    leaked_questions: u64,
) -> Result<RunStarted, AppError> {
    let mut flags = arm.flags();
    if leaked_questions > 0 {
        flags.push("leak".to_owned());
    }
    let deployment = arm.deployment();
    Ok(RunStarted {
        run: run.to_owned(),
        inputs: RunInputs::Eval {
            name: suite.facts.name.clone(),
            suite: suite.facts.suite,
            suite_event: suite.event,
            scorer: suite.facts.scorer,
            deployment_id: Digest::of_json(&deployment)?,
            deployment,
            label: label.to_owned(),
            flags,
            leaked_questions,
        },
        // Greedy decoding draws nothing.
        seed: "0".to_owned(),
    })
}

fn begin(
    lab: &Lab<'_>,
    wish: &EvalWish<'_>,
    started: &RunStarted,
    request: Value,
) -> Result<(), AppError> {
    let run = &started.run;
    let stream = format!("run/{run}");
    let requested = RunRequested { run: run.clone(), work: "eval".to_owned(), request };
    let place = Place::run(run).because(wish.suite.event);
    let asked = lab.record(&stream, &format!("{run}/requested"), &requested, place)?;
    let claimed = RunClaimed { run: run.clone() };
    let place = Place::run(run).because(asked);
    let claimed = lab.record(&stream, &format!("{run}/claimed"), &claimed, place)?;
    let place = Place::run(run)
        .because(claimed)
        .measured(measure::environment(wish.arm.isa(), Target::Processor));
    let began = lab.record(&stream, &format!("{run}/started"), started, place)?;
    let look = TestLookedAt {
        name: wish.suite.facts.name.clone(),
        suite: wish.suite.facts.suite,
        deployment: Some(Digest::of_json(&wish.arm.deployment())?),
        scorer: wish.suite.facts.scorer,
        purpose: "eval".to_owned(),
    };
    let place = Place::run(run).because(began);
    lab.record(&format!("suite/{}", look.name), &format!("{run}/look"), &look, place)?;
    Ok(())
}

/// Answers what is not scored yet; returns the new tokens per second.
fn answer(
    lab: &Lab<'_>,
    wish: &EvalWish<'_>,
    (run, deployment_id): (&str, Digest),
    scored: &BTreeSet<String>,
) -> Result<Option<f64>, AppError> {
    let manifest = &wish.suite.manifest;
    let missing: Vec<(usize, &Case)> =
        manifest.cases.iter().enumerate().filter(|(_, c)| !scored.contains(&c.id)).collect();
    let began = Instant::now();
    let answered: Vec<Answered> = match wish.arm {
        Arm::Local(local) => {
            let cases: Vec<&Case> = missing.iter().map(|(_, case)| *case).collect();
            let bar = lab.talk.bar(cases.len() as u64, &wish.label);
            let answered = answer_cases(local, &cases, &bar)?;
            bar.finish_and_clear();
            answered
        }
        Arm::Recorded(recorded) => {
            let traces = Traces::list(&lab.view())?;
            let all = answers_recorded(&traces, &recorded.source, manifest)?;
            missing.iter().filter_map(|(i, _)| all.get(*i).cloned()).collect()
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let texts = answered.iter().filter_map(|a| a.answer.as_ref());
    let bodies: Vec<Vec<u8>> = texts.map(|answer| answer.text.clone().into_bytes()).collect();
    lab.notebook.blobs().put_many(&bodies)?;
    let stream = format!("run/{run}");
    let mut events = Vec::with_capacity(missing.len());
    for (case, answered) in missing.iter().zip(&answered) {
        let facts: CaseScored = case_facts(manifest, *case, deployment_id, answered);
        let measured = match answered.latency_ms {
            Some(latency) => json!({
                "latency_ms": latency,
                "batch": answered.batch,
                "run_seconds": seconds,
            }),
            None => json!({}),
        };
        let place = Place::run(run).measured(measured);
        events.push(lab.event(&stream, &format!("{run}/case/{}", facts.case), &facts, place)?);
    }
    lab.notebook.append(&[], events)?;
    let new = answered.iter().filter_map(|a| a.answer.as_ref()?.answer_tokens);
    let new: u64 = new.map(u64::from).sum();
    // Reading the prompts is part of the time.
    Ok((new > 0).then(|| new as f64 / seconds))
}

fn finish(
    lab: &Lab<'_>,
    wish: &EvalWish<'_>,
    run: &str,
    tokens_per_second: Option<f64>,
) -> Result<RunOutcome, AppError> {
    let state = queries::projection::fold_all(&lab.notebook.reader())?;
    let cases = state.runs.get(run).map(|known| known.cases.as_slice()).unwrap_or_default();
    let n = cases.len() as u64;
    if n != wish.suite.manifest.n() {
        let want = wish.suite.manifest.n();
        let what = format!("run {run} scored {n} of {want} cases");
        return Err(AppError::said(Kind::Internal, what));
    }
    let count = |exact: fn(&CaseScored) -> bool| {
        cases.iter().filter(|case| exact(&case.facts)).count() as u64
    };
    let outcome = RunOutcome::Eval {
        n,
        exact_strict: count(|case| case.strict.exact),
        exact_lenient: count(|case| case.lenient.exact),
    };
    let facts = RunFinished { run: run.to_owned(), outcome: outcome.clone() };
    let mut measured = json!({ "peak_rss_mb": measure::peak_rss_mb() });
    if let Some(rate) = tokens_per_second {
        measured["tokens_per_second"] = json!(rate);
    }
    let place = Place::run(run).measured(measured);
    lab.record(&format!("run/{run}"), &format!("{run}/finished"), &facts, place)?;
    Ok(outcome)
}
