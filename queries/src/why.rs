//! Why a deployment is what it is: the chain from its promotion or refusal back to the traces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use datasets::SplitManifest;
use datasets::manifest::Stored as _;
use ledger::catalogue::{GateDecided, RunInputs, RunOutcome, SplitBuilt, TraceIngested};
use ledger::{Digest, Facts as _, ReadError, Reader};
use serde::Serialize;

use crate::gate::verdict_word;
use crate::projection::{Built, DeploymentEntry, FoldError, HeldBy, Run, State, fold_all};

/// Says why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyError {
    /// The record could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No deployment fits.
    #[error("the record has no deployment {0}: name the start of its id, its label or model@alias")]
    NoDeployment(String),
    /// Several deployments fit.
    #[error("{name} fits several deployments: {fitting}")]
    Ambiguous {
        /// What was asked.
        name: String,
        /// What fits.
        fitting: String,
    },
}

/// The chain behind a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The deployment.
    pub deployment: Digest,
    /// The end of the chain.
    pub root: Link,
}

/// A link of the chain with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Event that tells it; none for what several events tell.
    pub event: Option<u64>,
    /// What it is.
    pub title: String,
    /// More about it, a line each.
    pub details: Vec<String>,
    /// What it rests on.
    pub from: Vec<Link>,
}

impl Link {
    fn new(event: impl Into<Option<u64>>, title: impl Into<String>) -> Self {
        Self { event: event.into(), title: title.into(), details: Vec::new(), from: Vec::new() }
    }

    fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    fn on(mut self, links: impl IntoIterator<Item = Self>) -> Self {
        self.from.extend(links);
        self
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_link(f, &self.root, "", "")
    }
}

fn write_link(f: &mut fmt::Formatter<'_>, link: &Link, first: &str, rest: &str) -> fmt::Result {
    match link.event {
        Some(event) => writeln!(f, "{first}{} (event {event})", link.title)?,
        None => writeln!(f, "{first}{}", link.title)?,
    }
    let bar = if link.from.is_empty() { "    " } else { "│   " };
    for line in &link.details {
        writeln!(f, "{rest}{bar}{line}")?;
    }
    for (place, below) in link.from.iter().enumerate() {
        let last = place + 1 == link.from.len();
        let (branch, under) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        write_link(f, below, &format!("{rest}{branch}"), &format!("{rest}{under}"))?;
    }
    Ok(())
}

/// Explains the deployment that `name` means: the start of its id, its label, or `model@alias`.
///
/// # Errors
/// When no deployment or several fit, or the record cannot be read.
pub fn why(reader: &Reader, name: &str) -> Result<Why, WhyError> {
    let state = fold_all(reader)?;
    why_in(&state, reader, name)
}

/// Does what [`why`] does with a state that is already folded.
///
/// # Errors
/// As [`why`].
pub fn why_in(state: &State, reader: &Reader, name: &str) -> Result<Why, WhyError> {
    let id = find(state, name)?;
    let missing = || WhyError::NoDeployment(name.to_owned());
    let entry = state.catalog.deployments.get(&id).ok_or_else(missing)?;
    let origins = Origins { state, reader };
    let mut root = decided(&origins, &id, entry)?;
    let labels: Vec<&str> = entry.labels.iter().map(String::as_str).collect();
    root.title = format!("deployment {} ({})", id.short(), labels.join(", "));
    let deployment = &entry.deployment;
    root.details.insert(
        0,
        format!(
            "base {}, adapter {}, prefix {}, template {}, {} decoding",
            brief(&deployment.base),
            brief(&deployment.adapter),
            brief(&deployment.cep),
            brief(&deployment.template),
            deployment.decoding.method,
        ),
    );
    Ok(Why { deployment: id, root })
}

fn find(state: &State, name: &str) -> Result<Digest, WhyError> {
    if let Some(held) =
        name.split_once('@').and_then(|(model, alias)| state.catalog.holder(model, alias))
    {
        return Ok(held.deployment_id);
    }
    let mut fitting: BTreeSet<Digest> = state.catalog.matching(name).copied().collect();
    if name.is_empty() {
        fitting.clear();
    }
    if fitting.is_empty() {
        let labelled = state.catalog.deployments.iter();
        fitting.extend(labelled.filter(|(_, e)| e.labels.contains(name)).map(|(id, _)| *id));
    }
    let mut ids = fitting.iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(*id),
        (None, _) => Err(WhyError::NoDeployment(name.to_owned())),
        _ => {
            let fitting: Vec<String> = fitting.iter().map(Digest::short).collect();
            Err(WhyError::Ambiguous { name: name.to_owned(), fitting: fitting.join(", ") })
        }
    }
}

/// Shortens a digest and leaves a name as it is.
fn brief(factor: &str) -> String {
    factor.parse::<Digest>().map_or_else(|_| factor.to_owned(), |digest| digest.short())
}

/// Where links are looked up.
struct Origins<'a> {
    state: &'a State,
    reader: &'a Reader,
}

/// Makes the top of the chain: aliases, and the verdicts that gave or refused them.
fn decided(origins: &Origins<'_>, id: &Digest, entry: &DeploymentEntry) -> Result<Link, WhyError> {
    let mut root = Link::new(None, String::new());
    for (model, alias) in origins.state.catalog.aliases_of(id) {
        root.details.push(format!("holds {model}@{alias} now"));
    }
    let mut told: BTreeSet<u64> = BTreeSet::new();
    for (model, aliases) in &origins.state.catalog.aliases {
        let all = aliases.iter().flat_map(|(alias, held)| held.iter().map(move |h| (alias, h)));
        for (alias, held) in all.filter(|(_, held)| held.deployment_id == *id) {
            let name = format!("{model}@{alias}");
            let by = &held.actor;
            let (link, gate) = match &held.by {
                HeldBy::Promotion { gate } => {
                    (Link::new(held.since, format!("promoted to {name} by {by}")), Some(*gate))
                }
                HeldBy::Override { gate, why } => {
                    let title = format!("OVERRIDDEN to {name} by {by} and {}", why.second_actor);
                    (Link::new(held.since, title).detail(&why.reason), Some(*gate))
                }
                HeldBy::Rollback { reason } => {
                    let title = format!("rolled back to as {name} by {by}");
                    (Link::new(held.since, title).detail(reason), None)
                }
            };
            let gate = gate.filter(|gate| told.insert(*gate));
            let below = gate.map(|gate| origins.gate(gate)).transpose()?;
            root.from.push(link.on(below));
        }
    }
    for gate in &entry.gates {
        if told.insert(*gate) {
            root.from.push(origins.gate(*gate)?);
        }
    }
    if root.from.is_empty() {
        root.details.push("was evaluated, never judged".to_owned());
        let runs: Vec<&String> = entry.runs.iter().collect();
        root.from = runs.into_iter().map(|run| origins.eval(run)).collect::<Result<_, _>>()?;
    }
    Ok(root)
}

impl Origins<'_> {
    fn gate(&self, seq: u64) -> Result<Link, WhyError> {
        let Some(entry) = self.state.catalog.gates.get(&seq) else {
            return Ok(Link::new(seq, "verdict that the record does not hold"));
        };
        let GateDecided {
            policy, policy_digest, label, verdict, rules, report, looks, alias, ..
        } = &entry.facts;
        let word = verdict_word(*verdict);
        let title = match word {
            "PASS" => format!("policy {policy}: PASS for {label}"),
            _ => format!("policy {policy}: {word} for {label}, so {alias} was refused"),
        };
        let mut link = Link::new(seq, title).detail(format!(
            "policy {}, looks at the suite so far: {looks}",
            policy_digest.short()
        ));
        for rule in rules {
            let word = verdict_word(rule.verdict);
            link.details.push(format!("{word} {}: {}", rule.rule, rule.says));
        }
        Ok(link.on([self.report(*report, &entry.facts.deployment)?]))
    }

    fn report(&self, seq: u64, deployment: &Digest) -> Result<Link, WhyError> {
        let Some(report) = self.state.catalog.reports.get(&seq) else {
            return Ok(Link::new(seq, "report that the record does not hold"));
        };
        let link = Link::new(seq, format!("report {}", report.name)).detail(format!(
            "suite {}, scorer {}",
            report.suite.short(),
            report.scorer.short()
        ));
        let mut below = Vec::new();
        for arm in &report.arms {
            // The candidate's chain goes on; the other arms are named.
            if arm.deployment_id == *deployment {
                below.push(self.eval(&arm.run)?);
            } else {
                let run = self.state.runs.get(&arm.run);
                let title = format!("arm {}: run {}", arm.label, arm.run);
                below.push(Link::new(run.and_then(|run| run.ended), title));
            }
        }
        Ok(link.on(below))
    }

    fn eval(&self, id: &str) -> Result<Link, WhyError> {
        let Some(run) = self.state.runs.get(id) else {
            return Ok(Link::new(None, format!("run {id} that the record does not hold")));
        };
        let mut link = Link::new(run.ended.or(run.started), format!("evaluation run {id}"));
        if let Some(RunOutcome::Eval { n, exact_strict, exact_lenient }) = &run.outcome {
            link.details
                .push(format!("{n} cases, exact: {exact_strict} strict, {exact_lenient} lenient"));
        }
        let Some(RunInputs::Eval {
            name, suite_event, deployment, flags, leaked_questions, ..
        }) = &run.inputs
        else {
            return Ok(link);
        };
        if !flags.is_empty() {
            link.details.push(format!("marks: {}", flags.join(", ")));
        }
        if *leaked_questions > 0 {
            link.details.push(format!("{leaked_questions} of its questions were trained on"));
        }
        link.from.push(self.suite(name, *suite_event));
        let adapter = &deployment.adapter;
        match self.state.runs.training_of(adapter) {
            Some(training) => link.from.push(self.training(training)?),
            None if adapter == "none" => link.details.push("no adapter".to_owned()),
            None => link.details.push(format!("adapter {}: training unknown", brief(adapter))),
        }
        Ok(link)
    }

    fn suite(&self, name: &str, event: u64) -> Link {
        let built = self.state.datasets.suites.iter().find(|built| built.event == event);
        let link = Link::new(event, format!("suite {name}"));
        match built {
            Some(built) => {
                link.detail(format!("{} cases, {}", built.facts.n, built.facts.suite.short()))
            }
            None => link,
        }
    }

    fn training(&self, run: &Run) -> Result<Link, WhyError> {
        let mut link = Link::new(run.ended.or(run.started), format!("training run {}", run.id));
        if let Some(RunOutcome::Train { adapter, checkpoint_step, epoch, dev_loss, .. }) =
            &run.outcome
        {
            let loss = dev_loss.map_or("none".to_owned(), |loss| format!("{loss:.4}"));
            link.details.push(format!(
                "adapter {}: step {checkpoint_step}, epoch {epoch}, dev loss {loss}",
                adapter.short()
            ));
        }
        link.details.push(format!("{} steps recorded", run.steps.len()));
        let Some(RunInputs::Train { model, base, split, cep, recipe_digest, .. }) = &run.inputs
        else {
            return Ok(link);
        };
        let (base, cep) = (base.short(), brief(cep));
        link.details.push(format!(
            "base {model} ({base}), recipe {}, prefix {cep}, seed {}",
            recipe_digest.short(),
            run.seed.as_deref().unwrap_or("unknown"),
        ));
        if let Some(model) = self.state.catalog.models.get(model) {
            let title = format!("model {} ({})", model.facts.name, model.facts.licence);
            link.from.push(Link::new(model.event, title));
        }
        let built = self.state.datasets.splits.iter().find(|built| built.event == *split);
        link.from.push(match built {
            Some(built) => self.split(built)?,
            None => Link::new(*split, "split that the record does not hold"),
        });
        Ok(link)
    }

    fn split(&self, built: &Built<SplitBuilt>) -> Result<Link, WhyError> {
        let SplitBuilt { name, dataset, train, dev, excluded, licences, manifest, .. } =
            &built.facts;
        let left_out: u64 = excluded.iter().map(|count| count.n).sum();
        let mut link = Link::new(built.event, format!("dataset {name}"))
            .detail(format!("{}: {train} train, {dev} dev, {left_out} left out", dataset.short()))
            .detail(format!("licences: {}", licences.join(", ")));
        for leak in &built.facts.leakage {
            link.details.push(format!(
                "shares {} questions with suite {}; nearest similarity {:.2}",
                leak.shared_questions, leak.suite, leak.nearest
            ));
        }
        let manifest = self.reader.blobs().get(manifest).map_err(|error| error.to_string());
        let manifest = manifest
            .and_then(|bytes| SplitManifest::from_stored(&bytes).map_err(|e| e.to_string()));
        match manifest {
            Ok(manifest) => {
                let rows = manifest.rows.iter().map(|row| row.seq).collect();
                Ok(link.on(self.traces(&rows)?))
            }
            Err(error) => Ok(link.detail(format!("its rows cannot be listed: {error}"))),
        }
    }

    /// Counts the rows of a split by source.
    fn traces(&self, rows: &BTreeSet<u64>) -> Result<Vec<Link>, WhyError> {
        let mut sources: BTreeMap<String, (Vec<u64>, BTreeSet<String>)> = BTreeMap::new();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        for event in self.reader.events(*first)? {
            let event = event?;
            if event.seq > *last {
                break;
            }
            if !rows.contains(&event.seq) {
                continue;
            }
            let facts = if event.kind == TraceIngested::KIND {
                event.facts::<TraceIngested>().ok()
            } else {
                event.facts::<ledger::catalogue::TraceRevised>().ok().map(|revised| revised.trace)
            };
            let (source, licence) = facts.map_or_else(
                || ("unknown".to_owned(), "unknown".to_owned()),
                |facts| (facts.source, facts.licence),
            );
            let entry = sources.entry(source).or_default();
            entry.0.push(event.seq);
            entry.1.insert(licence);
        }
        Ok(sources.into_iter().map(|(source, found)| self.source(source, found)).collect())
    }

    fn source(&self, source: String, (rows, licences): (Vec<u64>, BTreeSet<String>)) -> Link {
        let imports = self.state.datasets.sources.get(&source).map(|entry| &entry.imports);
        let import = imports.and_then(|imports| imports.last()).copied();
        let (first, last) =
            (rows.first().copied().unwrap_or_default(), rows.last().copied().unwrap_or_default());
        let licences: Vec<String> = licences.into_iter().collect();
        Link::new(import, format!("{} traces from {source}", rows.len()))
            .detail(format!("events {first} to {last}, licences: {}", licences.join(", ")))
    }
}
