//! Connections: how many there may be, and how long one may take to say what it wants.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Most connections at once; others wait until one ends.
const CONNECTIONS_MAX: usize = 4096;
/// Files that are open beside connections.
const OTHER_FILES: u64 = 128;
/// How long the head of a request may take. A connection that asks nothing for so long ends.
const HEAD: Duration = Duration::from_secs(60);
/// How long nobody may take anything of an answer.
const TAKEN: Duration = Duration::from_secs(120);
/// How long answers may take to end when the server is asked to stop.
const END: Duration = Duration::from_secs(60);
/// How long to wait when no connection can be taken.
const AGAIN: Duration = Duration::from_millis(100);

/// Most threads that answer connections.
const LANES_MAX: usize = 16;

/// Which of the threads that answer a call is on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane(pub(super) usize);

/// Returns how many threads answer connections: one for each processor.
pub(super) fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX)
}

/// A connection, and the room that it takes.
type Taken = (std::net::TcpStream, Option<OwnedSemaphorePermit>);

/// A thread with the connections that it answers. All that a call needs runs on it: a piece of an
/// answer that is handed on waits for no other thread to wake up.
struct Thread {
    connections: UnboundedSender<Taken>,
    /// Held here and by each of its connections.
    load: Arc<()>,
    thread: JoinHandle<()>,
}

impl Thread {
    fn start(router: Router) -> io::Result<Self> {
        let (connections, taken) = unbounded_channel();
        let load = Arc::new(());
        let held = Arc::downgrade(&load);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("ledger-serve".to_owned());
        let thread = thread.spawn(move || runtime.block_on(answer_all(router, taken, &held)))?;
        Ok(Self { connections, load, thread })
    }

    fn load(&self) -> usize {
        Arc::strong_count(&self.load)
    }
}

/// Answers connections until no more can come, then what is under way.
async fn answer_all(router: Router, mut taken: UnboundedReceiver<Taken>, held: &Weak<()>) {
    let graceful = GracefulShutdown::new();
    while let Some((stream, permit)) = taken.recv().await {
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let mut builder = http1::Builder::new();
        let service = TowerToHyperService::new(router.clone());
        let connection = builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(Patient::new(stream)), service);
        let (connection, load) = (graceful.watch(connection), held.upgrade());
        tokio::spawn(async move {
            // Whoever broke off knows.
            let _ = connection.await;
            drop((permit, load));
        });
    }
    // Who does not take an answer to its end does not keep the server.
    let _ = tokio::time::timeout(END, graceful.shutdown()).await;
}

/// Serves until `stopped`, then answers what is under way. `routes` makes those of each thread.
pub(super) async fn serve(
    listener: TcpListener,
    routes: impl Fn(Lane) -> Router,
    stopped: impl Future<Output = ()>,
) -> io::Result<()> {
    let lanes = (0..lanes()).map(|lane| Thread::start(routes(Lane(lane))));
    let lanes = lanes.collect::<io::Result<Vec<_>>>()?;
    let (room, mut stopped) = (Arc::new(Semaphore::new(room())), pin!(stopped));
    loop {
        let (stream, permit) = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = &mut stopped => break,
        };
        let lane = lanes.iter().min_by_key(|lane| lane.load());
        if let (Some(lane), Ok(stream)) = (lane, stream.into_std()) {
            let _ = lane.connections.send((stream, permit));
        }
    }
    drop(listener);
    // All are told before one is waited for.
    let threads: Vec<JoinHandle<()>> = lanes.into_iter().map(|lane| lane.thread).collect();
    let end = || threads.into_iter().try_for_each(JoinHandle::join);
    let ended = tokio::task::spawn_blocking(end).await?;
    ended.map_err(|_| io::Error::other("a thread that answers panicked"))
}

/// A connection that ends when nobody takes what is written to it.
struct Patient {
    stream: TcpStream,
    /// Set while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, until: None }
    }

    /// Passes on what came of a write, unless it waits for too long.
    fn patiently(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if done.is_ready() {
            self.until = None;
            return done;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(TAKEN)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.patiently(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // It is never closed, so there is always a permit in the end.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Pieces of a stream leave as they come; where that cannot be set, a little later.
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            // The connection is gone, or there are no files left.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Raises how many files this process may have open as far as it goes, and says how many
/// connections that makes. A call that is handed on takes two.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted = (2 * CONNECTIONS_MAX as u64 + OTHER_FILES).min(most);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        current = setrlimit(Resource::Nofile, raised).map_or(current, |()| wanted);
    }
    let room = current.saturating_sub(OTHER_FILES) / 2;
    usize::try_from(room).unwrap_or(CONNECTIONS_MAX).clamp(16, CONNECTIONS_MAX)
}
