//! Physical region pages (NVMe 1.4, 4.3): the location of a command's data.
//!
//! | data ends | PRP 1 | PRP 2 |
//! |---|---|---|
//! | in the first page | data, at any offset | not used |
//! | in the second page | data, at any offset | the second page |
//! | later | data, at any offset | a list of the further pages, at any offset |
//!
//! A list extends to the end of its memory page. If it has more entries than fit there, the last
//! one is the address of the next page of the list.

use gasp::{DeviceAddr, Dma};
use gasp_disk::Part;
use gasp_vdev::{DeviceContext, DmaError};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::status::Status;

/// The number of entries of a list that are read at a time.
const BATCH: usize = 64;
const ENTRY: u64 = size_of::<U64>() as u64;

/// Finds the parts of `len` bytes of data; `len` is not 0. Contiguous pages are joined.
///
/// `page` is the size of a memory page.
pub(super) fn find_parts(
    device: &DeviceContext,
    (prp1, prp2): (u64, u64),
    len: u64,
    page: u64,
    parts: &mut Vec<Part>,
) -> Result<(), Status> {
    parts.clear();
    if !prp1.is_multiple_of(4) {
        return Err(Status::PRP_OFFSET);
    }
    let first = len.min(page - prp1 % page);
    parts.push(Part { addr: prp1, len: first });
    let rest = len - first;
    match rest.div_ceil(page) {
        0 => Ok(()),
        1 => add(parts, prp2, rest, page),
        pages => follow(device, prp2, pages, rest, page, parts),
    }
}

/// Follows a list of `pages` pages with `rest` bytes of data.
fn follow(
    device: &DeviceContext,
    list: u64,
    mut pages: u64,
    mut rest: u64,
    page: u64,
    parts: &mut Vec<Part>,
) -> Result<(), Status> {
    if !list.is_multiple_of(ENTRY) {
        return Err(Status::PRP_OFFSET);
    }
    let mut at = list;
    while pages > 0 {
        let fit = (page - at % page) / ENTRY;
        let leads_on = pages > fit;
        // A further page of the list holds at least 512 entries, so this terminates.
        let mut here = if leads_on { fit - 1 } else { pages };
        pages -= here;
        while here > 0 {
            let mut entries = [U64::ZERO; BATCH];
            let count = here.min(BATCH as u64);
            let entries = entries.get_mut(..count as usize).unwrap_or_default();
            device.read(DeviceAddr(at), entries.as_mut_bytes()).map_err(unreadable)?;
            for entry in entries {
                let len = rest.min(page);
                add(parts, entry.get(), len, page)?;
                rest -= len;
            }
            // At most the end of this page of the list, whose entries could be read.
            at = at.wrapping_add(count * ENTRY);
            here -= count;
        }
        if leads_on {
            at = device.read_obj::<U64>(DeviceAddr(at)).map_err(unreadable)?.get();
            if !at.is_multiple_of(page) {
                return Err(Status::PRP_OFFSET);
            }
        }
    }
    Ok(())
}

#[cold]
fn unreadable(error: DmaError) -> Status {
    tracing::debug!(%error, "a PRP list cannot be read");
    Status::DATA_TRANSFER
}

/// Adds a page, which must begin at offset 0, or joins it to the part before it.
fn add(parts: &mut Vec<Part>, addr: u64, len: u64, page: u64) -> Result<(), Status> {
    if !addr.is_multiple_of(page) {
        return Err(Status::PRP_OFFSET);
    }
    match parts.last_mut() {
        Some(last) if last.addr.checked_add(last.len) == Some(addr) => last.len += len,
        _ => parts.push(Part { addr, len }),
    }
    Ok(())
}
