//! The greeting of a client.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends the greeting of a client: its kind, the reason of a refusal, and a descriptor.
pub(super) fn greet(
    client: &UnixStream,
    kind: u8,
    why: &str,
    file: Option<OwnedFd>,
) -> io::Result<()> {
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
