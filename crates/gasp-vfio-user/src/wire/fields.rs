//! Reads fields from a payload, and writes messages.

use std::os::fd::OwnedFd;

use gasp::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::header::Header;
use super::refused::Refused;

/// The unread part of a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads a field, or a structure of fields.
    pub(crate) fn read<T: FromBytes>(&mut self) -> Result<T, Refused> {
        let (value, rest) = T::read_from_prefix(self.0)
            .map_err(|_| Refused::invalid("the message is too short for its command"))?;
        self.0 = rest;
        Ok(value)
    }

    /// The unread bytes.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Refuses a message with surplus bytes.
    pub(crate) fn end(self) -> Result<(), Refused> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(Refused::invalid(format!("the message is {extra} bytes too long"))),
        }
    }
}

/// A message under construction: header, fields, data, descriptors.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Reply {
    /// A reply without payload.
    pub(crate) fn new() -> Self {
        Self::with_capacity(32)
    }

    /// A reply without payload, with capacity for `len` bytes of it.
    pub(crate) fn with_capacity(len: usize) -> Self {
        let mut bytes = Vec::with_capacity(Header::SIZE + len);
        bytes.resize(Header::SIZE, 0);
        Self { bytes, fds: Vec::new() }
    }

    /// Appends a field, a structure of fields, or data.
    pub(crate) fn put(mut self, value: &(impl IntoBytes + Immutable + ?Sized)) -> Self {
        self.bytes.extend(value.as_bytes());
        self
    }

    /// Appends `len` zero bytes, and returns them to be filled in.
    pub(crate) fn space(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start.saturating_add(len), 0);
        self.bytes.get_mut(start..).unwrap_or_default()
    }

    pub(crate) fn fd(mut self, fd: OwnedFd) -> Self {
        self.fds.push(fd);
        self
    }

    /// The message as the reply to the command with the header `to`, and its descriptors.
    pub(crate) fn answer(self, to: Header) -> (Vec<u8>, Vec<OwnedFd>) {
        self.finish(Header { flags: Header::REPLY, error: 0, ..to })
    }

    /// The message as a command of the server.
    pub(crate) fn command(self, id: u16, command: u16) -> Vec<u8> {
        self.finish(Header { id, command, size: 0, flags: 0, error: 0 }).0
    }

    fn finish(mut self, header: Header) -> (Vec<u8>, Vec<OwnedFd>) {
        let size = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        // It cannot fail: every message begins with room for a header.
        let _ = Header { size, ..header }.write_to_prefix(&mut self.bytes);
        (self.bytes, self.fds)
    }

    /// The error reply to the command with the header `to`.
    pub(crate) fn refusal(to: Header, errno: Errno) -> Vec<u8> {
        let error = errno.raw_os_error().unsigned_abs();
        let flags = Header::REPLY | Header::ERROR;
        Self::new().finish(Header { flags, error, ..to }).0
    }
}
