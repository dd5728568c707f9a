//! Errors outside the protocol; errors inside it are replies to the client.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An error of [`Server::bind`](crate::Server::bind).
#[derive(Debug, Error)]
pub enum BindError {
    /// Another server listens on this socket.
    #[error("{}: another server listens on this socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file at this path is not a socket; it is not removed.
    #[error("{}: a file exists that is not a socket; remove it or choose another path", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{}: {source}", .path.display())]
    System {
        /// The socket, or its lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// An error of [`Server::run`](crate::Server::run).
#[derive(Debug, Error)]
pub enum ServeError {
    /// No connection can be accepted any more.
    #[error("{}: no connection can be accepted: {source}", .path.display())]
    Accept {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The server is running already.
    #[error("{}: the server is already running", .path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
}
