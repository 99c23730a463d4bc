//! The runtime: an OpenAI-compatible server for one deployment, whose calls become traces.

mod api;
mod capture;
pub mod engine;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::error::{AppError, Kind};
use capture::Capture;
pub(crate) use capture::{DEPLOYMENT_FLAG, SERVED_FLAG};
use engine::Engine;
use ledger::Notebook;

/// How a server listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Address.
    pub address: SocketAddr,
    /// Token that callers must send; needed off loopback.
    pub token: Option<String>,
}

/// A running server.
pub struct Server {
    /// Address that it listens on.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    shared: Arc<Shared>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// What the handlers share.
struct Shared {
    engine: Engine,
    capture: Capture,
    token: Option<String>,
}

/// Starts serving.
///
/// # Errors
/// When the address is off loopback without a token, or cannot be bound.
pub async fn start(
    notebook: Notebook,
    actor: &str,
    engine: Engine,
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
    let capture = Capture::new(notebook, actor);
    let shared = Arc::new(Shared { engine, capture, token });
    let (stop, stopped) = oneshot::channel::<()>();
    let serving =
        axum::serve(listener, api::routes(Arc::clone(&shared))).with_graceful_shutdown(async {
            // A dropped handle means stop as well.
            let _ = stopped.await;
        });
    let done = tokio::spawn(async move { serving.await });
    Ok(Server { address, stop, shared, done })
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
        let ended = self.done.await.map_err(|e| broke(e.to_string()))?;
        // Recording follows the answer, so what was answered last may still be on its way.
        while self.shared.capture.under_way() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        ended.map_err(|e| broke(e.to_string()))
    }
}
