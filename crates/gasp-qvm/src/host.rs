//! What a vdev needs of the program that hosts it.

use core::fmt;
use std::path::Path;

use gasp::Errno;

use crate::bar::Bar;
use crate::controller;

/// The place of one vdev in its guest, as its host provides it.
///
/// Its methods may be called by any thread of the vdev, by several at a time, and while it answers
/// an access of the guest; they do not wait for the vdev.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// Sets the level of the vdev's interrupt. Called for each change, in order.
    fn interrupt(&self, raised: bool);

    /// The vdev raises its interrupt, which is up already. It means nothing for a level; but where
    /// the interrupt is a message, the guest needs another one: it may have seen the first cause
    /// alone.
    fn raised_again(&self) {}

    /// Whether the vdev may map guest memory when it is created. Its host changes that later by
    /// [`Instance::hold_back`](crate::Instance::hold_back).
    fn may_reach_memory(&self) -> bool {
        true
    }

    /// Sends a message-signalled interrupt: a write of `data` to `addr`.
    fn message(&self, addr: u64, data: u32);

    /// Signals vector `vector` of a PCI function by MSI-X, or its pin if the guest does not use
    /// MSI-X.
    fn vector(&self, vector: u16) {
        let _ = vector;
        self.interrupt(true);
    }

    /// Whether the guest has enabled MSI-X of the vdev's PCI function.
    fn uses_msix(&self) -> bool {
        false
    }

    /// The number of lines of the guest's interrupt controller.
    fn lines(&self) -> u32 {
        controller::LINES
    }

    /// The vdev assigns itself an interrupt, before the guest is complete: this line, or any that is
    /// free for `None`. Returns the line; `None` if the host gives it one later, by
    /// [`Instance::set_line`](crate::Instance::set_line). As long as it has not,
    /// [`Instance::wants_line`](crate::Instance::wants_line) says so.
    ///
    /// If not `exclusive`, others may have the line as well that say so too.
    ///
    /// # Errors
    /// `EBUSY` if the line is taken, `ENXIO` if there is no such line; `ENOSPC` if none is free.
    fn assign(&self, line: Option<u32>, exclusive: bool) -> Result<Option<u32>, Errno> {
        let _ = exclusive;
        Ok(line)
    }

    /// The guest has moved, enabled or disabled BARs of a PCI function that answers its own
    /// configuration accesses (`vpci_region_update()`). Returns whether the host takes care of
    /// that, and of the addresses in their `vb_mapping`; else they become regions of the guest,
    /// which [`region_at`](gasp_capi::embed::ListedGuest::region_at) finds.
    fn place_bars(&self, bars: &[Bar]) -> bool {
        let _ = bars;
        false
    }

    /// Writes the memory and the registers of the guest to a file; `None` is where the
    /// configuration says.
    ///
    /// # Errors
    /// `ENOTSUP` if it cannot; those of the file.
    fn write_core(&self, path: Option<&Path>) -> Result<(), Errno> {
        let _ = path;
        Err(Errno::NOTSUP)
    }

    /// The vdev asks that the guest ends, or it has failed so that it cannot go on.
    fn end(&self, end: &End);

    /// The vdev has called `qvm_fatal()` in a call that it cannot leave: this thread never returns
    /// to it, and what it holds stays held. The process ends when this returns, which may take the
    /// time to end it in good order; by default it is [`end`](Self::end).
    fn stuck(&self, end: &End) {
        self.end(end);
    }
}

/// Why a vdev ends its guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The vdev's name.
    pub vdev: String,
    /// What it did.
    pub cause: Cause,
}

/// What a vdev did to end its guest.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// It has called `guest_terminate()` with this cause.
    Terminated(i32),
    /// `vread` or `vwrite` has returned this status.
    Status(u32),
    /// It has called `qvm_fatal()` with this message.
    Fatal(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vdev, cause } = self;
        match cause {
            Cause::Terminated(cause) => {
                write!(f, "vdev `{vdev}` has ended the guest: guest_terminate({cause})")
            }
            Cause::Status(status) => {
                write!(
                    f,
                    "vdev `{vdev}` has ended the guest: an access returned {}",
                    Status(*status)
                )
            }
            Cause::Fatal(message) => write!(f, "vdev `{vdev}` has failed: {message}"),
        }
    }
}

/// A status of `vread` or `vwrite`, by name.
pub(crate) struct Status(pub(crate) u32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::abi::*;
        match self.0 {
            VRS_NORMAL => f.write_str("VRS_NORMAL"),
            VRS_NO_ADVANCE => f.write_str("VRS_NO_ADVANCE"),
            VRS_ABORT => f.write_str("VRS_ABORT"),
            VRS_BUS_ERROR => f.write_str("VRS_BUS_ERROR"),
            VRS_CONTINUE => f.write_str("VRS_CONTINUE"),
            VRS_TERMINATE => f.write_str("VRS_TERMINATE"),
            status @ VRS_ERRNO.. => {
                let errno = i32::try_from(status - VRS_ERRNO).unwrap_or(i32::MAX);
                write!(f, "VRS_ERRNO + {errno} ({})", gasp::Errno::from_raw_os_error(errno))
            }
            other => write!(f, "{other}, which is no VRS_*"),
        }
    }
}
