//! The memory map of the zero page, in the form of the BIOS call that it is named for.

use gasp::{Region, RegionKind};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};

use super::{BootError, KERNEL};

const RAM: u32 = 1;
const RESERVED: u32 = 2;
/// The end of the first piece of RAM: above it are a PC's video memory and firmware, and our ACPI
/// tables.
const CONVENTIONAL: u64 = 0x9_fc00;

/// Describes the guest's regions to the kernel.
pub(super) fn describe(regions: &[Region], params: &mut boot_params) -> Result<(), BootError> {
    let entries: Vec<_> = regions.iter().flat_map(pieces).collect();
    let mut table = params.e820_table;
    if entries.len() > table.len() {
        return Err(BootError::TooManyRegions { count: entries.len() });
    }
    params.e820_entries = entries.len() as u8;
    for (place, (start, end, kind)) in table.iter_mut().zip(entries) {
        *place = boot_e820_entry { addr: start, size: end - start, r#type: kind };
    }
    params.e820_table = table;
    Ok(())
}

/// The start, end and kind of a region's pieces, which are not empty.
fn pieces(region: &Region) -> impl Iterator<Item = (u64, u64, u32)> + use<> {
    let start = region.span().start().0;
    let end = region.span().last().0.saturating_add(1);
    let pieces = match region.kind() {
        RegionKind::Ram => [
            (start, end.min(CONVENTIONAL), RAM),
            (start.max(CONVENTIONAL), end.min(KERNEL), RESERVED),
            (start.max(KERNEL), end, RAM),
        ],
        RegionKind::Rom | RegionKind::Reserved | RegionKind::PassThrough => {
            [(start, end, RESERVED), (0, 0, 0), (0, 0, 0)]
        }
        // A device's driver claims it.
        RegionKind::Device => [(0, 0, 0); 3],
    };
    pieces.into_iter().filter(|&(start, end, _)| start < end)
}

#[cfg(test)]
mod tests {
    use gasp::{GuestPhys, MemoryObject, Residency, Span};

    use super::*;

    #[test]
    fn ram_is_ram_without_the_last_part_of_the_first_megabyte() {
        let ram = MemoryObject::ram(8 << 20).residency(Residency::OnDemand).create().unwrap();
        let span = |start, len| Span::new(GuestPhys(start), len).unwrap();
        let regions = [
            Region::memory(RegionKind::Ram, span(0, 4 << 20), &ram, 0).unwrap(),
            Region::memory(RegionKind::Rom, span(4 << 20, 4096), &ram, 4 << 20).unwrap(),
            Region::device(span(0xd000_0000, 16), "registers"),
            Region::reserved(span(0xe000_0000, 1 << 20)),
            Region::memory(RegionKind::Ram, span(4 << 30, 4096), &ram, 0).unwrap(),
        ];
        let mut params = boot_params::default();
        describe(&regions, &mut params).unwrap();
        let table = params.e820_table;
        let entries: Vec<_> = table[..params.e820_entries.into()]
            .iter()
            .map(|&boot_e820_entry { addr, size, r#type }| (addr, size, r#type))
            .collect();
        let expected = [
            (0, 0x9fc00, RAM),
            (0x9fc00, 0x60400, RESERVED),
            (1 << 20, 3 << 20, RAM),
            (4 << 20, 4096, RESERVED),
            (0xe000_0000, 1 << 20, RESERVED),
            (4 << 30, 4096, RAM),
        ];
        assert_eq!(entries, expected);
        let many = vec![regions[1].clone(); 129];
        let refused = describe(&many, &mut params);
        assert!(matches!(refused, Err(BootError::TooManyRegions { count: 129 })));
    }
}
