//! Writing the index: one thread reads events and makes documents of them, tantivy's threads
//! index them, and this one keeps the order and commits.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ledger::catalogue::{BodyErased, SuiteBuilt, TraceIngested, TraceRevised};
use ledger::{Facts as _, Reader};
use tantivy::directory::error::LockError;
use tantivy::indexer::LogMergePolicy;
use tantivy::query::BooleanQuery;
use tantivy::{IndexWriter, TantivyDocument, TantivyError, Term};

use super::SearchError;
use super::context::{Lookup, suite_of};
use super::document::draft;
use super::index::{CaughtUp, Committed, Index, Mark};
use super::query::with_value;
use super::rank::{Ranker, Sort};
use super::schema::Exact;

/// Memory of the writer in bytes while it follows, a little above the least that tantivy takes.
const FOLLOWING_BYTES: usize = 20_000_000;
/// Memory of the writer in bytes while it builds, for each of its threads.
const BUILDING_BYTES: usize = 100_000_000;
/// Threads of the writer while it builds, where there are as many cores.
const BUILDING_THREADS: usize = 4;
/// Events after which what is indexed is committed, so that a long build can go on.
const COMMIT_EVERY: u64 = 250_000;
/// Documents from which on a segment is left as it is: merging it again would cost a search that
/// runs meanwhile more than a segment less would save.
const FULL: usize = 100_000;
/// Share of deleted documents from which on a segment is written anew.
const DELETED: f32 = 0.3;
/// Steps that go from thread to thread together, and how many such batches may wait.
const BATCH: usize = 128;
const WAITING: usize = 8;
/// Attempts at writing a segment anew, and the pause between two of them.
const ATTEMPTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(25);
/// How long a lock that was let go may still be shared.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an event asks for.
struct Step {
    seq: u64,
    what: What,
}

enum What {
    Nothing,
    /// A document comes, and another goes.
    Document {
        document: TantivyDocument,
        replaces: Option<u64>,
    },
    /// A subject was forgotten.
    Erased(String),
}

/// The right to write the index.
pub(super) struct Pen {
    writer: IndexWriter,
    index: tantivy::Index,
    path: PathBuf,
    /// The directory that is written. Another one may come to stand in its place.
    directory: Option<(u64, u64)>,
    /// Documents of a subject were deleted.
    erased: bool,
}

/// Takes a lock, and tries again for a moment where it is held: a process that was just forked
/// shares a lock that was let go until it begins its own program. The store's opening forks.
pub(super) fn patiently<T>(mut take: impl FnMut() -> tantivy::Result<T>) -> tantivy::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match take() {
            Err(TantivyError::LockFailure(LockError::LockBusy, _)) if Instant::now() < until => {
                std::thread::sleep(PAUSE);
            }
            taken => return taken,
        }
    }
}

impl Pen {
    /// Takes the writer lock; none where another process holds it.
    pub(super) fn take(
        index: &tantivy::Index,
        path: &Path,
        many: bool,
    ) -> tantivy::Result<Option<Self>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if many { cores.clamp(1, BUILDING_THREADS) } else { 1 };
        let bytes = if many { BUILDING_BYTES * threads } else { FOLLOWING_BYTES };
        let taken = patiently(|| index.writer_with_num_threads(threads, bytes));
        let writer: IndexWriter = match taken {
            Ok(writer) => writer,
            Err(TantivyError::LockFailure(LockError::LockBusy, _)) => return Ok(None),
            Err(source) => return Err(source),
        };
        let mut policy = LogMergePolicy::default();
        policy.set_max_docs_before_merge(FULL);
        policy.set_del_docs_ratio_before_merge(DELETED);
        writer.set_merge_policy(Box::new(policy));
        let (index, path) = (index.clone(), path.to_owned());
        Ok(Some(Self { writer, index, directory: identity(&path), path, erased: false }))
    }

    /// Commits what was added, with the mark of the events before `next`.
    fn commit(&mut self, mark: &Mark) -> tantivy::Result<()> {
        if identity(&self.path) != self.directory || self.directory.is_none() {
            // Writing into it would name files that went with the old one.
            let what = "the directory of the index was removed meanwhile".to_owned();
            return Err(TantivyError::SystemError(what));
        }
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&mark.write());
        commit.commit()?;
        Ok(())
    }

    /// Writes segments with deleted documents anew, so that no word of them is left on disk.
    fn purge(&mut self) -> tantivy::Result<()> {
        for _ in 0..ATTEMPTS {
            let metas = self.index.searchable_segment_metas()?;
            let deleted = metas.into_iter().filter(|meta| meta.has_deletes());
            let ids: Vec<_> = deleted.map(|meta| meta.id()).collect();
            if ids.is_empty() {
                self.writer.garbage_collect_files().wait()?;
                return Ok(());
            }
            for id in ids {
                // One that is being merged already cannot be merged; it is gone the next time.
                if self.writer.merge(&[id]).wait().is_err() {
                    std::thread::sleep(PAUSE);
                }
            }
        }
        let what = "words of a forgotten subject could not be removed from the index".to_owned();
        Err(TantivyError::SystemError(what))
    }

    /// Lets the lock go when all merging is done.
    pub(super) fn finish(self) -> tantivy::Result<()> {
        self.writer.wait_merging_threads()
    }
}

/// Returns what tells a directory from another of the same name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Index {
    /// Takes in all events behind the mark.
    pub(super) fn follow(
        &mut self,
        pen: &mut Pen,
        reader: &Reader,
        stop: &AtomicBool,
    ) -> Result<CaughtUp, SearchError> {
        // Read again under the lock: another process may have come further meanwhile.
        let from = self.own_mark(reader)?.next;
        self.refresh()?;
        let searcher = self.reader.searcher();
        let fields = &self.fields.clone();
        let mut context = std::mem::take(&mut self.context);
        let (sender, steps) = sync_channel(WAITING);
        let ended = AtomicBool::new(false);
        let caught = std::thread::scope(|scope| {
            let finder = Committed { searcher: &searcher, fields };
            let (context, ended) = (&mut context, &ended);
            scope.spawn(move || {
                let lookup = Lookup::new(reader, context, &finder);
                let told = Drafting { lookup, fields, stop, ended }.run(from, &sender);
                // Where nobody listens any more, the other side has an error of its own.
                let _ = told.map_err(|error| sender.send(Err(error)));
            });
            let caught = self.write(pen, (reader, from), &steps);
            ended.store(true, Ordering::Relaxed);
            drop(steps);
            caught
        });
        self.context = context;
        if std::mem::take(&mut pen.erased) {
            self.context.clear();
            self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        caught
    }

    fn write(
        &self,
        pen: &mut Pen,
        (reader, from): (&Reader, u64),
        steps: &Receiver<Result<Vec<Step>, SearchError>>,
    ) -> Result<CaughtUp, SearchError> {
        let (mut next, mut added, mut committed) = (from, 0, from);
        for batch in steps {
            for Step { seq, what } in batch? {
                match what {
                    What::Nothing => {}
                    What::Document { document, replaces } => {
                        if let Some(replaced) = replaces {
                            pen.writer.delete_term(Term::from_field_u64(self.fields.seq, replaced));
                        }
                        let add = pen.writer.add_document(document);
                        add.map_err(|source| self.failed(source))?;
                        added += 1;
                    }
                    What::Erased(subject) => {
                        self.commit(pen, (reader, seq))?;
                        self.erase(pen, reader, &subject)?;
                        // The mark stays before the event until no word is left, so that an
                        // erasure that is cut short is done again.
                        self.commit(pen, (reader, seq))?;
                        pen.purge().map_err(|source| self.failed(source))?;
                        committed = seq;
                    }
                }
                next = seq + 1;
            }
            if next - committed >= COMMIT_EVERY {
                self.commit(pen, (reader, next))?;
                committed = next;
            }
        }
        if next > committed {
            self.commit(pen, (reader, next))?;
        }
        Ok(CaughtUp { next, head: next, added, held_elsewhere: false })
    }

    fn commit(&self, pen: &mut Pen, (reader, next): (&Reader, u64)) -> Result<(), SearchError> {
        let mark = Mark::of(reader, next)?.unwrap_or_default();
        pen.commit(&mark).map_err(|source| self.failed(source))
    }

    /// Deletes the documents of a subject: its traces, feedback on them, and cases that ask what
    /// they ask. What the index holds up to here must be committed.
    fn erase(&self, pen: &mut Pen, reader: &Reader, subject: &str) -> Result<(), SearchError> {
        self.refresh()?;
        let delete = |pen: &Pen, field: Exact, value: &str| {
            let field = self.fields.exact(field);
            let term = field.map(|field| Term::from_field_text(field, value));
            term.map(|term| pen.writer.delete_term(term))
        };
        let mut waiting = self.events_with([(Exact::Kind, "trace"), (Exact::Subject, subject)])?;
        let mut rows = BTreeSet::new();
        while let Some(seq) = waiting.pop_last() {
            rows.insert(seq);
            let Some(event) = reader.get(seq)? else { continue };
            let trace = match event.kind.as_str() {
                TraceIngested::KIND => event.facts::<TraceIngested>().ok(),
                TraceRevised::KIND => event.facts::<TraceRevised>().ok().map(|facts| {
                    // A suite may name what stood there before. It is an earlier event.
                    waiting.extend(Some(facts.revises).filter(|earlier| *earlier < seq));
                    facts.trace
                }),
                _ => None,
            };
            trace.and_then(|trace| delete(pen, Exact::Target, &trace.external_id));
        }
        for seq in self.events_with([(Exact::Kind, "suite"), (Exact::Kind, SuiteBuilt::KIND)])? {
            let Some(Ok(facts)) = reader.get(seq)?.map(|event| event.facts::<SuiteBuilt>()) else {
                continue;
            };
            let suite = facts.suite.to_string();
            for (case, seqs) in suite_of(&facts, reader.blobs()).rows {
                if seqs.iter().any(|seq| rows.contains(seq)) {
                    let about = [(Exact::Case, case.as_str()), (Exact::Suite, suite.as_str())];
                    let deleted = pen.writer.delete_query(Box::new(self.both(about)));
                    deleted.map_err(|source| self.failed(source))?;
                }
            }
        }
        delete(pen, Exact::Subject, subject);
        pen.erased = true;
        Ok(())
    }

    fn both(&self, values: [(Exact, &str); 2]) -> BooleanQuery {
        let parts = values.map(|(field, value)| with_value(&self.fields, field, value));
        BooleanQuery::intersection(parts.into())
    }

    /// Lists the events that have both values.
    fn events_with(&self, values: [(Exact, &str); 2]) -> Result<BTreeSet<u64>, SearchError> {
        let searcher = self.reader.searcher();
        let query = self.both(values);
        let all = usize::try_from(searcher.num_docs()).unwrap_or(usize::MAX);
        let ranked =
            Ranker::new(&searcher, self.fields.text, &BTreeSet::new(), (Sort::Oldest, all), vec![])
                .and_then(|ranker| searcher.search(&query, &ranker));
        let ranked = ranked.map_err(|source| self.failed(source))?;
        Ok(ranked.places.iter().map(|place| place.seq()).collect())
    }
}

/// Makes documents of events.
struct Drafting<'a> {
    lookup: Lookup<'a>,
    fields: &'a super::schema::Fields,
    stop: &'a AtomicBool,
    /// The other side has ended.
    ended: &'a AtomicBool,
}

impl Drafting<'_> {
    fn run(
        mut self,
        from: u64,
        sender: &SyncSender<Result<Vec<Step>, SearchError>>,
    ) -> Result<(), SearchError> {
        let mut batch = Vec::with_capacity(BATCH);
        for event in self.lookup.reader.events(from)? {
            let event = event?;
            self.lookup.take(&event);
            batch.push(Step { seq: event.seq, what: self.step(&event) });
            if batch.len() == BATCH {
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                let stopped = self.stop.load(Ordering::Relaxed);
                if sender.send(Ok(full)).is_err() || stopped || self.ended.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        // Where nobody listens any more, the other side has an error of its own.
        let _ = sender.send(Ok(batch));
        Ok(())
    }

    fn step(&mut self, event: &ledger::Envelope) -> What {
        if event.kind == BodyErased::KIND {
            let erased = event.facts::<BodyErased>();
            return erased.map_or(What::Nothing, |facts| What::Erased(facts.subject));
        }
        // What cannot be understood here is told by whoever folds the record; search goes on.
        match draft(event, &mut self.lookup) {
            Ok(Some(draft)) => {
                What::Document { document: draft.document(self.fields), replaces: draft.replaces }
            }
            _ => What::Nothing,
        }
    }
}
