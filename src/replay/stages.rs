//! Doing suites, splits, training and evaluation again.

use datasets::{Case, SuiteSpec};
use ledger::catalogue::{
    CaseScored, CheckpointSaved, RunFinished, RunInputs, RunOutcome, RunStarted, SplitBuilt,
    StepCompleted, SuiteBuilt, TestLookedAt,
};
use ledger::{Digest, Envelope, Facts as _};
use models::kernels;
use models::trainer::Target;
use queries::replay::{self, Replayed};

use super::{Redone, ReplayWish};
use crate::build::{load_split, load_suite, split_facts, suite_facts};
use crate::error::{AppError, Kind};
use crate::eval::{
    Answered, Arm, RECORDED, Recorded, answer_cases, answers_recorded, case_facts, eval_started,
    find_cep, leaked_questions,
};
use crate::hub::Base;
use crate::lab::{Lab, Place};
use crate::measure;
use crate::rows::{Traces, View};
use crate::serve::engine;
use crate::train::{self, Made, Plan, Recipe, RowSet, Work};

/// Builds a suite again from what stood before it.
pub(super) fn suite(lab: &Lab<'_>, recorded: &[Envelope]) -> Result<Redone, AppError> {
    let mut replayed = Vec::new();
    for event in recorded {
        let facts: SuiteBuilt = event.facts()?;
        let spec: SuiteSpec = serde_json::from_value(facts.spec)?;
        let view = View::before(lab.notebook.reader(), event.seq);
        replayed.push(Replayed::new(&suite_facts(&view, &spec)?.0)?);
    }
    Ok(Redone { recorded: recorded.to_vec(), replayed, scope: None })
}

/// Builds a dataset again from what stood before it.
pub(super) fn split(lab: &Lab<'_>, recorded: &[Envelope]) -> Result<Redone, AppError> {
    let mut replayed = Vec::new();
    for event in recorded {
        let facts: SplitBuilt = event.facts()?;
        let wish = serde_json::from_value(facts.spec)?;
        let view = View::before(lab.notebook.reader(), event.seq);
        replayed.push(Replayed::new(&split_facts(&view, &wish)?.0)?);
    }
    Ok(Redone { recorded: recorded.to_vec(), replayed, scope: None })
}

/// Returns the first event of a kind.
fn first<F: ledger::Facts>(recorded: &[Envelope]) -> Result<(u64, F), AppError> {
    let found = recorded.iter().find(|event| event.kind == F::KIND);
    let missing = || AppError::said(Kind::Damaged, format!("the run has no {}", F::KIND));
    let event = found.ok_or_else(missing)?;
    Ok((event.seq, event.facts()?))
}

/// Returns the model, if it is the one that the run used.
fn base_of<'a>(base: Option<&'a Base>, wanted: &str) -> Result<&'a Base, AppError> {
    let hint = "name its file with --model";
    let Some(base) = base else {
        return Err(AppError::hinted(Kind::NotFound, "the run needs its base model", hint));
    };
    let found = Digest::from_bytes(base.model.digest).to_string();
    if found != wanted {
        let what = format!("{} has SHA-256 {found}, the run used {wanted}", base.name);
        return Err(AppError::hinted(Kind::Refused, what, hint));
    }
    Ok(base)
}

/// Trains again, up to a number of steps.
pub(super) fn train(
    lab: &Lab<'_>,
    base: Option<&Base>,
    wish: &ReplayWish,
    recorded: &[Envelope],
) -> Result<Redone, AppError> {
    let (_, began): (u64, RunStarted) = first(recorded)?;
    let way = recorded.iter().find(|event| event.kind == RunStarted::KIND).map(train::way_of);
    let (isa, target) = way.transpose()?.unwrap_or_else(|| (kernels::isa(), Target::Processor));
    let RunInputs::Train { model, base: wanted, dataset, split, cep, recipe, .. } = &began.inputs
    else {
        return Err(AppError::said(Kind::Damaged, "a training run with other inputs"));
    };
    let base = base_of(base, &wanted.to_string())?;
    let mut recipe: Recipe = serde_json::from_value(recipe.clone())?;
    for change in &wish.changes {
        recipe = recipe.set(change)?;
    }
    let view = View::before(lab.notebook.reader(), split + 1);
    let built = load_split(&view, &dataset.to_string())?;
    let cep_text = find_cep(&lab.view(), cep)?;
    let limit = recipe.max_tokens;
    let traces = Traces::list(&view)?;
    let rows = RowSet::render(&traces, &built, &base.model, cep_text.as_ref(), limit)?;
    let lora = recipe.lora().of_family(base.model.weights()?.config.architecture)?;
    // Where memory is short, computing again takes the least.
    let memory = train::memory(&base.model, &lora, (&recipe, &rows), None);
    let recompute = memory.map_or(true, |memory| memory.recompute);
    let plan = Plan {
        run: began.run.clone(),
        recipe,
        model: model.clone(),
        cep: cep.clone(),
        dataset: *dataset,
        split: *split,
        lora,
        isa,
        target,
        recompute,
    };
    // With a recipe changed on purpose, what it changes is asked, not that it was changed.
    let changed = !wish.changes.is_empty();
    let kept = |event: &&Envelope| {
        within(event, wish.steps) && !(changed && event.kind == RunStarted::KIND)
    };
    let recorded: Vec<Envelope> = recorded.iter().filter(kept).cloned().collect();
    let replayed = retrain(lab, base, (wish, &recorded), (&plan, &rows))?;
    let scope = wish.steps.map(|steps| format!("training: steps up to {steps}"));
    Ok(Redone { recorded, replayed, scope })
}

/// Says whether an event of a training run lies within the steps that are made again.
fn within(event: &Envelope, steps: Option<u64>) -> bool {
    let Some(steps) = steps else { return true };
    match event.kind.as_str() {
        RunStarted::KIND => true,
        StepCompleted::KIND | CheckpointSaved::KIND => {
            event.facts.get("step").and_then(serde_json::Value::as_u64).is_some_and(|s| s <= steps)
        }
        _ => false,
    }
}

fn retrain(
    lab: &Lab<'_>,
    base: &Base,
    (wish, recorded): (&ReplayWish, &[Envelope]),
    (plan, rows): (&Plan, &RowSet),
) -> Result<Vec<Replayed>, AppError> {
    let started = train::started(plan, &base.model)?;
    let mut replayed = Vec::new();
    if wish.changes.is_empty() {
        replayed.push(Replayed::new(&started)?);
    }
    let mut checkpoints: Vec<CheckpointSaved> = Vec::new();
    let mut work = Work::new(plan, &base.model, rows, None)?;
    let steps = wish.steps.unwrap_or(u64::MAX);
    let bar = lab.talk.bar(work.steps().min(steps), "training again");
    let mut made_steps = 0;
    work.run(&mut |made| {
        match made {
            Made::Step(facts) => {
                made_steps = facts.step;
                replayed.push(Replayed::new(&facts)?);
                bar.inc(1);
                if replay::compare(&recorded[..replayed.len().min(recorded.len())], &replayed)
                    .is_some()
                {
                    return Ok(false);
                }
                // At the end of an epoch its checkpoint still belongs to the step.
                let epoch_ends = facts.step % work_steps(rows, plan) == 0;
                return Ok(made_steps < steps || epoch_ends);
            }
            Made::Checkpoint(facts, _) => {
                replayed.push(Replayed::new(&facts)?);
                checkpoints.push(facts);
            }
        }
        Ok(made_steps < steps)
    })?;
    bar.finish_and_clear();
    if wish.steps.is_none() && work.is_over() {
        let (outcome, _) = train::outcome(&started, &plan.lora, &checkpoints, rows.truncated())?;
        replayed.push(Replayed::new(&RunFinished { run: plan.run.clone(), outcome })?);
    }
    Ok(replayed)
}

fn work_steps(rows: &RowSet, plan: &Plan) -> u64 {
    (rows.train.len() as u64).div_ceil((plan.recipe.batch * plan.recipe.accumulate) as u64)
}

/// Answers and scores again, up to a number of cases.
pub(super) fn eval(
    lab: &Lab<'_>,
    base: Option<&Base>,
    wish: &ReplayWish,
    recorded: &[Envelope],
) -> Result<Redone, AppError> {
    let (start, began): (u64, RunStarted) = first(recorded)?;
    let RunInputs::Eval { suite, scorer, deployment, deployment_id, label, .. } = &began.inputs
    else {
        return Err(AppError::said(Kind::Damaged, "an evaluation with other inputs"));
    };
    let view = View::before(lab.notebook.reader(), start);
    let built = load_suite(&view, &suite.to_string())?;
    let manifest = &built.manifest;
    let wanted = wish.cases.unwrap_or(usize::MAX);
    let mut cases: Vec<(usize, &Case)> = manifest.cases.iter().enumerate().collect();
    cases.truncate(wanted);
    let arm = if deployment.decoding.method == "unknown" {
        let source = deployment.base.strip_prefix(RECORDED).unwrap_or(&deployment.base);
        Arm::Recorded(Recorded { source: source.to_owned() })
    } else {
        let mut local = engine::local(&lab.view(), base_of(base, &deployment.base)?, deployment)?;
        let start = recorded.iter().find(|event| event.kind == RunStarted::KIND);
        local.isa = start.and_then(measure::path_of).unwrap_or(local.isa);
        Arm::Local(local)
    };
    let answered: Vec<Answered> = match &arm {
        Arm::Recorded(recorded) => {
            answers_recorded(&Traces::list(&view)?, &recorded.source, manifest)?
        }
        Arm::Local(local) => {
            let shown: Vec<&Case> = cases.iter().map(|(_, case)| *case).collect();
            let bar = lab.talk.bar(shown.len() as u64, "answering again");
            let answered = answer_cases(local, &shown, &bar)?;
            bar.finish_and_clear();
            answered
        }
    };
    let leaked = leaked_questions(lab, manifest, &arm)?;
    let again = eval_started(&built, &arm, (&began.run, label), leaked)?;
    look(lab, &began, *suite, (*deployment_id, *scorer))?;
    let mut replayed = vec![Replayed::new(&again)?];
    let scored: Vec<CaseScored> = cases
        .iter()
        .zip(&answered)
        .map(|(case, answered)| case_facts(manifest, *case, *deployment_id, answered))
        .collect();
    for facts in &scored {
        replayed.push(Replayed::new(facts)?);
    }
    if wish.cases.is_none() {
        let count = |exact: fn(&CaseScored) -> bool| {
            scored.iter().filter(|case| exact(case)).count() as u64
        };
        let outcome = RunOutcome::Eval {
            n: scored.len() as u64,
            exact_strict: count(|case| case.strict.exact),
            exact_lenient: count(|case| case.lenient.exact),
        };
        replayed.push(Replayed::new(&RunFinished { run: began.run.clone(), outcome })?);
    }
    Ok(Redone {
        recorded: scored_within(recorded, wish.cases),
        replayed,
        scope: wish.cases.map(|cases| format!("evaluation: the first {cases} cases")),
    })
}

/// Keeps the events that a replay of the first cases makes again, cases in the suite's order.
fn scored_within(recorded: &[Envelope], cases: Option<usize>) -> Vec<Envelope> {
    let place = |event: &Envelope| event.facts.get("index").and_then(serde_json::Value::as_u64);
    let kept = |event: &&Envelope| match (event.kind.as_str(), cases) {
        (CaseScored::KIND, Some(cases)) => place(event).is_some_and(|at| at < cases as u64),
        (RunFinished::KIND, Some(_)) => false,
        _ => true,
    };
    let mut events: Vec<Envelope> = recorded.iter().filter(kept).cloned().collect();
    // An evaluation that was broken off and went on has them in another order.
    events.sort_by_key(|event| match event.kind.as_str() {
        RunStarted::KIND => (0, 0),
        CaseScored::KIND => (1, place(event).unwrap_or_default()),
        _ => (2, 0),
    });
    events
}

/// Records the look that a replay takes at a suite.
fn look(
    lab: &Lab<'_>,
    began: &RunStarted,
    suite: Digest,
    (deployment, scorer): (Digest, Digest),
) -> Result<(), AppError> {
    let RunInputs::Eval { name, .. } = &began.inputs else { return Ok(()) };
    let facts = TestLookedAt {
        name: name.clone(),
        suite,
        deployment: Some(deployment),
        scorer,
        purpose: "replay".to_owned(),
    };
    let head = lab.notebook.reader().head()?.size;
    let id = format!("{}/replay-look/{head}", began.run);
    lab.record(&format!("suite/{name}"), &id, &facts, Place::run(&began.run))?;
    Ok(())
}
