//! Reading a source's files again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use datasets::ingest::Format;
use datasets::redact::Rules;
use ledger::catalogue::{DatasetImported, TraceIngested, TraceRejected, TraceRevised};
use ledger::{Blobs, Digest, Envelope, Facts as _};
use queries::replay::Replayed;

use super::Redone;
use crate::capture::{Asked, Fresh, Identity, Opened, committed_file};
use crate::error::AppError;

/// Imports again what a source's events tell. Files that are gone or changed since are left out,
/// and the report says so: what they gave was checked by digest before anything ran.
pub(super) fn redo(source: &str, recorded: &[Envelope], blobs: &Blobs) -> Result<Redone, AppError> {
    let mut redone = Redone { recorded: Vec::new(), replayed: Vec::new(), scope: None };
    let mut known = Known::default();
    let mut scope: Vec<String> = Vec::new();
    let (readings, unfinished) = readings(recorded);
    let mut unfinished = unfinished.into_iter().peekable();
    for told in readings {
        let (Some(first), Some(event)) = (told.first(), told.last()) else { continue };
        let facts: DatasetImported = event.facts()?;
        // What readings told that never came to their end is known by now.
        while let Some(event) = unfinished.next_if(|event| event.seq < first.seq) {
            known.take(std::slice::from_ref(&event))?;
        }
        let told = told.as_slice();
        match at_hand(event, &facts, blobs)? {
            Ok(path) => {
                let opened = Opened::open(&path, &asked(&facts)?)?;
                let all = told.len();
                let told = still_told(told, blobs)?;
                if told.len() < all {
                    let count = all - told.len();
                    scope.push(format!(
                        "erased: {count} events of {source} are of forgotten subjects"
                    ));
                }
                import((&opened, blobs), &told, &mut known, &mut redone.replayed)?;
                redone.recorded.extend(told);
            }
            Err(why) => {
                known.take(told)?;
                scope.push(format!("import of {source} left out: {why}"));
            }
        }
    }
    let rest = rest_of(recorded)?;
    if rest > 0 {
        scope.push(format!("{rest} events of {source} belong to no file that can be read again"));
    }
    redone.scope = (!scope.is_empty()).then(|| scope.join("; "));
    Ok(redone)
}

/// Tells the events of one reading of a file from those of another: by the run that they name,
/// or, where an older version named none, as all since the reading before. Also returns the events
/// of readings that never came to their end.
fn readings(recorded: &[Envelope]) -> (Vec<Vec<Envelope>>, Vec<Envelope>) {
    let mut open: BTreeMap<Option<&str>, Vec<Envelope>> = BTreeMap::new();
    let mut readings = Vec::new();
    for event in recorded {
        let run = event.run.as_deref();
        open.entry(run).or_default().push(event.clone());
        if event.kind == DatasetImported::KIND {
            readings.extend(open.remove(&run));
        }
    }
    let mut unfinished: Vec<Envelope> = open.into_values().flatten().collect();
    unfinished.sort_by_key(|event| event.seq);
    (readings, unfinished)
}

/// Counts the events of a source that no finished reading told.
fn rest_of(recorded: &[Envelope]) -> Result<usize, AppError> {
    Ok(readings(recorded).1.len())
}

/// Returns how a file was read, as its import tells.
fn asked(facts: &DatasetImported) -> Result<Asked, AppError> {
    Ok(Asked {
        format: Some(Format::from_str(&facts.format)?),
        rules: Rules::from_names(&facts.rules)?,
        subject_field: facts.subject_field.clone(),
        source: Some(facts.source.clone()),
        is_revision: true,
    })
}

/// What a source's events have told so far.
#[derive(Default)]
struct Known {
    /// External id -> (content, event that last told it).
    episodes: BTreeMap<String, (Digest, u64)>,
    /// Rejections, which are told once.
    rejections: Vec<TraceRejected>,
}

impl Known {
    /// Takes in what events told whose file is not read again.
    fn take(&mut self, told: &[Envelope]) -> Result<(), AppError> {
        for event in told {
            let trace = match event.kind.as_str() {
                TraceIngested::KIND => event.facts::<TraceIngested>()?,
                TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
                TraceRejected::KIND => {
                    self.rejections.push(event.facts()?);
                    continue;
                }
                _ => continue,
            };
            self.episodes.insert(trace.external_id, (trace.content, event.seq));
        }
        Ok(())
    }
}

/// Leaves out the events whose subject was forgotten: nobody can say any more what they told.
fn still_told(told: &[Envelope], blobs: &Blobs) -> Result<Vec<Envelope>, AppError> {
    let mut kept = Vec::with_capacity(told.len());
    for event in told {
        let gone = ledger::bodies_in(&event.facts).iter().any(|body| {
            let key = body.subject.as_deref().map(|subject| blobs.subjects().key(subject));
            matches!(key, Some(Ok(None)))
        });
        if !gone {
            kept.push(event.clone());
        }
    }
    Ok(kept)
}

/// Lists the ids under which the events told of subjects.
fn personal(told: &[Envelope]) -> Result<BTreeSet<String>, AppError> {
    let mut ids = BTreeSet::new();
    for event in told {
        let trace = match event.kind.as_str() {
            TraceIngested::KIND => event.facts::<TraceIngested>()?,
            TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
            _ => continue,
        };
        if trace.body.subject.is_some() {
            ids.insert(trace.external_id);
        }
    }
    Ok(ids)
}

/// Returns the file of an import if it is still what it was, or why it is not at hand.
fn at_hand(
    event: &Envelope,
    facts: &DatasetImported,
    blobs: &Blobs,
) -> Result<Result<PathBuf, String>, AppError> {
    let path = event.measured.get("path").and_then(|path| path.as_str()).map(Path::new);
    let Some(path) = path else {
        return Ok(Err("its file may be somebody's, so the record does not name it".to_owned()));
    };
    let Ok(digest) = models::model::file_digest(path) else {
        return Ok(Err(format!("{} is gone", path.display())));
    };
    let digest = Digest::from_bytes(digest);
    if facts.file == digest || facts.file == committed_file(digest, blobs.subjects())? {
        return Ok(Ok(path.to_owned()));
    }
    Ok(Err(format!("{} has changed since", path.display())))
}

/// Makes the events of one file; `told` gives the numbers that revisions refer to.
fn import(
    (opened, blobs): (&Opened, &Blobs),
    told: &[Envelope],
    known: &mut Known,
    replayed: &mut Vec<Replayed>,
) -> Result<(), AppError> {
    let mut seqs = told.iter().map(|event| event.seq);
    let mut next = || seqs.next().unwrap_or(u64::MAX);
    let personal = personal(told)?;
    let facts = opened.for_each(blobs.subjects(), &|_| (), |Fresh { row, episodes }| {
        if let Err(reason) = &row.result {
            let facts = opened.rejected_facts(&row, reason);
            if !known.rejections.contains(&facts) {
                next();
                replayed.push(Replayed::new(&facts)?);
                known.rejections.push(facts);
            }
        }
        for one in episodes {
            let Some(identity) = Identity::known(&one.episode, one.content, blobs)? else {
                continue;
            };
            let (id, content) = (identity.external_id.clone(), identity.content);
            // A subject that was forgotten and came back is told of by later events only.
            if identity.key.is_some() && !personal.contains(&id) {
                continue;
            }
            let before = known.episodes.get(&id).copied();
            if before.is_some_and(|(known, _)| known == content) {
                continue;
            }
            known.episodes.insert(id, (content, next()));
            let body = identity.body(&identity.stored(one.bytes));
            let facts = opened.trace_facts(&one.episode, (&identity, body), row.redacted);
            replayed.push(match before {
                None => Replayed::new(&facts)?,
                Some((_, revises)) => Replayed::new(&TraceRevised { revises, trace: facts })?,
            });
        }
        Ok(())
    })?;
    replayed.push(Replayed::new(&facts)?);
    Ok(())
}
