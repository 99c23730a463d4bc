//! Callers: at a fixed rate whatever the answers take, or as many as are answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::Outcome;
use crate::upstream::{Kind, call};

/// Calls that have got words of their own so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

type Connection = SendRequest<Full<Bytes>>;

/// Who is called, by connections that stay open.
#[derive(Debug)]
pub(crate) struct Side {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    /// Connections that were opened.
    pub(crate) opened: AtomicU64,
    /// Calls that were made.
    pub(crate) called: AtomicU64,
    /// Calls that were not answered with 200 and a body to its end.
    pub(crate) failed: AtomicU64,
}

/// When a call was answered, in milliseconds from when it was due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// First byte of the body.
    pub(crate) first: f64,
    /// Last byte of the body.
    pub(crate) last: f64,
}

impl Side {
    /// Knows whom to call.
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        let (opened, called, failed) = Default::default();
        Arc::new(Self { address, idle: Mutex::default(), opened, called, failed })
    }

    async fn connection(&self) -> Outcome<Connection> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driven) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driven);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    async fn try_call(&self, kind: Kind, due: Instant) -> Outcome<Times> {
        let body = call(kind, CALLS.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connection().await?;
        let request = Request::post("/v1/chat/completions")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("authorization", "Bearer sk-of-the-caller")
            .body(Full::new(body))?;
        let response = connection.send_request(request).await?;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()).into());
        }
        let (mut body, mut first) = (response.into_body(), None);
        while let Some(frame) = body.frame().await {
            if frame?.data_ref().is_some_and(|data| !data.is_empty()) {
                first.get_or_insert_with(|| due.elapsed());
            }
        }
        let last = due.elapsed();
        let first = first.ok_or("an empty answer")?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        Ok(Times { first: millis(first), last: millis(last) })
    }

    /// Calls; a failure is counted, and the first one told.
    async fn call(&self, kind: Kind, due: Instant) -> Option<Times> {
        self.called.fetch_add(1, Ordering::Relaxed);
        match self.try_call(kind, due).await {
            Ok(times) => Some(times),
            Err(error) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("a call to {} failed: {error}", self.address);
                }
                None
            }
        }
    }

    /// Gets the body of an address.
    pub(crate) async fn get(&self, path: &str) -> Outcome<Bytes> {
        let mut connection = self.connection().await?;
        let request = Request::get(path)
            .header("host", self.address.to_string())
            .body(Full::new(Bytes::new()))?;
        let response = connection.send_request(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

/// Calls each side at this rate, in turns, and returns the times of each. A call is due when its
/// turn is there, whether or not earlier ones were answered, and its time begins then.
pub(crate) async fn at_a_rate(
    sides: &[Arc<Side>; 2],
    kind: Kind,
    rate: f64,
    lasting: Duration,
) -> [Vec<Times>; 2] {
    let (send, mut receive) = unbounded_channel();
    let (sides, runtime) = (sides.clone(), tokio::runtime::Handle::current());
    // The runtime's clock ticks once a millisecond, which is more than what is measured.
    let pacing = std::thread::spawn(move || {
        let every = Duration::from_secs_f64(1.0 / (rate * sides.len() as f64));
        let turns = (lasting.as_secs_f64() / every.as_secs_f64()).round() as u32;
        let begun = Instant::now();
        for turn in 0..turns {
            let due = begun + every * turn;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let at = turn as usize % sides.len();
            let (side, send) = (Arc::clone(&sides[at]), send.clone());
            runtime.spawn(async move {
                if let Some(times) = side.call(kind, due).await {
                    let _ = send.send((at, times));
                }
            });
        }
    });
    let mut all = [Vec::new(), Vec::new()];
    while let Some((at, times)) = receive.recv().await {
        all[at].push(times);
    }
    let _ = pacing.join();
    all
}

/// Calls one side by so many callers, each as soon as it was answered. Returns calls a second.
pub(crate) async fn as_many(
    side: &Arc<Side>,
    kind: Kind,
    callers: usize,
    lasting: Duration,
) -> f64 {
    let begun = Instant::now();
    let caller = |side: Arc<Side>| async move {
        let mut answered = 0u64;
        while begun.elapsed() < lasting {
            answered += u64::from(side.call(kind, Instant::now()).await.is_some());
        }
        answered
    };
    let all: Vec<_> = (0..callers).map(|_| tokio::spawn(caller(Arc::clone(side)))).collect();
    let mut answered = 0;
    for one in all {
        answered += one.await.unwrap_or_default();
    }
    answered as f64 / begun.elapsed().as_secs_f64()
}
