//! Choosing the questions of a suite from rows, stratum by stratum.
//!
//! Which questions are taken depends on a salted hash of each and on nothing else: rows that are
//! added push out as few as they must, and the order of the rows does not matter. What was looked
//! at, found and taken is told, because a suite of nothing must not pass for a suite.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use ledger::Digest;
use ledger::catalogue::Count;
use serde::{Deserialize, Serialize};

use super::{SuiteError, SuiteManifest, SuiteSpec, strata};
use crate::episode::Episode;

/// Which rows are questions, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Which rows, and what strata they fall into.
    pub kind: Kind,
    /// How many to take of each stratum at most; all where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_stratum: Option<u64>,
    /// How many to take of single strata instead, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub take: BTreeMap<String, u64>,
    /// Salt of the hash that orders the questions of a stratum.
    pub salt: String,
    /// Datasets whose questions are not taken; what they ask is given with the rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_out: Vec<String>,
    /// Strata may hold fewer rows than asked for.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub allow_short: bool,
}

/// Which rows a suite is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One user turn: `simple`, `moderate`, `complex`.
    SingleTurn,
    /// Several user turns: `clarification`, `context-dependent`, `sequential`.
    MultiTurn,
    /// Any row, by what it is about.
    DomainDiverse,
    /// Rows for which no call is right.
    Irrelevance,
    /// Any row, by the calls that are wanted.
    All,
}

impl Kind {
    /// All kinds.
    pub const KINDS: [Self; 5] =
        [Self::SingleTurn, Self::MultiTurn, Self::DomainDiverse, Self::Irrelevance, Self::All];

    /// Returns the name, as a spec writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleTurn => "single-turn",
            Self::MultiTurn => "multi-turn",
            Self::DomainDiverse => "domain-diverse",
            Self::Irrelevance => "irrelevance",
            Self::All => "all",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::KINDS.map(Self::name).join(", ");
        let kind = Self::KINDS.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("no kind of suite {name:?} (known: {known})"))
    }
}

/// The rows that a suite is made from.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The questions: event and episode.
    pub questions: &'a [(u64, Episode)],
    /// Rows with the golds of the same prompts.
    pub golds: &'a [(u64, Episode)],
    /// Rows that know more calls for the same queries.
    pub wider: &'a [(u64, Episode)],
    /// Normalised queries ([`Episode::group`]) that must not be taken, such as those of a training
    /// side.
    pub keep_out: &'a BTreeSet<String>,
}

/// What was looked at, found and taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selected {
    /// Rows that were looked at. Each of them is counted in one place below.
    pub looked_at: u64,
    /// Rows that cannot be cases, by what is wrong with them, sorted.
    pub lacked: Vec<Count>,
    /// Rows whose question stands in a dataset that it must not stand in.
    pub kept_out: u64,
    /// Rows that ask what an earlier row asks.
    pub asked_again: u64,
    /// The rest, by stratum.
    pub strata: Vec<Stratum>,
}

/// One stratum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stratum {
    /// Its name.
    pub name: String,
    /// How many were asked for; none where all were.
    pub asked: Option<u64>,
    /// How many questions there are.
    pub found: u64,
    /// How many of them were taken.
    pub taken: u64,
}

impl Stratum {
    /// Returns whether there are fewer questions than were asked for.
    pub fn is_short(&self) -> bool {
        self.asked.is_some_and(|asked| self.found < asked)
    }
}

impl Selected {
    /// Returns how many questions were taken.
    pub fn taken(&self) -> u64 {
        self.strata.iter().map(|stratum| stratum.taken).sum()
    }

    /// Says how many rows were looked at and what became of those that are no cases.
    pub fn sentence(&self) -> String {
        let mut parts: Vec<(u64, String)> =
            self.lacked.iter().map(|count| (count.n, count.name.clone())).collect();
        // The largest number first; equal ones stay sorted by name.
        parts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
        parts.push((self.kept_out, "stand in a dataset to keep out".to_owned()));
        parts.push((self.asked_again, "ask what an earlier row asks".to_owned()));
        let told = parts.iter().filter(|(n, _)| *n > 0);
        let told: Vec<String> = told.map(|(n, what)| format!("{} {what}", grouped(*n))).collect();
        let rows = if self.looked_at == 1 { "row" } else { "rows" };
        let mut sentence = format!("{} {rows} looked at", grouped(self.looked_at));
        if !told.is_empty() {
            sentence.push_str(": ");
            sentence.push_str(&told.join(", "));
        }
        sentence
    }
}

impl fmt::Display for Selected {
    /// Writes what was looked at, then a table of the strata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sentence())?;
        f.write_str(&table(&self.strata))
    }
}

/// Describes a suite for people: its strata with how many cases were asked for, found and taken.
pub fn describe(suite: &SuiteManifest) -> String {
    match &suite.selected {
        Some(selected) => selected.to_string(),
        None => {
            let stratum = |count: Count| Stratum {
                name: count.name,
                asked: None,
                found: count.n,
                taken: count.n,
            };
            table(&suite.strata().into_iter().map(stratum).collect::<Vec<_>>())
        }
    }
}

fn table(strata: &[Stratum]) -> String {
    let width = strata.iter().map(|stratum| stratum.name.chars().count()).max().unwrap_or(0);
    let width = width.max("stratum".len());
    let mut text = format!("{:width$}  {:>7}  {:>7}  {:>7}", "stratum", "asked", "found", "taken");
    for stratum in strata {
        let asked = stratum.asked.map_or_else(|| "all".to_owned(), grouped);
        let (found, taken) = (grouped(stratum.found), grouped(stratum.taken));
        let short = if stratum.is_short() { "  short" } else { "" };
        text.push_str(&format!(
            "\n{:width$}  {asked:>7}  {found:>7}  {taken:>7}{short}",
            stratum.name
        ));
    }
    text
}

/// Writes a number with a comma before every three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The questions of a suite, in the order of its cases.
pub(super) struct Chosen<'a> {
    pub(super) rows: Vec<(u64, &'a Episode, String)>,
    pub(super) selected: Selected,
}

/// What a row is to a suite: the stratum that it falls into, or what it lacks.
pub(super) type Judged = Result<String, &'static str>;

/// Chooses the questions. `judge` says what stratum a row falls into.
///
/// # Errors
/// What `judge` gives, and a stratum that is asked for by name and is none of the kind's.
pub(super) fn choose<'a>(
    (spec, select): (&SuiteSpec, &Select),
    rows: &Rows<'a>,
    judge: impl Fn(u64, &Episode) -> Result<Judged, SuiteError>,
) -> Result<Chosen<'a>, SuiteError> {
    let mut by_event: Vec<&(u64, Episode)> = rows.questions.iter().collect();
    by_event.sort_by_key(|(seq, _)| *seq);
    let mut selected = Selected { looked_at: by_event.len() as u64, ..Selected::default() };
    let mut lacked: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut strata: BTreeMap<String, Vec<(Digest, u64, &Episode)>> = BTreeMap::new();
    for (seq, row) in by_event {
        let stratum = match judge(*seq, row)? {
            Ok(stratum) => stratum,
            Err(reason) => {
                *lacked.entry(reason).or_default() += 1;
                continue;
            }
        };
        let question = strata::question(row);
        if rows.keep_out.contains(&row.group()) || rows.keep_out.contains(&question) {
            selected.kept_out += 1;
            continue;
        }
        let place = place(&select.salt, &question);
        if !seen.insert(question) {
            selected.asked_again += 1;
            continue;
        }
        strata.entry(stratum).or_default().push((place, *seq, row));
    }
    selected.lacked =
        lacked.into_iter().map(|(name, n)| Count { name: name.to_owned(), n }).collect();
    let mut chosen = Vec::new();
    for name in names(spec, select, &strata)? {
        let mut found = strata.remove(&name).unwrap_or_default();
        found.sort_by_key(|(place, seq, _)| (*place, *seq));
        let asked = select.take.get(&name).copied().or(select.per_stratum);
        let count = found.len() as u64;
        let taken = asked.map_or(count, |asked| asked.min(count));
        let few = found.into_iter().take(usize::try_from(taken).unwrap_or(usize::MAX));
        chosen.extend(few.map(|(_, seq, row)| (seq, row, name.clone())));
        selected.strata.push(Stratum { name, asked, found: count, taken });
    }
    Ok(Chosen { rows: chosen, selected })
}

/// Names the strata in their order: those of the kind, and where it has none, those that were
/// found or asked for.
fn names<T>(
    spec: &SuiteSpec,
    select: &Select,
    found: &BTreeMap<String, T>,
) -> Result<Vec<String>, SuiteError> {
    let of_kind: Vec<String> =
        strata::of_kind(select.kind).into_iter().map(str::to_owned).collect();
    let known = if select.kind == Kind::All {
        super::STRATA.map(str::to_owned).to_vec()
    } else {
        of_kind.clone()
    };
    if let Some(stratum) = select.take.keys().find(|name| !known.contains(*name)) {
        return Err(SuiteError::Stratum {
            name: spec.name.clone(),
            stratum: stratum.clone(),
            known: known.join(", "),
        });
    }
    if select.kind != Kind::All {
        return Ok(of_kind);
    }
    let wanted = |name: &String| found.contains_key(name) || select.take.contains_key(name);
    Ok(known.into_iter().filter(wanted).collect())
}

/// Returns the place of a question among those of its stratum.
fn place(salt: &str, question: &str) -> Digest {
    let mut bytes = salt.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(question.as_bytes());
    Digest::of(&bytes)
}

/// Refuses what was chosen where there is nothing, or less than was asked for.
pub(super) fn check(
    spec: &SuiteSpec,
    select: &Select,
    selected: &Selected,
) -> Result<(), SuiteError> {
    let found: u64 = selected.strata.iter().map(|stratum| stratum.found).sum();
    if found == 0 {
        return Err(SuiteError::NothingFound {
            name: spec.name.clone(),
            kind: select.kind.name(),
            sources: spec.sources().join(", "),
            why: selected.sentence(),
        });
    }
    let short: Vec<String> = selected
        .strata
        .iter()
        .filter(|stratum| stratum.is_short())
        .map(|stratum| {
            let asked = stratum.asked.unwrap_or_default();
            format!("{} {} of {}", stratum.name, grouped(stratum.found), grouped(asked))
        })
        .collect();
    if !short.is_empty() && !select.allow_short {
        return Err(SuiteError::Short { name: spec.name.clone(), short: short.join(", ") });
    }
    if selected.taken() == 0 {
        return Err(SuiteError::NothingAsked { name: spec.name.clone(), found });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
