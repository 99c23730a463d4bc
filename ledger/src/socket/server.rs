//! The holder's side.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wire::{Answer, Request, VERSION, receive, send};
use super::{connect, listen};
use crate::notebook::Expected;
use crate::writer::Writer;

/// Clients that are served at a time.
const CLIENTS_MAX: usize = 256;

/// Listens until it is stopped or dropped.
pub(crate) struct Server {
    path: PathBuf,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads share.
struct Desk {
    writer: Arc<Writer>,
    ended: AtomicBool,
    /// Connections by number, so that they can be ended.
    clients: Mutex<Vec<(u64, UnixStream)>>,
}

impl Desk {
    fn clients(&self) -> MutexGuard<'_, Vec<(u64, UnixStream)>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Listens on the socket. The caller holds the notebook's lock, so a file of that name was
    /// left by somebody who is gone.
    pub(crate) fn start(path: &Path, writer: Arc<Writer>) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = listen(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (ended, clients) = (AtomicBool::new(false), Mutex::default());
        let desk = Arc::new(Desk { writer, ended, clients });
        let work = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("ledger-socket".to_owned());
        let thread = thread.spawn(move || accept(&listener, &work))?;
        Ok(Self { path: path.to_owned(), desk, thread: Some(thread) })
    }

    /// Serves nobody any more.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.desk.ended.store(true, Ordering::Release);
        // Wakes the thread that accepts; the connection itself is of no use.
        let woken = connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        for (_, client) in self.desk.clients().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
        if woken {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes clients until the server is stopped.
fn accept(listener: &UnixListener, desk: &Arc<Desk>) {
    for (number, client) in (0..).zip(listener.incoming()) {
        if desk.ended.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else {
            // Too many open files, perhaps: asking again at once would only keep a core busy.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(kept) = client.try_clone() else { continue };
        {
            let mut clients = desk.clients();
            if clients.len() >= CLIENTS_MAX {
                continue;
            }
            clients.push((number, kept));
        }
        let work = Arc::clone(desk);
        let thread = std::thread::Builder::new().name("ledger-client".to_owned());
        let started = thread.spawn(move || {
            // A client that breaks off, or sends what is no message, is simply gone.
            let _ = serve(client, &work);
            work.clients().retain(|(other, _)| *other != number);
        });
        if started.is_err() {
            desk.clients().retain(|(other, _)| *other != number);
        }
    }
}

/// Answers one client.
fn serve(mut client: UnixStream, desk: &Desk) -> io::Result<()> {
    loop {
        let request: Request = receive(&mut client)?;
        let answer = answer(&desk.writer, request);
        send(&mut client, &answer)?;
    }
}

fn answer(writer: &Writer, request: Request) -> Answer {
    match request {
        Request::Hello { .. } => Answer::Hello { version: VERSION, process: std::process::id() },
        Request::Append { expected, events } => {
            let expected: Vec<Expected> = expected.into_iter().map(Expected::from).collect();
            match writer.append(&expected, events) {
                Ok(appended) => {
                    let events = appended.into_iter().map(Into::into).collect();
                    Answer::Appended { events }
                }
                Err(error) => Answer::Refused(error.into()),
            }
        }
        Request::Version { stream } => match writer.version(&stream) {
            Ok(version) => Answer::Version { version },
            Err(error) => Answer::Refused(error.into()),
        },
        Request::Find { ids } => match writer.find(&ids) {
            Ok(seqs) => Answer::Found { seqs },
            Err(error) => Answer::Refused(error.into()),
        },
        Request::Ready { bytes } => match writer.ready(bytes) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Refused(error.into()),
        },
        Request::Head => {
            let head = writer.shared.head();
            Answer::Head { size: head.size, root: head.root }
        }
        Request::Flush => {
            // The store is a matter of speed only: a failure shows at the next open.
            let _ = writer.flush();
            Answer::Done
        }
    }
}
