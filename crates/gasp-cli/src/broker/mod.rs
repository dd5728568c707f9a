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
mod looker;
mod tokens;

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use gasp::Errno;
use gasp::config::near::nearest;
use gasp::memory::{FrameAccess, Peer, frame_access, peer_of, wire};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::failure::Failure;
use crate::output::Page;
use crate::signal::on_signals;

/// Arguments of `gasp broker`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; a socket that nobody listens on any more is replaced
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// A user who may ask, by name or number; can be given several times
    #[arg(long, value_name = "USER")]
    pub(crate) user: Vec<String>,
    /// Tell nobody addresses; give tokens that only a trusted user can redeem
    #[arg(long)]
    pub(crate) tokens: bool,
    /// A user who may redeem tokens, by name or number, beside root and this process's own;
    /// can be given several times
    #[arg(long, value_name = "USER", requires = "tokens")]
    pub(crate) redeem_user: Vec<String>,
}

/// Listens until a signal ends it.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let FrameAccess::Denied(why) = frame_access() {
        let message = format!("a broker has to be shown frame numbers itself: {why}");
        return Err(Failure::Unavailable { errno: Errno::PERM, message });
    }
    let numbers =
        |users: &[String]| users.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>();
    let (users, redeemers) = (numbers(&args.user)?, numbers(&args.redeem_user)?);
    let listener = listen(&args.socket, !users.is_empty() || !redeemers.is_empty())?;
    announce(args);
    let office = args.tokens.then(|| tokens::Office::new(users.clone(), redeemers));
    let socket = args.socket.clone();
    on_signals(move |_| {
        // It may be gone already; nobody can be told.
        let _ = fs::remove_file(&socket);
        std::process::exit(0);
    })?;
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

/// Says where it listens, to whom, and what a client does. It listens on if nobody reads that.
fn announce(args: &Args) {
    let list = |users: &[String]| -> String {
        let users: Vec<&str> =
            ["root"].into_iter().chain(users.iter().map(String::as_str)).collect();
        users.join(", ")
    };
    let socket = std::path::absolute(&args.socket).unwrap_or_else(|_| args.socket.clone());
    let gives = match args.tokens {
        true => "tokens of host-contiguous runs, no addresses",
        false => "a client's own frame numbers",
    };
    let mut pairs = vec![
        ("listening", socket.display().to_string()),
        ("gives", gives.into()),
        ("who may ask", list(&args.user)),
    ];
    if args.tokens {
        let own = ["this process's user".to_owned()];
        let redeem: Vec<String> = own.iter().chain(&args.redeem_user).cloned().collect();
        pairs.push(("who may redeem", list(&redeem)));
    }
    pairs.push(("ends", "with SIGINT or SIGTERM, and removes the socket".into()));
    pairs.push(("a client", "has in its guest's configuration, under [guest]:".into()));
    let written = || -> io::Result<()> {
        let mut page = Page::stdout();
        page.pairs(&pairs)?;
        // In one line, to be copied.
        page.line(&format!("    frame-broker = {socket:?}"))?;
        page.flush()
    };
    if let Err(error) = written() {
        tracing::warn!(%error, "listening, although nobody was told");
    }
}

/// The number of a user, from `/etc/passwd` where a name is given.
fn user_id(user: &str) -> Result<u32, Failure> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let file = Path::new("/etc/passwd");
    let users = fs::read_to_string(file).map_err(Failure::system("cannot read", file))?;
    let id = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(user);
        fields.nth(1).filter(|_| found)?.parse().ok()
    });
    let known: Vec<&str> = users.lines().filter_map(|line| line.split(':').next()).collect();
    let near = nearest(user, known).map(|near| format!("; did you mean `{near}`?"));
    let near = near.unwrap_or_default();
    id.ok_or_else(|| Failure::Usage(format!("there is no user `{user}` in /etc/passwd{near}")))
}

/// Listens at `path`. Who may ask is decided by who asks; the mode only keeps others away
/// where nobody but root may.
fn listen(path: &Path, others: bool) -> Result<UnixListener, Failure> {
    let cannot = || Failure::system("cannot listen at", path);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // "In use" is said of any file, and only a socket may be one that was left behind.
            if !fs::symlink_metadata(path).map_err(cannot())?.file_type().is_socket() {
                let why = "something else is there; remove it or choose another path";
                return Err(refused(path, Errno::EXIST, why));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => {
                    let why = "another process listens there; choose another path";
                    return Err(refused(path, Errno::ADDRINUSE, why));
                }
            }
            fs::remove_file(path).map_err(cannot())?;
            UnixListener::bind(path).map_err(cannot())?
        }
        bound => bound.map_err(cannot())?,
    };
    let mode = if others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(cannot())?;
    Ok(listener)
}

fn refused(path: &Path, errno: Errno, why: &str) -> Failure {
    Failure::Unavailable { errno, message: format!("cannot listen at {}: {why}", path.display()) }
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
