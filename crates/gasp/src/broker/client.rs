//! The choice of a broker, for a process that cannot read frame numbers itself.

use std::path::Path;

use super::greet::{Greeting, failed, greet};
use super::tokens;
use crate::error::{Error, Operation, Reason, Result};
use crate::memory::host::pagemap;

/// Receives this process's page map from the broker that listens at `socket`, and reads frame
/// numbers from it until the process ends: memory objects that are created from now on know their
/// host-physical addresses. (A forked child has to ask again.)
///
/// A broker of tokens reports no addresses; from now on
/// [`host_tokens`](crate::MemoryObject::host_tokens) asks it.
///
/// The broker has to be trusted: the addresses that it reports are believed.
///
/// # Errors
/// `EPERM` if it refuses, or sends a descriptor that reports no frame numbers of this process
/// (decision 19); `ENOENT`, `ECONNREFUSED` and others if nobody listens; `ETIMEDOUT` if it does not
/// answer for 5 s; `EINVAL` if the answer is none of a broker's.
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
        Greeting::Refused => {
            Err(fail(Reason::HostUnknown("the broker refuses; its reason is in the log")))
        }
    }
}
