//! Keeping the index up behind the log, for as long as a process runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledger::Reader;

use super::SearchError;
use super::index::{Index, Progress};
use super::write::Pen;

/// Shortest time between two commits.
const COMMIT: Duration = Duration::from_millis(500);
/// Longest time that nobody looks whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Pauses after failures, the shortest and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How far a follower came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// First event that is not in the index yet.
    pub next: u64,
    /// Another process holds the writer lock and keeps the index up.
    pub held_elsewhere: bool,
    /// Why it does not go on, where it does not. It tries again.
    pub failure: Option<String>,
}

/// A thread that keeps the index of a notebook up. It ends when it is dropped.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    followed: Mutex<Followed>,
}

impl Shared {
    fn tell(&self, change: impl FnOnce(&mut Followed)) {
        change(&mut self.followed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but not on when it is to stop.
    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stops() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

impl Follower {
    /// Begins to follow the record of `reader` with the index in the directory `path`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(path: &Path, reader: Reader) -> Result<Self, SearchError> {
        let shared = Arc::new(Shared::default());
        let following = Following {
            path: path.to_owned(),
            reader: reader.clone(),
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("search-index".to_owned())
            .spawn(move || following.run())
            .map_err(|source| SearchError::Io { path: path.to_owned(), source })?;
        Ok(Self { reader, shared, thread: Some(thread) })
    }

    /// Says how far the index came, as of its last commit.
    pub fn followed(&self) -> Followed {
        self.shared.followed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how far the index came, and how far the log goes.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn progress(&self) -> Result<Progress, SearchError> {
        let next = self.followed().next;
        Ok(Progress { next, head: self.reader.head()?.size.max(next) })
    }

    /// Ends. What was read is committed first.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it was told already, on the standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread has.
struct Following {
    path: PathBuf,
    reader: Reader,
    shared: Arc<Shared>,
}

impl Following {
    fn run(&self) {
        let mut pause = PAUSES.0;
        while !self.shared.stops() {
            let before = self.shared.followed.lock().map(|told| told.next).unwrap_or_default();
            let Err(error) = self.follow() else { continue };
            // An index that was removed under our hands is built again.
            self.shared.tell(|told| told.failure = Some(error.to_string()));
            let after = self.shared.followed.lock().map(|told| told.next).unwrap_or_default();
            pause = if after > before { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            self.shared.sleep(pause);
        }
    }

    /// Follows until it is to stop, or something fails.
    fn follow(&self) -> Result<(), SearchError> {
        let mut index = Index::open_or_rebuild(&self.path)?;
        // What stands in the log already may be much.
        let caught = index.catch_up_unless(&self.reader, &self.shared.stop)?;
        self.tell(caught.next, caught.held_elsewhere);
        while !self.shared.stops() {
            match index.pen(false)? {
                Some(pen) => return self.write(&mut index, pen),
                None => {
                    self.tell(index.held_elsewhere(&self.reader)?.next, true);
                    self.shared.sleep(PAUSES.0);
                }
            }
        }
        Ok(())
    }

    fn write(&self, index: &mut Index, mut pen: Pen) -> Result<(), SearchError> {
        let mut next = index.follow(&mut pen, &self.reader, &self.shared.stop)?.next;
        self.tell(next, false);
        let mut committed = Instant::now();
        while !self.shared.stops() {
            let mut events = self.reader.subscribe(next)?;
            if events.next_within(LOOK * 5)?.is_none() {
                if !self.path.join("meta.json").exists() {
                    // Nothing new, but somebody asked for the index to be built again.
                    return Ok(());
                }
                continue;
            }
            self.shared.sleep(COMMIT.saturating_sub(committed.elapsed()));
            next = index.follow(&mut pen, &self.reader, &self.shared.stop)?.next;
            self.tell(next, false);
            committed = Instant::now();
        }
        pen.finish().map_err(|source| index.failed(source))
    }

    fn tell(&self, next: u64, held_elsewhere: bool) {
        self.shared.tell(|told| *told = Followed { next, held_elsewhere, failure: None });
    }
}
