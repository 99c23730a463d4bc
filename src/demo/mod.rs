//! The demo: the whole loop on real input, in one notebook, able to go on where it broke off.

mod loops;
mod samples;
mod stages;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ledger::notebook::OpenError;
use ledger::{Notebook, SystemClock};

use crate::error::AppError;
use crate::hub;
use crate::lab::{Lab, Talk};
use crate::measure;

pub use summary::Summary;

/// How the demo is run.
#[derive(Clone, Debug)]
pub struct DemoWish {
    /// Notebook; a fresh one in the temporary folder where none is named.
    pub dir: Option<PathBuf>,
    /// Who acts.
    pub actor: String,
    /// Base model: a known name or a GGUF file.
    pub model: String,
    /// Recipe.
    pub recipe: String,
    /// Most new tokens of an answer to a toolcall question.
    pub max_new_tokens: u32,
}

/// Runs the demo and returns its summary.
///
/// # Errors
/// When a stage fails; run again with the same notebook it goes on from there.
pub fn run(wish: &DemoWish, talk: Talk) -> Result<Summary, AppError> {
    let began = Instant::now();
    let temporary = || std::env::temp_dir().join(format!("ledger-demo-{}", std::process::id()));
    let dir = wish.dir.clone().unwrap_or_else(temporary);
    talk.say(format!("notebook {}", dir.display()));
    let notebook = open_or_create(&dir, &wish.actor)?;
    let lab = Lab { notebook: &notebook, actor: &wish.actor, talk };
    let inputs = samples::write(&dir)?;
    if let Ok(known) = hub::find(&wish.model) {
        stage(talk, "model", || hub::pull(talk, known).map(|_| ()))?;
    }
    let data = stage(talk, "ingest, suites, split", || stages::data(&lab, &inputs))?;
    let base = stage(talk, "load the base model", || hub::load(&lab, &wish.model))?;
    let before = stage(talk, "what there was before", || stages::before(&lab, &data, &base, wish))?;
    let trained = stage(talk, "train", || stages::train(&lab, &data, &base, wish))?;
    let after =
        stage(talk, "after training", || stages::after(&lab, &data, &base, (wish, &trained)))?;
    let decided = stage(talk, "compare and decide", || stages::decide(&lab))?;
    let served =
        stage(talk, "serve, correct, next dataset", || loops::close(&lab, &data, wish, &after))?;
    let replays = stage(talk, "replay", || loops::replays(&lab, &base, &after))?;
    let why = queries::why::why(&notebook.reader(), &after.adapter.deployment_id.to_string())?;
    notebook.checkpoint()?;
    notebook.close()?;
    let verified = ledger::verify(&dir)?;
    Ok(Summary {
        dir,
        ingested: data.report,
        split: data.split.facts,
        arms: [before, after.arms].concat(),
        contaminated: after.contaminated,
        trained,
        decided,
        served,
        replays,
        why: why.to_string(),
        verified,
        seconds: began.elapsed().as_secs_f64(),
        peak_rss_mb: measure::peak_rss_mb(),
    })
}

fn open_or_create(dir: &Path, actor: &str) -> Result<Notebook, AppError> {
    match Notebook::open(dir, Arc::new(SystemClock)) {
        Err(OpenError::NotANotebook { .. }) => {
            Ok(Notebook::create(dir, Arc::new(SystemClock), actor)?)
        }
        opened => Ok(opened?),
    }
}

/// Does a stage and says how long it took.
fn stage<T>(
    talk: Talk,
    name: &str,
    work: impl FnOnce() -> Result<T, AppError>,
) -> Result<T, AppError> {
    let began = Instant::now();
    talk.say(format!("- {name}"));
    let done = work()?;
    talk.say(format!("  {:.1} s", began.elapsed().as_secs_f64()));
    Ok(done)
}
