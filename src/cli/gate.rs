//! `ledger gate`.

use queries::projection::fold_all;
use queries::report::decision_markdown;

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::promote::{decide, load_report, write_pages};

/// Hold a policy against one arm of a report. The verdict is PASS, FAIL, INCONCLUSIVE or INVALID,
/// rule by rule.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Policy: canary, champion, or a file
    #[arg(long)]
    policy: String,
    /// Event of the report [default: the newest]
    #[arg(long)]
    report: Option<u64>,
    /// Arm that is judged
    #[arg(long, default_value = "adapter")]
    candidate: String,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let (published, decided) = globals.with_lab(|lab| {
        let reader = lab.notebook.reader();
        let state = fold_all(&reader)?;
        let newest = state.catalog.reports.keys().next_back().copied();
        let Some(event) = args.report.or(newest) else {
            return Err(AppError::hinted(
                Kind::NotFound,
                "there is no report to judge by",
                "`ledger compare --suite <suite>` makes one",
            ));
        };
        let published = load_report(&state, &reader, event)?;
        let decided = decide(lab, &published, &args.policy, &args.candidate)?;
        let page = [(&decided.policy, args.candidate.as_str(), &decided.decision)];
        write_pages(lab.notebook.dir(), &published.report, &page)?;
        Ok((published, decided))
    })?;
    let mut text = decision_markdown(&decided.policy, &args.candidate, &decided.decision);
    text.push_str(&format!("\nevent {} over report {}", decided.event, published.event));
    Output::document(&decided.facts, text)
}
