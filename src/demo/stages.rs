//! The stages up to the verdicts.

use std::path::Path;
use std::sync::Arc;

use datasets::{Cep, SplitSpec, SuiteSpec};
use models::kernels;
use queries::report::{IntervalSpec, ReportSpec};

use super::DemoWish;
use super::summary::Verdicts;
use crate::build::{DEV_OF, Split, SplitSource, SplitWish, Suite, build_split, build_suite};
use crate::capture::{Asked, ImportReport, import};
use crate::error::{AppError, Kind};
use crate::eval::{Arm, EvalWish, Evaluated, Local, Recorded, evaluate, propose_cep};
use crate::hub::Base;
use crate::lab::Lab;
use crate::promote::{decide as hold, promote, publish, write_pages};
use crate::serve::engine;
use crate::train::{Means, Recipe, TrainWish, Trained, train_with_pilots};

/// Catalog name of the model that the demo makes.
pub(super) const MODEL: &str = "toolcall";
/// The suite of the 50 questions that the recorded teacher answered.
pub(super) const TOOLCALL: &str = "toolcall-teacher";
/// The suite of the structured track.
pub(super) const STRUCTURED: &str = "structured-teacher";
/// The dev side as a suite, for choices and for the next dataset.
const DEV: &str = "toolcall-dev";
/// Most new tokens of an answer to a structured question: these repeat the question.
const STRUCTURED_TOKENS: u32 = 192;

/// What the demo works with.
pub(super) struct Data {
    /// What came in.
    pub report: ImportReport,
    /// The toolcall suite.
    pub toolcall: Suite,
    /// The structured suite.
    pub structured: Suite,
    /// The dev side as a suite.
    pub dev: Suite,
    /// The dataset.
    pub split: Split,
}

/// What came after training.
pub(super) struct After {
    /// Arms on the suites.
    pub arms: Vec<Evaluated>,
    /// The adapter on the toolcall suite.
    pub adapter: Evaluated,
    /// The adapter on the dev side.
    pub dev: Evaluated,
    /// Why the adapter is not scored on the structured suite.
    pub contaminated: String,
}

/// Brings the input in and freezes suites and dataset.
///
/// # Errors
/// When an input cannot be read or a suite or split is refused.
pub(super) fn data(lab: &Lab<'_>, inputs: &Path) -> Result<Data, AppError> {
    let report = import(lab, &[inputs.to_owned()], &Asked::default())?;
    let suite = |name: &str, track: &str, questions: &str, golds: &[&str], wider: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        build_suite(
            lab,
            &SuiteSpec {
                name: name.to_owned(),
                track: track.to_owned(),
                questions: questions.to_owned(),
                golds: names(golds),
                wider: names(wider),
                ..SuiteSpec::default()
            },
        )
    };
    let wider = ["structured/eval100"];
    let toolcall =
        suite(TOOLCALL, "toolcall", "recorded/toolcall_azure", &["toolcall/train"], &wider)?;
    let structured =
        suite(STRUCTURED, "structured", "recorded/structured_phi", &["structured/train"], &wider)?;
    let wish = SplitWish {
        name: MODEL.to_owned(),
        source: SplitSource::Sources { sources: vec!["toolcall/train".to_owned()] },
        split: SplitSpec::default(),
        keep_out: vec![TOOLCALL.to_owned()],
        check: vec![STRUCTURED.to_owned()],
    };
    let split = build_split(lab, &wish)?;
    let dev = suite(DEV, "toolcall", &format!("{DEV_OF}{MODEL}"), &[], &wider)?;
    Ok(Data { report, toolcall, structured, dev, split })
}

fn look(lab: &Lab<'_>, suite: &Suite, arm: &Arm<'_>, label: &str) -> Result<Evaluated, AppError> {
    let label = label.to_owned();
    let evaluated = evaluate(lab, &EvalWish { suite, arm, label, allow_leak: false })?;
    lab.talk.say(format!(
        "  {} on {}: {} of {} exact ({} in lenient reading)",
        evaluated.run,
        suite.facts.name,
        evaluated.exact_strict,
        evaluated.n,
        evaluated.exact_lenient
    ));
    Ok(evaluated)
}

fn base_arm<'a>(base: &'a Base, cep: Option<Cep>, max_new_tokens: u32) -> Arm<'a> {
    Arm::Local(Local {
        model: &base.model,
        adapter: None,
        numbers: None,
        trained_cep: "none".to_owned(),
        cep,
        max_new_tokens,
        isa: kernels::isa().exact(),
    })
}

/// Scores what was recorded elsewhere, and the base model without and with the prefix.
///
/// # Errors
/// When the record refuses an event.
pub(super) fn before(
    lab: &Lab<'_>,
    data: &Data,
    base: &Base,
    wish: &DemoWish,
) -> Result<Vec<Evaluated>, AppError> {
    let recorded = |source: &str| Arm::Recorded(Recorded { source: source.to_owned() });
    let cep = Cep::toolcall();
    propose_cep(lab, &cep)?;
    let structured_tokens = STRUCTURED_TOKENS.min(wish.max_new_tokens * 2);
    Ok(vec![
        look(lab, &data.toolcall, &recorded("recorded/toolcall_azure"), "teacher")?,
        look(lab, &data.toolcall, &recorded("recorded/toolcall_phi"), "phi-4-mini")?,
        look(lab, &data.structured, &recorded("recorded/structured_azure"), "teacher")?,
        look(lab, &data.structured, &recorded("recorded/structured_phi"), "phi-4-mini")?,
        look(lab, &data.toolcall, &base_arm(base, None, wish.max_new_tokens), "base")?,
        look(lab, &data.toolcall, &base_arm(base, Some(cep), wish.max_new_tokens), "base+cep")?,
        look(lab, &data.structured, &base_arm(base, None, structured_tokens), "base")?,
    ])
}

/// Trains the adapter; rate and epoch are chosen on the dev side.
///
/// # Errors
/// When the recipe cannot be read or the numbers leave the finite.
pub(super) fn train(
    lab: &Lab<'_>,
    data: &Data,
    base: &Base,
    wish: &DemoWish,
) -> Result<Trained, AppError> {
    let wish = TrainWish {
        model: &base.model,
        model_name: base.name.clone(),
        split: &data.split,
        cep: None,
        recipe: Recipe::find(&wish.recipe)?,
        means: Means::default(),
    };
    Ok(train_with_pilots(lab, &wish)?.1)
}

/// Scores the adapter without and with the prefix, and on the dev side. On the structured suite it
/// must be refused: all its questions stand in the training data under another template.
///
/// # Errors
/// When the record refuses an event, or the contaminated suite was not refused.
pub(super) fn after(
    lab: &Lab<'_>,
    data: &Data,
    base: &Base,
    (wish, trained): (&DemoWish, &Trained),
) -> Result<After, AppError> {
    let missing = || AppError::said(Kind::Internal, "training made no adapter");
    let id = trained.adapter().ok_or_else(missing)?;
    let (adapter, trained_cep) = engine::adapter(&lab.view(), base, &id.to_string())?;
    let adapter = Arc::new(adapter);
    let arm = |cep: Option<Cep>| {
        Arm::Local(Local {
            model: &base.model,
            adapter: Some(id),
            numbers: Some(Arc::clone(&adapter)),
            trained_cep: trained_cep.clone(),
            cep,
            max_new_tokens: wish.max_new_tokens,
            isa: kernels::isa().exact(),
        })
    };
    let plain = look(lab, &data.toolcall, &arm(None), "adapter")?;
    let with_cep = look(lab, &data.toolcall, &arm(Some(Cep::toolcall())), "adapter+cep")?;
    let dev = look(lab, &data.dev, &arm(None), "adapter")?;
    let contaminated = match look(lab, &data.structured, &arm(None), "adapter") {
        Err(error) if error.kind() == Kind::Refused => error.to_string(),
        Err(error) => return Err(error),
        Ok(_) => {
            let what = "a suite that stands in the training data was scored without a word";
            return Err(AppError::said(Kind::Internal, what));
        }
    };
    lab.talk.say(format!("  refused: {contaminated}"));
    let arms = vec![plain.clone(), with_cep];
    Ok(After { arms, adapter: plain, dev, contaminated })
}

/// Compares the arms, holds both policies against the adapter, and promotes what passed.
///
/// # Errors
/// When the arms cannot be compared or the record refuses an event.
pub(super) fn decide(lab: &Lab<'_>) -> Result<Verdicts, AppError> {
    let spec = |suite: &str| ReportSpec {
        name: suite.to_owned(),
        suite: suite.to_owned(),
        runs: Vec::new(),
        intervals: IntervalSpec::default(),
    };
    let structured = publish(lab, &spec(STRUCTURED), true)?;
    let published = publish(lab, &spec(TOOLCALL), true)?;
    let mut gates = Vec::new();
    let mut promotions = Vec::new();
    for policy in ["canary", "champion"] {
        let decided = hold(lab, &published, policy, "adapter")?;
        let alias = decided.policy.alias.clone();
        promotions.push(match promote(lab, MODEL, &alias, None) {
            Ok(promoted) => format!("{MODEL}@{alias} promoted (event {})", promoted.event),
            Err(error) if error.kind() == Kind::Refused => format!("{MODEL}@{alias} refused"),
            Err(error) => return Err(error),
        });
        gates.push(decided);
    }
    let shown: Vec<_> = gates.iter().map(|g| (&g.policy, "adapter", &g.decision)).collect();
    let mut pages = write_pages(lab.notebook.dir(), &published.report, &shown)?;
    pages.extend(write_pages(lab.notebook.dir(), &structured.report, &[])?);
    Ok(Verdicts {
        report: published.report,
        structured: structured.report,
        gates,
        promotions,
        pages,
    })
}
