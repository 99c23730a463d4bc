//! Asking a Langfuse server, politely: within its limits, and again where it was busy.

use std::time::{Duration, Instant, SystemTime};

use datasets::redact::Rules;
use reqwest::{StatusCode, Url, header};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::wait::{Ends, Pace, asked_to_stop, backoff, retry_after};
use super::{Asked, Keys};
use crate::error::{AppError, Kind};
use crate::lab::Talk;

/// How long it may take to reach the server, to get the next bytes of an answer, and all of it.
const CONNECT: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(300);
/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Times that a request is sent before it counts as failed.
const TRIES: u32 = 6;
/// Characters of a server's own words that are told.
const WORDS_MAX: usize = 200;

const GO_ON: &str = "the same command goes on where it stopped";

/// A connection to a server.
pub(super) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    origin: String,
    keys: Keys,
    pace: Pace,
    retry_delay: Duration,
    ends: Option<Ends>,
    is_stopped: bool,
    talk: Talk,
}

/// What came of a request.
pub(super) enum Reply {
    /// The body of an answer that is fine.
    Body(Vec<u8>),
    /// There is no such route.
    Missing,
    /// The server does not understand the request, and says so.
    Refused(String),
    /// Somebody asked to stop meanwhile.
    Stopped,
}

/// What came of one try.
enum Tried {
    Done(Reply),
    /// Try again, after the time that the server named.
    Again(String, Option<Duration>),
    Failed(AppError),
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Client {
    /// Knows a server by its address; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none of HTTP's, or holds a name or password.
    pub(super) fn open(asked: &Asked, talk: Talk) -> Result<Self, AppError> {
        let internal = |what: String| AppError::said(Kind::Internal, what);
        let origin = origin(&asked.url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .timeout(WHOLE)
            // Keys must not be carried to another host.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ledger/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| internal(error.to_string()))?;
        // With a thread of its own, so that connections are kept up while pages are recorded.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| internal(error.to_string()))?;
        let ends = match asked.every {
            Some(_) => {
                let _inside = runtime.enter();
                Some(Ends::listen().map_err(|error| internal(error.to_string()))?)
            }
            None => None,
        };
        Ok(Self {
            runtime,
            http,
            origin,
            keys: asked.keys.clone(),
            pace: Pace::new(asked.requests_per_minute),
            retry_delay: asked.retry_delay,
            ends,
            is_stopped: false,
            talk,
        })
    }

    /// Returns the address of the server.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Waits; says whether to go on.
    pub(super) fn rest(&mut self, time: Duration) -> bool {
        let (runtime, ends) = (&self.runtime, &mut self.ends);
        self.is_stopped = self.is_stopped
            || runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = asked_to_stop(ends) => true,
                    () = tokio::time::sleep(time) => false,
                }
            });
        !self.is_stopped
    }

    /// Asks for a route.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses the keys, or answers what no server should.
    pub(super) fn get(
        &mut self,
        route: &str,
        query: &[(String, String)],
    ) -> Result<Reply, AppError> {
        let url = Url::parse(&format!("{}{route}", self.origin));
        let mut url = url.map_err(|error| AppError::said(Kind::Internal, error.to_string()))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut tries = 0;
        loop {
            let turn = self.pace.delay(Instant::now());
            if !self.rest(turn) {
                return Ok(Reply::Stopped);
            }
            self.pace.sent(Instant::now());
            let (why, named) = match self.attempt(route, url.clone()) {
                Tried::Done(reply) => return Ok(reply),
                Tried::Failed(error) => return Err(error),
                Tried::Again(why, named) => (why, named),
            };
            tries += 1;
            if tries >= TRIES {
                let what = format!("{}{route}: {why}, {tries} times", self.origin);
                return Err(AppError::hinted(Kind::Unavailable, what, GO_ON));
            }
            let wait = named.unwrap_or_default().max(backoff(self.retry_delay, tries));
            let seconds = wait.as_secs_f64();
            self.talk.say(format!("{route}: {why}; trying again in {seconds:.1} seconds"));
            if !self.rest(wait) {
                return Ok(Reply::Stopped);
            }
        }
    }

    fn attempt(&mut self, route: &str, url: Url) -> Tried {
        let (runtime, ends) = (&self.runtime, &mut self.ends);
        let (http, keys) = (&self.http, &self.keys);
        let got = runtime.block_on(async {
            tokio::select! {
                biased;
                () = asked_to_stop(ends) => None,
                got = fetch(http, keys, url) => Some(got),
            }
        });
        match got {
            None => {
                self.is_stopped = true;
                Tried::Done(Reply::Stopped)
            }
            Some(Ok(Some(answer))) => self.settle(route, answer),
            Some(Ok(None)) => {
                let most = BODY_BYTES_MAX >> 20;
                let what = format!("{}{route}: a page of more than {most} MB", self.origin);
                let hint = "ask for fewer rows a page with --limit";
                Tried::Failed(AppError::hinted(Kind::Input, what, hint))
            }
            Some(Err(failure)) => Tried::Again(reason(failure), None),
        }
    }

    fn settle(&self, route: &str, answer: Answer) -> Tried {
        let Answer { status, retry_after, body } = answer;
        let said = || format!("{}{route}: {status}{}", self.origin, words(&body));
        match status {
            StatusCode::OK => Tried::Done(Reply::Body(body)),
            StatusCode::NOT_FOUND => Tried::Done(Reply::Missing),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Tried::Done(Reply::Refused(said()))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Tried::Failed(AppError::hinted(
                Kind::Usage,
                format!("the server does not take the keys: {}", said()),
                "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY must be a pair of the project, and \
                 LANGFUSE_BASE_URL or --url where it lies: each region has its own address",
            )),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Tried::Again(status.to_string(), retry_after)
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => {
                Tried::Again(status.to_string(), retry_after)
            }
            status if status.is_server_error() => Tried::Again(status.to_string(), retry_after),
            status if status.is_redirection() => Tried::Failed(AppError::hinted(
                Kind::Unavailable,
                format!("{}{route}: {status}: it lies elsewhere", self.origin),
                "name the address that it leads to with --url: keys are not sent on",
            )),
            _ => Tried::Failed(AppError::hinted(Kind::Unavailable, said(), GO_ON)),
        }
    }
}

/// Sends a request and reads its answer; none where that is longer than what is read.
async fn fetch(
    http: &reqwest::Client,
    keys: &Keys,
    url: Url,
) -> Result<Option<Answer>, reqwest::Error> {
    let asked = http.get(url).basic_auth(&keys.public, Some(&keys.secret));
    let mut reply = asked.header(header::ACCEPT, "application/json").send().await?;
    let named = reply.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = named.and_then(|text| retry_after(text, SystemTime::now()));
    let (status, mut body) = (reply.status(), Vec::new());
    while let Some(piece) = reply.chunk().await? {
        if body.len() + piece.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(Answer { status, retry_after, body }))
}

/// Reads the address of a server.
fn origin(address: &str) -> Result<String, AppError> {
    let wrong = |what: &str| {
        let what = format!("the address of the Langfuse server {what}");
        AppError::hinted(Kind::Usage, what, "write it as https://cloud.langfuse.com")
    };
    let url =
        Url::parse(address.trim()).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("is not one of http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a name or password: set LANGFUSE_SECRET_KEY"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must end with its path"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Says what failed, down to its first cause, without the address: that is told beside it.
fn reason(failure: reqwest::Error) -> String {
    let failure = failure.without_url();
    let mut why = failure.to_string();
    let mut cause = std::error::Error::source(&failure);
    while let Some(inner) = cause {
        why.push_str(": ");
        why.push_str(&inner.to_string());
        cause = inner.source();
    }
    why
}

/// Returns what a server said of its refusal, made harmless for a terminal.
fn words(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let said = ["message", "error"].iter().find_map(|key| document.get(key)?.as_str());
    let Some(said) = said else { return String::new() };
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let said: String = Rules::default().redact_text(&said).chars().take(WORDS_MAX).collect();
    format!(": {said}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_holds_no_password() {
        assert_eq!(origin("https://eu.example/lf/ ").unwrap(), "https://eu.example/lf");
        for wrong in ["eu.example", "ftp://eu.example", "http://a:b@eu.example", "http://e/?x=1"] {
            assert_eq!(origin(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_one_short_line() {
        assert_eq!(
            words(br#"{"message": "Invalid\u001b[2J credentials"}"#),
            ": Invalid [2J credentials"
        );
        assert_eq!(words(b"<html>"), "");
    }
}
