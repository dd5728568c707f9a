//! `gasp broker`: opens frame numbers for processes that may not open them themselves, or
//! gives them tokens. What is given, and to whom, is [`gasp::broker`]'s to decide.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use gasp::Errno;
use gasp::broker::Server;
use gasp::config::near::nearest;
use gasp::{FrameAccess, frame_access};

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
    let server = match args.tokens {
        true => Server::tokens(users, redeemers),
        false => Server::page_maps(users),
    };
    let socket = args.socket.clone();
    on_signals(move |_| {
        // It may be gone already; nobody can be told.
        let _ = fs::remove_file(&socket);
        std::process::exit(0);
    })?;
    for client in listener.incoming() {
        match client.and_then(|client| server.answer(client)) {
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
