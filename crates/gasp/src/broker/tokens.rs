//! Tokens: host-physical runs for processes that may not know addresses.
//!
//! A process that may not know the addresses of its memory asks a broker for a token of each run,
//! and passes the tokens on to a trusted process that programs the hardware. That process redeems
//! them at the broker, which reads the frame numbers once more before it answers.
//!
//! The broker does not pin the pages: an address is true when it is reported, and stays true while
//! the owner of the memory keeps it pinned. So whoever redeems a token has to trust its sender to
//! keep the memory [pinned](crate::Stability::Pinned), or has to pin the pages itself.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::net::{SendFlags, send};
use rustix::param::page_size;

use super::greet::{Greeting, failed, greet};
use crate::access::Access;
use crate::broker::wire;
use crate::broker::wire::HostToken;
use crate::broker::wire::Request;
use crate::error::{Errno, Error, Location, Operation, Reason, Result};
use crate::memory::HostRun;
use crate::memory::MemoryObject;

/// The maximum number of requests for one range: before each, pages are brought back into memory,
/// from which the kernel may remove them meanwhile.
const ATTEMPTS: usize = 10;

/// The maximum number of releases that one drop sends: its own, and some that were left over.
const BURST: usize = 16;

/// The broker whose tokens this process uses; they are void without the connection.
struct Connection {
    socket: PathBuf,
    /// `None` after a failure, until the next request connects again.
    stream: Option<Arc<UnixStream>>,
    /// Ranges that were released while the broker did not read. They are sent before the next
    /// request.
    unsent: Vec<(u64, u64)>,
    /// The process that connected. A forked child is another one, whose memory the broker does not
    /// look at.
    pid: u32,
}

/// Never held across a call that waits: objects are dropped under the engine's locks.
static CONNECTION: Mutex<Option<Connection>> = Mutex::new(None);
/// Held by the one request that waits for its answer.
static REQUEST: Mutex<()> = Mutex::new(());

fn connection() -> MutexGuard<'static, Option<Connection>> {
    CONNECTION.lock()
}

/// The connection, if this process opened it.
fn own(connection: &mut Option<Connection>) -> Option<&mut Connection> {
    let pid = std::process::id();
    connection.as_mut().filter(|kept| kept.pid == pid)
}

/// Keeps the connection to this broker, for requests of tokens from now on.
pub(super) fn keep(socket: &Path, stream: UnixStream) {
    let (socket, stream) = (socket.into(), Some(Arc::new(stream)));
    let pid = std::process::id();
    *connection() = Some(Connection { socket, stream, unsent: Vec::new(), pid });
}

/// The range of an object that has tokens; they are released when it is dropped.
///
/// The drop does not wait for the broker. A release that cannot be sent now is sent before the next
/// request, so it never reaches tokens of a later object in the same range; or it is obsolete, as
/// the connection has ended, and the tokens with it.
struct TokenRange((u64, u64));

impl Drop for TokenRange {
    fn drop(&mut self) {
        if let Some(kept) = own(&mut connection()) {
            kept.release(self.0);
        }
    }
}

impl Connection {
    /// Releases the tokens of a range, at once or before the next request.
    ///
    /// A release is sent whole or not at all: the kernel accepts or refuses the few bytes of a
    /// message as one, so it does not mix with a request that another thread sends.
    fn release(&mut self, range: (u64, u64)) {
        // Without a connection there are no tokens.
        let Some(stream) = &self.stream else { return };
        self.unsent.push(range);
        for _ in 0..BURST {
            let Some(&(addr, len)) = self.unsent.last() else { return };
            match say(stream, &Request::Release { addr, len }, SendFlags::DONTWAIT) {
                Ok(()) => drop(self.unsent.pop()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(),
            }
        }
    }

    /// Ends the connection after an error, when the next answer might be to another request. The
    /// tokens end with it.
    fn lose(&mut self) {
        if let Some(stream) = self.stream.take() {
            // A request may be waiting for its answer.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.unsent.clear();
    }
}

impl MemoryObject {
    /// Requests tokens of the broker that [`use_broker`](super::use_broker) connected to: one for
    /// each host-physical run of the `len` bytes from `offset`, in order. The memory is populated
    /// first. Runs are cut at multiples of 16 GiB from `offset`.
    ///
    /// The tokens are valid until the object, the process or the broker ends. (The end of the
    /// object does not wait for a broker that does not read: that learns of it before it creates
    /// the next tokens, or sees the end of the connection.) The same run has the same token. A
    /// process can have 65,536 of them.
    ///
    /// This call waits for the broker, at most 5 s for each message. Objects may be dropped, and
    /// mappings created and dropped, meanwhile.
    ///
    /// # Errors
    /// `EINVAL` as for [`host_run`](Self::host_run); `ENOENT` if no broker of tokens is in use;
    /// `EACCES` for memory that this process cannot write, or shares since a fork; `EAGAIN` if
    /// pages do not stay in memory; `ENOSPC` if the process, or its user, would have too many;
    /// `EPERM` if the broker refuses; `ETIMEDOUT` if it does not answer; `EPIPE` and others if it
    /// is gone.
    pub fn host_tokens(&self, offset: u64, len: u64) -> Result<Vec<HostToken>> {
        let fail =
            |reason| Error::new(Operation::HostPhysical, Location::Offset(offset), len, reason);
        self.check(offset, len).map_err(fail)?;
        let base = self.window().base().addr() as u64;
        let mut tokens = Vec::new();
        let mut next = offset;
        while next < offset + len {
            let part = (offset + len - next).min(wire::RANGE_MAX);
            tokens.extend(self.tokens_of(base + next, next, part).map_err(fail)?);
            next += part;
        }
        Ok(tokens)
    }

    fn tokens_of(
        &self,
        addr: u64,
        offset: u64,
        len: u64,
    ) -> core::result::Result<Vec<HostToken>, Reason> {
        let page = page_size() as u64;
        let first = offset / page * page;
        let end = (offset + len).next_multiple_of(page).min(self.len());
        let inside = |number: u64| usize::try_from(number).map_err(|_| Reason::Wraps);
        let (first, count) = (inside(first)?, inside(end - first)?);
        let writable = self.access().contains(Access::WRITE);
        let touch = if writable { Access::RW } else { Access::READ };
        self.attach(|| Arc::new(TokenRange((self.window().base().addr() as u64, self.len()))));
        for _ in 0..ATTEMPTS {
            if let Err(errno) = self.window().populate(first, count, touch) {
                tracing::debug!(%errno, object = self.name(), "cannot populate memory");
            }
            match grant(addr, len) {
                Err(Reason::Os { errno: Errno::AGAIN, .. }) => {}
                done => return done,
            }
        }
        Err(Reason::Os { what: "asking for tokens of pages in memory", errno: Errno::AGAIN })
    }
}

/// Requests tokens of the broker in use. Waits for it, without any lock that a drop takes.
fn grant(addr: u64, len: u64) -> core::result::Result<Vec<HostToken>, Reason> {
    const WHAT: &str = "asking the broker for tokens";
    let _request = REQUEST.lock();
    let stream = current()?;
    let answer = ask(&stream, &Request::Grant { addr, len });
    let tokens = match answer {
        Ok(Ok(body)) => wire::decode_tokens(&body, len).ok_or(NO_SENSE),
        Ok(Err(errno)) => return Err(Reason::Os { what: WHAT, errno }),
        Err(error) => Err(failed(WHAT)(error)),
    };
    if tokens.is_err() {
        let mut connection = connection();
        let kept = own(&mut connection);
        // There may be another connection by now, which has not failed.
        let is_kept = |kept: &&mut Connection| {
            kept.stream.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &stream))
        };
        if let Some(kept) = kept.filter(is_kept) {
            kept.lose();
        }
    }
    tokens
}

/// The connection, opened again after a failure. Called only with [`REQUEST`] held.
fn current() -> core::result::Result<Arc<UnixStream>, Reason> {
    const NONE: Reason = Reason::NotFound("broker of tokens in use; see `use_broker`");
    let socket = {
        let mut connection = connection();
        let kept = own(&mut connection).ok_or(NONE)?;
        match &kept.stream {
            Some(stream) => return Ok(Arc::clone(stream)),
            None => kept.socket.clone(),
        }
    };
    let stream = Arc::new(connect(&socket)?);
    let mut connection = connection();
    let kept = own(&mut connection).ok_or(NONE)?;
    Ok(Arc::clone(kept.stream.get_or_insert(stream)))
}

/// Sends the releases that are left and the request; returns the answer.
fn ask(
    stream: &UnixStream,
    request: &Request,
) -> std::io::Result<core::result::Result<Vec<u8>, Errno>> {
    let unsent = own(&mut connection()).map(|kept| core::mem::take(&mut kept.unsent));
    for (addr, len) in unsent.unwrap_or_default() {
        say(stream, &Request::Release { addr, len }, SendFlags::empty())?;
    }
    exchange(stream, request)
}

/// Redeems a token at the broker that listens at `socket`: returns the *present* host-physical run.
///
/// This pins no pages: the address stays true while the owner of the memory keeps it
/// [pinned](crate::Stability::Pinned). Whoever programs hardware with it has to trust the sender of
/// the token to do so, or has to pin the pages itself.
///
/// # Errors
/// `ESTALE` if the memory has moved or was replaced; `EAGAIN` if it is not in memory now;
/// `ETIMEDOUT` if its process keeps the broker from looking at it, or nobody answers; `ESRCH` if
/// its process is gone; `ENOENT` if there is no such token, or no longer, or no such socket;
/// `EPERM` if this user may not redeem; `EINVAL` if the broker issues no tokens, or the token is of
/// another length; `ECONNREFUSED` and others if nobody listens.
pub fn redeem_token(socket: &Path, token: HostToken) -> Result<HostRun> {
    const WHAT: &str = "redeeming a token";
    let redeem = || {
        let stream = connect(socket)?;
        let answer = exchange(&stream, &Request::Redeem(token.token));
        let body =
            answer.map_err(failed(WHAT))?.map_err(|errno| Reason::Os { what: WHAT, errno })?;
        let run = wire::decode_run(&body).ok_or(NO_SENSE)?;
        // Whoever passed it on may have changed the length.
        if run.len == token.len {
            Ok(run)
        } else {
            Err(Reason::Invalid("the token has another length"))
        }
    };
    redeem().map_err(|reason| {
        Error::new(Operation::HostPhysical, Location::Offset(0), token.len, reason)
    })
}

const NO_SENSE: Reason = Reason::Os { what: "decoding the broker's answer", errno: Errno::PROTO };

fn connect(socket: &Path) -> core::result::Result<UnixStream, Reason> {
    match greet(socket).map_err(failed("asking the broker for tokens"))? {
        Greeting::Tokens(stream) => Ok(stream),
        Greeting::Refused => {
            Err(Reason::HostUnknown("the broker refuses; its reason is in the log"))
        }
        Greeting::Descriptor(_) => Err(Reason::Invalid("the broker issues no tokens")),
    }
}

fn say(stream: &UnixStream, request: &Request, flags: SendFlags) -> std::io::Result<()> {
    // Not `write`: that kills a process that does not ignore SIGPIPE.
    let sent = send(stream, &request.encode(), SendFlags::NOSIGNAL | flags)?;
    if sent == Request::LEN { Ok(()) } else { Err(Errno::PIPE.into()) }
}

fn exchange(
    mut stream: &UnixStream,
    request: &Request,
) -> std::io::Result<core::result::Result<Vec<u8>, Errno>> {
    say(stream, request, SendFlags::empty())?;
    wire::read_answer(&mut stream)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::addr::HostPhys;

    /// The result of redeeming a token of 8 bytes if the broker sends this.
    fn redeemed(
        greeting: &'static [u8],
        answer: Vec<u8>,
    ) -> core::result::Result<u64, &'static str> {
        let id = std::process::id();
        let socket = std::env::temp_dir().join(format!("gasp-tokens-{id}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let broker = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting).unwrap();
            // A client that is refused sends nothing.
            if stream.read_exact(&mut [0; Request::LEN]).is_ok() {
                stream.write_all(&answer).unwrap();
            }
        });
        let run = redeem_token(&socket, HostToken { token: [1; 16], len: 8 });
        broker.join().unwrap();
        std::fs::remove_file(socket).unwrap();
        run.map(|run| run.addr.0).map_err(|error| error.errno_name())
    }

    #[test]
    fn a_broker_that_makes_no_sense_is_not_believed() {
        let run = |len| wire::encode_run(HostRun { addr: HostPhys(0x1234), len });
        let answer = |len| wire::encode_answer(Ok(&run(len)));
        assert_eq!(redeemed(b"t", answer(8)), Ok(0x1234));
        assert_eq!(redeemed(b"t", answer(16)), Err("EINVAL"), "of another length");
        assert_eq!(redeemed(b"t", wire::encode_answer(Ok(&[0; 16]))), Err("EPROTO"));
        assert_eq!(redeemed(b"t", wire::encode_answer(Ok(&[1; 15]))), Err("EPROTO"));
        assert_eq!(redeemed(b"t", vec![0xff; 64]), Err("EPROTO"));
        assert_eq!(redeemed(b"t", answer(8)[..20].to_vec()), Err("EPIPE"));
        assert_eq!(redeemed(b"t", wire::encode_answer(Err(Errno::STALE))), Err("ESTALE"));
        assert_eq!(redeemed(b"-no", vec![]), Err("EPERM"));
        assert_eq!(redeemed(b"+", vec![]), Err("EINVAL"));
    }
}
