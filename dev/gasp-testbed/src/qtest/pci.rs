//! PCI devices on bus 0, configured as by firmware and a driver.

use super::session::QTest;
use crate::error::{Error, Result};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const STATUS_HAS_CAPABILITIES: u32 = 1 << 20;
const BAR_0: u8 = 0x10;
const BARS: u8 = 6;
const CAPABILITIES: u8 = 0x34;

const COMMAND_IO: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;

const MSIX: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_ENTRY: u64 = 16;

/// A 64-bit region of this size or more is placed above all memory.
const LARGE: u64 = 16 << 20;

/// The kind of a base address register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// I/O ports.
    Ports,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory at any 64-bit address; two consecutive registers hold it.
    Memory64,
}

/// A region of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// The number of its base address register.
    pub index: u8,
    /// The kind of addresses.
    pub kind: BarKind,
    /// Its address or first port.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// One function of a PCI device on bus 0.
#[derive(Clone, Copy)]
pub struct Pci<'a> {
    qtest: &'a QTest,
    devfn: u8,
}

impl QTest {
    /// The first device with this identity.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; those of [`QTest::command`].
    pub fn pci(&self, vendor: u16, device: u16) -> Result<Pci<'_>> {
        let mut found = self.pci_all(vendor, device)?.into_iter();
        found.next().ok_or(Error::NoDevice { vendor, device })
    }

    /// All devices with this identity, in the order of their slots.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn pci_all(&self, vendor: u16, device: u16) -> Result<Vec<Pci<'_>>> {
        let wanted = u32::from(device) << 16 | u32::from(vendor);
        let mut found = Vec::new();
        for devfn in 0..=u8::MAX {
            let pci = Pci { qtest: self, devfn };
            if pci.read_config(ID)? == wanted {
                found.push(pci);
            }
        }
        Ok(found)
    }
}

impl<'a> Pci<'a> {
    /// Its device and function number, which identifies it to the IOMMU on bus 0.
    pub fn devfn(&self) -> u8 {
        self.devfn
    }

    /// Reads 32 bits of the configuration space.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn read_config(&self, offset: u8) -> Result<u32> {
        self.select(offset)?;
        self.qtest.in_u32(CONFIG_DATA)
    }

    /// Writes 32 bits of the configuration space.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn write_config(&self, offset: u8, value: u32) -> Result<()> {
        self.select(offset)?;
        self.qtest.out_u32(CONFIG_DATA, value)
    }

    fn select(&self, offset: u8) -> Result<()> {
        let select = 1 << 31 | u32::from(self.devfn) << 8 | u32::from(offset & !3);
        self.qtest.out_u32(CONFIG_ADDRESS, select)
    }

    /// Assigns an unused address to each of its regions.
    ///
    /// # Errors
    /// [`Error::Refused`] if no range is large enough; those of [`QTest::command`].
    pub fn assign_bars(&self) -> Result<Vec<Bar>> {
        let mut bars = Vec::new();
        let mut index = 0;
        while index < BARS {
            let bar = self.assign_bar(index)?;
            index += if bar.is_some_and(|bar| bar.kind == BarKind::Memory64) { 2 } else { 1 };
            bars.extend(bar);
        }
        Ok(bars)
    }

    fn assign_bar(&self, index: u8) -> Result<Option<Bar>> {
        let register = BAR_0 + 4 * index;
        self.write_config(register, u32::MAX)?;
        let low = self.read_config(register)?;
        if low == 0 {
            return Ok(None);
        }
        let kind = match low & 7 {
            4 => BarKind::Memory64,
            bits if bits & 1 == 1 => BarKind::Ports,
            _ => BarKind::Memory32,
        };
        let flags = if kind == BarKind::Ports { 0x3 } else { 0xf };
        let high = if kind == BarKind::Memory64 {
            self.write_config(register + 4, u32::MAX)?;
            self.read_config(register + 4)?
        } else {
            u32::MAX
        };
        let mask = u64::from(high) << 32 | u64::from(low & !flags);
        let len = mask & mask.wrapping_neg();
        let addr = self.reserve(kind, len)?;
        let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        self.write_config(register, half(addr))?;
        if kind == BarKind::Memory64 {
            self.write_config(register + 4, half(addr >> 32))?;
        }
        Ok(Some(Bar { index, kind, addr, len }))
    }

    fn reserve(&self, kind: BarKind, len: u64) -> Result<u64> {
        let mut room = self.qtest.room.lock();
        let (next, end) = match kind {
            BarKind::Ports => &mut room.ports,
            BarKind::Memory64 if len >= LARGE => &mut room.high,
            _ => &mut room.low,
        };
        let addr = next.checked_next_multiple_of(len).filter(|addr| addr + len <= *end);
        let addr =
            addr.ok_or_else(|| Error::Refused(format!("no unused range of {len:#x} bytes")))?;
        *next = addr + len;
        Ok(addr)
    }

    /// Enables its I/O and memory spaces and bus mastering.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn enable(&self) -> Result<()> {
        // The upper half has bits that are cleared by writing 1: 0 does not change them.
        let command = self.read_config(COMMAND)? & 0xffff;
        let on = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        self.write_config(COMMAND, command | on)
    }

    /// The offset of its capability `id` in the configuration space.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn capability(&self, id: u8) -> Result<Option<u8>> {
        if self.read_config(COMMAND)? & STATUS_HAS_CAPABILITIES == 0 {
            return Ok(None);
        }
        let [mut at, ..] = self.read_config(CAPABILITIES)?.to_le_bytes();
        // The list of a broken device may be a ring.
        for _ in 0..64 {
            if at == 0 {
                break;
            }
            let [found, next, ..] = self.read_config(at)?.to_le_bytes();
            if found == id {
                return Ok(Some(at));
            }
            at = next;
        }
        Ok(None)
    }

    /// Sets the message of interrupt `vector`, `data` written to `addr`, and enables MSI-X. With an
    /// address in memory, a test sees interrupts there.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has no such interrupt; those of [`QTest::command`].
    pub fn set_msix(&self, bars: &[Bar], vector: u16, addr: u64, data: u32) -> Result<()> {
        let refused = |why: &str| Error::Refused(format!("MSI-X vector {vector}: {why}"));
        let at = self.capability(MSIX)?.ok_or_else(|| refused("no such capability"))?;
        let control = self.read_config(at)?;
        if u32::from(vector) > control >> 16 & 0x7ff {
            return Err(refused("there are fewer vectors"));
        }
        let table = self.read_config(at + 4)?;
        let bar = bars.iter().find(|bar| u32::from(bar.index) == table & 7);
        let bar = bar.ok_or_else(|| refused("its region has no address"))?;
        let entry = bar.addr + u64::from(table & !7) + MSIX_ENTRY * u64::from(vector);
        self.qtest.write_u64(entry, addr)?;
        self.qtest.write_u64(entry + 8, u64::from(data))?; // Also clears its mask bit.
        self.write_config(at, control | MSIX_ENABLE)
    }

    /// The QEMU of the device.
    pub fn qtest(&self) -> &'a QTest {
        self.qtest
    }
}
