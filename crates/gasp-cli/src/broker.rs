//! `gasp broker`: opens frame numbers for processes that may not open them themselves.
//!
//! The kernel tells frame numbers to whoever *opened* a page map with `CAP_SYS_ADMIN`. This
//! process has it, opens the page map of each process that connects, and hands it over. The
//! socket says who connects (`SO_PEERCRED`); the descriptor of the process's folder under
//! `/proc` makes sure that what is opened is of the process that was looked at, and that has
//! to belong to the user who connected, so that a number that was used again meanwhile leads
//! to no other user's process.

use std::fs;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use gasp::memory::{FrameAccess, frame_access};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt::socket_peercred,
};

use crate::cli::Broker;
use crate::failure::Failure;

/// Listens until a signal ends it.
pub(crate) fn run(args: &Broker) -> Result<(), Failure> {
    if let FrameAccess::Denied(why) = frame_access() {
        return Err(io::Error::other(format!("a broker must be told frame numbers: {why}")).into());
    }
    let users = args.user.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>()?;
    let listener = listen(&args.socket, !users.is_empty())?;
    let socket = args.socket.clone();
    ctrlc::set_handler(move || {
        // It may be gone already; nobody can be told.
        let _ = fs::remove_file(&socket);
        std::process::exit(0);
    })
    .map_err(io::Error::other)?;
    for client in listener.incoming() {
        match client.and_then(|client| answer(&client, &users)) {
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
    let asks = socket_peercred(client)?;
    let (pid, user) = (asks.pid.as_raw_nonzero().get(), asks.uid.as_raw());
    let may = user == 0 || users.contains(&user);
    let opened = match may {
        true => page_map(pid, user),
        false => Err(format!("user {user} is not one of those that may ask (--user)")),
    };
    tracing::info!(pid, user, refused = opened.as_ref().err(), "asked for frame numbers");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let (text, file) = match opened {
        Ok(file) => ("+".to_owned(), Some(file)),
        Err(why) => (format!("-{why}"), None),
    };
    let descriptors = file.as_ref().map(|file| [file.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(client, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The page map of a process of this user.
fn page_map(pid: i32, user: u32) -> Result<OwnedFd, String> {
    let fail = |error: rustix::io::Errno| format!("process {pid}: {error}");
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    let folder = format!("/proc/{pid}");
    let process =
        open(folder, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(fail)?;
    let open = |name| openat(&process, name, flags | OFlags::RDONLY, Mode::empty()).map_err(fail);
    let mut status = String::new();
    let mut file = fs::File::from(open("status")?);
    file.read_to_string(&mut status).map_err(|error| error.to_string())?;
    // Its real, effective, saved and file system user.
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let effective = ids.split_whitespace().nth(1).and_then(|id| id.parse().ok());
    if effective != Some(user) {
        return Err(format!("process {pid} does not belong to user {user} any longer"));
    }
    open("pagemap")
}
