//! Who is asked for the translations of a domain that asks.

use smallvec::SmallVec;

use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::error::Refusal;
use crate::mapping::PageTables;
use crate::span::Span;

/// The translations of a domain that asks ([`DomainKind::Ask`](crate::DomainKind::Ask)): page
/// tables in the guest's memory, or a process that is asked by messages.
///
/// It is called on the thread of a device whose map misses, while no lock of the engine and no
/// slot is held, so it may block; then that device waits. Several threads may call it at once,
/// but not for the same granule of 4 KiB and the same access, unless one is inside a translator
/// already: one question, one answer (decision 25). If the page is
/// [invalidated](crate::Domain::invalidate) before the answer is there, the answer is thrown away
/// and the question asked again (decision 24).
///
/// A call must not map through the same domain at the same page: that is refused with `EDEADLK`.
/// At another page, or through another domain, it may; what another thread asks just then it asks
/// itself, so that two translators do not wait for each other.
///
/// # Deadlocks
/// A device that misses waits for the answer, with all that it holds. If whoever answers waits for
/// something that this device is to release, such as the drain of one of its mappings, neither goes
/// on: a peer that serves both invalidations and questions answers questions while it drains.
pub trait Translator: Send + Sync {
    /// The page that `addr` is in, if `access` to it is allowed. `memory` is the guest's, for a
    /// translator that walks page tables there; a translator that owned its guest would keep it for
    /// ever, because the guest owns its domains, and they their translators.
    ///
    /// The answer is used until its page is invalidated, and may allow more than `access`. One
    /// that allows less is a refusal of the access, and kept for those that it allows.
    ///
    /// # Errors
    /// The reason why the access is refused. It is recorded as a [`Fault`](crate::Fault) of the
    /// device.
    fn translate(
        &self,
        memory: &PageTables<'_>,
        addr: DeviceAddr,
        access: Access,
    ) -> Result<Translation, TranslationFault>;

    /// [`translate`](Self::translate) for a map that needs more than one page: `run` begins at the
    /// page that is asked about, and ends with the map or after [`Following::MOST`] pages more. A
    /// translator that has read the translations of the pages of 4 KiB which follow in the same
    /// step adds them to `following`; they are kept as if they had been asked about, if their pages
    /// are not known already. By default, none is.
    ///
    /// # Errors
    /// As [`translate`](Self::translate), about the first page.
    fn translate_run(
        &self,
        memory: &PageTables<'_>,
        run: Span<DeviceAddr>,
        access: Access,
        following: &mut Following,
    ) -> Result<Translation, TranslationFault> {
        let _ = following;
        self.translate(memory, run.start(), access)
    }

    /// Called after an access was refused and recorded as a [`Fault`](crate::Fault): for an IOMMU
    /// that reports faults to its guest. `addr` is the first refused address, `access` what the
    /// device requested. It is called as [`translate`](Self::translate) is, on the device's thread.
    /// By default, it does nothing.
    ///
    /// It is not called for what is no fault: a question whether an access is
    /// [allowed](crate::Vdev::allows), and a map that is shortened to what is allowed. Nor is it
    /// called for a refusal that the domain has [kept](TranslationFault::keep) since an earlier
    /// access.
    fn refused(&self, addr: DeviceAddr, access: Access, refusal: Refusal) {
        let _ = (addr, access, refusal);
    }
}

/// The translations of the pages of 4 KiB that follow the page which a [`Translator`] was asked
/// about, if that is one of 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Following(SmallVec<[(GuestPhys, Access); Self::MOST]>);

impl Following {
    /// The most pages that are kept.
    pub const MOST: usize = 7;

    /// Adds the next page. Returns whether another one would be kept.
    #[inline]
    pub fn push(&mut self, guest: GuestPhys, access: Access) -> bool {
        if self.0.len() < Self::MOST {
            self.0.push((guest, access));
        }
        self.0.len() < Self::MOST
    }

    /// The pages, in order.
    pub(super) fn pages(&self) -> impl Iterator<Item = (GuestPhys, Access)> + '_ {
        self.0.iter().copied()
    }
}

/// A page that a [`Translator`] has translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The size of the page in bytes: a power of two, at least 4,096. The page begins at a
    /// multiple of it.
    pub size: u64,
    /// The guest-physical address of the page's first byte: a multiple of 4,096, below 2^52. There
    /// need not be memory.
    pub guest: GuestPhys,
    /// The access that the page allows.
    pub access: Access,
}

/// The refusal of an access by a [`Translator`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslationFault {
    /// The reason, in numbers of the translator's own, such as the fault reasons of VT-d. It is
    /// the [`Refusal::Translator`](crate::Refusal::Translator) of the error and the fault record.
    pub reason: u32,
    /// Whether the refusal holds, for every access to the 4 KiB at the address, until those are
    /// invalidated. If not, the next access asks again.
    pub keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translator_learns_when_no_further_page_is_kept() {
        let mut following = Following::default();
        let kept = [(); Following::MOST + 1].map(|()| following.push(GuestPhys(0), Access::READ));
        assert_eq!(kept.iter().position(|more| !more), Some(Following::MOST - 1));
        assert_eq!(following.pages().count(), Following::MOST);
    }
}
