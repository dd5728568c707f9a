//! `gasp broker`: opens the page maps of processes that lack the privilege, or issues tokens
//! to them. [`gasp::broker`] decides what is disclosed, and to whom.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use gasp::Errno;
use gasp::broker::Server;
use gasp::ffi::nearest;
use gasp::{FrameAccess, frame_access};

use crate::failure::Failure;
use crate::output::{Printer, system_words};
use crate::signal::on_signals;
use crate::socket::{errno_of, why_not};

/// Arguments of `gasp broker`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Socket to listen on; a stale socket is replaced
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// User who may ask, by name or number; can be repeated
    #[arg(long, value_name = "USER")]
    pub(crate) user: Vec<String>,
    /// Disclose no addresses; issue tokens that only a trusted user can redeem
    #[arg(long)]
    pub(crate) tokens: bool,
    /// User who may redeem tokens, by name or number, besides root and the broker's own user;
    /// can be repeated
    #[arg(long, value_name = "USER", requires = "tokens")]
    pub(crate) redeem_user: Vec<String>,
}

/// Serves clients until a signal ends the process.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let FrameAccess::Denied(why) = frame_access() {
        let message = format!("a broker must be able to read frame numbers itself: {why}");
        return Err(Failure::Unavailable { errno: Errno::PERM, message });
    }
    let numbers =
        |users: &[String]| users.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>();
    let (users, redeemers) = (numbers(&args.user)?, numbers(&args.redeem_user)?);
    let listener = listen(&args.socket, !users.is_empty() || !redeemers.is_empty())?;
    announce(args);
    let server = match args.tokens {
        true => Server::tokens(users, redeemers),
        false => Server::page_maps(users),
    };
    let socket = args.socket.clone();
    on_signals(move |_| {
        // It may already be gone, and an error could not be reported anywhere.
        let _ = fs::remove_file(&socket);
        std::process::exit(0);
    })?;
    for client in listener.incoming() {
        match client.and_then(|client| server.answer(client)) {
            Ok(()) => {}
            // Only this client is affected. The pause is for errors that persist, such as a
            // lack of descriptors.
            Err(error) => {
                tracing::warn!(%error, "a client was not served");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
    Ok(())
}

/// Prints the socket, who may use it and how to configure a client. If that cannot be
/// printed, the broker runs all the same.
fn announce(args: &Args) {
    let list = |users: &[String]| -> String {
        let users: Vec<&str> =
            ["root"].into_iter().chain(users.iter().map(String::as_str)).collect();
        users.join(", ")
    };
    let socket = std::path::absolute(&args.socket).unwrap_or_else(|_| args.socket.clone());
    let provides = match args.tokens {
        true => "tokens for host-contiguous runs, no addresses",
        false => "each client's own frame numbers",
    };
    let mut pairs = vec![
        ("socket", socket.display().to_string()),
        ("provides", provides.into()),
        ("who may ask", list(&args.user)),
    ];
    if args.tokens {
        let own = ["this process's user".to_owned()];
        let redeem: Vec<String> = own.iter().chain(&args.redeem_user).cloned().collect();
        pairs.push(("who may redeem", list(&redeem)));
    }
    pairs.push(("until", "SIGINT or SIGTERM, which also remove the socket".into()));
    pairs.push(("clients", "need this in their guest's configuration, under [guest]:".into()));
    let written = || -> io::Result<()> {
        let mut out = Printer::stdout();
        out.pairs(&pairs)?;
        // On one line, so that it can be copied.
        out.line(&format!("    frame-broker = {socket:?}"))?;
        out.flush()
    };
    if let Err(error) = written() {
        tracing::warn!(%error, "listening, but stdout cannot be written");
    }
}

/// The number of a user, from `/etc/passwd` if a name is given.
fn user_id(user: &str) -> Result<u32, Failure> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let file = Path::new("/etc/passwd");
    let users = fs::read_to_string(file).map_err(|error| {
        let message =
            format!("cannot read /etc/passwd: {}; give users by number", system_words(&error));
        Failure::Unavailable { errno: errno_of(&error), message }
    })?;
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

/// Listens at `path`. Each client is authorized by its credentials; the mode only keeps other
/// users away if root alone may ask.
fn listen(path: &Path, others: bool) -> Result<UnixListener, Failure> {
    let cannot = |error| refused(path, errno_of(&error), &why_not(path, &error));
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Any existing file is reported as in use, and only a socket can be a stale one.
            if !fs::symlink_metadata(path).map_err(cannot)?.file_type().is_socket() {
                let why = "a file that is no socket is there; remove it, or choose another path";
                return Err(refused(path, Errno::EXIST, why));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => {
                    let why = "another process listens there; end it, or choose another path";
                    return Err(refused(path, Errno::ADDRINUSE, why));
                }
            }
            fs::remove_file(path).map_err(cannot)?;
            UnixListener::bind(path).map_err(cannot)?
        }
        bound => bound.map_err(cannot)?,
    };
    let mode = if others { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(cannot)?;
    Ok(listener)
}

fn refused(path: &Path, errno: Errno, why: &str) -> Failure {
    Failure::Unavailable { errno, message: format!("cannot listen at {}: {why}", path.display()) }
}
