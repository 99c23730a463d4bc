//! Signing on a timer: a checkpoint when events came since the last one. A failure is told and
//! counted, and never stops serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::catalogue::{CheckpointSent, CheckpointSigned};
use ledger::{Facts as _, Notebook};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::error::AppError;

/// Signs checkpoints, and counts what came of it.
pub(super) struct Signing {
    notebook: Notebook,
    signed: AtomicU64,
    failed: AtomicU64,
}

/// A timer that runs until it is told to stop.
pub(super) struct Timer {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Signing {
    /// Takes a notebook. Nothing is signed yet.
    pub(super) fn new(notebook: Notebook) -> Self {
        Self { notebook, signed: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Counts (checkpoints, failed attempts).
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.signed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Signs if that is due.
    fn tick(&self) {
        match sign_if_due(&self.notebook) {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.signed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("no checkpoint could be signed, serving goes on: {error}");
            }
        }
    }
}

/// Signs the head if events came since the last checkpoint, those aside that tell of checkpoints.
/// Returns the number of events that it covers.
fn sign_if_due(notebook: &Notebook) -> Result<Option<u64>, AppError> {
    let reader = notebook.reader();
    let covered = reader.latest_checkpoint()?.map_or(0, |signed| signed.size);
    for event in reader.events(covered)? {
        let kind = event?.kind;
        if kind != CheckpointSigned::KIND && kind != CheckpointSent::KIND {
            return Ok(Some(notebook.checkpoint()?.size));
        }
    }
    Ok(None)
}

/// Starts a timer. The first checkpoint is signed when one period is over.
pub(super) fn start(signing: Arc<Signing>, every: Duration) -> Timer {
    let (stop, mut stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(async move {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // A dropped handle means stop as well.
                _ = &mut stopped => return,
            }
            let now = Arc::clone(&signing);
            // Not cut short by a stop, so that the notebook is closed behind it.
            if spawn_blocking(move || now.tick()).await.is_err() {
                signing.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Timer { stop, done }
}

impl Timer {
    /// Stops, after the checkpoint that is being signed.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.done.await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ledger::catalogue::FeedbackRecorded;
    use ledger::{NewEvent, SystemClock};
    use serde_json::json;

    use super::*;

    fn say(notebook: &Notebook, id: &str) {
        let facts = FeedbackRecorded {
            target: "x".to_owned(),
            name: "thumb".to_owned(),
            value: json!(1),
            comment: None,
            body: None,
        };
        let event = NewEvent::new("trace/feedback", id, "ada", &facts).unwrap();
        notebook.append_one(event).unwrap();
    }

    #[test]
    fn a_checkpoint_is_signed_only_when_something_happened() {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "ada").unwrap();
        assert_eq!(sign_if_due(&notebook).unwrap(), Some(1));
        // Its own event is nothing that has to be signed again.
        assert_eq!(sign_if_due(&notebook).unwrap(), None);
        let signed = notebook.reader().latest_checkpoint().unwrap().unwrap();
        notebook.note_sent(&signed, "elsewhere").unwrap();
        assert_eq!(sign_if_due(&notebook).unwrap(), None);
        say(&notebook, "one");
        assert_eq!(sign_if_due(&notebook).unwrap(), Some(4));
        assert_eq!(sign_if_due(&notebook).unwrap(), None);
    }

    #[test]
    fn a_failure_is_counted_and_the_next_tick_signs() {
        let dir = tempfile::tempdir().unwrap();
        let notebook = Notebook::create(dir.path(), Arc::new(SystemClock), "ada").unwrap();
        let signing = Signing::new(notebook.clone());
        let (key, away) = (dir.path().join("keys"), dir.path().join("away"));
        std::fs::rename(&key, &away).unwrap();
        signing.tick();
        assert_eq!(signing.counts(), (0, 1));
        std::fs::rename(&away, &key).unwrap();
        signing.tick();
        signing.tick();
        assert_eq!(signing.counts(), (1, 1));
    }
}
