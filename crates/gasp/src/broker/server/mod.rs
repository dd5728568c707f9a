//! The broker's side.
//!
//! The kernel reports frame numbers through a page map whose *opener* had `CAP_SYS_ADMIN`. This
//! process has it, and opens the page map of each process that connects. The socket says which
//! process and user connect (`SO_PEERCRED`). All that is opened is below one descriptor of the
//! process's folder under `/proc`, so it is of one process, and that has to belong to the user who
//! connected: a process number that was reused meanwhile never leads to another user's process.

mod frames;
mod greet;
mod inspector;
mod issuer;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::wire;
use crate::peer::{Peer, peer_of};
use frames::Memory;
use greet::greet;
use issuer::Issuer;

/// A broker: answers the clients that connect to a socket, which is the caller's.
///
/// ```no_run
/// use std::os::unix::net::UnixListener;
/// use gasp::broker::Server;
///
/// let server = Server::page_maps(vec![1000]);
/// for client in UnixListener::bind("/run/gasp-broker")?.incoming() {
///     server.answer(client?)?;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Server(Service);

enum Service {
    PageMaps { users: Vec<u32> },
    Tokens(Arc<Issuer>),
}

impl Server {
    /// A broker that opens page maps for processes of root and of `users` (user IDs).
    pub fn page_maps(users: Vec<u32>) -> Self {
        Self(Service::PageMaps { users })
    }

    /// A broker that issues tokens to processes of root and of `users` (user IDs), and redeems them
    /// for root, for this process's user, and for `redeemers`. It raises this process's limit of
    /// open descriptors to its maximum.
    pub fn tokens(users: Vec<u32>, redeemers: Vec<u32>) -> Self {
        Self(Service::Tokens(Issuer::new(users, redeemers)))
    }

    /// Answers one client, with what it may have or with the reason why not, without waiting for
    /// it. A client of tokens is then served by a thread of its own.
    ///
    /// # Errors
    /// Errors of the socket, for example if the client is gone. Others can still be served.
    pub fn answer(&self, client: UnixStream) -> io::Result<()> {
        match &self.0 {
            Service::PageMaps { users } => answer(&client, users),
            Service::Tokens(issuer) => Issuer::receive(issuer, client),
        }
    }
}

/// Sends a client its page map, or the reason why not, without waiting for it.
fn answer(client: &UnixStream, users: &[u32]) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let Peer { pid, user } = peer_of(client)?;
    let may = user == 0 || users.contains(&user);
    let opened = match may {
        true => Memory::open(pid, user).map(Memory::into_page_map),
        false => Err(format!("user {user} is not one of those that may ask (--user)")),
    };
    tracing::info!(pid, user, refused = opened.as_ref().err(), "asked for frame numbers");
    match opened {
        Ok(file) => greet(client, wire::DESCRIPTOR, "", Some(file)),
        Err(why) => greet(client, wire::REFUSED, &why, None),
    }
}
