//! Decides which files the device may use as memory: those whose owner cannot truncate
//! them, or is trusted, and which the guest writes to. All other memory is reached by
//! messages, or refused.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp::Errno;
use rustix::fs::SealFlags;

use super::descriptor::{seal, seals_of};
use super::sharing::{self, Sharing};
use crate::options::{Options, Unsealed};
use crate::report::{Counters, ServerEvent};
use crate::wire::Refused;

/// Maximum number of files that are remembered as shared.
const SHARED_MAX: usize = 64;

/// The requirements on one client's files, and what has been reported of them.
#[derive(Debug)]
pub(super) struct Admission {
    unsealed: Unsealed,
    /// The process ID of the client, if known.
    peer: Option<i32>,
    /// Files that the client does not map privately, as far as is known.
    shared: HashSet<(u64, u64)>,
    told_unsealed: bool,
    told_private: bool,
    counters: Arc<Counters>,
}

impl Admission {
    pub(super) fn new(options: &Options, peer: Option<i32>, counters: &Arc<Counters>) -> Self {
        Self {
            unsealed: options.unsealed,
            peer,
            shared: HashSet::new(),
            told_unsealed: false,
            told_private: false,
            counters: Arc::clone(counters),
        }
    }

    /// Whether the owner is trusted.
    pub(super) fn trusts(&self) -> bool {
        self.unsealed == Unsealed::Trust
    }

    /// The seals of a file; `None` if it is reached by messages, because its owner can
    /// truncate it and is not trusted.
    pub(super) fn seals(&mut self, fd: &OwnedFd) -> Result<Option<SealFlags>, Refused> {
        if self.trusts() {
            return Ok(Some(seals_of(fd)));
        }
        let seals = seal(fd);
        match seals.contains(SealFlags::SHRINK) {
            true => Ok(Some(seals)),
            false => self.tell_unsealed().map(|()| None),
        }
    }

    #[cold]
    fn tell_unsealed(&mut self) -> Result<(), Refused> {
        if self.unsealed == Unsealed::Refuse {
            let what = "the file is not sealed against shrinking, and cannot be sealed here: \
                        seal it (F_SEAL_SHRINK), or let the server trust unsealed memory, or \
                        reach it by messages";
            return Err(Refused::new(Errno::PERM, what));
        }
        if !core::mem::replace(&mut self.told_unsealed, true)
            && self.counters.report_limited(&self.counters.routine, || ServerEvent::ByMessage)
        {
            tracing::warn!(
                "guest memory is in a file that can be truncated and cannot be sealed, so it \
                 is reached by messages: slow. Use a memory file (QEMU: memory-backend-memfd), \
                 or trust its owner (unsealed = \"trust\")"
            );
        }
        Ok(())
    }

    /// Whether the guest writes to a file of `len` bytes. If not, its memory is reached by
    /// messages: the VMM answers them from the guest's own pages.
    ///
    /// The client's mappings are read once for each file, even if it comes and goes:
    /// reading them takes longer than everything else.
    pub(super) fn is_shared(&mut self, inode: (u64, u64), len: u64) -> Result<bool, Refused> {
        let Some(pid) = self.peer.filter(|_| !self.shared.contains(&inode)) else {
            return Ok(true);
        };
        if sharing::of_file(pid, inode) == Sharing::Private {
            return self.tell_private(len).map(|()| false);
        }
        if self.shared.len() >= SHARED_MAX {
            self.shared.clear();
        }
        self.shared.insert(inode);
        Ok(true)
    }

    #[cold]
    fn tell_private(&mut self, len: u64) -> Result<(), Refused> {
        let event = || ServerEvent::NotShared { len, seen: true };
        let tell = !core::mem::replace(&mut self.told_private, true)
            && self.counters.report_limited(&self.counters.routine, event);
        let what = "the VMM maps this memory privately, so the guest does not write to the \
                    file (QEMU: share=off): use share=on";
        if self.unsealed == Unsealed::Refuse {
            return Err(Refused::invalid(what));
        }
        if tell {
            tracing::warn!(bytes = len, "{what}. Until then it is reached by messages: slow");
        }
        Ok(())
    }
}
