//! The BARs of a vdev that is a PCI device: what it answers `VDEV_CTRL_PCI_BARS` with, and the
//! addresses that they get.

use super::nominal::Nominal;
use crate::abi::*;
use crate::access::Access;
use crate::bar::Bar;
use crate::error::VdevError;
use crate::instance::Instance;
use crate::request::Space;

/// The offsets of registers of configuration space, and all spaces and bus master in the command.
const COMMAND: u64 = 0x04;
const BARS_AT: u64 = 0x10;
const ALL: u16 = 0b111;

/// A BAR, as the vdev knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BarRegion {
    pub(super) index: u8,
    pub(super) space: Space,
    /// The address that the vdev takes for its first one.
    pub(super) start: u64,
    /// In bytes or ports.
    pub(super) len: u64,
    pub(super) cookie: u32,
}

/// Asks for the BARs, and assigns an address to each.
pub(super) fn of(instance: &Instance, nominal: &mut Nominal) -> Result<Vec<BarRegion>, VdevError> {
    let region = |bar: Bar| -> Result<BarRegion, VdevError> {
        let Bar { index, space, len, cookie, .. } = bar;
        let start = nominal.next(space, len).ok_or_else(|| {
            let why = format!("BAR {index} has {len:#x} bytes, more than a BAR can have");
            instance.misbehaved(&why)
        })?;
        // At most 5.
        Ok(BarRegion { index: index as u8, space, start, len, cookie })
    };
    let regions: Vec<_> = instance.bars()?.into_iter().map(region).collect::<Result<_, _>>()?;
    locate(instance, &regions)?;
    Ok(regions)
}

fn locate(instance: &Instance, regions: &[BarRegion]) -> Result<(), VdevError> {
    let mut starts = [None; BARS];
    for region in regions {
        if let Some(start) = starts.get_mut(usize::from(region.index)) {
            *start = Some(region.start);
        }
    }
    instance.locate_bars(&starts)
}

/// Writes the addresses into the vdev's configuration space, at `location` on the bus, as a guest
/// would: it has its own view of its BARs and of the command register.
pub(super) fn program(
    instance: &Instance,
    location: u64,
    regions: &[BarRegion],
) -> Result<(), VdevError> {
    let write = |offset: u64, data: &[u8]| {
        let access = Access { space: Space::Pci, addr: location | offset, cookie: 0 };
        // A vdev that has no such registers goes by what it is told below.
        instance.write(access, data);
    };
    for region in regions {
        let at = BARS_AT + 4 * u64::from(region.index);
        let [low, high] = [region.start as u32, (region.start >> 32) as u32];
        write(at, &low.to_le_bytes());
        if high != 0 {
            write(at + 4, &high.to_le_bytes());
        }
    }
    write(COMMAND, &ALL.to_le_bytes());
    locate(instance, regions)
}
