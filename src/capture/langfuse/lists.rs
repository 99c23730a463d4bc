//! The lists of Langfuse's API, and how to go through them.

use serde_json::Value;

use super::state::Bounds;
use crate::error::{AppError, Kind};

/// Metadata that is wanted whole: other values come cut at 200 characters.
const WHOLE_METADATA: &str = "attributes,resourceAttributes,scope,tools,ai.prompt.tools,\
                              gen_ai.tool.definitions,gen_ai.input.messages,\
                              gen_ai.output.messages,gen_ai.system_instructions";

/// How one comes from page to page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// Each page says where the next one begins.
    Cursor,
    /// Pages have numbers from 1. New rows stand first, so they shift the others towards the end:
    /// rows come twice then, but none is passed over.
    Number,
}

/// A list.
#[derive(Debug)]
pub(super) struct List {
    /// Path.
    pub(super) route: &'static str,
    /// What its rows are called.
    pub(super) rows: &'static str,
    /// Version of the API that has it.
    pub(super) api: &'static str,
    /// Parameters that bound it in time: from, and up to but without.
    pub(super) bounds: (&'static str, &'static str),
    /// Parameters that are always the same.
    pub(super) fixed: &'static [(&'static str, &'static str)],
    /// Most rows of a page.
    pub(super) rows_max: u64,
    /// How one comes from page to page.
    pub(super) paging: Paging,
}

const TIMESTAMP: (&str, &str) = ("fromTimestamp", "toTimestamp");

/// Observations: of a server of version 4, of an older one.
pub(super) const OBSERVATIONS: [List; 2] = [
    List {
        route: "/api/public/v2/observations",
        rows: "observations",
        api: "v4",
        bounds: ("fromStartTime", "toStartTime"),
        fixed: &[
            ("expandMetadata", WHOLE_METADATA),
            ("fields", "core,basic,time,io,metadata,model,usage,prompt,trace_context"),
        ],
        rows_max: 1000,
        paging: Paging::Cursor,
    },
    List {
        route: "/api/public/observations",
        rows: "observations",
        api: "v3",
        bounds: ("fromStartTime", "toStartTime"),
        fixed: &[],
        rows_max: 100,
        paging: Paging::Number,
    },
];

/// Scores, from the newest version of the list to the oldest.
pub(super) const SCORES: [List; 3] = [
    List {
        route: "/api/public/v3/scores",
        rows: "scores",
        api: "v4",
        bounds: TIMESTAMP,
        fixed: &[("fields", "details,subject,annotation")],
        rows_max: 100,
        paging: Paging::Cursor,
    },
    List {
        route: "/api/public/v2/scores",
        rows: "scores",
        api: "v3",
        bounds: TIMESTAMP,
        fixed: &[],
        rows_max: 100,
        paging: Paging::Number,
    },
    List {
        route: "/api/public/scores",
        rows: "scores",
        api: "v3",
        bounds: TIMESTAMP,
        fixed: &[],
        rows_max: 100,
        paging: Paging::Number,
    },
];

impl List {
    /// Returns the parameters that ask for a page, sorted.
    pub(super) fn query(
        &self,
        bounds: &Bounds,
        rows: u64,
        at: Option<&str>,
    ) -> Vec<(String, String)> {
        let place = match self.paging {
            Paging::Cursor => at.map(|at| ("cursor", at)),
            Paging::Number => Some(("page", at.unwrap_or("1"))),
        };
        let rows = rows.to_string();
        let from = bounds.from.as_deref().map(|from| (self.bounds.0, from));
        let to = bounds.to.as_deref().map(|to| (self.bounds.1, to));
        let all = [Some(("limit", rows.as_str())), from, to, place].into_iter().flatten();
        let all = self.fixed.iter().copied().chain(all);
        let mut query: Vec<(String, String)> =
            all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        query.sort();
        query
    }

    /// Returns the place that a page of `rows` rows begins at, where it was told for pages of
    /// `before` rows.
    pub(super) fn place(&self, at: &str, before: u64, rows: u64) -> String {
        match self.paging {
            Paging::Cursor => at.to_owned(),
            Paging::Number => {
                let page: u64 = at.parse().unwrap_or(1);
                let passed = page.saturating_sub(1).saturating_mul(before.max(1));
                (passed / rows.max(1) + 1).to_string()
            }
        }
    }
}

/// A page that came.
pub(super) struct Page {
    /// The bytes as they came.
    pub(super) bytes: Vec<u8>,
    /// What they say.
    pub(super) document: Value,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

impl Page {
    /// Reads a page that was asked for at a place.
    ///
    /// # Errors
    /// When it is no page of a list. The reason does not quote it.
    pub(super) fn read(list: &List, bytes: Vec<u8>, at: Option<&str>) -> Result<Self, AppError> {
        let odd = |what: &str| {
            let what = format!("{}: the answer {what}", list.route);
            let hint = "is there a Langfuse server at the address? --url names it";
            AppError::hinted(Kind::Input, what, hint)
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| odd("is not JSON"))?;
        let rows = document.get("data").and_then(Value::as_array);
        let rows = rows.ok_or_else(|| odd("has no array \"data\""))?;
        if rows.len() as u64 > list.rows_max {
            return Err(odd("has more rows than were asked for"));
        }
        let meta = |key: &str| document.get("meta")?.get(key);
        let next = match list.paging {
            Paging::Cursor => {
                let cursor = meta("cursor").and_then(Value::as_str);
                cursor.filter(|cursor| !cursor.is_empty()).map(str::to_owned)
            }
            Paging::Number => {
                let page: u64 = at.and_then(|at| at.parse().ok()).unwrap_or(1);
                let pages = meta("totalPages").and_then(Value::as_u64).unwrap_or(page);
                // Whatever the total says: behind an empty page comes nothing.
                (page < pages && !rows.is_empty()).then(|| (page + 1).to_string())
            }
        };
        if next.is_some() && next.as_deref() == at {
            return Err(odd("leads to itself"));
        }
        Ok(Self { bytes, document, next })
    }

    /// Returns its rows.
    pub(super) fn rows(&self) -> &[Value] {
        self.document.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(list: &List, text: &str, at: Option<&str>) -> Result<Option<String>, Kind> {
        let page = Page::read(list, text.as_bytes().to_vec(), at);
        page.map(|page| page.next).map_err(|error| error.kind())
    }

    #[test]
    fn a_page_says_where_the_next_begins() {
        let [cursor, number] = &OBSERVATIONS;
        assert_eq!(
            read(cursor, r#"{"data":[],"meta":{"cursor":"c2"}}"#, None),
            Ok(Some("c2".into()))
        );
        for last in [r#"{"data":[],"meta":{"cursor":null}}"#, r#"{"data":[]}"#] {
            assert_eq!(read(cursor, last, Some("c2")), Ok(None));
        }
        let same = r#"{"data":[],"meta":{"cursor":"c2"}}"#;
        assert_eq!(read(cursor, same, Some("c2")), Err(Kind::Input));
        let more = r#"{"data":[1],"meta":{"page":2,"totalPages":3}}"#;
        assert_eq!(read(number, more, Some("2")), Ok(Some("3".into())));
        assert_eq!(read(number, more, Some("3")), Ok(None));
        assert_eq!(read(number, "<html>", None), Err(Kind::Input));
        assert_eq!(read(number, r#"{"rows":[]}"#, None), Err(Kind::Input));
    }

    #[test]
    fn a_number_of_a_page_holds_for_its_length() {
        let number = &OBSERVATIONS[1];
        assert_eq!(number.place("4", 50, 100), "2");
        assert_eq!(number.place("3", 100, 50), "5");
        assert_eq!(OBSERVATIONS[0].place("eyJ", 50, 100), "eyJ");
    }
}
