//! Writing through the process that holds the notebook.
//!
//! The holder listens on a Unix socket in the notebook's directory. A message is its length (32
//! bits, little endian) and a MessagePack document with named fields. A connection begins with
//! [`wire::Request::Hello`]; each request has one answer, in order.

mod client;
mod server;
mod wire;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

pub(crate) use client::Client;
pub(crate) use server::Server;

/// Bytes that the address of a Unix socket may have, with some to spare.
const ADDRESS_MAX: usize = 100;

/// A way to name the socket of a directory, however long the directory's path is.
struct Address {
    path: PathBuf,
    /// Held open for as long as the path goes through it.
    _dir: Option<File>,
}

impl Address {
    fn of(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= ADDRESS_MAX {
            return Ok(Self { path: socket.to_owned(), _dir: None });
        }
        let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let dir = File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok(Self { path, _dir: Some(dir) })
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(Address::of(socket)?.path)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let address = Address::of(socket)?;
    UnixStream::connect(&address.path)
}

#[cfg(test)]
mod tests;
