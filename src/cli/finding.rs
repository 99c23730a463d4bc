//! What is asked of the search index on the command line: words, filters, a saved search.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::ValueEnum;
use ledger::Facts as _;
use ledger::catalogue::SearchSaved;
use queries::search::{Filters, SavedSearch, SavedSearches, Sort};

use crate::error::{AppError, Kind};
use crate::rows::View;

/// What is searched for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Finding {
    /// Start from a saved search, as `ledger search --list` names them
    #[arg(long, value_name = "NAME")]
    saved: Option<String>,
    /// Only events of this kind or family: trace, case, rejection, feedback, report, decision
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
    /// Only what this model answered
    #[arg(long)]
    model: Option<String>,
    /// Only traces of this source
    #[arg(long)]
    source: Option<String>,
    /// Only what came out so: failed, passed, success, failure, promoted, ...
    #[arg(long)]
    outcome: Option<String>,
    /// Only what an arm of this label answered
    #[arg(long)]
    label: Option<String>,
    /// Only traces with such feedback, as correction or quality<0.5
    #[arg(long)]
    feedback: Option<String>,
    /// Only from this time on: a date, or an RFC 3339 time
    #[arg(long, value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Only before this time: a date, or an RFC 3339 time
    #[arg(long, value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Order
    #[arg(long, value_enum)]
    sort: Option<Order>,
    /// Count the values of a field over all hits
    #[arg(long = "facet", value_name = "FIELD")]
    facets: Vec<String>,
}

/// In which order hits come.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// The best first
    Best,
    /// The last appended first
    Newest,
    /// The first appended first
    Oldest,
    /// The lowest score first
    LowestScore,
    /// The highest score first
    HighestScore,
}

impl From<Order> for Sort {
    fn from(order: Order) -> Self {
        match order {
            Order::Best => Self::Best,
            Order::Newest => Self::Newest,
            Order::Oldest => Self::Oldest,
            Order::LowestScore => Self::LowestScore,
            Order::HighestScore => Self::HighestScore,
        }
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = text.parse::<DateTime<Utc>>() {
        return Ok(time);
    }
    let date = text.parse::<NaiveDate>();
    let date = date.map_err(|_| "write a date (2026-11-01) or 2026-11-01T12:00:00Z".to_owned())?;
    Ok(date.and_time(NaiveTime::MIN).and_utc())
}

impl Finding {
    /// Makes the search: the saved one with what else was said put over it.
    pub(super) fn search(self, view: &View, words: &str) -> Result<SavedSearch, AppError> {
        let mut search = match &self.saved {
            Some(name) => saved(view, name)?,
            None => SavedSearch::of_words(""),
        };
        if !words.trim().is_empty() {
            search.query = format!("{} {words}", search.query).trim().to_owned();
        }
        let put = |place: &mut Option<String>, value: Option<String>| {
            if value.is_some() {
                *place = value;
            }
        };
        let filters: &mut Filters = &mut search.filters;
        put(&mut filters.kind, self.kind);
        put(&mut filters.tool, self.tool);
        put(&mut filters.issue, self.issue);
        put(&mut filters.run, self.run);
        put(&mut filters.model, self.model);
        put(&mut filters.source, self.source);
        put(&mut filters.outcome, self.outcome);
        put(&mut filters.label, self.label);
        put(&mut filters.feedback, self.feedback);
        filters.since = self.since.or(filters.since);
        filters.until = self.until.or(filters.until);
        if let Some(order) = self.sort {
            search.sort = order.into();
        }
        if !self.facets.is_empty() {
            search.facets = self.facets;
        }
        Ok(search)
    }
}

/// Lists the searches that have a name.
pub(super) fn all_saved(view: &View) -> Result<SavedSearches, AppError> {
    let mut searches = SavedSearches::default();
    for event in view.events()? {
        let event = event?;
        if event.kind == SearchSaved::KIND {
            let facts: SearchSaved = event.facts()?;
            searches.fold(&facts.name, &facts.search)?;
        }
    }
    Ok(searches)
}

fn saved(view: &View, name: &str) -> Result<SavedSearch, AppError> {
    all_saved(view)?.get(name)?.ok_or_else(|| {
        AppError::hinted(
            Kind::NotFound,
            format!("no saved search {name:?}"),
            "`ledger search --list` names them; --save makes one",
        )
    })
}
