//! The teacher: it answers at once, or after a fixed while, and always the same but for the id.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Outcome;

/// Pieces of a streamed answer with words in them.
const PIECES: usize = 40;
/// How long the teacher waits where it is asked to, as a model does that reads the prompt.
const WAITS: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer in one piece.
    Whole,
    /// Piece by piece, as fast as they can be written.
    Streamed,
    /// The same, after a while.
    Waiting,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Streamed, Self::Waiting];

    /// Says what it is.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Streamed => "streamed",
            Self::Waiting => "streamed after 20 ms",
        }
    }

    /// Model that the teacher answers as: the gateway hands its name on and looks no further.
    fn model(self) -> &'static str {
        match self {
            Self::Whole => "bench-whole",
            Self::Streamed => "bench-streamed",
            Self::Waiting => "bench-waiting",
        }
    }
}

/// Makes the body of a call. Each has words of its own, so that none is stored for another.
pub(crate) fn call(kind: Kind, number: u64) -> Bytes {
    let city = json!({ "type": "string", "description": "Name of the city, in English" });
    let day = json!({ "type": "string", "description": "Day, as 2026-11-30" });
    let tool = json!({ "type": "function", "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city on a day: degrees, sky, wind and rain.",
        "parameters": { "type": "object", "properties": { "city": city, "day": day },
            "required": ["city"] },
    } });
    let system = "You answer questions on the weather. Call the tool, and say only what it said.";
    let mut body = json!({
        "model": kind.model(),
        "messages": [
            { "role": "system", "content": system },
            { "role": "user", "content": format!("What is the weather at place {number}?") },
        ],
        "tools": [tool],
    });
    if kind != Kind::Whole {
        body["stream"] = Value::Bool(true);
        body["stream_options"] = json!({ "include_usage": true });
    }
    Bytes::from(body.to_string())
}

/// An answer on its way.
struct Answer {
    waits: Option<JoinHandle<()>>,
    pieces: VecDeque<Bytes>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(waits) = &mut self.waits {
            let _ = std::task::ready!(Pin::new(waits).poll(context));
            self.waits = None;
        }
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// The answer in one piece, about 2 KB.
fn whole(id: &str) -> VecDeque<Bytes> {
    let words: Vec<String> = (0..PIECES * 4).map(|at| format!("word {at:03}")).collect();
    let message = json!({ "role": "assistant", "content": words.join(", ") });
    let body = json!({ "id": id, "object": "chat.completion", "created": 1,
        "model": Kind::Whole.model(), "usage": usage(),
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] });
    [Bytes::from(body.to_string())].into()
}

fn usage() -> Value {
    json!({ "prompt_tokens": 90, "completion_tokens": 160, "total_tokens": 250 })
}

/// The events of a stream, each a piece of its own.
fn streamed(id: &str) -> VecDeque<Bytes> {
    let event = |choices: Value, usage: Value| {
        let event = json!({ "id": id, "object": "chat.completion.chunk", "created": 1,
            "model": Kind::Streamed.model(), "choices": choices, "usage": usage });
        Bytes::from(format!("data: {event}\n\n"))
    };
    let words = |at: usize| {
        let delta = json!({ "role": "assistant", "content": format!("word {at:03}, ") });
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        event(json!([choice]), Value::Null)
    };
    let mut pieces: VecDeque<Bytes> = (0..PIECES).map(words).collect();
    let last = json!({ "index": 0, "delta": {}, "finish_reason": "stop" });
    pieces.push_back(event(json!([last]), Value::Null));
    pieces.push_back(event(json!([]), usage()));
    pieces.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    pieces
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let id = format!("chatcmpl-{}", ANSWERS.fetch_add(1, Ordering::Relaxed));
    let asked = request.into_body().collect().await?.to_bytes();
    let asks_for = |kind: Kind| {
        let name = kind.model().as_bytes();
        asked.windows(name.len()).any(|window| window == name)
    };
    let is_streamed = !asks_for(Kind::Whole);
    // The runtime's clock ticks once a millisecond, which is more than what is measured.
    let wait = || tokio::task::spawn_blocking(|| std::thread::sleep(WAITS));
    let waits = asks_for(Kind::Waiting).then(wait);
    let pieces = if is_streamed { streamed(&id) } else { whole(&id) };
    let mut response = Response::new(Answer { waits, pieces });
    let kind = if is_streamed { "text/event-stream" } else { "application/json" };
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

/// Starts the teacher and returns its address.
pub(crate) async fn start() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(serving);
        }
    });
    Ok(address)
}
