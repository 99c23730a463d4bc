//! What reports, verdicts, promotions, runs and frozen data are found by.

use std::fmt::Write as _;

use ledger::catalogue::{
    CepProposed, Count, DatasetImported, GateDecided, ModelImported, PromotionMade,
    PromotionOverridden, ReportPublished, RollbackMade, RunFailed, RunFinished, RunInputs,
    RunOutcome, RunReplayed, RunStarted, SplitBuilt, SuiteBuilt,
};
use ledger::event::FactsError;
use ledger::{Envelope, Facts as _};

use super::context::Lookup;
use super::document::Draft;
use super::schema::Exact;
use crate::gate::verdict_word;

/// Makes the document of an event that is no trace, case or feedback; none for kinds that nobody
/// searches.
pub(super) fn draft(
    event: &Envelope,
    lookup: &mut Lookup<'_>,
) -> Result<Option<Draft>, FactsError> {
    Ok(Some(match event.kind.as_str() {
        DatasetImported::KIND => imported(event, &event.facts()?),
        SplitBuilt::KIND => split(event, &event.facts()?),
        SuiteBuilt::KIND => suite(event, &event.facts()?),
        CepProposed::KIND => {
            let facts: CepProposed = event.facts()?;
            let draft = Draft::new(event, "cep").titled(&facts.name).say(&facts.name);
            let draft = draft.with(Exact::Id, facts.cep.to_string());
            draft.with_all(Exact::Issue, &facts.targets).say_body(&facts.body, lookup.reader)
        }
        RunStarted::KIND => started(event, &event.facts()?),
        RunFinished::KIND => finished(event, &event.facts()?, lookup),
        RunFailed::KIND => {
            let facts: RunFailed = event.facts()?;
            let draft = run(event, &facts.run).with(Exact::Outcome, "failed");
            labelled(draft, &facts.run, lookup).say(&facts.reason)
        }
        RunReplayed::KIND => {
            let facts: RunReplayed = event.facts()?;
            let outcome = if facts.divergence.is_some() { "diverged" } else { "reproduced" };
            let draft = run(event, &facts.run).with(Exact::Outcome, outcome);
            let draft = draft.say(&format!("replayed {} {outcome}", facts.tier));
            facts.divergence.iter().fold(draft, |draft, found| draft.say(&found.path))
        }
        _ => return decision(event),
    }))
}

/// Writes counts as text.
fn counts(counts: &[Count]) -> String {
    counts.iter().fold(String::new(), |mut text, count| {
        let _ = write!(text, "{} {} ", count.name, count.n);
        text
    })
}

fn imported(event: &Envelope, facts: &DatasetImported) -> Draft {
    let title = format!(
        "{}: {} rows, {} accepted, {} rejected",
        facts.source, facts.rows, facts.accepted, facts.rejected
    );
    Draft::new(event, "import")
        .with(Exact::Source, &facts.source)
        .with(Exact::Format, &facts.format)
        .titled(&title)
        .say(&title)
}

fn split(event: &Envelope, facts: &SplitBuilt) -> Draft {
    let title = format!("{}: {} to train on, {} dev", facts.name, facts.train, facts.dev);
    Draft::new(event, "dataset")
        .with(Exact::Id, facts.dataset.to_string())
        .with(Exact::Label, &facts.name)
        .with_all(Exact::Licence, &facts.licences)
        .with_all(Exact::Stratum, facts.strata.iter().map(|count| &count.name))
        .titled(&title)
        .say(&title)
        .say(&counts(&facts.excluded))
        .say(&counts(&facts.strata))
        .say(&facts.spec.to_string())
}

fn suite(event: &Envelope, facts: &SuiteBuilt) -> Draft {
    let title = format!("{}: {} cases", facts.name, facts.n);
    Draft::new(event, "suite")
        .with(Exact::Id, facts.suite.to_string())
        .with(Exact::Suite, &facts.name)
        .with(Exact::Suite, facts.suite.to_string())
        .with(Exact::Track, &facts.track)
        .with_all(Exact::Licence, &facts.licences)
        .with_all(Exact::Stratum, facts.strata.iter().map(|count| &count.name))
        .titled(&title)
        .say(&title)
        .say(&counts(&facts.strata))
        .say(&facts.spec.to_string())
}

/// Begins the document of an event of a run.
fn run(event: &Envelope, run: &str) -> Draft {
    Draft::new(event, "run").with(Exact::Run, run).titled(run).say(run)
}

/// Adds the arm that a run scored.
fn labelled(draft: Draft, run: &str, lookup: &mut Lookup<'_>) -> Draft {
    let arm = lookup.arm(run);
    draft
        .with(Exact::Label, &arm.label)
        .with(Exact::Model, &arm.label)
        .with(Exact::Model, &arm.base)
        .say(&arm.label)
}

fn started(event: &Envelope, facts: &RunStarted) -> Draft {
    let draft = run(event, &facts.run).with(Exact::Outcome, "started");
    match &facts.inputs {
        RunInputs::Train { model, base, cep, recipe, .. } => draft
            .with(Exact::Model, model)
            .with(Exact::Model, base.to_string())
            .say(&format!("train {model} cep {cep}"))
            .say(&recipe.to_string()),
        RunInputs::Eval { name, suite, deployment, label, flags, .. } => draft
            .with(Exact::Suite, name)
            .with(Exact::Suite, suite.to_string())
            .with(Exact::Label, label)
            .with(Exact::Model, label)
            .with(Exact::Model, &deployment.base)
            .with_all(Exact::Flag, flags)
            .say(&format!("evaluate {label} on {name}")),
    }
}

fn finished(event: &Envelope, facts: &RunFinished, lookup: &mut Lookup<'_>) -> Draft {
    let draft = run(event, &facts.run).with(Exact::Outcome, "finished");
    let draft = labelled(draft, &facts.run, lookup);
    match &facts.outcome {
        RunOutcome::Train { adapter, dev_loss, .. } => {
            let loss = dev_loss.map_or_else(String::new, |loss| format!(" dev loss {loss}"));
            draft.with(Exact::Id, adapter.to_string()).say(&format!("adapter {adapter}{loss}"))
        }
        RunOutcome::Eval { n, exact_strict, .. } => {
            let share = (*n > 0).then(|| *exact_strict as f64 / *n as f64);
            draft.scored(share).say(&format!("{exact_strict} of {n} exact"))
        }
    }
}

fn decision(event: &Envelope) -> Result<Option<Draft>, FactsError> {
    let decision = Draft::new(event, "decision");
    Ok(Some(match event.kind.as_str() {
        ModelImported::KIND => {
            let facts: ModelImported = event.facts()?;
            Draft::new(event, "model")
                .with(Exact::Model, &facts.name)
                .with(Exact::Model, facts.weights.to_string())
                .with(Exact::Licence, &facts.licence)
                .titled(&facts.name)
                .say(&format!("{} {}", facts.name, facts.architecture))
        }
        ReportPublished::KIND => report(event, &event.facts()?),
        GateDecided::KIND => gate(decision, &event.facts()?),
        PromotionMade::KIND => promotion(decision, &event.facts()?, "promoted"),
        PromotionOverridden::KIND => {
            let facts: PromotionOverridden = event.facts()?;
            promotion(decision, &facts.promotion, "overridden")
                .say(&facts.reason)
                .say(&facts.second_actor)
        }
        RollbackMade::KIND => {
            let facts: RollbackMade = event.facts()?;
            let title = format!("{}@{} rolled back", facts.model, facts.alias);
            decision
                .with(Exact::Outcome, "rolled-back")
                .with(Exact::Model, &facts.model)
                .with(Exact::Label, &facts.alias)
                .titled(&title)
                .say(&title)
                .say(&facts.deployment_id.to_string())
                .say(&facts.reason)
        }
        _ => return Ok(None),
    }))
}

fn report(event: &Envelope, facts: &ReportPublished) -> Draft {
    let draft = Draft::new(event, "report")
        .with(Exact::Suite, facts.suite.to_string())
        .titled(&facts.name)
        .say(&facts.name);
    facts.arms.iter().fold(draft, |draft, arm| {
        draft
            .with(Exact::Label, &arm.label)
            .with(Exact::Model, &arm.label)
            .with(Exact::Model, &arm.deployment.base)
            .with(Exact::Run, &arm.run)
            .say(&arm.label)
    })
}

fn gate(decision: Draft, facts: &GateDecided) -> Draft {
    let verdict = verdict_word(facts.verdict);
    let title = format!("{} of {}: {verdict}", facts.policy, facts.label);
    let draft = decision
        .with(Exact::Label, &facts.label)
        .with(Exact::Model, &facts.label)
        .with(Exact::Outcome, verdict.to_lowercase())
        .titled(&title)
        .say(&title);
    facts.rules.iter().fold(draft, |draft, rule| {
        let word = verdict_word(rule.verdict);
        draft.say(&format!("{} {word}: {} {}", rule.rule, rule.asks, rule.says))
    })
}

fn promotion(draft: Draft, made: &PromotionMade, outcome: &str) -> Draft {
    let title = format!("{}@{} {outcome}", made.model, made.alias);
    draft
        .with(Exact::Outcome, outcome)
        .with(Exact::Model, &made.model)
        .with(Exact::Model, &made.deployment.base)
        .with(Exact::Label, &made.alias)
        .titled(&title)
        .say(&title)
        .say(&made.deployment_id.to_string())
}
