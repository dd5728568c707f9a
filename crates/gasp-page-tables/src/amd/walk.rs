//! One walk.

use gasp::{Access, DeviceAddr, GuestPhys, Translation};

use super::fault::Fault;
use super::table::Table;
use crate::permissions::Permissions;
use crate::reader::EntryReader;

const PRESENT: u64 = 1 << 0;
const ADDRESS: u64 = (1 << 52) - (1 << 12);
const RESERVED: u64 = 0x7f << 52;
const RESERVED_IN_TABLE: u64 = 0x1ff << 52;
const PERMISSIONS: Permissions = Permissions { read: 1 << 61, write: 1 << 62 };
/// The next level of a page whose size is in its address.
const SIZED: u64 = 7;

/// Translates `addr` for `access`, with the tables as they are now. Each entry is read once, at most
/// one for each level.
///
/// # Errors
/// The first fault, from the device table on.
pub fn walk<R: EntryReader>(
    memory: &R,
    table: Table,
    addr: DeviceAddr,
    access: Access,
) -> Result<Translation, Fault> {
    let requested = PERMISSIONS.bits_of(access);
    let mut allowed = PERMISSIONS.bits_of(table.access);
    denied(allowed, requested)?;
    let mut level = u32::from(table.levels.0);
    untranslated(addr, level, 7)?;
    let mut next = table.root.0 & ADDRESS;
    loop {
        let shift = shift_of(level);
        let index = addr.0 >> shift & 0x1ff;
        let entry = memory.entry(GuestPhys(next + index * 8)).ok_or(Fault::TableInaccessible)?;
        if entry & PRESENT == 0 {
            return Err(Fault::NotPresent);
        }
        allowed &= entry;
        denied(allowed, requested)?;
        let next_level = entry >> 9 & 7;
        if next_level == 0 || next_level == SIZED {
            let (guest, size) = page(entry, level, next_level == SIZED).ok_or(Fault::Reserved)?;
            let access = PERMISSIONS.access_of(allowed);
            return Ok(Translation { size, guest, access });
        }
        let below = next_level as u32;
        if entry & RESERVED_IN_TABLE != 0 || below >= level {
            return Err(Fault::Reserved);
        }
        untranslated(addr, below, level)?;
        (next, level) = (entry & ADDRESS, below);
    }
}

/// The address and the size of the page that an entry of `level` leads to, if it can.
fn page(entry: u64, level: u32, sized: bool) -> Option<(GuestPhys, u64)> {
    let address = entry & ADDRESS;
    let shift = match sized {
        // The lowest bit that is clear is half the size.
        true => (address | 0xfff).trailing_ones() + 1,
        false => shift_of(level),
    };
    let fits = !sized || shift_of(level) < shift && shift < shift_of(level + 1);
    if entry & RESERVED != 0 || !fits || shift > 52 {
        return None;
    }
    let size = 1 << shift;
    let inside = address & (size - 1);
    (sized || inside == 0).then_some((GuestPhys(address - inside), size))
}

/// Fails if `addr` has bits of the levels from `level` to `above`, both exclusive.
fn untranslated(addr: DeviceAddr, level: u32, above: u32) -> Result<(), Fault> {
    let skipped = (level + 1..above).any(|level| addr.0 >> shift_of(level) & 0x1ff != 0);
    if skipped { Err(Fault::Untranslated) } else { Ok(()) }
}

/// Fails if what is allowed so far is not what is requested, or nothing at all.
fn denied(allowed: u64, requested: u64) -> Result<(), Fault> {
    let nothing = PERMISSIONS.access_of(allowed).is_empty();
    if nothing || requested & !allowed != 0 { Err(Fault::Denied) } else { Ok(()) }
}

/// The first bit of an address that a level translates.
fn shift_of(level: u32) -> u32 {
    12 + 9 * (level - 1)
}
