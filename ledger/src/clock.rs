//! Where the time of an event comes from.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Tells the time that an event is stamped with.
pub trait Clock: Send + Sync {
    /// Returns the present time in UTC, in whole microseconds.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock, cut to microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }
}

/// A clock for tests: begins at a given time and goes on by one millisecond per call.
#[derive(Debug)]
pub struct FixedClock {
    start: DateTime<Utc>,
    calls: AtomicI64,
}

impl FixedClock {
    /// Makes a clock whose first answer is `start`.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self { start: start.trunc_subsecs(6), calls: AtomicI64::new(0) }
    }
}

impl Default for FixedClock {
    /// Begins at the Unix epoch.
    fn default() -> Self {
        Self::new(DateTime::UNIX_EPOCH)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        self.start + TimeDelta::milliseconds(calls)
    }
}
