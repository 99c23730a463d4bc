//! Recording a page: its rows, and then the page itself.

use std::collections::BTreeSet;

use datasets::redact::Rules;
use ledger::catalogue::{FeedbackRecorded, Location, PagePulled, TraceRejected};
use ledger::{BlobError, BodyRef, Digest};
use serde_json::{Value, json};

use super::Pull;
use super::lists::{List, Page};
use super::rows::{self, Score};
use super::state::{Bounds, Place};
use crate::capture::{Judged, bounded_name, page_subject};
use crate::error::{AppError, Kind};
use crate::lab;

/// How much clocks of other machines may be ahead, in microseconds.
const CLOCKS_DIFFER_US: i64 = 60_000_000;

/// What a page told.
#[derive(Default)]
struct Met {
    /// Rows that the record did not have.
    news: u64,
    /// Newest time of a row, in microseconds since 1970.
    newest_us: Option<i64>,
    /// Pseudonyms of the subjects that it is about.
    subjects: BTreeSet<String>,
    /// Rows that must not be kept.
    erased: BTreeSet<usize>,
}

impl Met {
    /// Notes the time of a row. One that lies in the future is that of a wrong clock, and would
    /// have later rounds begin behind all others.
    fn saw(&mut self, time_us: Option<i64>) {
        let now = chrono::Utc::now().timestamp_micros() + CLOCKS_DIFFER_US;
        self.newest_us = self.newest_us.max(time_us.filter(|time| *time <= now));
    }
}

/// What a page was asked with: bounds, parameters, rows.
type Question<'a> = (&'a Bounds, Vec<(String, String)>, u64);

impl Pull<'_> {
    /// Records a page; `false` where somebody asked to stop before that.
    ///
    /// # Errors
    /// When the record cannot be written, or the server is asked for more and does not answer.
    pub(super) fn page(
        &mut self,
        list: &'static List,
        question: Question<'_>,
        page: Page,
    ) -> Result<bool, AppError> {
        let is_of_traces = list.rows == "observations";
        if is_of_traces && list.api == "v3" && !self.contexts.find(&mut self.client, &page)? {
            return Ok(false);
        }
        let met = if is_of_traces {
            list.api.clone_into(&mut self.report.api);
            self.take_observations(list, &page)?
        } else {
            self.take_scores(list, &page)?
        };
        self.report.pages += 1;
        let (rows, news) = (page.rows().len(), met.news);
        self.lab.talk.say(format!("{}: a page of {rows}, {news} new", list.rows));
        // A page without news is kept only where a round that is under way goes on behind it.
        if met.news > 0 || self.known.reached(list).open.contains_key(question.0) {
            self.keep(list, question, page, met)?;
        }
        Ok(true)
    }

    fn take_observations(&mut self, list: &List, page: &Page) -> Result<Met, AppError> {
        let (mut met, mut spans) = (Met::default(), Vec::new());
        for (at, row) in page.rows().iter().enumerate() {
            let trace = self.contexts.of(row);
            let reason = match rows::span(row, trace) {
                Ok(span) => {
                    met.saw(Some(span.start_us));
                    spans.push(span);
                    continue;
                }
                Err(reason) => reason,
            };
            let user = rows::user(row).or_else(|| rows::user(trace?)).map(str::to_owned);
            if let Some(user) = user {
                met.subjects.insert(self.pseudonym(&user)?);
            }
            met.news += u64::from(self.reject(list, at, row, reason)?);
        }
        let taken = self.spans.take(self.lab, &self.asked.source, spans)?;
        for name in &taken.subjects {
            met.subjects.insert(self.pseudonym(name)?);
        }
        self.find_owners(page, &mut met)?;
        let told = taken.spans.saturating_sub(taken.duplicates + taken.refused);
        met.news += told + taken.refused;
        let report = &mut self.report;
        report.observations += page.rows().len() as u64;
        report.new += told.saturating_sub(taken.revised);
        report.duplicates += taken.duplicates;
        report.revised += taken.revised;
        report.traces += taken.traces;
        report.rejected += taken.rejected + taken.refused;
        Ok(met)
    }

    /// Finds whose the observations of a page are: another page may have named the user of their
    /// trace. Of somebody who was forgotten, none is kept.
    fn find_owners(&mut self, page: &Page, met: &mut Met) -> Result<(), AppError> {
        self.owners.catch_up(&self.lab.notebook.reader())?;
        let subjects = self.lab.notebook.blobs().subjects();
        for (at, row) in page.rows().iter().enumerate() {
            let Some(owner) = rows::trace_id(row).and_then(|trace| self.owners.of(trace)) else {
                continue;
            };
            if subjects.key(&owner).map_err(BlobError::from)?.is_some() {
                met.subjects.insert(owner.as_ref().to_owned());
            } else {
                met.erased.insert(at);
            }
        }
        Ok(())
    }

    fn take_scores(&mut self, list: &List, page: &Page) -> Result<Met, AppError> {
        let mut met = Met::default();
        let before = self.lab.notebook.reader().head()?.size;
        for (at, row) in page.rows().iter().enumerate() {
            met.saw(rows::micros(row.get("timestamp")));
            self.report.scores += 1;
            if let Some(user) = rows::user(row).map(str::to_owned) {
                met.subjects.insert(self.pseudonym(&user)?);
            }
            match rows::score(row) {
                Ok(Score::Elsewhere) => self.report.passed_over += 1,
                Ok(Score::Said(said)) => match self.say(&said, row) {
                    Ok(judged) => {
                        self.report.joined += u64::from(judged.is_joined);
                        met.news += u64::from(judged.seq >= before);
                        met.subjects.extend(self.owner(judged.seq)?);
                    }
                    // What is said of somebody who was forgotten does not come back with a page.
                    Err(error) if error.kind() == Kind::Erased => {
                        self.report.passed_over += 1;
                        met.erased.insert(at);
                    }
                    Err(error) => return Err(error),
                },
                Err(reason) => met.news += u64::from(self.reject(list, at, row, reason)?),
            }
        }
        Ok(met)
    }

    /// Records a score. Two annotators may say the same: the score's id tells them apart.
    fn say(&mut self, said: &FeedbackRecorded, row: &Value) -> Result<Judged, AppError> {
        self.feedback.take_as(self.lab, said, rows::id(row))
    }

    /// Returns whose recorded feedback is.
    fn owner(&self, seq: u64) -> Result<Option<String>, AppError> {
        let Some(event) = self.lab.view().get(seq)? else { return Ok(None) };
        Ok(event.facts::<FeedbackRecorded>()?.body.and_then(|body| body.subject))
    }

    fn pseudonym(&self, name: &str) -> Result<String, AppError> {
        let name = bounded_name(name.to_owned());
        let key = self.lab.notebook.blobs().subjects().key_of(&name).map_err(BlobError::from)?;
        Ok(key.pseudonym().to_owned())
    }

    /// Records that a row cannot be read; says whether that is new.
    fn reject(
        &mut self,
        list: &List,
        at: usize,
        row: &Value,
        reason: &str,
    ) -> Result<bool, AppError> {
        self.report.rejected += 1;
        // Nobody can say whose it is, so that its digest must mean nothing to anybody.
        let content = Digest::of(row.to_string().as_bytes());
        let subjects = self.lab.notebook.blobs().subjects();
        let content = subjects.commit_unowned("row", &[content.as_bytes()]);
        let content = content.map_err(BlobError::from)?;
        if !self.known.rejected.insert(content) {
            return Ok(false);
        }
        let facts = TraceRejected {
            source: self.asked.source.clone(),
            location: Location {
                file: format!("{}{}", self.report.origin, list.route),
                row: at as u64 + 1,
            },
            reason: reason.to_owned(),
            content,
        };
        let stream = format!("trace/{}", facts.source);
        let id = format!("reject/{}/{content}", facts.source);
        self.lab.record(&stream, &id, &facts, lab::Place::default())?;
        Ok(true)
    }

    /// Stores a page, and records it with where the next one begins.
    fn keep(
        &mut self,
        list: &List,
        (bounds, query, rows): Question<'_>,
        page: Page,
        met: Met,
    ) -> Result<(), AppError> {
        let after = self.known.reached(list).last;
        let (source, origin) = (&self.asked.source, &self.report.origin);
        let key = Digest::of_json(&(source, origin, list.route, &query, after))?;
        let id = format!("page/{key}");
        let (next, row_count) = (page.next.clone(), page.rows().len() as u64);
        let rules = Rules::default();
        let (bytes, redacted) = kept(page, &met, &rules)?;
        let facts = PagePulled {
            source: source.clone(),
            origin: origin.clone(),
            route: list.route.to_owned(),
            query,
            next: next.clone(),
            rows: row_count,
            body: self.store(&bytes, &met.subjects, &id)?,
            subjects: met.subjects.into_iter().collect(),
            rules: rules.names().to_vec(),
            redacted,
        };
        let place =
            lab::Place::default().measured(json!({ "news": met.news, "newest_us": met.newest_us }));
        let seq = self.lab.record(&format!("trace/{source}"), &id, &facts, place)?;
        let next = next.map(|at| Place { at, rows });
        self.known.reached(list).put(seq, bounds.clone(), next, met.newest_us);
        Ok(())
    }

    /// Stores a page: of one subject under its key, of several under a key of the page.
    fn store(
        &self,
        bytes: &[u8],
        subjects: &BTreeSet<String>,
        id: &str,
    ) -> Result<BodyRef, AppError> {
        let blobs = self.lab.notebook.blobs();
        let mut all = subjects.iter();
        let key = match (all.next(), all.next()) {
            (None, _) => return Ok(blobs.put(bytes)?),
            (Some(one), None) => blobs.subjects().key(one).map_err(BlobError::from)?,
            _ => None,
        };
        let key = match key {
            Some(key) => key,
            None => {
                let name = page_subject(&self.asked.source, id);
                blobs.subjects().key_of(&name).map_err(BlobError::from)?
            }
        };
        Ok(blobs.put_for(&key, bytes)?)
    }
}

/// Returns the bytes of a page as they are kept, and whether they are not those that came.
fn kept(page: Page, met: &Met, rules: &Rules) -> Result<(Vec<u8>, bool), AppError> {
    let Page { bytes, mut document, .. } = page;
    if let Some(Value::Array(rows)) = document.get_mut("data").filter(|_| !met.erased.is_empty()) {
        let mut at = 0..;
        rows.retain(|_| at.next().is_none_or(|at| !met.erased.contains(&at)));
    }
    let redacted = rules.redact_json(&mut document) > 0 || !met.erased.is_empty();
    Ok(if redacted { (serde_json::to_vec(&document)?, true) } else { (bytes, false) })
}
