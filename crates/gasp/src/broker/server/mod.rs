//! The broker's side.
//!
//! The kernel tells frame numbers to whoever *opened* a page map with `CAP_SYS_ADMIN`. This
//! process has it, and opens the page map of each process that connects. The socket says who
//! connects (`SO_PEERCRED`); the descriptor of the process's folder under `/proc` makes sure
//! that what is opened is of the process that was looked at, and that has to belong to the
//! user who connected, so that a number that was used again meanwhile leads to no other
//! user's process.

mod frames;
mod greet;
mod looker;
mod office;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::wire;
use crate::peer::{Peer, peer_of};
use frames::Memory;
use greet::greet;
use office::Office;

/// What a broker gives to the clients that connect to it. The socket is the caller's.
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
pub struct Server(Gives);

enum Gives {
    PageMaps { users: Vec<u32> },
    Tokens(Arc<Office>),
}

impl Server {
    /// A broker that opens page maps for root and these users.
    pub fn page_maps(users: Vec<u32>) -> Self {
        Self(Gives::PageMaps { users })
    }

    /// A broker that gives tokens to root and `users`, and redeems them for root, for this
    /// process's user, and for `redeemers`. It raises this process's limit of descriptors to
    /// its maximum.
    pub fn tokens(users: Vec<u32>, redeemers: Vec<u32>) -> Self {
        Self(Gives::Tokens(Office::new(users, redeemers)))
    }

    /// Gives one client what it may have, or says why not, without waiting for it. A client
    /// of tokens is served by a thread of its own from then on.
    ///
    /// # Errors
    /// Those of the socket: a client that is gone, for example. Others can still be served.
    pub fn answer(&self, client: UnixStream) -> io::Result<()> {
        match &self.0 {
            Gives::PageMaps { users } => answer(&client, users),
            Gives::Tokens(office) => Office::receive(office, client),
        }
    }
}

/// Gives one client what it may have, or says why not. It is not waited for.
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
