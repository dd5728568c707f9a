//! Connecting to a broker, which begins with a greeting.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::wire;
use crate::error::{Errno, Reason};

/// Converts an error of a connection.
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

/// The first message of a broker.
pub(super) enum Greeting {
    Descriptor(File),
    Tokens(UnixStream),
    Refused,
}

/// Connects to a broker and reads its greeting.
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
