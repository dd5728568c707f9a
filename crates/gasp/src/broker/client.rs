//! Asking a broker, from now on, for what this process is not told itself.

use std::path::Path;

use super::greet::{Greeting, failed, greet};
use super::tokens;
use crate::error::{Error, Operation, Reason, Result};
use crate::memory::host::pagemap;

/// Has the broker that listens at `socket` open this process's frame numbers, and reads them
/// from there until the process ends: memory objects that are made from now on know their
/// host-physical addresses. (A forked child has to ask again.)
///
/// A broker that gives tokens only tells no addresses; from now on it is asked by
/// [`host_tokens`](crate::MemoryObject::host_tokens).
///
/// Ask a broker that you trust: addresses are believed as it tells them.
///
/// # Errors
/// `EPERM` where it refuses, or hands over what tells nothing of this process; `ENOENT`,
/// `ECONNREFUSED` and others where nobody listens.
pub fn use_broker(socket: &Path) -> Result<()> {
    let fail = |reason| Error::whole(Operation::HostPhysical, reason);
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
