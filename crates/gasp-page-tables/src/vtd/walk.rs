//! One walk.

use gasp::{Access, DeviceAddr, Following, GRANULE, GuestPhys, Span, Translation};

use super::capabilities::Capabilities;
use super::fault::Fault;
use super::levels::Table;
use crate::permissions::Permissions;
use crate::reader::EntryReader;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const PERMISSIONS: Permissions = Permissions { read: READ, write: WRITE };
/// A large page, in an entry of a level that can have one.
const PAGE_SIZE: u64 = 1 << 7;
const SNOOP: u64 = 1 << 11;
/// The address of the page or the next table, for the widest host address.
const ADDRESS: u64 = (1 << 52) - (1 << 12);
const TRANSIENT: u64 = 1 << 62;

/// Translates `addr` for `access`, with the tables as they are now.
///
/// Each entry is read once, at most one for each level, so that tables which change meanwhile, or
/// lead to themselves, do no harm.
///
/// # Errors
/// The first fault, from the highest level on.
#[inline]
pub fn walk<R: EntryReader>(
    memory: &R,
    capabilities: &Capabilities,
    table: Table,
    addr: DeviceAddr,
    access: Access,
) -> Result<Translation, Fault> {
    let walked = descend(memory, capabilities, table, addr, access)?;
    Ok(walked.translation)
}

/// [`walk`] for the first page of `run`, and from its last entry on for the pages that follow in
/// the same table.
///
/// # Errors
/// As [`walk`], about the first page.
pub(crate) fn walk_run<R: EntryReader>(
    memory: &R,
    capabilities: &Capabilities,
    table: Table,
    run: Span<DeviceAddr>,
    access: Access,
    following: &mut Following,
) -> Result<Translation, Fault> {
    let Walked { translation, above, entry } =
        descend(memory, capabilities, table, run.start(), access)?;
    if translation.size != GRANULE {
        return Ok(translation);
    }
    let requested = PERMISSIONS.bits_of(access);
    let rest = run.len() / GRANULE - 1;
    let in_table = (GRANULE - entry.0 % GRANULE) / 8 - 1;
    for next in 1..=rest.min(in_table) {
        let Some(entry) = memory.entry(GuestPhys(entry.0 + next * 8)) else { break };
        let allowed = above & entry;
        if denied(allowed, requested).is_err() || entry & reserved(capabilities, GRANULE) != 0 {
            break;
        }
        if !following.push(GuestPhys(entry & ADDRESS), PERMISSIONS.access_of(allowed)) {
            break;
        }
    }
    Ok(translation)
}

/// The end of a walk: what was found, in which entry, and what those above it allow.
struct Walked {
    translation: Translation,
    above: u64,
    entry: GuestPhys,
}

#[inline]
fn descend<R: EntryReader>(
    memory: &R,
    capabilities: &Capabilities,
    table: Table,
    addr: DeviceAddr,
    access: Access,
) -> Result<Walked, Fault> {
    let width = table.levels.address_width().min(capabilities.guest_address_width);
    if addr.0 >> width != 0 {
        return Err(Fault::BeyondWidth);
    }
    let beyond_host = ADDRESS & (!0 << capabilities.host_address_width.min(52));
    let requested = PERMISSIONS.bits_of(access);
    let mut allowed = READ | WRITE;
    let mut next = table.root.0 & ADDRESS;
    let mut level = table.levels as u32;
    loop {
        let shift = 12 + 9 * (level - 1);
        let index = addr.0 >> shift & 0x1ff;
        let at = GuestPhys(next + index * 8);
        let entry = memory.entry(at).ok_or(Fault::TableInaccessible)?;
        let above = allowed;
        allowed &= entry;
        denied(allowed, requested)?;
        let large = match level {
            1 => true,
            2 => capabilities.pages_2m && entry & PAGE_SIZE != 0,
            3 => capabilities.pages_1g && entry & PAGE_SIZE != 0,
            _ => false,
        };
        if !large {
            if entry & (beyond_host | PAGE_SIZE | SNOOP | TRANSIENT) != 0 {
                return Err(Fault::Reserved);
            }
            next = entry & ADDRESS;
            level -= 1;
            continue;
        }
        let size = 1 << shift;
        if entry & reserved(capabilities, size) != 0 {
            return Err(Fault::Reserved);
        }
        let (guest, access) = (GuestPhys(entry & ADDRESS), PERMISSIONS.access_of(allowed));
        return Ok(Walked { translation: Translation { size, guest, access }, above, entry: at });
    }
}

/// The bits of an entry for a page of `size` that must be 0.
#[inline]
fn reserved(capabilities: &Capabilities, size: u64) -> u64 {
    let beyond_host = ADDRESS & (!0 << capabilities.host_address_width.min(52));
    let snoop = if capabilities.snoop_control { 0 } else { SNOOP };
    let transient = if capabilities.device_tlb { 0 } else { TRANSIENT };
    beyond_host | ADDRESS & (size - 1) | snoop | transient
}

/// Fails if the entries so far do not allow what is requested, or anything at all.
#[inline]
fn denied(allowed: u64, requested: u64) -> Result<(), Fault> {
    let missing = requested & !allowed;
    if missing & WRITE != 0 {
        return Err(Fault::WriteDenied);
    }
    if missing & READ != 0 || allowed & (READ | WRITE) == 0 {
        return Err(Fault::ReadDenied);
    }
    Ok(())
}
