//! Pulling from Langfuse: observations and scores, page by page, through its public API.
//!
//! What stands on a page is recorded first, and then the page with the place where the next one
//! begins. Whoever was cut short goes on there, and a page that comes twice adds nothing. A list
//! that was read to its end is read again from its newest row on, or from a little before, because
//! rows do not come in the order of their times.

mod client;
mod contexts;
mod lists;
mod record;
mod rows;
mod state;
mod wait;

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use ledger::Digest;
use serde::Serialize;

use self::client::{Client, Reply};
use self::contexts::{Contexts, time};
use self::lists::{List, OBSERVATIONS, Page, SCORES};
use self::state::{Bounds, Known};
use super::targets::Owners;
use super::{FeedbackIntake, SpanIntake};
use crate::error::{AppError, Kind};
use crate::lab::Lab;

/// Most pages without rows, one after another.
const EMPTY_MAX: u32 = 20;

/// What is to be pulled, and how.
pub struct Asked {
    /// Address of the server.
    pub url: String,
    /// Keys of the project.
    pub keys: Keys,
    /// Source that the traces belong to.
    pub source: String,
    /// Pull what began at this time (RFC 3339) or later.
    pub since: Option<String>,
    /// Pull what began before this time.
    pub until: Option<String>,
    /// Most rows of a page.
    pub rows: u64,
    /// Most requests in a minute; any number where it is 0.
    pub requests_per_minute: u32,
    /// How long before the newest known row the next round begins.
    pub overlap: Duration,
    /// Time before a failed request is sent again the first time.
    pub retry_delay: Duration,
    /// Pull again whenever so much time has passed, until somebody asks to stop.
    pub every: Option<Duration>,
}

/// Keys of a Langfuse project. They are sent to its server and go nowhere else.
#[derive(Clone)]
pub struct Keys {
    /// The public key, `pk-lf-...`.
    pub public: String,
    /// The secret key, `sk-lf-...`.
    pub secret: String,
}

/// What came of pulling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Source that the traces belong to.
    pub source: String,
    /// Address of the server.
    pub origin: String,
    /// Version of the API that it has: `v4` or `v3`.
    pub api: String,
    /// Pages that were read.
    pub pages: u64,
    /// Observations on them.
    pub observations: u64,
    /// Observations that the record did not have.
    pub new: u64,
    /// Observations that the record had already.
    pub duplicates: u64,
    /// Observations whose content changed since.
    pub revised: u64,
    /// Traces that were made of observations.
    pub traces: u64,
    /// Rows that cannot be read.
    pub rejected: u64,
    /// Scores that were read.
    pub scores: u64,
    /// Scores on traces that the record has.
    pub joined: u64,
    /// Scores that are about no trace, or about one of somebody who was forgotten.
    pub passed_over: u64,
}

/// How reading a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was read to its end.
    Whole,
    /// The server has no such list.
    Missing,
    /// Somebody asked to stop.
    Stopped,
}

/// A pull under way.
struct Pull<'a> {
    lab: &'a Lab<'a>,
    asked: &'a Asked,
    client: Client,
    known: Known,
    contexts: Contexts,
    spans: SpanIntake,
    feedback: FeedbackIntake,
    /// Whose traces are, so that a page is kept as those whom it is about may want.
    owners: Owners,
    report: Report,
    /// The first of the lists that the server may have: of observations, of scores.
    first: (usize, usize),
}

/// Pulls observations and scores.
///
/// # Errors
/// When the server cannot be reached or refuses, or the record cannot be written. What was recorded
/// before stays, and the next pull goes on there.
pub fn pull(lab: &Lab<'_>, asked: &Asked) -> Result<Report, AppError> {
    let _turn = take_turn(lab, &asked.source)?;
    let client = Client::open(asked, lab.talk)?;
    let origin = client.origin().to_owned();
    let mut pull = Pull {
        lab,
        asked,
        known: Known::read(lab, &asked.source, &origin)?,
        client,
        contexts: Contexts::default(),
        spans: SpanIntake::new(),
        feedback: FeedbackIntake::new(),
        owners: Owners::default(),
        report: Report { source: asked.source.clone(), origin, ..Report::default() },
        first: (0, 0),
    };
    pull.rounds()?;
    Ok(pull.report)
}

/// Two at once would both go on from the same page.
fn take_turn(lab: &Lab<'_>, source: &str) -> Result<File, AppError> {
    let name = format!("pull-{}.lock", Digest::of(source.as_bytes()).short());
    let path = lab.notebook.dir().join(name);
    let file = File::create(&path).map_err(AppError::file(&path))?;
    if file.try_lock().is_err() {
        let what = format!("another process pulls into source {source:?}");
        let hint = "wait until it ends, or name another source with --source";
        return Err(AppError::hinted(Kind::Busy, what, hint));
    }
    Ok(file)
}

impl Pull<'_> {
    fn rounds(&mut self) -> Result<(), AppError> {
        let mut is_first = true;
        loop {
            match self.round(is_first) {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(_) => {}
                // Whoever follows waits until the server is back, or what stands before it.
                Err(error) if self.is_followed(is_first) && is_of_server(&error) => {
                    self.lab.talk.say(format!("{error}; trying again in the next round"));
                }
                Err(error) => return Err(error),
            }
            is_first = false;
            match self.asked.every {
                Some(every) if self.client.rest(every) => {}
                _ => return Ok(()),
            }
        }
    }

    /// Says whether a failure ends the round only: somebody follows, and the server has answered.
    fn is_followed(&self, is_first: bool) -> bool {
        self.asked.every.is_some() && (!is_first || self.report.pages > 0)
    }

    /// Observations come before scores, so that most scores find what they are about.
    fn round(&mut self, is_first: bool) -> Result<Ended, AppError> {
        // What a trace says of itself may have changed since.
        self.contexts = Contexts::default();
        let lists = OBSERVATIONS.iter().enumerate().skip(self.first.0);
        for (at, list) in lists {
            match self.list(list, is_first)? {
                Ended::Missing => self.lab.talk.say(format!("there is no {}", list.route)),
                Ended::Stopped => return Ok(Ended::Stopped),
                Ended::Whole => {
                    self.first.0 = at;
                    return self.scores(is_first);
                }
            }
        }
        let what = format!("{} has no list of observations", self.report.origin);
        let hint = "is there a Langfuse server of version 3 or 4? --url names it";
        Err(AppError::hinted(Kind::Unavailable, what, hint))
    }

    fn scores(&mut self, is_first: bool) -> Result<Ended, AppError> {
        for (at, list) in SCORES.iter().enumerate().skip(self.first.1) {
            match self.list(list, is_first)? {
                Ended::Missing => {}
                ended => {
                    self.first.1 = at;
                    return Ok(ended);
                }
            }
        }
        self.lab.talk.say("the server has no list of scores: none were read");
        Ok(Ended::Whole)
    }

    /// Reads a list: what an earlier pull left unfinished, and what is new since.
    fn list(&mut self, list: &'static List, is_first: bool) -> Result<Ended, AppError> {
        for bounds in self.bounds(list, is_first) {
            match self.read(list, &bounds)? {
                Ended::Whole => {}
                ended => return Ok(ended),
            }
        }
        Ok(Ended::Whole)
    }

    fn bounds(&mut self, list: &List, is_first: bool) -> Vec<Bounds> {
        let (since, until) = (self.asked.since.clone(), self.asked.until.clone());
        if is_first && (since.is_some() || until.is_some()) {
            return vec![Bounds { from: since, to: until }];
        }
        let overlap = i64::try_from(self.asked.overlap.as_micros()).unwrap_or(i64::MAX);
        let reached = self.known.reached(list);
        let newest = reached.newest_us.and_then(|us| time(us.saturating_sub(overlap)));
        // Times of one form and one zone are in the order of their texts.
        let next = Bounds { from: newest.max(since), to: until };
        let open = reached.open.keys().filter(|bounds| **bounds != next).cloned();
        open.chain([next.clone()]).collect()
    }

    /// Reads a round of a list to its end, from where it was left.
    fn read(&mut self, list: &'static List, bounds: &Bounds) -> Result<Ended, AppError> {
        let rows = self.asked.rows.clamp(1, list.rows_max);
        let left = self.known.reached(list).open.get(bounds);
        let mut at = left.map(|left| list.place(&left.at, left.rows, rows));
        let mut is_left = at.is_some();
        let (mut places, mut empty) = (BTreeSet::new(), 0);
        loop {
            let query = list.query(bounds, rows, at.as_deref());
            let bytes = match self.client.get(list.route, &query)? {
                Reply::Body(bytes) => bytes,
                Reply::Stopped => return Ok(Ended::Stopped),
                // The place may be too old for the server; then the round begins anew.
                Reply::Missing | Reply::Refused(_) if is_left => {
                    let what = "the server does not know the place any more: from the beginning";
                    self.lab.talk.say(format!("{}: {what}", list.rows));
                    (at, is_left) = (None, false);
                    continue;
                }
                // A server that had it once has it still: something stands before it.
                Reply::Missing if at.is_none() && self.known.reached(list).last.is_none() => {
                    return Ok(Ended::Missing);
                }
                Reply::Missing => return Err(refused(format!("{}: not found", list.route))),
                Reply::Refused(said) => return Err(refused(said)),
            };
            is_left = false;
            let page = Page::read(list, bytes, at.as_deref())?;
            let next = page.next.clone();
            empty = if page.rows().is_empty() { empty + 1 } else { 0 };
            let is_new =
                next.as_ref().is_none_or(|next| places.insert(Digest::of(next.as_bytes())));
            if !is_new || empty > EMPTY_MAX {
                return Err(circle(list));
            }
            if !self.page(list, (bounds, query, rows), page)? {
                return Ok(Ended::Stopped);
            }
            match next {
                Some(next) => at = Some(next),
                None => return Ok(Ended::Whole),
            }
        }
    }
}

/// Says whether a failure is the server's, so that it may pass.
fn is_of_server(error: &AppError) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Input)
}

fn circle(list: &List) -> AppError {
    let what = format!("{}: the pages lead in a circle, or hold nothing", list.route);
    let hint = "what came was recorded; is there a Langfuse server at the address?";
    AppError::hinted(Kind::Unavailable, what, hint)
}

fn refused(what: String) -> AppError {
    let hint = "the server does not take the question: --since and --until bound it, --limit says \
                how many rows a page has";
    AppError::hinted(Kind::Unavailable, what, hint)
}
