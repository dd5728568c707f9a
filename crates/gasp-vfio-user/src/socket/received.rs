//! Descriptors received with a message.

use std::os::fd::OwnedFd;

/// Descriptors of a client. Those that nobody removes are closed when this is dropped,
/// without waiting for the servers of their files.
#[derive(Debug, Default)]
pub(crate) struct Received(Vec<OwnedFd>);

impl Received {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes and returns the last one.
    pub(crate) fn pop(&mut self) -> Option<OwnedFd> {
        self.0.pop()
    }

    /// Removes and returns all of them, in the order in which they came.
    pub(crate) fn remove_all(&mut self) -> Vec<OwnedFd> {
        core::mem::take(&mut self.0)
    }

    /// Closes all but the first `most`.
    pub(super) fn truncate(&mut self, most: usize) {
        let most = most.min(self.0.len());
        self.0.drain(most..).for_each(gasp::ffi::close);
    }
}

impl Extend<OwnedFd> for Received {
    fn extend<T: IntoIterator<Item = OwnedFd>>(&mut self, more: T) {
        self.0.extend(more);
    }
}

impl FromIterator<OwnedFd> for Received {
    fn from_iter<T: IntoIterator<Item = OwnedFd>>(fds: T) -> Self {
        Self(fds.into_iter().collect())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.truncate(0);
    }
}
