//! The socket: its file, the messages that go over it, and which thread reads.

mod inbox;
mod listener;
mod received;
mod stream;

pub(crate) use inbox::{Event, Inbox, Wait};
pub use listener::Listener;
pub(crate) use listener::SocketFile;
pub(crate) use received::Received;
pub(crate) use stream::{Ended, FDS_MAX, Packet, Stream};
