//! Asking a broker for the descriptor that frame numbers are read from.
//!
//! A broker is a privileged process, `gasp broker`, that opens the page map of whoever
//! connects to its socket, and hands it over. What it opens tells of that process only, so a
//! server without any privilege knows the host-physical addresses of its own memory.
//!
//! One message comes from it: the byte `+` and the descriptor, or `-` and why not.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::pagemap;
use crate::error::{Errno, Error, Operation, Place, Reason, Result};

/// A broker that takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has the broker that listens at `socket` open this process's frame numbers, and reads them
/// from there until the process ends: memory objects that are made from now on know their
/// host-physical addresses. (A forked child has to ask again.)
///
/// Ask a broker that you trust: addresses are believed as it tells them.
///
/// # Errors
/// `EPERM` where it refuses, or hands over what tells nothing of this process; `ENOENT`,
/// `ECONNREFUSED` and others where nobody listens.
pub fn use_broker(socket: &Path) -> Result<()> {
    let fail = |reason| Error::new(Operation::HostPhysical, Place::Offset(0), 0, reason);
    let asked = ask(socket).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        fail(Reason::Os { what: "asking the broker of frame numbers", errno })
    })?;
    let file = asked.ok_or_else(|| fail(Reason::HostUnknown("the broker refuses")))?;
    pagemap::keep(file).map_err(|why| fail(Reason::HostUnknown(why)))
}

/// The descriptor; `None` where it is refused.
fn ask(socket: &Path) -> std::io::Result<Option<File>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = [0; 256];
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
        (Some((b'+', _)), Some(file)) => Ok(Some(file.into())),
        (Some((b'-', why)), _) => {
            let why = String::from_utf8_lossy(why);
            tracing::warn!(why = %why.escape_debug(), "the broker refuses");
            Ok(None)
        }
        _ => Err(Errno::INVAL.into()),
    }
}
