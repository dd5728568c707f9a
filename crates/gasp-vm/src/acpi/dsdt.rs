//! The DSDT: the devices that cannot be found otherwise.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::power::{EVENT_LINE, SOFT_OFF};
use crate::serial::{LINE, PORT, PORTS};

/// The length of a table's header.
const HEADER: u32 = 36;
const REVISION: u8 = 2;
/// The notification of a button that was pressed.
const PRESSED: u8 = 0x80;

/// The DSDT, with `devices` as further AML on the system bus.
pub(super) fn dsdt(devices: &[u8]) -> Vec<u8> {
    let mut aml = Vec::new();
    serial_port(&mut aml);
    power_button(&mut aml);
    aml.extend_from_slice(devices);
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&Scope::raw(Path::new("\\_SB_"), aml));
    let mut soft_off = Vec::new();
    let state = Package::new(vec![&SOFT_OFF, &SOFT_OFF, &0_u8, &0_u8]);
    Name::new(Path::new("\\_S5_"), &state).to_aml_bytes(&mut soft_off);
    dsdt.append_slice(&soft_off);
    dsdt.as_slice().to_vec()
}

fn serial_port(aml: &mut Vec<u8>) {
    let ports = IO::new(PORT, PORT, 1, PORTS);
    // Edges, active high, not shared.
    let line = Interrupt::new(true, true, false, false, LINE);
    let resources = ResourceTemplate::new(vec![&ports, &line]);
    Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_CRS"), &resources),
        ],
    )
    .to_aml_bytes(aml);
}

fn power_button(aml: &mut Vec<u8>) {
    Device::new(
        Path::new("PWRB"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C")),
            &Name::new(Path::new("_UID"), &0_u8),
        ],
    )
    .to_aml_bytes(aml);
    let line = Interrupt::new(true, true, false, false, EVENT_LINE);
    let button = Path::new("PWRB");
    Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_UID"), &0_u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&line])),
            &Method::new(Path::new("_EVT"), 1, true, vec![&Notify::new(&button, &PRESSED)]),
        ],
    )
    .to_aml_bytes(aml);
}
