//! Following a log beyond its present end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Envelope;
use crate::memory::MemoryLog;
use crate::reader::{Events, ReadError, Reader, Shared};

/// First and longest pause between two looks at a journal that another process writes.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Events from a number on, each once and in order, for as long as somebody asks.
pub struct Subscription(Source);

enum Source {
    Journal { events: Box<Events>, writer: Option<Arc<Shared>>, next: u64 },
    Memory { log: MemoryLog, next: u64 },
}

impl Subscription {
    pub(crate) fn memory(log: MemoryLog, from: u64) -> Self {
        Self(Source::Memory { log, next: from })
    }

    /// Waits for the next event, at most `timeout`. `None` when none came.
    ///
    /// # Errors
    /// When the log cannot be read or is damaged.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Envelope>, ReadError> {
        let until = Instant::now() + timeout;
        let mut pause = PAUSES.0;
        loop {
            if let Some(event) = self.ready()? {
                return Ok(Some(event));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match &self.0 {
                Source::Memory { log, next } => log.wait_beyond(*next, left),
                // In the writer's process there is somebody to wake us.
                Source::Journal { writer: Some(writer), next, .. } => {
                    writer.wait_beyond(*next, left);
                }
                Source::Journal { writer: None, .. } => {
                    std::thread::sleep(pause.min(left));
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Returns the next event if it is there.
    fn ready(&mut self) -> Result<Option<Envelope>, ReadError> {
        match &mut self.0 {
            Source::Journal { events, next, .. } => {
                let event = events.next().transpose()?;
                *next = event.as_ref().map_or(*next, |event| event.seq + 1);
                Ok(event)
            }
            Source::Memory { log, next } => {
                let event = log.get(*next)?;
                *next += u64::from(event.is_some());
                Ok(event)
            }
        }
    }
}

/// Waits for each event without end.
impl Iterator for Subscription {
    type Item = Result<Envelope, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.next_within(Duration::from_secs(3600)).transpose() {
                return Some(event);
            }
        }
    }
}

impl Reader {
    /// Follows the log from event `from` on: what is there, then what is appended.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn subscribe(&self, from: u64) -> Result<Subscription, ReadError> {
        let (events, writer) = (Box::new(self.events(from)?), self.writer());
        Ok(Subscription(Source::Journal { events, writer, next: from }))
    }
}
