//! The gateway: calls that go on to a teacher, and are recorded on the way.
//!
//! Bytes are handed on as they come, in both directions. What is kept of a call is copied beside
//! them and given to a thread that records; when that has too much to do, calls are counted as not
//! recorded, and none waits.

mod keep;
mod recorder;
mod tee;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use reqwest::Url;
use serde_json::Value;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

pub(super) use recorder::Recorder;

use super::api::error;
use super::capture::UnderWay;
use super::connections::{Lane, lanes};
use crate::capture::bounded_name;
use crate::error::{AppError, Kind};
use tee::{Call, Tee};

/// How long it may take to reach the teacher. An answer may take as long as it takes.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the teacher may take to say which models it has, and how many bytes.
const MODELS: Duration = Duration::from_secs(10);
const MODELS_BYTES_MAX: usize = 8 << 20;

/// Headers that belong to one connection (RFC 9110, section 7.6.1), or that are made anew.
const OF_CONNECTION: [HeaderName; 11] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The model that calls are handed on to.
pub struct Teacher {
    /// One for each thread that answers: each has connections of its own, which it serves itself.
    clients: Vec<reqwest::Client>,
    base: String,
    /// Key to send in the place of the caller's.
    key: Option<HeaderValue>,
}

/// Connects as all callers of the teacher do.
fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// What a call is to the gateway: the rest of its body is handed on as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The body is JSON, as it came.
    pub(super) is_readable: bool,
    /// Model that should answer.
    pub(super) model: Option<String>,
    /// Send the answer piece by piece.
    streamed: bool,
    /// Whose call it is.
    subject: Option<String>,
}

impl Wanted {
    /// Looks into a body. Each field by itself: whatever is odd in one must not hide another.
    pub(super) fn of(headers: &HeaderMap, body: &Bytes) -> Self {
        let is_packed = headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Self::default() };
        if is_packed {
            return Self::default();
        }
        let name = |key: &str| match body.get(key)? {
            Value::String(name) => Some(name.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let mut subjects = ["safety_identifier", "user"].into_iter().filter_map(name);
        Self {
            is_readable: true,
            model: body.get("model").and_then(Value::as_str).map(str::to_owned),
            streamed: matches!(body.get("stream"), Some(Value::Bool(true))),
            subject: subjects.find(|name| !name.is_empty()).map(bounded_name),
        }
    }
}

impl Teacher {
    /// Knows a teacher by the address of its API, as `https://host/v1`.
    ///
    /// # Errors
    /// When the address is none of HTTP's, or holds a password.
    pub fn new(address: &str, key: Option<String>) -> Result<Self, AppError> {
        let wrong = |what: &str| {
            let what = format!("the teacher's address {what}");
            AppError::hinted(Kind::Usage, what, "write it as https://api.openai.com/v1")
        };
        let url =
            Url::parse(address).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("is not one of http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not hold a name or password: set LEDGER_TEACHER_KEY"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("must end with its path"));
        }
        let clients: reqwest::Result<Vec<reqwest::Client>> =
            (0..lanes()).map(|_| client()).collect();
        let clients = clients.map_err(|error| AppError::said(Kind::Internal, error.to_string()))?;
        let key = key.filter(|key| !key.trim().is_empty());
        let key = key.map(|key| HeaderValue::try_from(format!("Bearer {}", key.trim())));
        let mut key = key.transpose().map_err(|_| {
            let what = "the teacher's key holds what no header can hold";
            AppError::hinted(Kind::Usage, what, "set LEDGER_TEACHER_KEY to the key alone")
        })?;
        if let Some(key) = &mut key {
            key.set_sensitive(true);
        }
        Ok(Self { clients, base: url.as_str().trim_end_matches('/').to_owned(), key })
    }

    /// Returns the connections of a thread that answers.
    fn client(&self, Lane(lane): Lane) -> &reqwest::Client {
        // There is one for each.
        &self.clients[lane % self.clients.len()]
    }

    /// Returns the address of its API.
    pub fn address(&self) -> &str {
        &self.base
    }

    /// Returns the caller's headers as the teacher gets them. The body is asked for as it is, so
    /// that what is kept can be read. With a token of our own, the caller's is not the teacher's.
    fn headers(&self, mut headers: HeaderMap, is_ours: bool) -> HeaderMap {
        strip(&mut headers);
        for name in [header::CONTENT_LENGTH, header::ACCEPT_ENCODING, header::COOKIE] {
            headers.remove(name);
        }
        if is_ours || self.key.is_some() {
            headers.remove(header::AUTHORIZATION);
        }
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        headers
    }

    /// Asks for the models that the teacher has: status, headers and body of its answer.
    pub(super) async fn models(
        &self,
        lane: Lane,
        mut headers: HeaderMap,
        is_ours: bool,
    ) -> Option<Reply> {
        let conditional =
            [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::CONTENT_TYPE];
        conditional.iter().for_each(|name| drop(headers.remove(name)));
        let asked = self.client(lane).get(format!("{}/models", self.base)).timeout(MODELS);
        let reply = asked.headers(self.headers(headers, is_ours)).send().await.ok()?;
        let (status, headers) = (reply.status(), of_answer(reply.headers()));
        let (mut body, mut reply) = (Vec::new(), reply);
        while let Some(piece) = reply.chunk().await.ok()? {
            body.extend_from_slice(&piece);
            if body.len() > MODELS_BYTES_MAX {
                return None;
            }
        }
        Some((status, headers, body))
    }

    /// Hands a call on and its answer back. `is_ours` says that the caller's token is this
    /// server's.
    pub(super) async fn forward(
        &self,
        recording: (Arc<Recorder>, UnderWay),
        wanted: Wanted,
        asked: Asked,
        is_ours: bool,
    ) -> Response {
        let Asked { lane, headers, query, body, stop } = asked;
        let mut call = Call::begin(recording.0, recording.1, body.clone());
        if let Some(call) = &mut call {
            (call.subject, call.streamed) = (wanted.subject, wanted.streamed);
            if !wanted.is_readable {
                // Nobody can say whose it is.
                call.request = Bytes::new();
            }
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let asked = self.client(lane).post(format!("{}/chat/completions{query}", self.base));
        let asked = asked.headers(self.headers(headers, is_ours)).body(body).send();
        let mut stopped = stop.clone();
        // Where the caller leaves meanwhile, this ends here, and the call is dropped as aborted.
        let reply = tokio::select! {
            reply = asked => reply,
            _ = stopped.wait_for(|stops| *stops) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return error(status, "server_error", "the server stops");
            }
        };
        match reply {
            Ok(reply) => answer(reply, call, stop),
            Err(failure) => {
                let failure = failure.without_url();
                let why = reason(&failure);
                let status = if failure.is_timeout() {
                    StatusCode::GATEWAY_TIMEOUT
                } else {
                    StatusCode::BAD_GATEWAY
                };
                if let Some(call) = call {
                    call.failed(&why);
                }
                error(status, "server_error", format!("the teacher cannot be reached: {why}"))
            }
        }
    }
}

/// An answer of the teacher.
pub(super) type Reply = (StatusCode, HeaderMap, Vec<u8>);

/// A call as it came, and what says that the server can wait no longer.
pub(super) struct Asked {
    pub(super) lane: Lane,
    pub(super) headers: HeaderMap,
    pub(super) query: Option<String>,
    pub(super) body: Bytes,
    pub(super) stop: watch::Receiver<bool>,
}

/// Says what failed, down to its first cause.
fn reason(failure: &reqwest::Error) -> String {
    let mut why = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(inner) = cause {
        why.push_str(": ");
        why.push_str(&inner.to_string());
        cause = inner.source();
    }
    why
}

/// Takes out the headers of a connection, also those that it names itself.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

/// Returns the headers of an answer as the caller gets them. Cookies are the teacher's, and which
/// pages of others may read the answer is not for the teacher to say.
fn of_answer(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    strip(&mut headers);
    let is_foreign = |name: &HeaderName| {
        *name == header::SET_COOKIE || name.as_str().starts_with("access-control-")
    };
    let foreign: Vec<HeaderName> =
        headers.keys().filter(|name| is_foreign(name)).cloned().collect();
    foreign.iter().for_each(|name| drop(headers.remove(name)));
    headers
}

/// Hands the answer back as it comes.
fn answer(
    reply: reqwest::Response,
    mut call: Option<Call>,
    stop: watch::Receiver<bool>,
) -> Response {
    let status = reply.status();
    let headers = of_answer(reply.headers());
    if let Some(call) = &mut call {
        (call.status, call.length) = (Some(status.as_u16()), reply.content_length());
        call.is_encoded = headers.contains_key(header::CONTENT_ENCODING);
    }
    let tee = Tee::new(reply.bytes_stream(), call, WatchStream::new(stop));
    let mut response = Response::new(Body::from_stream(tee));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}
