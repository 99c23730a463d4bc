//! The runtime: an OpenAI-compatible server for one deployment, whose calls become traces.

mod api;
mod body;
mod capture;
mod connections;
pub mod engine;
mod feedback;
pub mod gateway;
mod otlp;
mod running;
mod signing;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::error::{AppError, Kind};
use capture::Capture;
pub(crate) use capture::{DEPLOYMENT_FLAG, SERVED_FLAG};
use engine::Engine;
use gateway::{Recorder, Teacher};
use ledger::Notebook;
use queries::search::Follower;
use signing::{Signing, Timer};

/// How long calls that a teacher answers may go on when the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Pieces of feedback that are recorded at once.
const FEEDBACK_AT_ONCE: usize = 4;

/// How a server listens, and when it signs.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address.
    pub address: SocketAddr,
    /// Token that callers must send; needed off loopback.
    pub token: Option<String>,
    /// Time between two checkpoints, signed when events came in between; none signs none.
    pub checkpoint_every: Option<Duration>,
}

/// A running server.
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    shared: Arc<Shared>,
    timer: Option<Timer>,
    follower: Option<Follower>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Who answers: a deployment here, a teacher elsewhere, or one of them by the model's name.
#[derive(Default)]
pub struct Answering {
    /// The deployment.
    pub engine: Option<Arc<Engine>>,
    /// The model that all other calls are handed on to.
    pub teacher: Option<Teacher>,
}

/// What the handlers share.
struct Shared {
    answering: Answering,
    capture: Capture,
    recorder: Arc<Recorder>,
    receiver: Arc<otlp::Receiver>,
    /// Room for bodies of calls, and for all that comes in beside them: calls do not wait for it.
    bodies: body::Bodies,
    capture_bodies: body::Bodies,
    feedback_turns: Arc<Semaphore>,
    signing: Arc<Signing>,
    token: Option<String>,
    /// Says that calls that are on their way to a teacher are waited for no longer.
    hurry: watch::Sender<bool>,
}

/// Starts keeping the search index up. Serving goes on without it where that fails.
fn follow(notebook: &Notebook) -> Option<Follower> {
    let index = notebook.dir().join("index");
    match Follower::start(&index, notebook.reader()) {
        Ok(follower) => Some(follower),
        Err(error) => {
            eprintln!("the search index is not kept up: {error}");
            None
        }
    }
}

/// Starts serving.
///
/// # Errors
/// When the address is off loopback without a token, or cannot be bound.
pub async fn start(
    notebook: Notebook,
    actor: &str,
    answering: Answering,
    listen: Listen,
) -> Result<Server, AppError> {
    // A variable that is set to nothing is no token.
    let token = listen.token.filter(|token| !token.trim().is_empty());
    if !listen.address.ip().is_loopback() && token.is_none() {
        return Err(AppError::hinted(
            Kind::Usage,
            format!("{} can be reached from other machines", listen.address),
            "set a token with --token (or LEDGER_TOKEN), or listen on 127.0.0.1",
        ));
    }
    let bind = |e: std::io::Error| {
        let what = format!("cannot listen on {}: {e}", listen.address);
        AppError::hinted(Kind::Unavailable, what, "choose another --port; 0 takes a free one")
    };
    let listener = TcpListener::bind(listen.address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let signing = Arc::new(Signing::new(notebook.clone()));
    let timer = listen.checkpoint_every.map(|every| signing::start(Arc::clone(&signing), every));
    let follower = follow(&notebook);
    let capture = Capture::new(notebook.clone(), actor);
    let receiver = Arc::new(otlp::Receiver::new(notebook.clone(), actor));
    let recorder = Recorder::start(notebook, actor, capture.newest(), capture.gap())
        .map_err(|error| AppError::said(Kind::Internal, format!("no thread: {error}")))?;
    let recorder = Arc::new(recorder);
    let (hurry, _) = watch::channel(false);
    let shared = Arc::new(Shared {
        answering,
        capture,
        recorder,
        receiver,
        bodies: body::Bodies::default(),
        capture_bodies: body::Bodies::default(),
        feedback_turns: Arc::new(Semaphore::new(FEEDBACK_AT_ONCE)),
        signing,
        token,
        hurry,
    });
    let receiver = Arc::clone(&shared.receiver);
    tokio::task::spawn_blocking(move || receiver.prepare());
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // A dropped handle means stop as well.
        let _ = stopped.await;
    };
    let of_lanes = Arc::clone(&shared);
    let routes = move |lane| api::routes(Arc::clone(&of_lanes), lane);
    let done = tokio::spawn(connections::serve(listener, routes, stopped));
    Ok(Server { address, stop, shared, timer, follower, done })
}

impl Server {
    /// Answers what is under way and stops.
    ///
    /// # Errors
    /// When the server broke off.
    pub async fn stop(self) -> Result<(), AppError> {
        let _ = self.stop.send(());
        let broke =
            |e: String| AppError::said(Kind::Internal, format!("the server broke off: {e}"));
        let hurry = Arc::clone(&self.shared);
        let grace = tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            hurry.hurry.send_replace(true);
        });
        let ended = self.done.await.map_err(|e| broke(e.to_string()));
        grace.abort();
        // Recording follows the answer, so what was answered last may still be on its way.
        let patience = tokio::time::Instant::now() + GRACE;
        while self.shared.capture.under_way() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let recorder = Arc::clone(&self.shared.recorder);
        let _ = tokio::task::spawn_blocking(move || recorder.stop()).await;
        if let Some(timer) = self.timer {
            timer.stop().await;
        }
        if let Some(follower) = self.follower {
            follower.stop();
        }
        ended?.map_err(|e| broke(e.to_string()))
    }
}
