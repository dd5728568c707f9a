//! Devices that no bus finds: registers and an interrupt, described in the DSDT.

use core::fmt;
use core::ops::RangeInclusive;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Path, ResourceTemplate,
};
use acpi_tables::{Aml, AmlSink};

/// A hardware identifier (`_HID`), by which a guest finds the driver of a device.
///
/// It is of PNP, such as `PNP0501` (three letters and four hexadecimal digits), or of ACPI, such as
/// `LNRO0005` (four letters or digits, and four hexadecimal digits); in capitals.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HardwareId(String);

impl HardwareId {
    /// A virtio device over MMIO, in Linux.
    pub const VIRTIO_MMIO: &'static str = "LNRO0005";

    /// The identifier that `text` is, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let vendor = text.len().checked_sub(4)?;
        let (vendor, product) = (text.get(..vendor)?, text.get(vendor..)?);
        let is_product = product.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        let letter = |b: u8| b.is_ascii_uppercase();
        let is_vendor = match vendor.len() {
            3 => vendor.bytes().all(letter),
            4 => vendor.bytes().all(|b| letter(b) || b.is_ascii_digit()),
            _ => false,
        };
        (is_vendor && is_product).then(|| Self(text.to_owned()))
    }

    fn is_pnp(&self) -> bool {
        self.0.len() == 7
    }
}

impl fmt::Display for HardwareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device with registers at a place of its own, which is on no bus that a guest could search.
///
/// It is given to [`Tables::device`](super::Tables::device). Its interrupt is level-triggered,
/// active high, and not shared.
///
/// ```
/// use gasp_vm::acpi::{HardwareId, PlatformDevice, Tables};
///
/// let hid = HardwareId::new("PNP0501").ok_or("no identifier")?;
/// let uart = PlatformDevice::new(0, hid).ports(0x2f8..=0x2ff).line(3);
/// let tables = Tables::new(1).device(&uart);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "give it to `Tables::device`"]
pub struct PlatformDevice {
    number: u16,
    hid: HardwareId,
    memory: Option<RangeInclusive<u64>>,
    ports: Option<RangeInclusive<u16>>,
    line: Option<u32>,
}

/// The most ports of one descriptor.
const PORTS_MAX: u32 = 0x80;

impl PlatformDevice {
    /// The most devices of a guest: their names in the tables have three hexadecimal digits.
    pub const MOST: u16 = 0x1000;

    /// The device `number`, below [`MOST`](Self::MOST), which no other device has.
    pub fn new(number: u16, hid: HardwareId) -> Self {
        Self { number: number % Self::MOST, hid, memory: None, ports: None, line: None }
    }

    /// Adds registers in memory.
    pub fn memory(self, range: RangeInclusive<u64>) -> Self {
        Self { memory: Some(range), ..self }
    }

    /// Adds ports.
    pub fn ports(self, range: RangeInclusive<u16>) -> Self {
        Self { ports: Some(range), ..self }
    }

    /// Adds an interrupt: a line of the I/O APIC.
    pub fn line(self, gsi: u32) -> Self {
        Self { line: Some(gsi), ..self }
    }

    fn resources(&self) -> Vec<Box<dyn Aml>> {
        let mut all: Vec<Box<dyn Aml>> = Vec::new();
        if let Some(range) = &self.memory {
            let (first, last) = (*range.start(), *range.end());
            let len = last.saturating_sub(first).saturating_add(1);
            match (u32::try_from(first), u32::try_from(last), u32::try_from(len)) {
                (Ok(first), Ok(_), Ok(len)) => {
                    all.push(Box::new(Memory32Fixed::new(true, first, len)));
                }
                _ => {
                    let cacheable = AddressSpaceCacheable::NotCacheable;
                    all.push(Box::new(AddressSpace::new_memory(
                        cacheable, true, first, last, None,
                    )));
                }
            }
        }
        if let Some(range) = &self.ports {
            let (mut at, end) = (u32::from(*range.start()), u32::from(*range.end()) + 1);
            while at < end {
                let count = (end - at).min(PORTS_MAX);
                all.push(Box::new(IO::new(at as u16, at as u16, 1, count as u8)));
                at += count;
            }
        }
        if let Some(line) = self.line {
            all.push(Box::new(Interrupt::new(true, false, false, false, line)));
        }
        all
    }
}

impl Aml for PlatformDevice {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let resources = self.resources();
        let resources = resources.iter().map(|resource| &**resource).collect();
        let resources = ResourceTemplate::new(resources);
        let text = self.hid.to_string();
        let hid: Box<dyn Aml> = match self.hid.is_pnp() {
            true => Box::new(EISAName::new(&text)),
            false => Box::new(text),
        };
        Device::new(
            Path::new(&format!("V{:03X}", self.number)),
            vec![
                &Name::new(Path::new("_HID"), &*hid),
                &Name::new(Path::new("_UID"), &self.number),
                &Name::new(Path::new("_CRS"), &resources),
            ],
        )
        .to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_their_form() {
        for text in ["PNP0501", "LNRO0005", "ACPI0013", "X0YZ00FF"] {
            assert_eq!(HardwareId::new(text).unwrap().to_string(), text);
        }
        let wrong = ["", "0501", "PNP501", "pnp0501", "PN10501", "PNP050G", "PNP05O1", "LNRO00050"];
        for text in wrong.into_iter().chain(["PNÄ0501", "ÄNP0501", "PNP050f"]) {
            assert_eq!(HardwareId::new(text), None, "{text}");
        }
    }

    #[test]
    fn a_device_has_its_registers_and_a_level_interrupt() {
        let aml = |device: PlatformDevice| {
            let mut bytes = Vec::new();
            device.to_aml_bytes(&mut bytes);
            bytes
        };
        let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
        let virtio = HardwareId::new(HardwareId::VIRTIO_MMIO).unwrap();
        let device = PlatformDevice::new(0x1a, virtio.clone());
        let bytes = aml(device.clone().memory(0xfa00_0000..=0xfa00_01ff).line(5));
        assert!(has(&bytes, b"V01A") && has(&bytes, b"LNRO0005\0"));
        // Memory32Fixed, writable: 0xfa000000, 0x200 bytes.
        assert!(has(&bytes, &[0x86, 9, 0, 1, 0, 0, 0, 0xfa, 0, 2, 0, 0]));
        // Extended interrupt: consumer, level, active high, exclusive; one, line 5.
        assert!(has(&bytes, &[0x89, 6, 0, 0x01, 1, 5, 0, 0, 0]));
        let bytes = aml(device.memory(0x1_0000_0000..=0x1_0000_0fff));
        let mut wide = vec![0x8a, 0x2b, 0, 0, 0x0c, 1];
        for field in [0, 0x1_0000_0000, 0x1_0000_0fff, 0, 0x1000_u64] {
            wide.extend_from_slice(&field.to_le_bytes());
        }
        assert!(has(&bytes, &wide));
        let uart = PlatformDevice::new(0, HardwareId::new("PNP0501").unwrap());
        let bytes = aml(uart.clone().ports(0x2f8..=0x2ff));
        assert!(has(&bytes, &[0x0c, 0x41, 0xd0, 0x05, 0x01]), "the compressed form");
        assert!(has(&bytes, &[0x47, 1, 0xf8, 2, 0xf8, 2, 1, 8]));
        // More than a descriptor can have, up to the last port.
        let bytes = aml(uart.ports(0xff00..=0xffff));
        assert!(has(&bytes, &[0x47, 1, 0x80, 0xff, 0x80, 0xff, 1, 0x80]));
    }
}
