//! What older servers know of a trace and do not repeat with its observations: whose it is, which
//! session it belongs to, its name and tags.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::lists::{List, Page, Paging};
use super::rows;
use crate::error::{AppError, Kind};

/// Traces, as a list beside that of observations.
const TRACES: List = List {
    route: "/api/public/traces",
    rows: "traces",
    api: "v3",
    bounds: ("fromTimestamp", "toTimestamp"),
    // From the oldest on, so that those that are wanted stand first.
    fixed: &[("fields", "core"), ("orderBy", "timestamp.asc")],
    rows_max: 100,
    paging: Paging::Number,
};
/// Most pages that are read for those of one page of observations; the rest is asked for one by
/// one.
const PAGES_MAX: u64 = 10;
/// How long before its oldest observation a trace may have begun to be on those pages.
const EARLIER_US: i64 = 600_000_000;
/// Most traces that are remembered.
const KNOWN_MAX: usize = 50_000;
/// What is kept of a trace.
const FIELDS: [&str; 6] = ["name", "release", "sessionId", "tags", "timestamp", "userId"];

/// The traces of observations.
#[derive(Default)]
pub(super) struct Contexts {
    by_trace: BTreeMap<String, Value>,
}

impl Contexts {
    /// Looks up the traces of some observations; `false` where somebody asked to stop meanwhile.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) fn find(&mut self, client: &mut Client, page: &Page) -> Result<bool, AppError> {
        if self.by_trace.len() > KNOWN_MAX {
            self.by_trace.clear();
        }
        let wanted: BTreeSet<&str> = page.rows().iter().filter_map(rows::trace_id).collect();
        let starts = page.rows().iter().filter_map(|row| rows::micros(row.get("startTime")));
        let from = starts.min().and_then(|start| time(start.saturating_sub(EARLIER_US)));
        let mut at = Some("1".to_owned());
        for _ in 0..PAGES_MAX {
            let is_known = |id: &&str| self.by_trace.contains_key(*id);
            let Some(place) = at.take().filter(|_| !wanted.iter().all(is_known)) else {
                break;
            };
            let bounds = super::state::Bounds { from: from.clone(), to: None };
            let query = TRACES.query(&bounds, TRACES.rows_max, Some(&place));
            match client.get(TRACES.route, &query)? {
                Reply::Stopped => return Ok(false),
                // Some version lacks a parameter: one by one, then.
                Reply::Missing | Reply::Refused(_) => break,
                Reply::Body(bytes) => {
                    let page = Page::read(&TRACES, bytes, Some(&place))?;
                    page.rows().iter().for_each(|trace| self.put(trace));
                    at = page.next;
                }
            }
        }
        for id in wanted {
            if !self.by_trace.contains_key(id) && !self.find_one(client, id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks for one trace. Without it nobody could say whose its observations are.
    fn find_one(&mut self, client: &mut Client, id: &str) -> Result<bool, AppError> {
        let route = format!("{}/{}", TRACES.route, escaped(id));
        match client.get(&route, &[("fields".to_owned(), "core".to_owned())])? {
            Reply::Stopped => return Ok(false),
            Reply::Refused(said) => {
                let hint = "is the server a Langfuse of version 3? --url names it";
                return Err(AppError::hinted(Kind::Unavailable, said, hint));
            }
            // Observations may outlive their trace.
            Reply::Missing => drop(self.by_trace.insert(id.to_owned(), json!({}))),
            Reply::Body(bytes) => {
                let trace: Value = serde_json::from_slice(&bytes).map_err(|_| {
                    AppError::said(Kind::Input, format!("{}: the answer is not JSON", TRACES.route))
                })?;
                self.by_trace.insert(id.to_owned(), kept(&trace));
            }
        }
        Ok(true)
    }

    fn put(&mut self, trace: &Value) {
        if let Some(id) = trace.get("id").and_then(Value::as_str) {
            self.by_trace.insert(id.to_owned(), kept(trace));
        }
    }

    /// Returns what is known of a row's trace.
    pub(super) fn of(&self, row: &Value) -> Option<&Value> {
        self.by_trace.get(rows::trace_id(row)?)
    }
}

/// Returns what is kept of a trace: not what went in and out, which observations have too.
fn kept(trace: &Value) -> Value {
    let field = |name: &str| Some((name.to_owned(), trace.get(name)?.clone()));
    Value::Object(FIELDS.into_iter().filter_map(field).collect())
}

/// Writes a time as the API takes it.
pub(super) fn time(us: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(us)?;
    Some(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// Writes an id as a part of a path.
fn escaped(id: &str) -> String {
    let mut path = String::new();
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
