//! Asking a broker for the descriptor that frame numbers are read from, or for tokens.
//!
//! A broker is a privileged process, `gasp broker`, that opens the page map of whoever
//! connects to its socket, and hands it over. What it opens tells of that process only, so a
//! server without any privilege knows the host-physical addresses of its own memory. One that
//! is to know no addresses is given [tokens](super::tokens) instead.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{tokens, wire};
use crate::error::{Errno, Error, Operation, Place, Reason, Result};
use crate::memory::host::pagemap;

/// Has the broker that listens at `socket` open this process's frame numbers, and reads them
/// from there until the process ends: memory objects that are made from now on know their
/// host-physical addresses. (A forked child has to ask again.)
///
/// A broker that gives tokens only tells no addresses; from now on it is asked by
/// [`host_tokens`](super::MemoryObject::host_tokens).
///
/// Ask a broker that you trust: addresses are believed as it tells them.
///
/// # Errors
/// `EPERM` where it refuses, or hands over what tells nothing of this process; `ENOENT`,
/// `ECONNREFUSED` and others where nobody listens.
pub fn use_broker(socket: &Path) -> Result<()> {
    let fail = |reason| Error::new(Operation::HostPhysical, Place::Offset(0), 0, reason);
    let greeting = greet(socket).map_err(failed("asking the broker of frame numbers"));
    match greeting.map_err(fail)? {
        Greeting::Descriptor(file) => {
            pagemap::keep(file).map_err(|why| fail(Reason::HostUnknown(why)))
        }
        Greeting::Tokens(stream) => {
            tokens::keep(socket, stream);
            Ok(())
        }
        Greeting::Refused => Err(fail(Reason::HostUnknown("the broker refuses"))),
    }
}

/// Why something went wrong with a connection.
pub(super) fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Reason {
    use std::io::ErrorKind;
    move |error| {
        let errno = match error.kind() {
            ErrorKind::WouldBlock => Errno::TIMEDOUT,
            ErrorKind::UnexpectedEof => Errno::PIPE,
            ErrorKind::InvalidData => Errno::PROTO,
            _ => Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        Reason::Os { what, errno }
    }
}

/// What a broker begins with.
pub(super) enum Greeting {
    Descriptor(File),
    Tokens(UnixStream),
    Refused,
}

/// Connects to a broker.
pub(super) fn greet(socket: &Path) -> std::io::Result<Greeting> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(wire::PATIENCE))?;
    stream.set_write_timeout(Some(wire::PATIENCE))?;
    let mut text = [0; wire::GREETING_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut text)];
    let received = recvmsg(&stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let text = text.get(..received.bytes).unwrap_or_default();
    match (text.split_first(), file) {
        (Some((&wire::DESCRIPTOR, _)), Some(file)) => Ok(Greeting::Descriptor(file.into())),
        (Some((&wire::TOKENS, [])), None) => Ok(Greeting::Tokens(stream)),
        (Some((&wire::REFUSED, why)), _) => {
            let why = String::from_utf8_lossy(why);
            tracing::warn!(why = %why.escape_debug(), "the broker refuses");
            Ok(Greeting::Refused)
        }
        _ => Err(Errno::INVAL.into()),
    }
}
