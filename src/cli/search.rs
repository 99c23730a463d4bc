//! `ledger search`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use queries::search::{Filters, Index, Options};
use serde_json::json;

use super::{Globals, Output};
use crate::error::AppError;

/// Search traces, scored cases and decisions: words, "phrases", -excluded, OR, and fields
/// (tool: issue: run: kind: source: label: ...).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Words and fields
    query: Vec<String>,
    /// Only events of this kind, as case.scored
    #[arg(long)]
    kind: Option<String>,
    /// Only what concerns this tool
    #[arg(long)]
    tool: Option<String>,
    /// Only cases with this issue tag
    #[arg(long)]
    issue: Option<String>,
    /// Only what belongs to this run
    #[arg(long)]
    run: Option<String>,
    /// Most answers
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: usize,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let mut index = Index::open_or_rebuild(&reader.dir().join("index"))?;
    let caught_up = index.catch_up(&reader)?;
    let filters = Filters {
        kind: args.kind,
        tool: args.tool,
        issue: args.issue,
        run: args.run,
        ..Filters::default()
    };
    let query = args.query.join(" ");
    let found = index.search(&reader, (&query, &filters), &Options::best(args.limit))?;
    let marks = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("[", "]") };
    let mut text = String::new();
    let mut lines = Vec::new();
    for hit in &found.hits {
        let snippet = hit.snippet.marked(marks.0, marks.1).replace('\n', " ");
        let _ = writeln!(text, "{:>6} {} {}\n       {snippet}", hit.seq, hit.kind, hit.title);
        lines.push(json!({
            "seq": hit.seq,
            "kind": hit.kind,
            "score": hit.score,
            "title": hit.title,
            "snippet": hit.snippet.text,
            "highlights": hit.snippet.highlights,
            "fields": hit.fields,
        }));
    }
    let _ = write!(
        text,
        "{} of {} answers; the index has read {} of {} events",
        found.hits.len(),
        found.total,
        caught_up.next,
        caught_up.head
    );
    Ok(Output::lines(lines, text))
}
