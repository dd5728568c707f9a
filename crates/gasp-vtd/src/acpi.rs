//! The ACPI table that a guest finds the unit by.

use acpi_tables::Aml;
use acpi_tables::sdt::Sdt;
use gasp::GuestPhys;

/// The length of an ACPI table's header.
const HEADER: u32 = 36;
const REVISION: u8 = 1;

/// DMAR: the width of guest-physical addresses in bits, and one unit for all PCI devices of segment 0.
/// It has no flags: interrupts are not remapped. (VT-d specification, "BIOS Considerations".)
pub(crate) fn dmar(address_width: u32, registers: GuestPhys) -> impl Aml {
    let mut table = Sdt::new(*b"DMAR", HEADER, REVISION, *b"GASP  ", *b"GASPVTD ", 1);
    // The width less 1, flags, 10 reserved bytes.
    let mut head = [0; 12];
    head[0] = (address_width - 1) as u8;
    table.append_slice(&head);
    // A hardware unit (DRHD, type 0) of 16 bytes, with the flag INCLUDE_PCI_ALL, in segment 0.
    table.append_slice(&[0, 0, 16, 0, 1, 0, 0, 0]);
    table.append_slice(&registers.0.to_le_bytes());
    table
}
