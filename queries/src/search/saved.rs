//! Searches with a name: those that ship with the program, and those of a notebook.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hits::facets_of;
use super::language::{parse, parse_feedback};
use super::{Filters, Options, SearchError, Sort};

/// A search with a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSearch {
    /// Name: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it finds, in one sentence.
    #[serde(default)]
    pub description: String,
    /// Words and fields.
    #[serde(default)]
    pub query: String,
    /// What hits must have beside them.
    #[serde(default)]
    pub filters: Filters,
    /// Their order.
    #[serde(default)]
    pub sort: Sort,
    /// Fields whose values are counted.
    #[serde(default)]
    pub facets: Vec<String>,
}

/// Says why a search cannot be saved or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// It is not of the form of a saved search.
    #[error("saved search {name}: {what}")]
    Form {
        /// Its name, as far as it is known.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// It could never be run.
    #[error("saved search {name}: {source}")]
    Search {
        /// Its name.
        name: String,
        /// Why.
        source: SearchError,
    },
}

impl SavedSearch {
    /// Makes a search of words and fields that has no name yet.
    pub fn of_words(query: &str) -> Self {
        Self {
            name: "unnamed".to_owned(),
            description: String::new(),
            query: query.to_owned(),
            filters: Filters::default(),
            sort: Sort::Best,
            facets: Vec::new(),
        }
    }

    /// Reads and checks a search in TOML.
    ///
    /// # Errors
    /// When it has another form or unknown keys, or could never be run.
    pub fn parse(name: &str, text: &str) -> Result<Self, SavedError> {
        let read = toml::from_str(text);
        let form = |what: String| SavedError::Form { name: name.to_owned(), what };
        Self::checked(name, read.map_err(|error| form(error.to_string()))?)
    }

    /// Reads and checks a search out of the facts of an event.
    ///
    /// # Errors
    /// When it has another form or unknown keys, or could never be run.
    pub fn from_value(value: &Value) -> Result<Self, SavedError> {
        let name = value.get("name").and_then(Value::as_str).unwrap_or("without a name");
        let form = |error: serde_json::Error| SavedError::Form {
            name: name.to_owned(),
            what: error.to_string(),
        };
        Self::checked(name, Self::deserialize(value).map_err(form)?)
    }

    /// Returns the search as facts of an event hold it.
    ///
    /// # Errors
    /// When it could never be run.
    pub fn to_value(&self) -> Result<Value, SavedError> {
        let search = Self::checked(&self.name, self.clone())?;
        let form = |error: serde_json::Error| SavedError::Form {
            name: self.name.clone(),
            what: error.to_string(),
        };
        serde_json::to_value(search).map_err(form)
    }

    /// Returns how to run it, for one page of hits.
    pub fn options(&self, offset: usize, limit: usize) -> Options {
        let (sort, facets) = (self.sort, self.facets.clone());
        Options { limit, offset, sort, facets, ..Options::default() }
    }

    fn checked(name: &str, search: Self) -> Result<Self, SavedError> {
        let form = |what: &str| SavedError::Form { name: name.to_owned(), what: what.to_owned() };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if search.name != name {
            return Err(form("is stored under another name than its own"));
        }
        if name.is_empty() || !name.chars().all(fits) {
            return Err(form("a name has lower-case letters, digits and hyphens"));
        }
        let failed = |source| SavedError::Search { name: name.to_owned(), source };
        parse(&search.query).map_err(failed)?;
        if let Some(feedback) = &search.filters.feedback {
            parse_feedback(feedback).map_err(failed)?;
        }
        facets_of(&search.facets).map_err(failed)?;
        Ok(search)
    }
}

/// The files that ship with the program.
const SHIPPED: [(&str, &str); 9] = [
    ("failed-cases", include_str!("../../saved/searches/failed-cases.toml")),
    ("near-misses", include_str!("../../saved/searches/near-misses.toml")),
    ("unread-calls", include_str!("../../saved/searches/unread-calls.toml")),
    ("failed-traces", include_str!("../../saved/searches/failed-traces.toml")),
    ("corrections", include_str!("../../saved/searches/corrections.toml")),
    ("rejected-rows", include_str!("../../saved/searches/rejected-rows.toml")),
    ("failed-runs", include_str!("../../saved/searches/failed-runs.toml")),
    ("refused-promotions", include_str!("../../saved/searches/refused-promotions.toml")),
    ("overrides-and-rollbacks", include_str!("../../saved/searches/overrides-and-rollbacks.toml")),
];

/// Reads the searches that ship with the program.
///
/// # Errors
/// When one of them is malformed, which a test rules out.
pub fn shipped() -> Result<Vec<SavedSearch>, SavedError> {
    SHIPPED.iter().map(|(name, text)| SavedSearch::parse(name, text)).collect()
}

/// The searches that have a name: a notebook's own before those that ship.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedSearches {
    own: BTreeMap<String, SavedSearch>,
}

impl SavedSearches {
    /// Takes up what an event says of a name: a search, or null to take the name back. The newest
    /// event of a name counts.
    ///
    /// # Errors
    /// When it is no search, or one of another name; what the name meant before stays.
    pub fn fold(&mut self, name: &str, search: &Value) -> Result<(), SavedError> {
        if search.is_null() {
            self.own.remove(name);
            return Ok(());
        }
        let search = SavedSearch::from_value(search)?;
        let search = SavedSearch::checked(name, search)?;
        self.own.insert(name.to_owned(), search);
        Ok(())
    }

    /// Finds the search of a name.
    ///
    /// # Errors
    /// When a shipped one is malformed, which a test rules out.
    pub fn get(&self, name: &str) -> Result<Option<SavedSearch>, SavedError> {
        if let Some(own) = self.own.get(name) {
            return Ok(Some(own.clone()));
        }
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        shipped.map(|(name, text)| SavedSearch::parse(name, text)).transpose()
    }

    /// Lists all, by name; `true` for those of the notebook.
    ///
    /// # Errors
    /// When a shipped one is malformed, which a test rules out.
    pub fn all(&self) -> Result<Vec<(SavedSearch, bool)>, SavedError> {
        let mut all: BTreeMap<String, (SavedSearch, bool)> = BTreeMap::new();
        for search in shipped()? {
            all.insert(search.name.clone(), (search, false));
        }
        for (name, search) in &self.own {
            all.insert(name.clone(), (search.clone(), true));
        }
        Ok(all.into_values().collect())
    }
}

#[cfg(test)]
mod tests;
