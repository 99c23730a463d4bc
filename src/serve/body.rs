//! Reading bodies of requests: none is longer than its route takes, all together take no more
//! memory than there is for them, and none may take for ever.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;

use super::api::error;

/// Bytes that bodies take together while they are read and answered.
const HELD_BYTES_MAX: usize = 256 << 20;
/// How long a body may take.
const WHOLE: Duration = Duration::from_secs(120);
/// Bytes that are made ready for a body before any of it has come.
const EAGER: usize = 64 << 10;

/// Counts the bytes of bodies that are held.
#[derive(Clone, Default)]
pub(super) struct Bodies(Arc<AtomicUsize>);

/// Room that a body takes until this is dropped.
pub(super) struct Room {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Room {
    fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if held + bytes > HELD_BYTES_MAX { Err(Refused::NoRoom) } else { Ok(()) }
    }
}

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is longer than this many bytes.
    TooLarge(usize),
    /// Others take all the room.
    NoRoom,
    /// It does not come.
    Slow,
    /// It broke off.
    Broken,
}

impl Refused {
    /// Returns status and reason.
    pub(super) fn said(self) -> (StatusCode, String) {
        match self {
            Self::TooLarge(max) => {
                let what = format!("the request takes more than {max} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, what)
            }
            Self::NoRoom => {
                let what = "other requests take all the room: try again in a moment";
                (StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
            }
            Self::Slow => {
                let what = format!("the request's body did not come within {} s", WHOLE.as_secs());
                (StatusCode::REQUEST_TIMEOUT, what)
            }
            Self::Broken => (StatusCode::BAD_REQUEST, "the request's body broke off".to_owned()),
        }
    }

    /// Answers in OpenAI's form.
    pub(super) fn response(self) -> Response {
        let (status, what) = self.said();
        let kind = if self == Self::NoRoom { "server_error" } else { "invalid_request_error" };
        error(status, kind, what)
    }
}

impl Bodies {
    /// Reads a body of at most `max` bytes.
    pub(super) async fn read(&self, body: Body, max: usize) -> Result<(Bytes, Room), Refused> {
        if body.size_hint().lower() > max as u64 {
            return Err(Refused::TooLarge(max));
        }
        let reading = tokio::time::timeout(WHOLE, self.whole(body, max));
        reading.await.unwrap_or(Err(Refused::Slow))
    }

    async fn whole(&self, body: Body, max: usize) -> Result<(Bytes, Room), Refused> {
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(max);
        let mut room = Room { held: Arc::clone(&self.0), bytes: 0 };
        let mut bytes = Vec::with_capacity(expected.min(EAGER));
        let mut pieces = pin!(body.into_data_stream());
        while let Some(piece) = tokio_stream::StreamExt::next(&mut pieces).await {
            let piece = piece.map_err(|_| Refused::Broken)?;
            if bytes.len() + piece.len() > max {
                return Err(Refused::TooLarge(max));
            }
            room.grow(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes.into(), room))
    }
}
