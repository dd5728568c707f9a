//! What can go wrong outside the protocol; inside it, errors are answers.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another server listens there.
    #[error("{}: another server listens on this socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file is there that is no socket; it is not removed.
    #[error("{}: there is a file that is no socket; remove it or choose another path", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    System {
        /// The socket, or the lock file beside it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a server ended that was not told to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket takes no connections any more.
    #[error("{}: no connection can be accepted: {source}", .path.display())]
    Accept {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server is running already.
    #[error("{}: the server is running already", .path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
}
