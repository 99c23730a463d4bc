//! What the record knows of earlier pulls: which rounds are unfinished, and how far they came.

use std::collections::{BTreeMap, BTreeSet};

use ledger::catalogue::{PagePulled, TraceRejected};
use ledger::{Digest, Envelope, Facts as _};
use serde_json::Value;

use super::lists::List;
use crate::error::AppError;
use crate::lab::Lab;

/// The time that a round is about: from, and up to but without.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bounds {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// Where an unfinished round goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The next page.
    pub(super) at: String,
    /// Rows that a page had.
    pub(super) rows: u64,
}

/// How far a list was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The newest page's event.
    pub(super) last: Option<u64>,
    /// Newest time of a row, in microseconds since 1970.
    pub(super) newest_us: Option<i64>,
    /// Unfinished rounds.
    pub(super) open: BTreeMap<Bounds, Place>,
}

/// What the record knows of a source and server.
#[derive(Default)]
pub(super) struct Known {
    /// By path of the list.
    reached: BTreeMap<String, Reached>,
    /// Rows that were rejected and told.
    pub(super) rejected: BTreeSet<Digest>,
}

impl Known {
    /// Reads the record through.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(lab: &Lab<'_>, source: &str, origin: &str) -> Result<Self, AppError> {
        let mut known = Self::default();
        for event in lab.view().events()? {
            let event = event?;
            match event.kind.as_str() {
                PagePulled::KIND => {
                    let facts: PagePulled = event.facts()?;
                    if facts.source == source && facts.origin == origin {
                        known.put(&event, facts);
                    }
                }
                TraceRejected::KIND => {
                    let facts: TraceRejected = event.facts()?;
                    if facts.source == source && facts.location.file.starts_with(origin) {
                        known.rejected.insert(facts.content);
                    }
                }
                _ => {}
            }
        }
        Ok(known)
    }

    fn put(&mut self, event: &Envelope, facts: PagePulled) {
        let reached = self.reached.entry(facts.route).or_default();
        let bounds = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| parameter(&facts.query, name));
            found.map(str::to_owned)
        };
        let bounds = Bounds {
            from: bounds(["fromStartTime", "fromTimestamp"]),
            to: bounds(["toStartTime", "toTimestamp"]),
        };
        let rows = parameter(&facts.query, "limit").and_then(|rows| rows.parse().ok());
        let newest_us = event.measured.get("newest_us").and_then(Value::as_i64);
        let next = facts.next.map(|at| Place { at, rows: rows.unwrap_or(1) });
        reached.put(event.seq, bounds, next, newest_us);
    }

    /// Says how far a list was read.
    pub(super) fn reached(&mut self, list: &List) -> &mut Reached {
        self.reached.entry(list.route.to_owned()).or_default()
    }
}

impl Reached {
    /// A page was recorded.
    pub(super) fn put(
        &mut self,
        seq: u64,
        bounds: Bounds,
        next: Option<Place>,
        newest_us: Option<i64>,
    ) {
        self.last = Some(seq);
        self.newest_us = self.newest_us.max(newest_us);
        match next {
            Some(place) => self.open.insert(bounds, place),
            None => self.open.remove(&bounds),
        };
    }
}

fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_open_until_its_last_page() {
        let mut reached = Reached::default();
        let (whole, day) = (Bounds::default(), Bounds { from: Some("a".into()), to: None });
        let place = |at: &str| Some(Place { at: at.to_owned(), rows: 100 });
        reached.put(3, whole.clone(), place("c2"), Some(70));
        reached.put(5, day.clone(), None, Some(60));
        assert_eq!((reached.last, reached.newest_us), (Some(5), Some(70)));
        assert_eq!(reached.open.get(&whole).map(|place| place.at.as_str()), Some("c2"));
        assert!(!reached.open.contains_key(&day));
        reached.put(6, whole, None, None);
        assert!(reached.open.is_empty());
    }
}
