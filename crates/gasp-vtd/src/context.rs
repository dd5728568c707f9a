//! Root and context entries: what leads from a requester to its page tables.

use gasp::{GuestPhys, PageTables};
use gasp_page_tables::vtd::{Levels, Table};

use crate::capabilities::Capabilities;
use crate::requester::RequesterId;

const PRESENT: u64 = 1 << 0;
const ADDRESS: u64 = !0xfff;
/// Bits of the lower half that must be 0.
const ROOT_RESERVED: u64 = 0xffe;
const CONTEXT_RESERVED: u64 = 0xff0;
/// Bits of the upper half that must be 0.
const CONTEXT_RESERVED_HIGH: u64 = 1 << 7 | !0 << 24;
/// Fault processing disable: it counts in an entry that is not present as well.
const SILENT: u64 = 1 << 1;

/// A valid context entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    /// The guest's id of the domain.
    pub(crate) domain: u16,
    /// The page tables; `None` if addresses pass through untranslated.
    pub(crate) table: Option<Table>,
    /// Whether faults of the requester are not recorded.
    pub(crate) is_silent: bool,
}

/// Why there is no valid context entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoContext {
    /// The fault reason of the specification.
    pub(crate) reason: u8,
    /// Whether it is not recorded.
    pub(crate) is_silent: bool,
}

/// Reads the context entry of a requester, from the root table on.
pub(crate) fn look_up(
    memory: &PageTables<'_>,
    root: GuestPhys,
    requester: RequesterId,
    capabilities: &Capabilities,
) -> Result<Context, NoContext> {
    let fail = |reason| NoContext { reason, is_silent: false };
    let beyond = ADDRESS & (!0 << capabilities.walk.host_address_width.min(63));
    let [low, high] = entry(memory, root.0, requester.bus()).ok_or(fail(0x8))?;
    if low & PRESENT == 0 {
        return Err(fail(0x1));
    }
    if low & (ROOT_RESERVED | beyond) != 0 || high != 0 {
        return Err(fail(0xa));
    }
    let table = low & ADDRESS;
    let [low, high] = entry(memory, table, requester.device_and_function()).ok_or(fail(0x9))?;
    let is_silent = low & SILENT != 0;
    let fail = |reason| NoContext { reason, is_silent };
    if low & PRESENT == 0 {
        return Err(fail(0x2));
    }
    let translation_type = low >> 2 & 3;
    let passes = translation_type == 2;
    let beyond = if passes { 0 } else { beyond };
    if low & (CONTEXT_RESERVED | beyond) != 0 || high & CONTEXT_RESERVED_HIGH != 0 {
        return Err(fail(0xb));
    }
    let levels = Levels::from_aw((high & 7) as u8);
    let levels = levels.filter(|&levels| capabilities.has_levels(levels)).ok_or(fail(0x3))?;
    // 1 is for devices with TLBs of their own, 3 is reserved.
    if translation_type != 0 && !passes {
        return Err(fail(0x3));
    }
    let table = Table { root: GuestPhys(low & ADDRESS), levels };
    let domain = (high >> 8) as u16;
    Ok(Context { domain, table: (!passes).then_some(table), is_silent })
}

/// The entry of 16 bytes, its lower half first: a driver writes that last, with the present bit.
fn entry(memory: &PageTables<'_>, table: u64, index: u64) -> Option<[u64; 2]> {
    let at = GuestPhys(table).checked_add(index * 16)?;
    let low = memory.entry(at)?;
    Some([low, memory.entry(at.checked_add(8)?)?])
}
