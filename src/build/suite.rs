//! Building suites and reading them back.

use std::collections::BTreeSet;

use datasets::manifest::Stored as _;
use datasets::suite::{Rows, Selected, build_from, survey};
use datasets::{Episode, Side, SuiteManifest, SuiteSpec};
use ledger::catalogue::SuiteBuilt;
use ledger::{BodyRef, Facts as _};

use super::split::load_split;
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place, body_ref};
use crate::rows::{Traces, View};

/// Before the name of a dataset: the questions are its dev side.
pub const DEV_OF: &str = "dev-of:";

/// A frozen suite with its event.
pub struct Suite {
    /// Event that built it.
    pub event: u64,
    /// Facts of that event.
    pub facts: SuiteBuilt,
    /// Its cases.
    pub manifest: SuiteManifest,
}

/// Builds a suite and records it; building it again from the same rows changes nothing.
///
/// # Errors
/// When a source is unknown, or the suite is refused (no case, no gold, gold against gold < 1).
pub fn build_suite(lab: &Lab<'_>, spec: &SuiteSpec) -> Result<Suite, AppError> {
    let (facts, manifest) = suite_facts(&lab.view(), spec)?;
    refuse_unsealing(&lab.view(), &manifest)?;
    lab.notebook.blobs().put(&manifest.to_stored())?;
    let newest = lab.view().newest(|known: &SuiteBuilt| known.name == spec.name)?;
    if let Some((event, known)) = &newest
        && *known == facts
    {
        return Ok(Suite { event: *event, facts, manifest });
    }
    // Built again after another of its name, it becomes the newest again.
    let after = newest.map_or(0, |(event, _)| event);
    let id = format!("suite/{}/{}/{after}", spec.name, facts.manifest.digest);
    let event = lab.record(&format!("suite/{}", spec.name), &id, &facts, Place::default())?;
    Ok(Suite { event, facts, manifest })
}

/// Refuses a suite that anybody can read over the questions of a sealed one: the seal would be
/// worth nothing, and the looks would be counted apart.
fn refuse_unsealing(view: &View, manifest: &SuiteManifest) -> Result<(), AppError> {
    if manifest.is_sealed() {
        return Ok(());
    }
    let ids: BTreeSet<&str> = manifest.cases.iter().map(|case| case.id.as_str()).collect();
    for event in view.events()? {
        let event = event?;
        if event.kind != SuiteBuilt::KIND {
            continue;
        }
        let facts: SuiteBuilt = event.facts()?;
        if facts.spec.get("sealed").and_then(serde_json::Value::as_bool) != Some(true) {
            continue;
        }
        let sealed = SuiteManifest::from_stored(&view.blobs().get(&facts.manifest)?)?;
        let shared = sealed.cases.iter().filter(|case| ids.contains(case.id.as_str())).count();
        if shared > 0 {
            let what =
                format!("{shared} of its questions stand in the sealed suite {}", facts.name);
            let hint = "seal it as well (--sealed), or take other questions";
            return Err(AppError::hinted(Kind::Refused, what, hint));
        }
    }
    Ok(())
}

/// Builds a suite without recording it.
///
/// # Errors
/// As [`build_suite`].
pub fn suite_facts(view: &View, spec: &SuiteSpec) -> Result<(SuiteBuilt, SuiteManifest), AppError> {
    let manifest = Inputs::read(view, spec)?.with(|rows| build_from(spec, rows))?;
    let facts = SuiteBuilt {
        name: spec.name.clone(),
        track: spec.track.clone(),
        spec: serde_json::to_value(spec)?,
        manifest: manifest_ref(&manifest),
        suite: manifest.identity(),
        scorer: manifest.scorer,
        n: manifest.n(),
        strata: manifest.strata(),
        gold_against_gold: manifest.gold_against_gold(),
        licences: manifest.licences.clone(),
    };
    Ok((facts, manifest))
}

/// Says what a selection would find and take, without refusing what is short or empty.
///
/// # Errors
/// When a source or dataset is unknown, or the spec makes no sense.
pub fn survey_suite(view: &View, spec: &SuiteSpec) -> Result<Selected, AppError> {
    Ok(Inputs::read(view, spec)?.with(|rows| survey(spec, rows))?)
}

/// The rows that a suite is made from.
struct Inputs {
    questions: Vec<(u64, Episode)>,
    golds: Vec<(u64, Episode)>,
    wider: Vec<(u64, Episode)>,
    keep_out: BTreeSet<String>,
}

impl Inputs {
    fn read(view: &View, spec: &SuiteSpec) -> Result<Self, AppError> {
        let traces = Traces::list(view)?;
        let mut questions = Vec::new();
        for source in spec.sources() {
            questions.extend(self::questions(view, &traces, source)?);
        }
        let mut keep_out = BTreeSet::new();
        let datasets = spec.select.iter().flat_map(|select| &select.keep_out);
        for dataset in datasets {
            for row in &load_split(view, dataset)?.manifest.rows {
                keep_out.insert(traces.row(row)?.group());
            }
        }
        let (golds, wider) = (traces.of_sources(&spec.golds)?, traces.of_sources(&spec.wider)?);
        Ok(Self { questions, golds, wider, keep_out })
    }

    fn with<T>(&self, work: impl FnOnce(&Rows<'_>) -> T) -> T {
        work(&Rows {
            questions: &self.questions,
            golds: &self.golds,
            wider: &self.wider,
            keep_out: &self.keep_out,
        })
    }
}

fn manifest_ref(manifest: &SuiteManifest) -> BodyRef {
    body_ref(&manifest.to_stored())
}

fn questions(view: &View, traces: &Traces, from: &str) -> Result<Vec<(u64, Episode)>, AppError> {
    let Some(dataset) = from.strip_prefix(DEV_OF) else {
        return traces.of_sources(&[from.to_owned()]);
    };
    let split = load_split(view, dataset)?;
    let rows = split.manifest.side(Side::Dev);
    rows.map(|row| Ok((row.seq, traces.row(row)?))).collect()
}

/// Reads back the newest suite of a name, or the one whose identity begins so.
///
/// # Errors
/// When there is none, or its manifest is missing or damaged.
pub fn load_suite(view: &View, name: &str) -> Result<Suite, AppError> {
    let by_identity =
        |facts: &SuiteBuilt| name.len() >= 6 && facts.suite.to_string().starts_with(name);
    let found = view.newest(|facts: &SuiteBuilt| facts.name == name || by_identity(facts))?;
    let Some((event, facts)) = found else {
        return Err(AppError::hinted(
            Kind::NotFound,
            format!("no suite {name:?}"),
            "`ledger suite list` names them; `ledger suite build` makes one",
        ));
    };
    let manifest = SuiteManifest::from_stored(&view.blobs().get(&facts.manifest)?)?;
    Ok(Suite { event, facts, manifest })
}
