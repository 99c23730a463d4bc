//! An answer that is handed on and copied.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Bytes;
use futures_core::Stream;
use ledger::catalogue::CallEnded;
use tokio_stream::wrappers::WatchStream;

use super::reason;
use super::recorder::Recorder;
use crate::serve::capture::UnderWay;

/// Most bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A call on its way. Dropped before its end, it was aborted by the caller.
pub(super) struct Call {
    recorder: Option<Arc<Recorder>>,
    /// Bytes that the recorder holds room for.
    pub(super) reserved: usize,
    /// What is being put together for the record.
    pub(super) request: Bytes,
    pub(super) response: Vec<u8>,
    /// Bytes of the answer, where the teacher says how many there are, and those that came.
    pub(super) length: Option<u64>,
    came: u64,
    /// More came than is kept.
    pub(super) is_truncated: bool,
    /// The answer's body is packed.
    pub(super) is_encoded: bool,
    pub(super) status: Option<u16>,
    pub(super) streamed: bool,
    pub(super) subject: Option<String>,
    pub(super) ended: CallEnded,
    pub(super) error: Option<String>,
    began: Instant,
    /// From the request to the first byte, and to the end, in milliseconds.
    pub(super) first_ms: Option<f64>,
    pub(super) all_ms: f64,
    _under_way: UnderWay,
}

impl Call {
    /// Begins a call; none where there is no room to record it.
    pub(super) fn begin(
        recorder: Arc<Recorder>,
        under_way: UnderWay,
        request: Bytes,
    ) -> Option<Self> {
        let reserved = request.len();
        if !recorder.reserve(reserved) {
            recorder.lose();
            return None;
        }
        Some(Self {
            recorder: Some(recorder),
            reserved,
            request,
            response: Vec::new(),
            length: None,
            came: 0,
            is_truncated: false,
            is_encoded: false,
            status: None,
            streamed: false,
            subject: None,
            ended: CallEnded::Aborted,
            error: None,
            began: Instant::now(),
            first_ms: None,
            all_ms: 0.0,
            _under_way: under_way,
        })
    }

    /// The teacher could not be reached.
    pub(super) fn failed(mut self, why: &str) {
        (self.ended, self.error) = (CallEnded::Failed, Some(why.to_owned()));
    }

    fn since(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1000.0
    }

    fn take(&mut self, piece: &[u8]) {
        let since = self.since();
        self.first_ms.get_or_insert(since);
        self.came += piece.len() as u64;
        let fits = self.response.len() + piece.len() <= ANSWER_BYTES_MAX;
        let has_room = |recorder: &Arc<Recorder>| recorder.reserve(piece.len());
        if self.is_truncated || !fits || !self.recorder.as_ref().is_some_and(has_room) {
            self.is_truncated = true;
            return;
        }
        self.reserved += piece.len();
        self.response.extend_from_slice(piece);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        self.all_ms = self.since();
        // Nobody asks for more once all that was announced is there.
        if self.ended == CallEnded::Aborted && self.length == Some(self.came) {
            self.ended = CallEnded::Complete;
        }
        let copy = Self {
            recorder: None,
            request: std::mem::take(&mut self.request),
            response: std::mem::take(&mut self.response),
            subject: self.subject.take(),
            error: self.error.take(),
            _under_way: self._under_way.clone(),
            ..*self
        };
        recorder.give(copy);
    }
}

/// The teacher's answer as it comes, each piece copied for the record.
pub(super) struct Tee<S> {
    pieces: Pin<Box<S>>,
    call: Option<Call>,
    /// Says when the server can wait no longer.
    stop: WatchStream<bool>,
}

impl<S> Tee<S> {
    pub(super) fn new(pieces: S, call: Option<Call>, stop: WatchStream<bool>) -> Self {
        Self { pieces: Box::pin(pieces), call, stop }
    }
}

impl<S: Stream<Item = reqwest::Result<Bytes>>> Stream for Tee<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Poll::Ready(Some(stops)) = Pin::new(&mut self.stop).poll_next(context) {
            if stops {
                self.call = None;
                return Poll::Ready(Some(Err(io::Error::other("the server stops"))));
            }
        }
        let piece = std::task::ready!(self.pieces.as_mut().poll_next(context));
        match (&piece, &mut self.call) {
            (Some(Ok(piece)), Some(call)) => call.take(piece),
            (Some(Err(failure)), Some(call)) => {
                (call.ended, call.error) = (CallEnded::Cut, Some(reason(failure)));
                self.call = None;
            }
            (None, Some(call)) => {
                call.ended = CallEnded::Complete;
                self.call = None;
            }
            (_, None) => {}
        }
        Poll::Ready(piece.map(|piece| piece.map_err(io::Error::other)))
    }
}
