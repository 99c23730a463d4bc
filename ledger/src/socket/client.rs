//! The side of a process that writes through the holder.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connect;
use super::wire::{Answer, At, Request, VERSION, encode, receive, send};
use crate::clock::Clock;
use crate::event::NewEvent;
use crate::layout::Layout;
use crate::notebook::{AppendError, Appended, Expected, Notebook, OpenError};
use crate::reader::Head;

/// How long a holder may take to begin to listen, or to let the lock go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A handle that writes through the holder, or, once that is gone, by itself.
pub(crate) struct Client {
    layout: Layout,
    clock: Arc<dyn Clock>,
    hand: Mutex<Hand>,
}

/// Who writes.
enum Hand {
    Holder(UnixStream),
    Own(Notebook),
    /// The holder went away; nobody was asked since.
    Nobody,
}

/// What came of asking a holder.
enum Asked {
    Answer(Answer),
    /// The connection broke, or the holder is closing.
    Gone,
}

impl Client {
    /// Takes the lock, or connects to who holds it.
    pub(crate) fn attach(
        layout: Layout,
        clock: Arc<dyn Clock>,
    ) -> Result<Result<Notebook, Self>, OpenError> {
        Ok(match Self::find(&layout, &clock)? {
            Hand::Own(notebook) => Ok(notebook),
            hand => Err(Self { layout, clock, hand: Mutex::new(hand) }),
        })
    }

    fn find(layout: &Layout, clock: &Arc<dyn Clock>) -> Result<Hand, OpenError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let locked = match Notebook::open(layout.dir(), Arc::clone(clock)) {
                Ok(notebook) => return Ok(Hand::Own(notebook)),
                Err(error @ OpenError::Locked { .. }) => error,
                Err(error) => return Err(error),
            };
            if let Ok(stream) = greet(&layout.socket()) {
                return Ok(Hand::Holder(stream));
            }
            if Instant::now() >= until {
                return Err(locked);
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn append(
        &self,
        expected: &[Expected],
        events: &[NewEvent],
    ) -> Result<Vec<Appended>, AppendError> {
        let request = Request::Append {
            expected: expected.iter().map(At::from).collect(),
            events: events.to_vec(),
        };
        // Asking again is safe: what stands in the log already is a duplicate.
        self.with(
            &request,
            |own| own.append(expected, events.to_vec()),
            |answer| match answer {
                Answer::Appended { events } => Some(events.into_iter().map(Into::into).collect()),
                _ => None,
            },
        )
    }

    pub(crate) fn version(&self, stream: &str) -> Result<Option<u64>, AppendError> {
        let request = Request::Version { stream: stream.to_owned() };
        self.with(
            &request,
            |own| own.version(stream),
            |answer| match answer {
                Answer::Version { version } => Some(version),
                _ => None,
            },
        )
    }

    pub(crate) fn seqs_of(&self, ids: &[String]) -> Result<Vec<Option<u64>>, AppendError> {
        let request = Request::Find { ids: ids.to_vec() };
        self.with(
            &request,
            |own| own.seqs_of(ids),
            |answer| match answer {
                Answer::Found { seqs } if seqs.len() == ids.len() => Some(seqs),
                _ => None,
            },
        )
    }

    pub(crate) fn ready(&self, bytes: u64) -> Result<(), AppendError> {
        let own = |own: &Notebook| own.ready(bytes);
        let done = |answer| matches!(answer, Answer::Done).then_some(());
        self.with(&Request::Ready { bytes }, own, done)
    }

    pub(crate) fn head(&self) -> Result<Head, AppendError> {
        let own = |own: &Notebook| own.acknowledged();
        self.with(&Request::Head, own, |answer| match answer {
            Answer::Head { size, root } => Some(Head { size, root }),
            _ => None,
        })
    }

    pub(crate) fn flush(&self) -> Result<(), AppendError> {
        let own = |own: &Notebook| {
            own.flush();
            Ok(())
        };
        self.with(&Request::Flush, own, |answer| matches!(answer, Answer::Done).then_some(()))
    }

    /// Asks whoever writes, and finds somebody else where that one is gone.
    fn with<T>(
        &self,
        request: &Request,
        own: impl Fn(&Notebook) -> Result<T, AppendError>,
        read: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, AppendError> {
        // What has no form on the wire will not have one at the next try either.
        let message = encode(request).map_err(|error| AppendError::Store {
            reason: format!("it cannot be handed to the process that holds the notebook: {error}"),
        })?;
        let mut hand = self.hand.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + PATIENCE;
        loop {
            match &mut *hand {
                Hand::Own(notebook) => return own(notebook),
                Hand::Holder(stream) => match ask(stream, &message) {
                    Asked::Answer(Answer::Refused(refusal)) => return Err(refusal.into()),
                    Asked::Answer(answer) => {
                        let odd = "the holder answered something else than was asked".to_owned();
                        return read(answer).ok_or(AppendError::Store { reason: odd });
                    }
                    Asked::Gone => *hand = Hand::Nobody,
                },
                Hand::Nobody if Instant::now() < until => {
                    *hand = Self::find(&self.layout, &self.clock).map_err(|error| {
                        let what = "the process that held the notebook is gone, and another";
                        AppendError::Store { reason: format!("{what} cannot be had: {error}") }
                    })?;
                }
                Hand::Nobody => {
                    let reason = "whoever holds the notebook lets go again and again".to_owned();
                    return Err(AppendError::Store { reason });
                }
            }
        }
    }
}

/// Connects and makes sure that both speak the same version.
fn greet(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = connect(socket)?;
    send(&mut stream, &Request::Hello { version: VERSION })?;
    match receive(&mut stream)? {
        Answer::Hello { version: VERSION, .. } => Ok(stream),
        _ => Err(io::Error::other("the holder speaks another version")),
    }
}

fn ask(stream: &mut UnixStream, message: &[u8]) -> Asked {
    let asked = stream.write_all(message).and_then(|()| receive(stream));
    match asked {
        Ok(Answer::Refused(super::wire::Refusal::Closed)) | Err(_) => Asked::Gone,
        Ok(answer) => Asked::Answer(answer),
    }
}
