//! The exclusive handle on a notebook: creating, opening, appending.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blob::Blobs;
use crate::catalogue::LedgerCreated;
use crate::checkpoint::{self, CheckpointError};
use crate::clock::Clock;
use crate::codec::CodecError;
use crate::device::{Device, Disk};
use crate::durable::{create_dir, write_file_on};
use crate::event::NewEvent;
pub use crate::journal::Dropped;
use crate::keys;
use crate::layout::{Config, LAYOUT, Layout, Lock, LockError};
use crate::reader::{Head, ReadError, Reader};
use crate::socket::{Client, Server};
use crate::writer::{Options, Writer};

mod open;
mod sign;

#[cfg(test)]
pub(crate) mod tests;

pub use open::{OpenReport, Rebuilt};

/// Actor of what the record does by itself.
const RECORD: &str = "ledger";

/// What a caller believes about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Stream.
    pub stream: String,
    /// Its last version; `None` where the stream must not exist yet.
    pub version: Option<u64>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was appended under this number.
    New(u64),
    /// It stands under this number already.
    Duplicate(u64),
}

impl Appended {
    /// Returns the number of the event, new or not.
    pub fn seq(self) -> u64 {
        match self {
            Self::New(seq) | Self::Duplicate(seq) => seq,
        }
    }
}

/// Says why a notebook cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one already.
    #[error("{} holds a notebook already", dir.display())]
    AlreadyExists {
        /// Directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The key cannot be made or read.
    #[error(transparent)]
    Key(#[from] CheckpointError),
    /// It was made, but cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Says why a notebook cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory holds no notebook.
    #[error("{} is no notebook: it has no ledger.toml", dir.display())]
    NotANotebook {
        /// Directory.
        dir: PathBuf,
    },
    /// Another process writes to it.
    #[error("{} is held by {}", dir.display(), holder(*.by))]
    Locked {
        /// Directory.
        dir: PathBuf,
        /// Process that holds it, where known.
        by: Option<u32>,
    },
    /// `ledger.toml` cannot be used.
    #[error("{}: {what}", path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Line and reason.
        what: String,
    },
    /// A newer version wrote this.
    #[error("{} has format {found}, newer than {known}: upgrade ledger", path.display())]
    Newer {
        /// File.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// Bytes that had been durable are not what was written.
    #[error("{}: event {seq} at byte {offset} is damaged: {what}", path.display())]
    Corrupt {
        /// Segment.
        path: PathBuf,
        /// Byte at which the frame should begin.
        offset: u64,
        /// Event that should stand there.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// The store cannot be rebuilt either.
    #[error("{}: {reason}", path.display())]
    Store {
        /// Directory of the store.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The first event cannot be written.
    #[error("the first event cannot be written: {0}")]
    Begin(Box<AppendError>),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn holder(by: Option<u32>) -> String {
    by.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotANotebook { dir } => Self::NotANotebook { dir },
            ReadError::Config { path, what } => Self::Config { path, what },
            ReadError::Newer { path, found, known } => Self::Newer { path, found, known },
            ReadError::Corrupt { path, offset, seq, what } => {
                Self::Corrupt { path, offset, seq, what: what.to_owned() }
            }
            ReadError::Decode { seq, source } => Self::Corrupt {
                path: PathBuf::from("journal"),
                offset: 0,
                seq,
                what: source.to_string(),
            },
            ReadError::Holder { reason } => Self::Store { path: PathBuf::from("socket"), reason },
            ReadError::Io { path, source } => Self::Io { path, source },
        }
    }
}

/// Says why a batch was not appended. Nothing of it is in the log, save where
/// [`AppendError::Poisoned`] says otherwise, or the process that it was handed to went away: asked
/// again, what stands there answers that it does.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A stream has moved on, or does not stand where the caller thinks.
    #[error(
        "stream {stream} is at {}, not at {}: read it again",
        version_text(*actual), version_text(*expected)
    )]
    Conflict {
        /// Stream.
        stream: String,
        /// Version that the caller expected.
        expected: Option<u64>,
        /// Version that it has.
        actual: Option<u64>,
    },
    /// The id stands for another event already.
    #[error("id {id:?} stands for event {seq}, which has other facts")]
    IdReused {
        /// Request key.
        id: String,
        /// Event that has it.
        seq: u64,
    },
    /// The event is too large; what is large belongs into a body beside the log.
    #[error("event {id:?} takes {bytes} bytes of at most {max}: put its text into a blob")]
    TooLarge {
        /// Request key.
        id: String,
        /// Bytes that it takes.
        bytes: usize,
        /// Most that it may take.
        max: usize,
    },
    /// Facts or measurements are nested too deeply to be read back.
    #[error("event {id:?} is nested deeper than {max} levels: put its text into a blob")]
    TooDeep {
        /// Request key.
        id: String,
        /// Most levels that it may have.
        max: usize,
    },
    /// A name is empty or too long.
    #[error("the {what} of an event takes {bytes} bytes: it must have 1 to {max}")]
    Name {
        /// `id`, `stream` or `kind`.
        what: &'static str,
        /// Bytes that it takes.
        bytes: usize,
        /// Most that it may take.
        max: usize,
    },
    /// The file system is nearly full. Nothing was written; free some space and try again.
    #[error("only {free} bytes are free, {needed} are needed: free some space and try again")]
    DiskLow {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// A write or a sync failed. Whether the events are on disk is known when the notebook is
    /// opened again; until then nothing more is written.
    #[error("the writer stopped at a failed write ({reason}): open the notebook again")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// The store cannot answer whether an id or a stream is known.
    #[error("{reason}: open the notebook again")]
    Store {
        /// What it said.
        reason: String,
    },
    /// An event has no stored form, or an earlier one cannot be read.
    #[error("event {id:?}: {source}")]
    Codec {
        /// Request key, or number of the event.
        id: String,
        /// What is wrong.
        source: CodecError,
    },
    /// The notebook was closed.
    #[error("the notebook is closed")]
    Closed,
}

fn version_text(version: Option<u64>) -> String {
    version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"))
}

/// Says what failed while closing. All acknowledged events are in the journal whatever it says.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The store could not be flushed; it is brought up to date at the next open.
    #[error("the store could not be flushed ({reason}): it is mended at the next open")]
    Store {
        /// What it said.
        reason: String,
    },
    /// The writer is gone.
    #[error("the notebook is closed already")]
    Closed,
}

/// A handle for writing. Clones share it.
#[derive(Clone, Debug)]
pub struct Notebook {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    device: Arc<dyn Device>,
    blobs: Blobs,
    reader: Reader,
    report: OpenReport,
    hand: Hand,
}

/// Who writes.
enum Hand {
    /// This process holds the lock, and serves others through the socket.
    Held { writer: Arc<Writer>, server: Mutex<Option<Server>> },
    /// Another process does.
    Attached(Client),
}

impl Hand {
    /// Ends what this process holds.
    fn close(&self) -> Result<(), CloseError> {
        let Self::Held { writer, server } = self else { return Ok(()) };
        drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
        writer.close()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure, and the journal has everything.
        let _ = self.hand.close();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("dir", &self.layout.dir()).finish_non_exhaustive()
    }
}

impl Notebook {
    /// Makes a notebook in `dir` and opens it.
    ///
    /// # Errors
    /// When there is one already, or the file system refuses.
    pub fn create(dir: &Path, clock: Arc<dyn Clock>, actor: &str) -> Result<Self, CreateError> {
        Self::create_with(dir, clock, actor, Options::default())
    }

    pub(crate) fn create_with(
        dir: &Path,
        clock: Arc<dyn Clock>,
        actor: &str,
        options: Options,
    ) -> Result<Self, CreateError> {
        let layout = Layout::new(dir);
        let failed = |path: PathBuf| move |source| CreateError::Io { path, source };
        create_dir(dir).map_err(failed(dir.to_owned()))?;
        let lock = take_lock(&layout)?;
        let exists = || CreateError::AlreadyExists { dir: dir.to_owned() };
        // `ledger.toml` is written last, so a creation that was cut short can be repeated; a
        // journal without it is a damaged notebook, not a place for a new one.
        let segments = crate::journal::segments(&layout.journal()).map_err(OpenError::from)?;
        if layout.config().exists() || !segments.is_empty() {
            return Err(exists());
        }
        let parts =
            [layout.journal(), layout.blobs(), layout.index(), layout.keys(), layout.checkpoints()];
        for part in parts {
            create_dir(&part).map_err(failed(part.clone()))?;
        }
        let device = options.device.as_ref();
        let key = keys::make_key(&layout, device)?;
        let config = Config { origin: key.name, layout: LAYOUT, lacks: None };
        write_file_on(device, &layout.config(), config.text().as_bytes(), 0o644)
            .map_err(failed(layout.config()))?;
        Ok(Self::open_held(layout, config, lock, (clock, actor, options))?)
    }

    /// Opens the notebook in `dir` for writing, mending what a crash left behind.
    ///
    /// # Errors
    /// When there is none, another process holds it, or acknowledged events are damaged.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_as(dir, clock, RECORD, Options::default())
    }

    /// Opens the notebook in `dir` for writing, or, where another process holds it, attaches to
    /// that one: what is appended here is then written there.
    ///
    /// # Errors
    /// As [`Notebook::open`]; `Locked` where the holder does not listen either.
    pub fn attach(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let layout = Layout::new(dir);
        Config::read(&layout)?.writable(&layout)?;
        let client = match Client::attach(layout.clone(), clock)? {
            Ok(notebook) => return Ok(notebook),
            Err(client) => client,
        };
        let inner = Inner {
            blobs: Blobs::open(dir),
            reader: Reader::over(layout.clone(), None),
            layout,
            device: Arc::new(Disk),
            report: OpenReport::default(),
            hand: Hand::Attached(client),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tells whether another process writes for this handle.
    pub fn is_attached(&self) -> bool {
        matches!(self.inner.hand, Hand::Attached(_))
    }

    /// Opens, and begins the log in the name of `actor` where it is still empty.
    pub(crate) fn open_as(
        dir: &Path,
        clock: Arc<dyn Clock>,
        actor: &str,
        options: Options,
    ) -> Result<Self, OpenError> {
        let layout = Layout::new(dir);
        let config = Config::read(&layout)?;
        config.writable(&layout)?;
        let lock = take_lock(&layout)?;
        Self::open_held(layout, config, lock, (clock, actor, options))
    }

    /// Opens a notebook that was just repaired, whose lock is still held.
    pub(crate) fn open_repaired(
        layout: Layout,
        config: Config,
        lock: Lock,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::open_held(layout, config, lock, (clock, RECORD, Options::default()))
    }

    /// Opens a notebook whose lock is held.
    fn open_held(
        layout: Layout,
        config: Config,
        lock: Lock,
        (clock, actor, options): (Arc<dyn Clock>, &str, Options),
    ) -> Result<Self, OpenError> {
        let (writer, mut report) = open::open(&layout, lock, clock, options)?;
        let begins = report.events == 0;
        let device = Arc::clone(&writer.options.device);
        let (writer, blobs) = (Arc::new(writer), Blobs::on(layout.dir(), Arc::clone(&device)));
        let reader = writer.reader.clone();
        let server = match Server::start(&layout.socket(), Arc::clone(&writer)) {
            Ok(server) => Some(server),
            Err(error) => {
                report.unreachable = Some(error.to_string());
                None
            }
        };
        let hand = Hand::Held { writer, server: Mutex::new(server) };
        let inner = Inner { layout, device, blobs, reader, report, hand };
        let notebook = Self { inner: Arc::new(inner) };
        if !keys::next_keys(&notebook.inner.layout).is_empty() {
            // A rotation was cut short. Signing is not needed to go on, so a failure waits.
            let _ = notebook.settle_keys();
        }
        if begins {
            notebook.begin(&config, actor).map_err(|error| OpenError::Begin(Box::new(error)))?;
        }
        Ok(notebook)
    }

    /// Appends the first event.
    fn begin(&self, config: &Config, actor: &str) -> Result<(), AppendError> {
        let verifier_key = checkpoint::own_key(&self.inner.layout)
            .map(|key| key.verifier())
            .map_err(|error| AppendError::Store { reason: error.to_string() })?;
        let facts = LedgerCreated { origin: config.origin.clone(), verifier_key, layout: LAYOUT };
        let event = NewEvent::new("ledger", "ledger.created", actor, &facts)
            .map_err(|error| AppendError::Store { reason: error.to_string() })?;
        self.append_one(event).map(|_| ())
    }

    /// Says what opening found and mended.
    pub fn opened(&self) -> &OpenReport {
        &self.inner.report
    }

    /// Appends a batch: all of it or nothing. Returns when it is durable.
    ///
    /// A batch that is in the log already, every event of it, answers with its numbers whatever
    /// `expected` says, so that a caller who never got the answer can ask again.
    ///
    /// # Errors
    /// When a stream is not at its expected version, an id stands for another event, an event is
    /// too large, or the disk is full or fails.
    pub fn append(
        &self,
        expected: &[Expected],
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError> {
        match &self.inner.hand {
            Hand::Held { writer, .. } => writer.append(expected, events),
            Hand::Attached(client) => client.append(expected, &events),
        }
    }

    /// Appends one event, wherever its stream stands.
    ///
    /// # Errors
    /// As [`Notebook::append`].
    pub fn append_one(&self, event: NewEvent) -> Result<Appended, AppendError> {
        let mut appended = self.append(&[], vec![event])?;
        appended.pop().ok_or(AppendError::Closed)
    }

    /// Returns the last version of a stream, or `None` where it does not exist.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn version(&self, stream: &str) -> Result<Option<u64>, AppendError> {
        match &self.inner.hand {
            Hand::Held { writer, .. } => writer.version(stream),
            Hand::Attached(client) => client.version(stream),
        }
    }

    /// Finds the durable events with these request ids, in their order: what a caller would store
    /// for an event that is there already need not be stored.
    ///
    /// # Errors
    /// When the log cannot be read, or takes no events.
    pub fn seqs_of(&self, ids: &[String]) -> Result<Vec<Option<u64>>, AppendError> {
        match &self.inner.hand {
            Hand::Held { writer, .. } => writer.find(ids),
            Hand::Attached(client) => client.seqs_of(ids),
        }
    }

    /// Says whether events would be taken now, with bodies of so many bytes before them: a body
    /// that no event will name need not be stored.
    ///
    /// # Errors
    /// When the disk is low, the log failed, or the notebook was closed.
    pub fn ready(&self, bytes: u64) -> Result<(), AppendError> {
        match &self.inner.hand {
            Hand::Held { writer, .. } => writer.ready(bytes),
            Hand::Attached(client) => client.ready(bytes),
        }
    }

    /// Returns the head of what was acknowledged.
    ///
    /// # Errors
    /// When whoever holds the notebook cannot be asked.
    pub(crate) fn acknowledged(&self) -> Result<Head, AppendError> {
        match &self.inner.hand {
            Hand::Held { writer, .. } => Ok(writer.shared.head()),
            Hand::Attached(client) => client.head(),
        }
    }

    /// Brings the copies up to the journal. They are a matter of speed only: a failure shows when
    /// the notebook is opened the next time.
    pub(crate) fn flush(&self) {
        match &self.inner.hand {
            Hand::Held { writer, .. } => drop(writer.flush()),
            Hand::Attached(client) => drop(client.flush()),
        }
    }

    /// Returns a reader that sees everything acknowledged. In the process that holds the notebook
    /// it sees nothing else.
    pub fn reader(&self) -> Reader {
        self.inner.reader.clone()
    }

    /// Returns the bodies beside the log.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Returns the notebook's directory.
    pub fn dir(&self) -> &Path {
        self.inner.layout.dir()
    }

    /// Flushes the store and lets the lock go. Other handles can append no more.
    ///
    /// # Errors
    /// When the store cannot be flushed; the journal has everything all the same.
    pub fn close(self) -> Result<(), CloseError> {
        self.inner.hand.close()
    }
}

/// Takes the lock of a notebook.
fn take_lock(layout: &Layout) -> Result<Lock, OpenError> {
    Lock::take(layout).map_err(|error| match error {
        LockError::Held(by) => OpenError::Locked { dir: layout.dir().to_owned(), by },
        LockError::Io(source) => OpenError::Io { path: layout.lock(), source },
    })
}
