//! The host bridge in ACPI: a PCI Express root with its windows, the lines of its pins, its
//! configuration space.

use core::ops::Range;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, IO, If,
    Memory32Fixed, Method, Name, NotEqual, Or, Package, PackageBuilder, Path, ResourceTemplate,
    Return, Uuid,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::{Aml, AmlSink};

use super::address::Bdf;
use super::config::PORTS;
use super::pins::line_of;
use crate::acpi::{OEM, OEM_REVISION, OEM_TABLE, Tables};
use crate::layout::{PCI_CONFIG, PCI_MEMORY, PCI_PORTS};

/// The interface of `_OSC` for PCI host bridges (PCI Firmware 3.2, 4.5.1).
const OSC: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/// `_OSC`: the identifier is unknown.
const OSC_UNKNOWN: u32 = 1 << 2;

/// Adds the bridge to the tables of a VM. `high` is its window past the end of RAM.
pub(super) fn describe(tables: Tables, high: &Range<u64>) -> Tables {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(PCI_CONFIG.0.0, 0, 0, 0);
    tables.table(&mcfg).device(&Config).device(&Bridge { high })
}

/// The range of ECAM, as a resource of the mainboard: Linux uses it only if somebody has it.
struct Config;

impl Aml for Config {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let config = Memory32Fixed::new(true, PCI_CONFIG.0.0 as u32, PCI_CONFIG.1 as u32);
        Device::new(
            Path::new("MBRD"),
            vec![
                &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
                &Name::new(Path::new("_UID"), &0_u8),
                &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&config])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

struct Bridge<'a> {
    high: &'a Range<u64>,
}

impl Aml for Bridge<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let memory = PCI_MEMORY.0.0..PCI_MEMORY.0.0 + PCI_MEMORY.1;
        let buses = AddressSpace::new_bus_number(0_u16, 0);
        // Its own registers.
        let config = IO::new(PORTS.0 as u16, PORTS.0 as u16, 1, PORTS.1 as u8);
        let ports = AddressSpace::new_io(PCI_PORTS.0, PCI_PORTS.0 + (PCI_PORTS.1 - 1), None);
        let [memory, high] = [&memory, self.high].map(|range| {
            let last = range.end.saturating_sub(1);
            let cacheable = AddressSpaceCacheable::NotCacheable;
            AddressSpace::new_memory(cacheable, true, range.start, last, None)
        });
        let mut resources: Vec<&dyn Aml> = vec![&buses, &config, &ports, &memory];
        // There is none if RAM extends to the end of addresses.
        if !self.high.is_empty() {
            resources.push(&high);
        }
        let resources = ResourceTemplate::new(resources);
        Device::new(
            Path::new("PCI0"),
            vec![
                &Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
                &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
                &Name::new(Path::new("_UID"), &0_u8),
                &Name::new(Path::new("_SEG"), &0_u8),
                &Name::new(Path::new("_BBN"), &0_u8),
                &Name::new(Path::new("_CRS"), &resources),
                &Name::new(Path::new("_PRT"), &lines()),
                &Control,
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The line of each pin of each device: level-triggered, and active low as all of PCI.
fn lines() -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for at in (0..32).filter_map(|device| Bdf::new(0, device, 0)) {
        let functions = u32::from(at.device()) << 16 | 0xffff;
        for pin in 0..4_u8 {
            let line = line_of(at, pin.into());
            table.add_element(&Package::new(vec![&functions, &pin, &0_u8, &line]));
        }
    }
    table
}

/// `_OSC`: the guest may control what it asks for.
struct Control;

impl Aml for Control {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let status = Path::new("CDW1");
        Method::new(
            Path::new("_OSC"),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &Arg(3), &0_u8),
                &If::new(
                    &NotEqual::new(&Arg(0), &Uuid::new(OSC)),
                    vec![&Or::new(&status, &status, &OSC_UNKNOWN)],
                ),
                &Return::new(&Arg(3)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use gasp::{Guest, GuestPhys, MemoryObject, Residency};

    use super::*;

    #[test]
    fn the_tables_have_the_bridge_its_windows_and_the_lines_of_its_pins() {
        let guest = Guest::builder().build().unwrap();
        let ram = MemoryObject::ram(2 << 20).residency(Residency::OnDemand).create().unwrap();
        guest.space().add_ram(None, &ram).unwrap();
        let high = 5 << 30..69 << 30;
        describe(Tables::new(1), &high).write(&guest).unwrap();
        let mut bytes = vec![0; 128 << 10];
        guest.read_firmware(GuestPhys(0xe_0000), &mut bytes).unwrap();
        let find = |what: &[u8]| {
            let mut places = bytes.windows(what.len()).enumerate();
            places.find(|(_, bytes)| *bytes == what).map(|(at, _)| at)
        };
        let mcfg = find(b"MCFG").unwrap();
        assert_eq!(bytes[mcfg + 44..][..12], [0, 0, 0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let bridge = find(b"PCI0").unwrap();
        // PNP0A08 in its compressed form.
        assert!(find(&[0x0c, 0x41, 0xd0, 0x0a, 0x08]).unwrap() > bridge);
        assert!(find(&[0x0c, 0x41, 0xd0, 0x0c, 0x02]).unwrap() < bridge, "its configuration space");
        // A window of memory: 64-bit, fixed, not cached, read and written.
        let window = |start: u64, end: u64| {
            let mut descriptor = vec![0x8a, 0x2b, 0, 0, 0x0c, 1];
            for field in [0, start, end - 1, 0, end - start] {
                descriptor.extend_from_slice(&field.to_le_bytes());
            }
            descriptor
        };
        assert!(find(&window(0xc000_0000, 0xe000_0000)).is_some());
        assert!(find(&window(high.start, high.end)).is_some());
        // Device 3: pin A leads to line 19, pin B to line 20.
        let entry =
            |pin: &[u8], line| [&[4, 0x0c, 0xff, 0xff, 3, 0], pin, &[0, 0x0a, line]].concat();
        assert!(find(&entry(&[0], 19)).is_some() && find(&entry(&[1], 20)).is_some());
    }
}
