//! `ledger suite`.

use std::fmt::Write as _;

use datasets::SuiteSpec;
use ledger::catalogue::SuiteBuilt;
use queries::projection::fold_all;
use serde_json::json;

use super::{Globals, Output};
use crate::build::{build_suite, load_suite};
use crate::error::AppError;
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
    /// Show a suite's cases
    Show {
        /// Name, or the start of its identity
        name: String,
    },
    /// Freeze a suite
    Build(Build),
}

/// Freeze a suite from recorded questions.
#[derive(Debug, clap::Args)]
struct Build {
    /// Name
    name: String,
    /// Source whose rows are the questions, or dev-of:<dataset>
    #[arg(long)]
    questions: String,
    /// Sources with the golds of the same prompts
    #[arg(long)]
    golds: Vec<String>,
    /// Sources that know more calls for the same queries
    #[arg(long)]
    wider: Vec<String>,
    /// Track, which decides the scorer
    #[arg(long, default_value = "toolcall")]
    track: String,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::List => list(globals),
        Action::Show { name } => show(globals, &name),
        Action::Build(build) => {
            let spec = SuiteSpec {
                name: build.name,
                track: build.track,
                questions: build.questions,
                golds: build.golds,
                wider: build.wider,
            };
            let suite = globals.with_lab(|lab| build_suite(lab, &spec))?;
            Output::document(&suite.facts, line(&suite.facts, suite.event))
        }
    }
}

fn line(facts: &SuiteBuilt, event: u64) -> String {
    let strata: Vec<String> =
        facts.strata.iter().map(|count| format!("{} {}", count.n, count.name)).collect();
    format!(
        "suite {} ({}): {} cases ({}), gold against gold {:.3}, identity {}, event {event}",
        facts.name,
        facts.track,
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

fn show(globals: &Globals, name: &str) -> Result<Output, AppError> {
    let suite = load_suite(&View::now(globals.reader()?), name)?;
    let mut text = line(&suite.facts, suite.event);
    for case in &suite.manifest.cases {
        let _ = write!(
            text,
            "\n{} [{}] {} -> {}",
            case.id,
            case.stratum,
            case.query,
            case.expected.text()
        );
    }
    Output::document(&suite.manifest, text)
}
