//! `ledger suite`.

use std::fmt::Write as _;

use datasets::SuiteSpec;
use datasets::suite::{Kind as SuiteKind, Select, describe};
use ledger::catalogue::{SuiteBuilt, TestLookedAt};
use queries::projection::fold_all;
use serde_json::json;

use super::{Globals, Output, one_line};
use crate::build::{Suite, build_suite, load_suite, survey_suite};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};
use crate::rows::View;

/// List, show and build suites.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List suites with their strata and the looks taken
    List,
    /// Show a suite's cases; of a sealed suite, that is a look
    Show {
        /// Name, or the start of its identity
        name: String,
        /// Why a sealed suite is opened; recorded as a look
        #[arg(long, value_name = "REASON")]
        look: Option<String>,
    },
    /// Freeze a suite
    Build(Box<Build>),
}

/// Freeze a suite from recorded questions.
#[derive(Debug, clap::Args)]
struct Build {
    /// Name
    name: String,
    /// Sources whose rows are the questions, or dev-of:<dataset>
    #[arg(long, required = true)]
    questions: Vec<String>,
    /// Sources with the golds of the same prompts
    #[arg(long)]
    golds: Vec<String>,
    /// Sources that know more calls for the same queries
    #[arg(long)]
    wider: Vec<String>,
    /// Track, which decides the scorer: toolcall (the first call), calls (all of them), structured
    #[arg(long, default_value = "toolcall")]
    track: String,
    /// Take only such questions, by stratum
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(
        SuiteKind::KINDS.map(SuiteKind::name)))]
    kind: Option<String>,
    /// Most questions of each stratum
    #[arg(long, requires = "kind")]
    per_stratum: Option<u64>,
    /// Most questions of a stratum of its own, as complex=10
    #[arg(long, requires = "kind", value_name = "STRATUM=N", value_parser = stratum)]
    take: Vec<(String, u64)>,
    /// Salt of the hash that picks the questions of a stratum
    #[arg(long, default_value = "suite-1")]
    salt: String,
    /// Datasets whose questions are not taken
    #[arg(long, requires = "kind")]
    keep_out: Vec<String>,
    /// Take what there is where a stratum has fewer questions than asked for
    #[arg(long, requires = "kind")]
    allow_short: bool,
    /// Keep the questions from being read by chance: showing them is recorded as a look
    #[arg(long)]
    sealed: bool,
    /// Show what would be taken of each stratum, and freeze nothing
    #[arg(long, requires = "kind")]
    preview: bool,
}

fn stratum(text: &str) -> Result<(String, u64), String> {
    let parts = text.split_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?)));
    let (name, n) = parts.ok_or_else(|| "write it as STRATUM=N, as complex=10".to_owned())?;
    Ok((name.to_owned(), n))
}

impl Build {
    fn spec(self) -> Result<SuiteSpec, AppError> {
        let kind = self.kind.as_deref().map(str::parse::<SuiteKind>).transpose();
        let kind = kind.map_err(|why| AppError::said(Kind::Usage, why))?;
        let select = kind.map(|kind| Select {
            kind,
            per_stratum: self.per_stratum,
            take: self.take.into_iter().collect(),
            salt: self.salt,
            keep_out: self.keep_out,
            allow_short: self.allow_short,
        });
        let mut questions = self.questions.into_iter();
        Ok(SuiteSpec {
            name: self.name,
            track: self.track,
            questions: questions.next().unwrap_or_default(),
            golds: self.golds,
            wider: self.wider,
            more_questions: questions.collect(),
            select,
            sealed: self.sealed,
        })
    }
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::List => list(globals),
        Action::Show { name, look } => show(globals, &name, look.as_deref()),
        Action::Build(build) if build.preview => {
            let spec = build.spec()?;
            let selected = survey_suite(&View::now(globals.reader()?), &spec)?;
            let text = format!("suite {}, a preview: nothing was frozen\n{selected}", spec.name);
            Output::document(&selected, text)
        }
        Action::Build(build) => {
            let spec = build.spec()?;
            let suite = globals.with_lab(|lab| build_suite(lab, &spec))?;
            let mut text = line(&suite.facts, suite.event);
            if suite.manifest.selected.is_some() {
                let _ = write!(text, "\n{}", describe(&suite.manifest));
            }
            let document = json!({
                "event": suite.event,
                "suite": suite.facts,
                "selected": suite.manifest.selected,
            });
            Output::document(&document, text)
        }
    }
}

fn is_sealed(facts: &SuiteBuilt) -> bool {
    facts.spec.get("sealed").and_then(serde_json::Value::as_bool).unwrap_or_default()
}

fn line(facts: &SuiteBuilt, event: u64) -> String {
    let strata: Vec<String> =
        facts.strata.iter().map(|count| format!("{} {}", count.n, count.name)).collect();
    format!(
        "suite {} ({}{}): {} cases ({}), gold against gold {:.3}, identity {}, event {event}",
        facts.name,
        facts.track,
        if is_sealed(facts) { ", sealed" } else { "" },
        facts.n,
        strata.join(", "),
        facts.gold_against_gold,
        facts.suite.short()
    )
}

fn list(globals: &Globals) -> Result<Output, AppError> {
    let state = fold_all(&globals.reader()?)?;
    let mut text = String::new();
    let mut lines = Vec::new();
    for built in &state.datasets.suites {
        let looks = state.datasets.looks(&built.facts.suite);
        let _ = writeln!(text, "{}, {looks} looks", line(&built.facts, built.event));
        lines.push(json!({ "event": built.event, "looks": looks, "suite": built.facts }));
    }
    Ok(Output::lines(lines, text))
}

fn show(globals: &Globals, name: &str, look: Option<&str>) -> Result<Output, AppError> {
    let suite = load_suite(&View::now(globals.reader()?), name)?;
    if suite.manifest.is_sealed() {
        let Some(reason) = look.map(str::trim).filter(|reason| !reason.is_empty()) else {
            return Err(AppError::hinted(
                Kind::Refused,
                format!("suite {} is sealed", suite.facts.name),
                "--look REASON opens it, and is recorded as a look at the suite",
            ));
        };
        globals.with_lab(|lab| record_look(lab, &suite, reason))?;
    }
    let mut text = line(&suite.facts, suite.event);
    for case in &suite.manifest.cases {
        let _ = write!(
            text,
            "\n{} [{}] {} -> {}",
            case.id,
            case.stratum,
            one_line(&case.query),
            one_line(&case.expected.text())
        );
    }
    Output::document(&suite.manifest, text)
}

/// Records that somebody reads the questions of a suite.
fn record_look(lab: &Lab<'_>, suite: &Suite, reason: &str) -> Result<u64, AppError> {
    let facts = TestLookedAt {
        name: suite.facts.name.clone(),
        suite: suite.facts.suite,
        deployment: None,
        scorer: suite.facts.scorer,
        purpose: format!("show: {reason}"),
    };
    // Every look counts, also one for a reason that was given before.
    let head = lab.notebook.reader().head()?.size;
    let id = format!("suite/{}/look/{head}", facts.name);
    lab.record(&format!("suite/{}", facts.name), &id, &facts, Place::default())
}
