//! `gasp broker`: opens frame numbers for processes that may not open them themselves.
//!
//! The kernel tells frame numbers to whoever *opened* a page map with `CAP_SYS_ADMIN`. This
//! process has it, opens the page map of each process that connects, and hands it over. The
//! socket says who connects (`SO_PEERCRED`); the descriptor of the process's folder under
//! `/proc` makes sure that what is opened is of the process that was looked at, and that has
//! to belong to the user who connected, so that a number that was used again meanwhile leads
//! to no other user's process.
//!
//! With `--tokens`, nobody is handed a descriptor: see [`tokens`].

mod frames;
mod tokens;

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use gasp::memory::{FrameAccess, Peer, frame_access, peer_of, wire};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::cli::Broker;
use crate::failure::Failure;

/// Listens until a signal ends it.
pub(crate) fn run(args: &Broker) -> Result<(), Failure> {
    if let FrameAccess::Denied(why) = frame_access() {
        return Err(io::Error::other(format!("a broker must be told frame numbers: {why}")).into());
    }
    let numbers =
        |users: &[String]| users.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>();
    let (users, redeemers) = (numbers(&args.user)?, numbers(&args.redeem_user)?);
    let listener = listen(&args.socket, !users.is_empty() || !redeemers.is_empty())?;
    let office = args.tokens.then(|| tokens::Office::new(users.clone(), redeemers));
    let socket = args.socket.clone();
    ctrlc::set_handler(move || {
        // It may be gone already; nobody can be told.
        let _ = fs::remove_file(&socket);
        std::process::exit(0);
    })
    .map_err(io::Error::other)?;
    for client in listener.incoming() {
        let answered = client.and_then(|client| match &office {
            Some(office) => tokens::Office::receive(office, client),
            None => answer(&client, &users),
        });
        match answered {
            Ok(()) => {}
            // A client that goes away is its own affair; one without a place waits a little.
            Err(error) => {
                tracing::warn!(%error, "a client was not answered");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
    Ok(())
}

/// The number of a user, from `/etc/passwd` where a name is given.
fn user_id(user: &str) -> Result<u32, Failure> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let id = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(user);
        fields.nth(1).filter(|_| found)?.parse().ok()
    });
    id.ok_or_else(|| Failure::Usage(format!("there is no user `{user}` in /etc/passwd")))
}

/// Listens at `path`. Who may ask is decided by who asks; the mode only keeps others away
/// where nobody but root may.
fn listen(path: &Path, others: bool) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // "In use" is said of any file, and only a socket may be one that was left behind.
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(error);
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let mode = if others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Gives one client what it may have, or says why not. It is not waited for.
fn answer(client: &UnixStream, users: &[u32]) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let Peer { pid, user } = peer_of(client)?;
    let may = user == 0 || users.contains(&user);
    let opened = match may {
        true => frames::Memory::open(pid, user).map(frames::Memory::into_page_map),
        false => Err(format!("user {user} is not one of those that may ask (--user)")),
    };
    tracing::info!(pid, user, refused = opened.as_ref().err(), "asked for frame numbers");
    match opened {
        Ok(file) => greet(client, wire::DESCRIPTOR, "", Some(file)),
        Err(why) => greet(client, wire::REFUSED, &why, None),
    }
}

/// Says the first thing that is said to a client.
fn greet(client: &UnixStream, kind: u8, why: &str, file: Option<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = file.as_ref().map(|file| [file.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let kind = [kind];
    let text = [IoSlice::new(&kind), IoSlice::new(why.as_bytes())];
    sendmsg(client, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
