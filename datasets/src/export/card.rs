//! The card of a dataset: what is in it, for people (Markdown) and for programs (Croissant 1.1).
//!
//! Format of the latter: <https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::ExportFormat;

mod croissant;

/// Licence of a source of which nobody said under which one it stands.
const UNKNOWN: &str = "unknown";

/// What a card says. Plain data: the caller counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardFacts {
    /// Name of the dataset.
    pub name: String,
    /// What it is for, in a sentence; may be empty.
    pub description: String,
    /// Where it is published; may be empty. Croissant asks for it.
    pub url: String,
    /// Who made it; may be empty. Croissant asks for it.
    pub creator: String,
    /// Day of publication, as `2026-11-25`; may be empty. Croissant asks for it.
    pub published: String,
    /// Digest of its manifest, which is what it is known by.
    pub identity: String,
    /// Rows by side, as `train`.
    pub rows: BTreeMap<String, u64>,
    /// Rows by stratum, as `toolcall/several calls`.
    pub strata: BTreeMap<String, u64>,
    /// Where the rows came from.
    pub sources: Vec<SourceFacts>,
    /// Golds that call a tool, by the tool's name.
    pub tools: BTreeMap<String, u64>,
    /// Lengths of prompt and gold together.
    pub lengths: Lengths,
    /// Rows left out because they nearly repeat one on the other side.
    pub near_duplicates: u64,
    /// What the rows were held against, and how many were found there.
    pub leakage: Vec<Leakage>,
    /// Rules by which texts were redacted, with their versions; empty when none were.
    pub redaction_rules: Vec<String>,
    /// Places at which a placeholder stands for what was taken out.
    pub redacted: u64,
    /// Rows left out, by reason.
    pub excluded: BTreeMap<String, u64>,
    /// The specification by which the rows were chosen, as it was written.
    pub spec: String,
    /// Files that hold the rows.
    pub files: Vec<FileFacts>,
}

/// A source of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// Name.
    pub name: String,
    /// Rows that came from it.
    pub rows: u64,
    /// Licence, as an SPDX expression, or `unknown`.
    pub licence: String,
    /// Whom the licence asks to name; may be empty.
    pub attribution: String,
}

/// How long rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// What is counted, as `tokens` or `bytes`.
    pub unit: String,
    /// Lengths by quantile, as `(50, 312)` for the median; ascending.
    pub quantiles: Vec<(u8, u64)>,
}

/// A check for rows that stand in another set, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leakage {
    /// What the rows were held against.
    pub against: String,
    /// Rows found there.
    pub found: u64,
}

/// A file that holds rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Path relative to the card, with `/` between its parts.
    pub path: String,
    /// Side of its rows.
    pub side: String,
    /// Format.
    pub format: ExportFormat,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
}

impl CardFacts {
    /// Writes the card for people.
    pub fn markdown(&self) -> String {
        let mut card = format!("# {}\n", line(&self.name));
        if !self.description.is_empty() {
            section(&mut card, &line(&self.description));
        }
        section(&mut card, &format!("Identity: `{}`", line(&self.identity)));
        section(&mut card, "## Rows");
        table(&mut card, ["side", "rows"], counted(&self.rows));
        if !self.strata.is_empty() {
            table(&mut card, ["stratum", "rows"], counted(&self.strata));
        }
        self.licences(&mut card);
        self.content(&mut card);
        self.care(&mut card);
        if !self.files.is_empty() {
            section(&mut card, "## Files");
            let file = |file: &FileFacts| {
                let FileFacts { path, side, format, sha256, bytes } = file;
                [path.clone(), side.clone(), format.to_string(), bytes.to_string(), sha256.clone()]
            };
            let head = ["file", "side", "format", "bytes", "SHA-256"];
            table(&mut card, head, self.files.iter().map(file));
        }
        if !self.spec.is_empty() {
            section(&mut card, "## Specification");
            let fence = fence(&self.spec);
            section(&mut card, &format!("{fence}\n{}\n{fence}", self.spec.trim_end()));
        }
        card
    }

    /// Writes the card for programs: Croissant 1.1, as JSON-LD.
    pub fn croissant(&self) -> Value {
        croissant::write(self)
    }

    /// Returns the licences of all sources, sorted, each once.
    pub fn licences_of_rows(&self) -> Vec<String> {
        let licence = |source: &SourceFacts| match source.licence.trim() {
            "" => UNKNOWN.to_owned(),
            licence => licence.to_owned(),
        };
        let all: BTreeSet<String> = self.sources.iter().map(licence).collect();
        all.into_iter().collect()
    }

    fn rows_of_unknown_licence(&self) -> u64 {
        let is_unknown = |source: &&SourceFacts| {
            let licence = source.licence.trim();
            licence.is_empty() || licence == UNKNOWN
        };
        self.sources.iter().filter(is_unknown).map(|source| source.rows).sum()
    }

    fn licences(&self, card: &mut String) {
        section(card, "## Sources and licences");
        let unknown = self.rows_of_unknown_licence();
        if unknown > 0 {
            let warning = format!(
                "> **Licence unknown for {unknown} rows.** Nobody has said that they may be used \
                 or passed on. Find out before you publish this dataset or a model trained on it."
            );
            section(card, &warning);
        }
        let licences = self.licences_of_rows();
        if licences.len() > 1 {
            let all = licences.iter().map(|licence| format!("`{}`", line(licence)));
            let all = all.collect::<Vec<_>>().join(", ");
            section(
                card,
                &format!("Every row keeps its own licence, and all of them bind: {all}."),
            );
        }
        let source = |source: &SourceFacts| {
            let SourceFacts { name, rows, licence, attribution } = source;
            [name.clone(), rows.to_string(), licence.clone(), attribution.clone()]
        };
        table(card, ["source", "rows", "licence", "attribution"], self.sources.iter().map(source));
        for licence in licences {
            let Some(condition) = condition(&licence) else { continue };
            section(card, &format!("`{}` {condition}", line(&licence)));
        }
        let named: BTreeSet<&str> =
            self.sources.iter().map(|source| source.attribution.trim()).collect();
        let named: Vec<&str> = named.into_iter().filter(|name| !name.is_empty()).collect();
        if !named.is_empty() {
            let lines = named.iter().map(|name| format!("- {}", line(name)));
            let lines = lines.collect::<Vec<_>>().join("\n");
            section(card, &format!("To be named wherever the rows go:\n\n{lines}"));
        }
    }

    fn content(&self, card: &mut String) {
        section(card, "## Content");
        if self.tools.is_empty() {
            section(card, "No gold calls a tool.");
        } else {
            let mut tools: Vec<(&String, &u64)> = self.tools.iter().collect();
            tools.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
            let row = |(name, n): (&String, &u64)| [name.clone(), n.to_string()];
            table(card, ["tool", "golds"], tools.into_iter().map(row));
        }
        let Lengths { unit, quantiles } = &self.lengths;
        if !quantiles.is_empty() {
            let unit = format!("length ({})", line(unit));
            let row = |(share, length): &(u8, u64)| [format!("{share} %"), length.to_string()];
            table(card, ["rows up to", unit.as_str()], quantiles.iter().map(row));
        }
    }

    fn care(&self, card: &mut String) {
        section(card, "## What was done to the rows");
        let mut lines = vec![format!("- Near duplicates left out: {}.", self.near_duplicates)];
        if self.leakage.is_empty() {
            lines.push("- Leakage: **not checked**.".to_owned());
        }
        for Leakage { against, found } in &self.leakage {
            let loud = if *found > 0 { "**" } else { "" };
            lines
                .push(format!("- Rows that also stand in {}: {loud}{found}{loud}.", line(against)));
        }
        lines.push(if self.redaction_rules.is_empty() {
            "- Redaction: **none**. Texts stand as they came.".to_owned()
        } else {
            let rules = self.redaction_rules.iter().map(|rule| format!("`{}`", line(rule)));
            let rules = rules.collect::<Vec<_>>().join(", ");
            format!("- Redaction: {} places, by {rules}.", self.redacted)
        });
        section(card, &lines.join("\n"));
        if !self.excluded.is_empty() {
            table(card, ["left out because", "rows"], counted(&self.excluded));
        }
    }
}

/// Says what a licence asks for, where that is more than to keep its text.
fn condition(licence: &str) -> Option<&'static str> {
    let has = |part: &str| licence.contains(part);
    if has("-NC") {
        Some("forbids commercial use.")
    } else if has("CC-BY-SA") {
        Some("asks for attribution, and that what is made of the rows bears the same licence.")
    } else if has("-ND") {
        Some("forbids passing on changed rows.")
    } else if has("CC-BY") {
        Some("asks for attribution, and to say what was changed.")
    } else if has("GPL") {
        Some("asks that what is made of the rows bears the same licence.")
    } else {
        None
    }
}

fn counted(counts: &BTreeMap<String, u64>) -> impl Iterator<Item = [String; 2]> + '_ {
    counts.iter().map(|(what, n)| [what.clone(), n.to_string()])
}

fn section(card: &mut String, text: &str) {
    card.push('\n');
    card.push_str(text);
    card.push('\n');
}

fn table<const N: usize>(
    card: &mut String,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    card.push('\n');
    // Writing into a text cannot fail.
    let _ = writeln!(card, "| {} |", head.join(" | "));
    let _ = writeln!(card, "|{}", "---|".repeat(N));
    for row in rows {
        let cells = row.map(|cell| line(&cell).replace('|', "\\|"));
        let _ = writeln!(card, "| {} |", cells.join(" | "));
    }
}

/// Brings a text onto one line, without characters that would end what it stands in.
fn line(text: &str) -> String {
    text.replace('`', "'").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a fence that is longer than any in `text`.
fn fence(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    fence
}

#[cfg(test)]
mod tests;
