//! The two ways to configuration space: ports 0xcf8 to 0xcff, and ECAM.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use gasp_vdev::CONFIG_SIZE;

use super::address::Bdf;
use super::bus::PciBus;
use crate::bus::BusDevice;

/// The address register, and the data register after it.
pub(super) const PORTS: (u64, u64) = (0xcf8, 8);
const DATA: u64 = 4;
const ENABLE: u32 = 1 << 31;
/// The bits of the address register that can be written.
const WRITABLE: u32 = 0x80ff_fffc;

/// Configuration space as a range of memory: 4 KiB for each function, by its number.
pub(super) struct Ecam(pub(super) Arc<PciBus>);

impl Ecam {
    /// The function at `offset`, the offset in its configuration space, and how much of `len` is
    /// in it.
    fn find(offset: u64, len: usize) -> (Option<Bdf>, u64, usize) {
        let id = u16::try_from(offset / CONFIG_SIZE).ok();
        let register = offset % CONFIG_SIZE;
        let room = usize::try_from(CONFIG_SIZE - register).unwrap_or(usize::MAX);
        (id.map(Bdf::from_requester_id), register, room.min(len))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (bdf, register, len) = Self::find(offset, data.len());
        let (part, rest) = data.split_at_mut(len);
        if let Some(bdf) = bdf {
            self.0.read(bdf, register, part);
        }
        if !rest.is_empty() {
            self.read(offset.saturating_add(len as u64), rest);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (bdf, register, len) = Self::find(offset, data.len());
        let (part, rest) = data.split_at(len);
        if let Some(bdf) = bdf {
            self.0.write(bdf, register, part);
        }
        if !rest.is_empty() {
            self.write(offset.saturating_add(len as u64), rest);
        }
    }
}

/// The ports: the address register is written and read as 4 bytes; the data register is the 4 bytes
/// at that address, in any width.
pub(super) struct ConfigPorts {
    bus: Arc<PciBus>,
    address: AtomicU32,
}

impl ConfigPorts {
    pub(super) fn new(bus: Arc<PciBus>) -> Self {
        Self { bus, address: AtomicU32::new(0) }
    }

    /// What the data register is, if anything.
    fn selected(&self) -> Option<(Bdf, u64)> {
        let address = self.address.load(Ordering::Relaxed);
        let bdf = Bdf::from_requester_id((address >> 8) as u16);
        (address & ENABLE != 0).then_some((bdf, u64::from(address & 0xff)))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if (offset, data.len()) == (0, 4) {
            data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
            return;
        }
        let skipped = usize::try_from(DATA.saturating_sub(offset)).unwrap_or(usize::MAX);
        if let (Some((bdf, register)), Some(data)) = (self.selected(), data.get_mut(skipped..)) {
            self.bus.read(bdf, register + offset.saturating_sub(DATA), data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            self.address.store(u32::from_le_bytes(bytes) & WRITABLE, Ordering::Relaxed);
            return;
        }
        let skipped = usize::try_from(DATA.saturating_sub(offset)).unwrap_or(usize::MAX);
        if let (Some((bdf, register)), Some(data)) = (self.selected(), data.get(skipped..)) {
            self.bus.write(bdf, register + offset.saturating_sub(DATA), data);
        }
    }
}
