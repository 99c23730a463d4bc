//! The index on disk and how it follows the record.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use ledger::{Digest, Reader};
use tantivy::directory::{INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::store::Compressor;
use tantivy::{Directory as _, IndexReader, IndexSettings, ReloadPolicy, Searcher, TantivyError};

use super::SearchError;
use super::context::{Context, Finder};
use super::query::with_value;
use super::rank::{Ranker, Sort};
use super::schema::{Exact, Fields};
use super::tokens::{WORDS, of_documents};
use super::write::{Pen, patiently};

/// Version of the documents' form; another one is built again.
pub(super) const FORMAT: u32 = 3;

/// Events behind the log from which on catching up is building: with more memory and threads.
const MANY: u64 = 5_000;

/// The search index of a notebook.
pub struct Index {
    path: PathBuf,
    pub(super) fields: Fields,
    pub(super) index: tantivy::Index,
    pub(super) reader: IndexReader,
    /// What is known of runs and suites while documents are made.
    pub(super) context: Context,
    /// The same while hits are told.
    pub(super) told: Mutex<Context>,
}

/// How far the index came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    /// First event that is not in the index yet.
    pub next: u64,
    /// Events in the log.
    pub head: u64,
    /// Documents added now.
    pub added: u64,
    /// Another process holds the writer lock and keeps the index up.
    pub held_elsewhere: bool,
}

/// How far the index has read, and how far the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// First event that is not in the index yet.
    pub next: u64,
    /// Events in the log.
    pub head: u64,
}

impl Progress {
    /// Returns the events that the index has not read yet.
    pub fn behind(&self) -> u64 {
        self.head.saturating_sub(self.next)
    }
}

/// Up to where a committed index came: the next event, and what the one before it is stored as.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mark {
    pub(super) next: u64,
    last: Option<Digest>,
}

impl Mark {
    fn read(payload: Option<&str>) -> Option<Self> {
        let mut parts = payload?.splitn(3, ' ');
        let format: u32 = parts.next()?.parse().ok()?;
        let next = parts.next()?.parse().ok()?;
        let last = Some(parts.next()?.parse().ok()?);
        (format == FORMAT).then_some(Self { next, last })
    }

    pub(super) fn write(&self) -> String {
        let last = self.last.map_or_else(String::new, |digest| digest.to_string());
        format!("{FORMAT} {} {last}", self.next)
    }

    /// Makes the mark of a record's events before `next`; none where it has fewer.
    pub(super) fn of(reader: &Reader, next: u64) -> Result<Option<Self>, SearchError> {
        let Some(before) = next.checked_sub(1) else { return Ok(Some(Self::default())) };
        let bytes = reader.raw(before)?;
        Ok(bytes.map(|bytes| Self { next, last: Some(Digest::of(&bytes)) }))
    }
}

/// Most threads that one search takes.
const SEARCH_THREADS: usize = 4;

impl Index {
    /// Opens the index in the directory `path`, or makes an empty one where there is none or it
    /// cannot be used.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn open_or_rebuild(path: &Path) -> Result<Self, SearchError> {
        fs::create_dir_all(path).map_err(|source| io(path, source))?;
        match Self::open(path)? {
            Some(index) => Ok(index),
            None => Self::empty(path, Fields::new()),
        }
    }

    /// Opens the index in the directory `path`; none where there is none that can be used.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, SearchError> {
        let fields = Fields::new();
        let opened = tantivy::Index::open_in_dir(path).ok().filter(|index| {
            index.schema() == fields.schema
                && index.load_metas().is_ok_and(|metas| {
                    metas.segments.is_empty() || Mark::read(metas.payload.as_deref()).is_some()
                })
        });
        opened.map(|index| Self::with(path, fields, index)).transpose()
    }

    /// Removes what lies in the index's directory and starts anew, unless somebody writes it.
    fn empty(path: &Path, fields: Fields) -> Result<Self, SearchError> {
        let directory = MmapDirectory::open(path).map_err(|source| failed(path, source.into()))?;
        let lock = || {
            let taken = directory.acquire_lock(&INDEX_WRITER_LOCK);
            taken.map_err(|source| TantivyError::LockFailure(source, None))
        };
        let _lock = patiently(lock).map_err(|source| failed(path, source))?;
        for entry in fs::read_dir(path).map_err(|source| io(path, source))? {
            let entry = entry.map_err(|source| io(path, source))?.path();
            if entry.is_file() && !entry.ends_with(&INDEX_WRITER_LOCK.filepath) {
                fs::remove_file(&entry).map_err(|source| io(&entry, source))?;
            }
        }
        // Nothing is stored, so there is nothing to compress either.
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let index = tantivy::Index::create(directory, fields.schema.clone(), settings)
            .map_err(|source| failed(path, source))?;
        Self::with(path, fields, index)
    }

    fn with(path: &Path, fields: Fields, mut index: tantivy::Index) -> Result<Self, SearchError> {
        // Segments are searched side by side: what everybody says is looked at in all of them.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        index
            .set_multithread_executor(threads.min(SEARCH_THREADS))
            .map_err(|source| failed(path, source))?;
        index.tokenizers().register(WORDS, of_documents());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()
            .map_err(|source| failed(path, source))?;
        let (context, told) = (Context::default(), Mutex::default());
        Ok(Self { path: path.to_owned(), fields, index, reader, context, told })
    }

    /// Returns the first event that is not in the index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn next(&self) -> Result<u64, SearchError> {
        Ok(self.mark()?.next)
    }

    /// Says how far the index has read and how far the log goes.
    ///
    /// # Errors
    /// When index or record cannot be read.
    pub fn progress(&self, reader: &Reader) -> Result<Progress, SearchError> {
        let next = self.next()?;
        Ok(Progress { next, head: reader.head()?.size.max(next) })
    }

    pub(super) fn mark(&self) -> Result<Mark, SearchError> {
        let metas = self.index.load_metas().map_err(|source| self.failed(source))?;
        Ok(Mark::read(metas.payload.as_deref()).unwrap_or_default())
    }

    /// Takes in what was appended since. An index of another record is built again.
    ///
    /// # Errors
    /// When the record cannot be read or the index not be written.
    pub fn catch_up(&mut self, reader: &Reader) -> Result<CaughtUp, SearchError> {
        self.catch_up_unless(reader, &AtomicBool::new(false))
    }

    /// Catches up, or stops early with what is done where `stop` is set meanwhile.
    pub(super) fn catch_up_unless(
        &mut self,
        reader: &Reader,
        stop: &AtomicBool,
    ) -> Result<CaughtUp, SearchError> {
        let mark = self.own_mark(reader)?;
        if reader.events(mark.next)?.next().is_none() {
            self.refresh()?;
            let next = mark.next;
            return Ok(CaughtUp { next, head: next, added: 0, held_elsewhere: false });
        }
        let head = reader.head()?.size;
        let Some(mut pen) = self.pen(head.saturating_sub(mark.next) > MANY)? else {
            return self.held_elsewhere(reader);
        };
        let caught = self.follow(&mut pen, reader, stop)?;
        pen.finish().map_err(|source| self.failed(source))?;
        self.refresh()?;
        Ok(caught)
    }

    /// Returns the mark. An index of another record is emptied first.
    pub(super) fn own_mark(&mut self, reader: &Reader) -> Result<Mark, SearchError> {
        let mark = self.mark()?;
        if Mark::of(reader, mark.next)?.as_ref() == Some(&mark) {
            return Ok(mark);
        }
        *self = Self::empty(&self.path, self.fields.clone())?;
        Ok(Mark::default())
    }

    /// Takes the writer lock; none where another process holds it.
    pub(super) fn pen(&self, many: bool) -> Result<Option<Pen>, SearchError> {
        Pen::take(&self.index, &self.path, many).map_err(|source| self.failed(source))
    }

    /// Says how far the process came that holds the lock.
    pub(super) fn held_elsewhere(&self, reader: &Reader) -> Result<CaughtUp, SearchError> {
        self.refresh()?;
        let Progress { next, head } = self.progress(reader)?;
        Ok(CaughtUp { next, head, added: 0, held_elsewhere: true })
    }

    /// Shows searches what was committed last, by whichever process. Costs little where there is
    /// nothing new.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn refresh(&self) -> Result<(), SearchError> {
        let metas = self.index.load_metas().map_err(|source| self.failed(source))?;
        let committed = metas.segments.iter().map(|meta| (meta.id(), meta.delete_opstamp()));
        let committed: std::collections::BTreeMap<_, _> = committed.collect();
        if *self.reader.searcher().generation().segments() == committed {
            return Ok(());
        }
        self.reader.reload().map_err(|source| self.failed(source))
    }

    pub(super) fn failed(&self, source: TantivyError) -> SearchError {
        failed(&self.path, source)
    }
}

/// Finds events through what was committed of the index.
pub(super) struct Committed<'a> {
    pub(super) searcher: &'a Searcher,
    pub(super) fields: &'a Fields,
}

impl Committed<'_> {
    fn first(&self, values: [(Exact, &str); 2]) -> Option<u64> {
        let parts = values.map(|(field, value)| with_value(self.fields, field, value));
        let query = tantivy::query::BooleanQuery::intersection(parts.into());
        let (words, order) = (std::collections::BTreeSet::new(), (Sort::Oldest, 1));
        let ranker = Ranker::new(self.searcher, self.fields.text, &words, order, vec![]).ok()?;
        let found = self.searcher.search(&query, &ranker).ok()?;
        found.places.first().map(|place| place.seq())
    }
}

impl Finder for Committed<'_> {
    fn run_started(&self, run: &str) -> Option<u64> {
        self.first([(Exact::Kind, "run.started"), (Exact::Run, run)])
    }

    fn suite_built(&self, suite: &Digest) -> Option<u64> {
        self.first([(Exact::Kind, "suite.built"), (Exact::Id, &suite.to_string())])
    }
}

pub(super) fn failed(path: &Path, source: TantivyError) -> SearchError {
    SearchError::Index { path: path.to_owned(), source: Box::new(source) }
}

fn io(path: &Path, source: std::io::Error) -> SearchError {
    SearchError::Io { path: path.to_owned(), source }
}
