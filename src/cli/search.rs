//! `ledger search`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use ledger::catalogue::SearchSaved;
use queries::search::{CaughtUp, Hit, Hits, Index, SavedSearch};
use serde_json::{Value, json};

use super::finding::{Finding, all_saved};
use super::{Globals, Output, one_line, plot};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place};
use crate::rows::View;

/// Search traces, scored cases, failures, reports and decisions.
///
/// Words, "phrases", NOT excluded (or -excluded behind --), OR, fields (tool: issue: run: kind:
/// source: label: model: ...) and bounds (score:<0.5, time:>2026-11-01).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Words and fields
    query: Vec<String>,
    #[command(flatten)]
    finding: Finding,
    /// Most answers
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: usize,
    /// Answers that are left out before them
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// Keep the search in the notebook under this name
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// What the saved search finds, in one sentence
    #[arg(long, requires = "save")]
    describe: Option<String>,
    /// List the saved searches
    #[arg(long, conflicts_with_all = ["save", "query"])]
    list: bool,
    /// Give up the name of a saved search
    #[arg(long, value_name = "NAME", conflicts_with_all = ["save", "list"])]
    unsave: Option<String>,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let reader = globals.reader()?;
    let view = View::now(reader.clone());
    if args.list {
        return list(&view);
    }
    if let Some(name) = &args.unsave {
        return unsave(globals, &view, name);
    }
    let mut search = args.finding.search(&view, &args.query.join(" "))?;
    if let Some(name) = args.save {
        search.name = name;
        search.description = args.describe.unwrap_or_default();
        let event = globals.with_lab(|lab| save(lab, &search.name, search.to_value()?))?;
        globals.talk().say(format!("saved as {}, event {event}", search.name));
    }
    let mut index = Index::open_or_rebuild(&reader.dir().join("index"))?;
    let caught_up = index.catch_up(&reader)?;
    let options = search.options(args.offset, args.limit);
    let hits = index.search(&reader, (&search.query, &search.filters), &options)?;
    let lines = hits.hits.iter().map(line).collect();
    let mut output = Output::lines(lines, text(&hits, caught_up));
    if !hits.facets.is_empty() {
        output = output.with_line(json!({ "facets": hits.facets, "total": hits.total }));
    }
    Ok(output)
}

fn line(hit: &Hit) -> Value {
    json!({
        "seq": hit.seq,
        "at": hit.at,
        "kind": hit.kind,
        "score": hit.score,
        "value": hit.value,
        "title": hit.title,
        "snippet": hit.snippet.text,
        "highlights": hit.snippet.highlights,
        "fields": hit.fields,
    })
}

fn text(hits: &Hits, caught_up: CaughtUp) -> String {
    let marks = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("[", "]") };
    let mut text = String::new();
    for hit in &hits.hits {
        let snippet = hit.snippet.marked(marks.0, marks.1).replace('\n', " ");
        let _ = writeln!(
            text,
            "{:>6} {} {}\n       {snippet}",
            hit.seq,
            hit.kind,
            one_line(&hit.title)
        );
    }
    for facet in &hits.facets {
        let more = if facet.more > 0 { format!(" ({} more)", facet.more) } else { String::new() };
        let _ = writeln!(text, "{}{more}", facet.field);
        let values: Vec<(String, u64)> =
            facet.values.iter().map(|value| (value.value.clone(), value.hits)).collect();
        plot::bars(&mut text, &values);
    }
    let _ = write!(
        text,
        "{} of {} answers; the index has read {} of {} events",
        hits.hits.len(),
        hits.total,
        caught_up.next,
        caught_up.head
    );
    if caught_up.held_elsewhere {
        text.push_str("; another process keeps it up");
    }
    text
}

fn save(lab: &Lab<'_>, name: &str, search: Value) -> Result<u64, AppError> {
    let facts = SearchSaved { name: name.to_owned(), search };
    // Saved again after another search of its name, it counts again.
    let newest = lab.view().newest(|known: &SearchSaved| known.name == name)?;
    if let Some((event, known)) = &newest
        && *known == facts
    {
        return Ok(*event);
    }
    let after = newest.map_or(0, |(event, _)| event);
    let id = format!("search/{name}/{after}/{}", ledger::Digest::of_json(&facts)?);
    lab.record(&format!("search/{name}"), &id, &facts, Place::default())
}

fn unsave(globals: &Globals, view: &View, name: &str) -> Result<Output, AppError> {
    let own = all_saved(view)?.all()?.into_iter().any(|(search, own)| own && search.name == name);
    if !own {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("this notebook has no saved search {name:?}"),
            "`ledger search --list` names them; those that ship stay",
        ));
    }
    let event = globals.with_lab(|lab| save(lab, name, Value::Null))?;
    let document = json!({ "name": name, "event": event });
    Output::document(&document, format!("the name {name} is given up, event {event}"))
}

fn list(view: &View) -> Result<Output, AppError> {
    let mut text = String::new();
    let mut lines = Vec::new();
    for (search, own) in all_saved(view)?.all()? {
        let whose = if own { "notebook" } else { "ships" };
        let _ = writeln!(text, "{:24} {whose:9} {}", search.name, told(&search));
        lines.push(json!({ "own": own, "search": search }));
    }
    Ok(Output::lines(lines, text))
}

/// Says what a search finds.
fn told(search: &SavedSearch) -> String {
    if search.description.is_empty() {
        return search.query.clone();
    }
    search.description.clone()
}
