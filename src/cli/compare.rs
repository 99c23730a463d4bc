//! `ledger compare`.

use queries::report::{IntervalSpec, ReportSpec, markdown};
use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;
use crate::promote::{publish, write_pages};

/// Compare evaluated arms over one suite, paired. Refuses arms whose cases, golds or scorer
/// differ, and names what does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Suite, by name or the start of its identity
    #[arg(long)]
    suite: String,
    /// Evaluation runs [default: the newest of every label]
    #[arg(long)]
    run: Vec<String>,
    /// Name of the report [default: the suite's]
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let spec = ReportSpec {
        name: args.name.unwrap_or_else(|| args.suite.clone()),
        suite: args.suite,
        runs: args.run,
        intervals: IntervalSpec::default(),
    };
    let (published, pages) = globals.with_lab(|lab| {
        let published = publish(lab, &spec, false)?;
        let pages = write_pages(lab.notebook.dir(), &published.report, &[])?;
        Ok((published, pages))
    })?;
    let mut text = markdown(&published.report);
    for page in &pages {
        text.push_str(&format!("\n{}", page.display()));
    }
    let document = json!({
        "event": published.event,
        "facts": published.report.facts,
        "measured": published.report.measured,
        "pages": pages,
    });
    Output::document(&document, text)
}
