//! The translator of one requester's domain: from the root table to the page.

use std::sync::Arc;

use gasp::{
    Access, DeviceAddr, Following, GuestPhys, PageTables, Refusal, Span, Translation,
    TranslationFault, Translator,
};
use gasp_page_tables::vtd::SecondLevel;

use crate::context::{NoContext, look_up};
use crate::context_cache::ContextCache;
use crate::faults::Fault;
use crate::requester::RequesterId;
use crate::shared::{Shared, denied};

/// The addresses of interrupts: no memory is behind them for a device.
const INTERRUPTS: core::ops::Range<u64> = 0xfee0_0000..0xfef0_0000;
const _: () = assert!(INTERRUPTS.start.is_multiple_of(2 << 20));
/// Of a refusal's reason: the fault is not recorded.
const SILENT: u32 = 1 << 8;
/// The size of a page of the identity. Its word in the domain is as large as memory allows.
const LARGE: u64 = 1 << 30;

/// The translations of one requester.
pub(crate) struct Remapping {
    shared: Arc<Shared>,
    requester: RequesterId,
    pub(crate) context: ContextCache,
}

/// Why there is no context entry.
enum Without {
    Translation,
    Context(NoContext),
}

impl Remapping {
    pub(crate) fn new(shared: &Arc<Shared>, requester: RequesterId) -> Self {
        Self { shared: Arc::clone(shared), requester, context: ContextCache::new() }
    }

    fn answer(
        &self,
        memory: &PageTables<'_>,
        addr: DeviceAddr,
        access: Access,
        walk: impl FnOnce(&SecondLevel) -> Result<Translation, TranslationFault>,
    ) -> Result<Translation, TranslationFault> {
        let Shared { capabilities, root, .. } = &*self.shared;
        let context = self.context.entry(|| {
            // In this order, the cache has no entry of an earlier root table either, and none while
            // translation is disabled: both changes invalidate it.
            let root = root.table().ok_or(Without::Translation)?;
            look_up(memory, root, self.requester, capabilities).map_err(Without::Context)
        });
        let context = match context {
            Ok(context) => context,
            Err(Without::Translation) => return Ok(identity(addr)),
            Err(Without::Context(none)) => {
                return Err(refusal(none.reason.into(), none.is_silent));
            }
        };
        let Some(table) = context.table else { return Ok(identity(addr)) };
        let (tables, is_silent) = (SecondLevel::new(capabilities.walk, table), context.is_silent);
        if INTERRUPTS.contains(&addr.0) {
            return Err(refusal(denied(access).into(), is_silent));
        }
        let page = walk(&tables).map_err(|fault| refusal(fault.reason, is_silent))?;
        Ok(beside_interrupts(page, addr))
    }
}

impl Translator for Remapping {
    fn translate(
        &self,
        memory: &PageTables<'_>,
        addr: DeviceAddr,
        access: Access,
    ) -> Result<Translation, TranslationFault> {
        self.answer(memory, addr, access, |tables| tables.translate(memory, addr, access))
    }

    fn translate_run(
        &self,
        memory: &PageTables<'_>,
        run: Span<DeviceAddr>,
        access: Access,
        following: &mut Following,
    ) -> Result<Translation, TranslationFault> {
        // What follows in the same table does not reach into the addresses of interrupts, which begin
        // with a table of their own.
        let addr = run.start();
        self.answer(memory, addr, access, |tables| {
            tables.translate_run(memory, run, access, following)
        })
    }

    fn refused(&self, addr: DeviceAddr, access: Access, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Translator { reason } if reason & SILENT != 0 => return,
            Refusal::Translator { reason } => reason as u8,
            // What is cached allows less than the tables do by now, and the guest has not said so.
            _ => denied(access),
        };
        // An access that reads and writes may lack the permission to read.
        let is_write = reason != 0x6 && access.contains(Access::WRITE);
        let requester = self.requester;
        self.shared.record(Fault { requester, addr: addr.0, is_write, reason });
    }
}

/// Refusals are not kept: without caching mode a guest does not say when an address becomes valid.
fn refusal(reason: u32, is_silent: bool) -> TranslationFault {
    let silent = if is_silent { SILENT } else { 0 };
    TranslationFault { reason: reason | silent, keep: false }
}

/// The page of the same addresses that `addr` is in.
fn identity(addr: DeviceAddr) -> Translation {
    let guest = GuestPhys(addr.0 & !(LARGE - 1));
    Translation { size: LARGE, guest, access: Access::RWX }
}

/// The largest part of a page around `addr` that does not reach into the addresses of interrupts, in
/// which `addr` is not.
fn beside_interrupts(mut page: Translation, addr: DeviceAddr) -> Translation {
    let mut start = addr.0 & !(page.size - 1);
    while start < INTERRUPTS.end && INTERRUPTS.start < start + page.size {
        page.size /= 2;
        let inside = addr.0 & page.size;
        start += inside;
        page.guest.0 += inside;
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_around_the_addresses_of_interrupts_is_shortened_to_what_is_beside_them() {
        let page = |size, guest| Translation { size, guest: GuestPhys(guest), access: Access::RW };
        let part = |size, addr| beside_interrupts(page(size, 1 << 40), DeviceAddr(addr));
        let (gib, mib) = (1_u64 << 30, 1_u64 << 20);
        assert_eq!(part(gib, 3 * gib + 5), page(512 * mib, 1 << 40));
        assert_eq!(part(gib, 0xfedf_f000), page(2 * mib, (1 << 40) + 0x3ec0_0000));
        assert_eq!(part(gib, 0xfeef_ffff + 1), page(mib, (1 << 40) + 0x3ef0_0000));
        assert_eq!(part(2 * mib, 0xfee0_0000 - 1), page(2 * mib, 1 << 40));
        assert_eq!(part(2 * mib, 0xfef0_0000), page(mib, (1 << 40) + 0x10_0000));
        assert_eq!(part(gib, 2 * gib), page(gib, 1 << 40));
        assert_eq!(part(4096, 0xfef0_0000), page(4096, 1 << 40));
    }
}
