//! The index on disk and how it follows the record.

use std::fs;
use std::path::{Path, PathBuf};

use ledger::{Digest, Reader};
use tantivy::directory::error::LockError;
use tantivy::{IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use super::document::{Context, draft, needs_context};
use super::{Fields, SearchError};

/// Version of the documents' form; another one is built again.
const FORMAT: u32 = 1;

/// Memory of the writer in bytes, a little above the least that tantivy takes.
const WRITER_BYTES: usize = 20_000_000;

/// Events after which what is indexed is committed, so that a long build can go on.
const COMMIT_EVERY: u64 = 20_000;

/// The search index of a notebook.
pub struct Index {
    path: PathBuf,
    pub(super) fields: Fields,
    pub(super) index: tantivy::Index,
    pub(super) reader: IndexReader,
    context: Context,
}

/// How far the index came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    /// First event that is not in the index yet.
    pub next: u64,
    /// Documents added now.
    pub added: u64,
    /// Another process holds the writer lock and keeps the index up.
    pub held_elsewhere: bool,
}

/// Up to where a committed index came: the next event, and what the one before it is stored as.
#[derive(Debug, Default, PartialEq)]
struct Mark {
    next: u64,
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

    fn write(&self) -> String {
        let last = self.last.map_or_else(String::new, |digest| digest.to_string());
        format!("{FORMAT} {} {last}", self.next)
    }

    /// Makes the mark of a record's events before `next`; none where it has fewer.
    fn of(reader: &Reader, next: u64) -> Result<Option<Self>, SearchError> {
        let Some(before) = next.checked_sub(1) else { return Ok(Some(Self::default())) };
        let bytes = reader.raw(before)?;
        Ok(bytes.map(|bytes| Self { next, last: Some(Digest::of(&bytes)) }))
    }
}

impl Index {
    /// Opens the index in the directory `path`, or makes an empty one where there is none or it
    /// cannot be used.
    ///
    /// # Errors
    /// When the directory cannot be made or written.
    pub fn open_or_rebuild(path: &Path) -> Result<Self, SearchError> {
        fs::create_dir_all(path).map_err(|source| io(path, source))?;
        let fields = Fields::new();
        let opened = tantivy::Index::open_in_dir(path).ok().filter(|index| {
            index.schema() == fields.schema
                && index.load_metas().is_ok_and(|metas| {
                    metas.segments.is_empty() || Mark::read(metas.payload.as_deref()).is_some()
                })
        });
        match opened {
            Some(index) => Self::with(path, fields, index),
            None => Self::empty(path, fields),
        }
    }

    /// Removes what lies in the index's directory and starts anew.
    fn empty(path: &Path, fields: Fields) -> Result<Self, SearchError> {
        for entry in fs::read_dir(path).map_err(|source| io(path, source))? {
            let entry = entry.map_err(|source| io(path, source))?.path();
            if entry.is_file() {
                fs::remove_file(&entry).map_err(|source| io(&entry, source))?;
            }
        }
        let index = tantivy::Index::create_in_dir(path, fields.schema.clone())
            .map_err(|source| failed(path, source))?;
        Self::with(path, fields, index)
    }

    fn with(path: &Path, fields: Fields, index: tantivy::Index) -> Result<Self, SearchError> {
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()
            .map_err(|source| failed(path, source))?;
        let context = Context::default();
        Ok(Self { path: path.to_owned(), fields, index, reader, context })
    }

    /// Returns the first event that is not in the index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn next(&self) -> Result<u64, SearchError> {
        Ok(self.mark()?.next)
    }

    fn mark(&self) -> Result<Mark, SearchError> {
        let metas = self.index.load_metas().map_err(|source| self.failed(source))?;
        Ok(Mark::read(metas.payload.as_deref()).unwrap_or_default())
    }

    /// Takes in what was appended since. An index of another record is built again.
    ///
    /// # Errors
    /// When the record cannot be read or the index not be written.
    pub fn catch_up(&mut self, reader: &Reader) -> Result<CaughtUp, SearchError> {
        let mark = self.mark()?;
        if Mark::of(reader, mark.next)?.as_ref() != Some(&mark) {
            *self = Self::empty(&self.path, self.fields.clone())?;
            return self.catch_up(reader);
        }
        let mut events = reader.events(mark.next)?.peekable();
        if events.peek().is_none() {
            self.reload()?;
            return Ok(CaughtUp { next: mark.next, added: 0, held_elsewhere: false });
        }
        let writer = self.index.writer_with_num_threads(1, WRITER_BYTES);
        let writer: IndexWriter = match writer {
            Ok(writer) => writer,
            Err(TantivyError::LockFailure(LockError::LockBusy, _)) => {
                self.reload()?;
                return Ok(CaughtUp { next: mark.next, added: 0, held_elsewhere: true });
            }
            Err(source) => return Err(self.failed(source)),
        };
        let caught = self.follow(writer, mark.next, (reader, events))?;
        self.reload()?;
        Ok(caught)
    }

    fn follow(
        &mut self,
        mut writer: IndexWriter,
        mut next: u64,
        (reader, events): (
            &Reader,
            impl Iterator<Item = Result<ledger::Envelope, ledger::ReadError>>,
        ),
    ) -> Result<CaughtUp, SearchError> {
        let (mut added, mut context_read) = (0, false);
        for event in events {
            let event = event?;
            if needs_context(&event.kind) && !context_read {
                self.context.catch_up(reader)?;
                context_read = true;
            }
            // What cannot be understood here is told by whoever folds the record; search goes on.
            if let Ok(Some(draft)) = draft(&event, &self.context, reader.blobs()) {
                if let Some(replaced) = draft.replaces {
                    writer.delete_term(Term::from_field_u64(self.fields.seq, replaced));
                }
                let document: TantivyDocument = draft.document(&self.fields);
                writer.add_document(document).map_err(|source| self.failed(source))?;
                added += 1;
            }
            next = event.seq + 1;
            if next.is_multiple_of(COMMIT_EVERY) {
                self.commit(&mut writer, (reader, next))?;
            }
        }
        self.commit(&mut writer, (reader, next))?;
        writer.wait_merging_threads().map_err(|source| self.failed(source))?;
        Ok(CaughtUp { next, added, held_elsewhere: false })
    }

    fn commit(
        &self,
        writer: &mut IndexWriter,
        (reader, next): (&Reader, u64),
    ) -> Result<(), SearchError> {
        let mark = Mark::of(reader, next)?.unwrap_or_default();
        let mut commit = writer.prepare_commit().map_err(|source| self.failed(source))?;
        commit.set_payload(&mark.write());
        commit.commit().map_err(|source| self.failed(source))?;
        Ok(())
    }

    fn reload(&self) -> Result<(), SearchError> {
        self.reader.reload().map_err(|source| self.failed(source))
    }

    pub(super) fn failed(&self, source: TantivyError) -> SearchError {
        failed(&self.path, source)
    }
}

fn failed(path: &Path, source: TantivyError) -> SearchError {
    SearchError::Index { path: path.to_owned(), source: Box::new(source) }
}

fn io(path: &Path, source: std::io::Error) -> SearchError {
    SearchError::Io { path: path.to_owned(), source }
}
