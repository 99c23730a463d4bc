//! Waiting: for a turn among requests, for a server that is busy, and for whoever asks to stop.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use chrono::DateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Longest time that a server may ask to wait.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Longest time between two tries where the server names none.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Time in which so many requests are allowed.
const WINDOW: Duration = Duration::from_secs(60);

/// What asks to stop: an interrupt, or a service manager.
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// Listens from now on. Must be called within a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until somebody asks to stop; for ever where nobody is listened to.
pub(super) async fn asked_to_stop(ends: &mut Option<Ends>) {
    match ends {
        Some(ends) => ends.wait().await,
        None => std::future::pending().await,
    }
}

/// Keeps requests below a number in any minute.
pub(super) struct Pace {
    per_minute: usize,
    sent: VecDeque<Instant>,
}

impl Pace {
    /// Allows so many requests a minute; any number where it is 0.
    pub(super) fn new(per_minute: u32) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX);
        Self { per_minute, sent: VecDeque::new() }
    }

    /// Says how long to wait before the next request at `now`.
    pub(super) fn delay(&mut self, now: Instant) -> Duration {
        while self.sent.front().is_some_and(|&at| now.duration_since(at) >= WINDOW) {
            self.sent.pop_front();
        }
        match self.sent.front() {
            Some(&oldest) if self.per_minute > 0 && self.sent.len() >= self.per_minute => {
                (oldest + WINDOW).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// A request is sent.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.per_minute > 0 {
            self.sent.push_back(now);
        }
    }
}

/// Reads a `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = SystemTime::from(DateTime::parse_from_rfc2822(text).ok()?);
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(WAIT_MAX))
}

/// Returns the time before try `tries` + 1: twice as long each time.
pub(super) fn backoff(base: Duration, tries: u32) -> Duration {
    let times = 2_u32.saturating_pow(tries.saturating_sub(1));
    base.saturating_mul(times).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_server_says_how_long_in_seconds_or_by_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(date, now + Duration::from_secs(60)), Some(Duration::ZERO));
        assert_eq!(retry_after("99999", now), Some(WAIT_MAX));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn tries_come_apart_and_stay_below_a_minute() {
        let base = Duration::from_secs(1);
        let waits: Vec<u64> = (1..9).map(|tries| backoff(base, tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn no_minute_has_more_requests_than_allowed() {
        let (mut pace, start) = (Pace::new(2), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.sent(at(0));
        assert_eq!(pace.delay(at(1)), Duration::ZERO);
        pace.sent(at(1));
        assert_eq!(pace.delay(at(5)), Duration::from_secs(55));
        assert_eq!(pace.delay(at(60)), Duration::ZERO);
        assert_eq!(Pace::new(0).delay(at(0)), Duration::ZERO);
    }
}
