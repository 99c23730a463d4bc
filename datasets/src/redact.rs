//! Taking secrets and personal details out of texts before they are stored.
//!
//! What is found is replaced by a placeholder, `[EMAIL_1]`, numbered by first appearance within the
//! episode. One value has one placeholder everywhere in the episode, so that a gold argument still
//! copies what the question says. A placeholder tells nothing of the value: no digest of it, which
//! could be guessed for anything as short as a phone number.
//!
//! Redacting is idempotent, and takes time in proportion to the texts. It is made of patterns and
//! misses what follows none: names and addresses of people, or a password that nothing calls one.
//! JSON numbers are left, unless their digits are a number that was found in a text of the episode.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::Value;

use crate::episode::Episode;

mod digits;
mod email;
mod scan;
mod secrets;
mod session;
mod walk;

use session::Session;

/// What is taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    on: BTreeSet<Rule>,
    /// Names of the rules, with their versions, as they stand on events.
    names: Vec<String>,
}

/// A family of things that are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Card,
    Email,
    Iban,
    Phone,
    Secrets,
}

/// Says why rules are not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// There is no rule of this name.
    #[error("unknown redaction rule {name:?} (known: none, {known})")]
    Unknown {
        /// Name that was given.
        name: String,
        /// Names that are known.
        known: String,
    },
    /// A rule was recorded in a version that this program does not have.
    #[error(
        "redaction rule {name:?} is not known here (known: {known}): use the version of ledger \
         that recorded it"
    )]
    Version {
        /// Name and version that were recorded.
        name: String,
        /// Names and versions that are known.
        known: String,
    },
}

impl Rule {
    const ALL: [Self; 5] = [Self::Card, Self::Email, Self::Iban, Self::Phone, Self::Secrets];
    /// Version of what the rules find. Any change that finds more or less raises it.
    const VERSION: u32 = 2;

    const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Email => "email",
            Self::Iban => "iban",
            Self::Phone => "phone",
            Self::Secrets => "secrets",
        }
    }

    /// Returns the word in placeholders.
    const fn label(self) -> &'static str {
        match self {
            Self::Card => "CARD",
            Self::Email => "EMAIL",
            Self::Iban => "IBAN",
            Self::Phone => "PHONE",
            Self::Secrets => "SECRET",
        }
    }

    fn versioned(self) -> String {
        format!("{}/{}", self.name(), Self::VERSION)
    }
}

impl Default for Rules {
    /// Takes secrets out.
    fn default() -> Self {
        Self::secrets()
    }
}

impl Rules {
    fn of(on: BTreeSet<Rule>) -> Self {
        let names = on.iter().map(|rule| rule.versioned()).collect();
        Self { on, names }
    }

    /// Takes nothing out.
    pub fn none() -> Self {
        Self::of(BTreeSet::new())
    }

    /// Takes keys, tokens and passwords out.
    pub fn secrets() -> Self {
        Self::of(BTreeSet::from([Rule::Secrets]))
    }

    /// Returns the names of the rules with their versions, sorted, as they stand on events.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the rules that an event names, as [`Rules::names`] gave them.
    ///
    /// # Errors
    /// When one of them, or its version, is not known.
    pub fn from_names<T: AsRef<str>>(names: &[T]) -> Result<Self, RulesError> {
        let rule = |name: &T| {
            let known = || Rule::ALL.map(Rule::versioned).join(", ");
            let found = Rule::ALL.into_iter().find(|rule| rule.versioned() == name.as_ref());
            found.ok_or_else(|| RulesError::Version {
                name: name.as_ref().to_owned(),
                known: known(),
            })
        };
        Ok(Self::of(names.iter().map(rule).collect::<Result<_, _>>()?))
    }

    /// Puts placeholders into all texts of an episode, and says at how many places.
    ///
    /// Texts are those of turns, calls (with their names and those of their arguments), tools with
    /// their names and schemas, the gold, the answer with its model, and the query. Names and ids
    /// of sources and subjects stay.
    pub fn redact(&self, episode: &mut Episode) -> u64 {
        if self.on.is_empty() {
            return 0;
        }
        Session::new(self).run(episode)
    }

    /// Puts placeholders into all texts of a JSON value, also of JSON inside them, and says at how
    /// many places.
    pub fn redact_json(&self, value: &mut Value) -> u64 {
        if self.on.is_empty() {
            return 0;
        }
        let inside = self.redact_inside(value);
        inside + Session::new(self).run(value)
    }

    /// Redacts JSON that is the text of a leaf: its escapes hide what stands behind them.
    fn redact_inside(&self, value: &mut Value) -> u64 {
        match value {
            Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
                let Ok(mut inner) = serde_json::from_str::<Value>(text) else { return 0 };
                let places = self.redact_json(&mut inner);
                if places > 0 {
                    *text = inner.to_string();
                }
                places
            }
            Value::Array(items) => items.iter_mut().map(|item| self.redact_inside(item)).sum(),
            Value::Object(members) => {
                members.values_mut().map(|member| self.redact_inside(member)).sum()
            }
            _ => 0,
        }
    }

    /// Puts placeholders into a text, numbered from 1 in it.
    pub fn redact_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if !self.on.is_empty() {
            Session::new(self).run(&mut text);
        }
        text
    }
}

impl FromStr for Rules {
    type Err = RulesError;

    /// Reads names with commas between them, as in `secrets,email,card`; or `none`.
    fn from_str(text: &str) -> Result<Self, RulesError> {
        if text.trim() == "none" {
            return Ok(Self::none());
        }
        let rule = |name: &str| {
            let known = || Rule::ALL.map(Rule::name).join(", ");
            let found = Rule::ALL.into_iter().find(|rule| rule.name() == name.trim());
            found
                .ok_or_else(|| RulesError::Unknown { name: name.trim().to_owned(), known: known() })
        };
        Ok(Self::of(text.split(',').map(rule).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests;
