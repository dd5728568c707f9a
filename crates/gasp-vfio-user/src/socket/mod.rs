//! The socket: the file that it is reached by, the messages that go over it, and who reads.

mod inbox;
mod listener;
mod received;
mod stream;

pub(crate) use inbox::{Event, Inbox, Wait};
pub(crate) use listener::{Listener, SocketFile};
pub(crate) use received::Received;
pub(crate) use stream::{Ended, FDS_MAX, Packet, Stream};
