//! Reading a source's files again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use datasets::ingest::Format;
use ledger::catalogue::{DatasetImported, TraceRejected, TraceRevised};
use ledger::{Digest, Envelope, Facts as _};
use queries::replay::Replayed;

use super::Redone;
use crate::capture::{Imported, read_file, trace_facts};
use crate::error::AppError;
use crate::lab::body_ref;

/// Imports again what a source's events tell. Files that are gone or changed since are left out,
/// and the report says so: what they gave was checked by digest before anything ran.
pub(super) fn redo(source: &str, recorded: &[Envelope]) -> Result<Redone, AppError> {
    let mut redone = Redone { recorded: Vec::new(), replayed: Vec::new(), scope: None };
    // External id -> (content, event that last told it).
    let mut known: BTreeMap<String, (Digest, u64)> = BTreeMap::new();
    let mut from = 0;
    for (at, event) in recorded.iter().enumerate() {
        if event.kind != DatasetImported::KIND {
            continue;
        }
        let facts: DatasetImported = event.facts()?;
        let told = &recorded[from..=at];
        from = at + 1;
        match at_hand(event, &facts) {
            Ok(path) => {
                let imported = read_file(&path, Some(Format::from_str(&facts.format)?))?;
                import(&imported, told, &mut known, &mut redone.replayed)?;
                redone.recorded.extend_from_slice(told);
            }
            Err(why) => redone.scope = Some(format!("import of {source}: {why}")),
        }
    }
    if from == 0 && !recorded.is_empty() {
        redone.scope = Some(format!("{source} was captured live: nothing to read again"));
    }
    Ok(redone)
}

/// Returns the file of an import if it is still what it was.
fn at_hand(event: &Envelope, facts: &DatasetImported) -> Result<PathBuf, String> {
    let path = event.measured.get("path").and_then(|path| path.as_str()).map(Path::new);
    let path = path.ok_or("its file is not told")?;
    match models::model::file_digest(path) {
        Err(_) => Err(format!("{} is gone", path.display())),
        Ok(digest) if Digest::from_bytes(digest) != facts.file => {
            Err(format!("{} has changed since", path.display()))
        }
        Ok(_) => Ok(path.to_owned()),
    }
}

/// Makes the events of one file; `told` gives the numbers that revisions refer to.
fn import(
    imported: &Imported,
    told: &[Envelope],
    known: &mut BTreeMap<String, (Digest, u64)>,
    replayed: &mut Vec<Replayed>,
) -> Result<(), AppError> {
    let mut seqs = told.iter().map(|event| event.seq);
    let mut next = || seqs.next().unwrap_or(u64::MAX);
    for row in &imported.rows {
        let episodes = match &row.result {
            Ok(episodes) => episodes,
            Err(reason) => {
                next();
                replayed.push(Replayed::new(&TraceRejected {
                    source: imported.source.name.clone(),
                    location: row.location.clone(),
                    reason: reason.clone(),
                    content: row.content,
                })?);
                continue;
            }
        };
        for episode in episodes {
            let content = episode.content_digest();
            let id = episode.source.external_id.clone();
            let before = known.get(&id).copied();
            if before.is_some_and(|(known, _)| known == content) {
                continue;
            }
            known.insert(id, (content, next()));
            let facts = trace_facts(episode, content, body_ref(&episode.to_bytes()));
            replayed.push(match before {
                None => Replayed::new(&facts)?,
                Some((_, revises)) => Replayed::new(&TraceRevised { revises, trace: facts })?,
            });
        }
    }
    replayed.push(Replayed::new(&imported.facts)?);
    Ok(())
}
