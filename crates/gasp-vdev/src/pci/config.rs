//! Configuration space: the 256 bytes that every function has, each bit with its own rule.
//!
//! A byte has a value and a mask of the bits that the guest can write. BARs are sized by the same
//! rule: the bits below the size cannot be written, so all ones read back as the size's complement.
//! Extended space, up to 4 KiB, reads as zero: it has no capabilities.

use super::model::{BarKind, Model};
use super::vendor::{HEADER, VendorCapability, Window, WindowAccess};

/// The size of configuration space in bytes, including extended space.
pub const CONFIG_SIZE: u64 = 4096;
const SIZE: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// The offset of the first capability.
const FIRST: usize = 0x40;

/// Port I/O, memory, bus master, system error, interrupt disable.
const COMMAND_WRITABLE: u16 = 1 << 0 | 1 << 1 | MASTER | 1 << 8 | PIN_DISABLED;
const MASTER: u16 = 1 << 2;
const PIN_DISABLED: u16 = 1 << 10;
const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const FUNCTION_MASKED: u16 = 1 << 14;

/// One function's configuration space.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    initial: [u8; SIZE],
    /// The offset of the MSI-X capability.
    msix: Option<usize>,
    /// The window, with the offset of its contents.
    window: Option<(usize, Window)>,
}

impl ConfigSpace {
    pub(crate) fn new(model: &Model) -> Self {
        let [bytes, writable, initial] = [[0; SIZE]; 3];
        let mut space = Self { bytes, writable, initial, msix: None, window: None };
        let identity = &model.identity;
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        let class = identity.class;
        space.put(0x08, &[identity.revision, class.interface, class.sub, class.base]);
        space.put(0x2c, &identity.subsystem_vendor.to_le_bytes());
        space.put(0x2e, &identity.subsystem.to_le_bytes());
        space.put(0x3d, &[u8::from(model.pin)]);
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // Cache line size, latency timer, interrupt line: for the guest's own use.
        space.allow(0x0c, &[0xff, 0xff]);
        space.allow(0x3c, &[0xff]);
        for bar in &model.bars {
            let at = BARS + 4 * usize::from(bar.index);
            let kind = match bar.kind {
                BarKind::Io => 1,
                BarKind::Memory32 => 0,
                BarKind::Memory64 => 4,
            };
            let flags: u8 = kind | if bar.prefetchable { 8 } else { 0 };
            let base = !(bar.size - 1);
            space.put(at, &[flags]);
            match bar.kind {
                BarKind::Memory64 => space.allow(at, &base.to_le_bytes()),
                BarKind::Memory32 | BarKind::Io => space.allow(at, &(base as u32).to_le_bytes()),
            }
        }
        space.add_capabilities(model);
        space.initial = space.bytes;
        space
    }

    fn add_capabilities(&mut self, model: &Model) {
        let mut next = FIRST;
        // The pointer to the next capability: first in the header, then in each of them.
        let mut link = CAPABILITIES;
        if let Some(msix) = model.msix {
            let at = next;
            self.put(link, &[at as u8]);
            self.put(at, &[0x11]);
            self.put(at + 2, &(msix.vectors - 1).to_le_bytes());
            self.put(at + 4, &(msix.table | u32::from(msix.bar)).to_le_bytes());
            self.put(at + 8, &(msix.pending | u32::from(msix.bar)).to_le_bytes());
            // Enable and function mask.
            self.allow(at + 2, &(1 << 15 | FUNCTION_MASKED).to_le_bytes());
            self.msix = Some(at);
            (link, next) = (at + 1, at + 0x10);
        }
        if model.msi > 0 {
            let at = next;
            self.put(link, &[at as u8]);
            self.put(at, &[0x05]);
            // 64-bit addresses; the number of vectors, as a power of two.
            let vectors = model.msi.trailing_zeros() as u16;
            self.put(at + 2, &(1 << 7 | vectors << 1).to_le_bytes());
            // Enable, number of vectors granted; address, data.
            self.allow(at + 2, &0x71_u16.to_le_bytes());
            self.allow(at + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            (link, next) = (at + 1, at + 0x10);
        }
        for capability in &model.vendor {
            let VendorCapability { contents, writable, window } = capability;
            let at = next;
            self.put(link, &[at as u8]);
            self.put(at, &[0x09, 0, capability.len() as u8]);
            self.put(at + HEADER, contents);
            let writable = writable.get(..contents.len()).unwrap_or(writable);
            self.allow(at + HEADER, writable);
            self.window = window.map(|window| (at + HEADER, window)).or(self.window);
            (link, next) = (at + 1, at + capability.len().next_multiple_of(4));
        }
        if link != CAPABILITIES {
            self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let place = self.bytes.iter_mut().skip(at);
        place.zip(bytes).for_each(|(place, byte)| *place = *byte);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        let place = self.writable.iter_mut().skip(at);
        place.zip(mask).for_each(|(place, byte)| *place = *byte);
    }

    pub(crate) fn reset(&mut self) {
        self.bytes = self.initial;
    }

    pub(crate) fn read(&self, offset: usize, into: &mut [u8], pin_raised: bool) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
            if at == STATUS && pin_raised {
                *byte |= STATUS_INTERRUPT;
            }
        }
    }

    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) {
        let places = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), value) in places.zip(from) {
            *byte = (*byte & !mask) | (value & mask);
        }
    }

    /// The access to a BAR that an access to `[offset, offset + len)` is, if it touches the data of
    /// the window, and the window's registers select something.
    pub(crate) fn window_access(&self, offset: usize, len: usize) -> Option<WindowAccess> {
        let (at, window) = self.window?;
        let data = at + usize::from(window.data);
        if offset >= data + 4 || offset.saturating_add(len) <= data {
            return None;
        }
        let bar = self.bytes.get(at + usize::from(window.bar)).copied()?;
        let (offset, len) =
            (self.long(at + usize::from(window.offset)), self.long(at + usize::from(window.len)));
        let selects = [1, 2, 4].contains(&len) && offset.is_multiple_of(len);
        let (bar, offset, len) = (bar.into(), offset.into(), len as usize);
        selects.then_some(WindowAccess { bar, offset, len })
    }

    /// The data of the window.
    pub(crate) fn window_data(&self) -> [u8; 4] {
        let at = self.window.map(|(at, window)| at + usize::from(window.data));
        at.map_or(0, |at| self.long(at)).to_le_bytes()
    }

    /// Sets the first bytes of the window's data to what was read.
    pub(crate) fn set_window_data(&mut self, bytes: &[u8]) {
        if let Some((at, window)) = self.window {
            self.put(at + usize::from(window.data), bytes);
        }
    }

    fn word(&self, at: usize) -> u16 {
        let byte = |at| self.bytes.get(at).copied().unwrap_or(0);
        u16::from_le_bytes([byte(at), byte(at + 1)])
    }

    fn long(&self, at: usize) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at + 2)) << 16
    }

    /// Whether the device may access memory.
    pub(crate) fn is_master(&self) -> bool {
        self.word(COMMAND) & MASTER != 0
    }

    /// Whether the interrupt pin is switched off.
    pub(crate) fn is_pin_disabled(&self) -> bool {
        self.word(COMMAND) & PIN_DISABLED != 0
    }

    /// Whether all MSI-X vectors are masked.
    pub(crate) fn is_function_masked(&self) -> bool {
        self.msix.is_some_and(|at| self.word(at + 2) & FUNCTION_MASKED != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::IDENTITY;
    use super::super::{Bar, Msix};
    use super::*;

    fn space() -> ConfigSpace {
        let msix = Msix { vectors: 16, bar: 2, table: 0x400, pending: 0x800 };
        let model = Model::new(IDENTITY)
            .bar(Bar::memory(0, 0x4000))
            .bar(Bar::memory64(2, 1 << 33))
            .pin()
            .msi(8)
            .msix(msix);
        model.check().unwrap();
        ConfigSpace::new(&model)
    }

    fn read<const N: usize>(space: &ConfigSpace, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        space.read(at, &mut bytes, false);
        bytes
    }

    fn read32(space: &ConfigSpace, at: usize) -> u32 {
        u32::from_le_bytes(read(space, at))
    }

    #[test]
    fn the_header_says_who_the_device_is_and_cannot_be_written() {
        let mut space = space();
        space.write(0, &[0xff; 4]);
        assert_eq!(read32(&space, 0), 0x5678_1234);
        assert_eq!(read32(&space, 0x08), 0x0801_0207);
        assert_eq!(read32(&space, 0x2c), 0xdef0_9abc);
        assert_eq!(read::<1>(&space, 0x3d), [1]);
        assert_eq!(read32(&space, 0x100), 0, "extended space");
    }

    #[test]
    fn all_ones_in_a_bar_read_back_as_its_size() {
        let mut space = space();
        space.write(0x10, &[0xff; 24]);
        assert_eq!(read32(&space, 0x10), !(0x4000 - 1));
        assert_eq!(read32(&space, 0x14), 0, "no such BAR");
        assert_eq!(u64::from_le_bytes(read(&space, 0x18)), !((1 << 33) - 1) | 4);
        space.write(0x10, &0xfeb0_1234_u32.to_le_bytes());
        assert_eq!(read32(&space, 0x10), 0xfeb0_0000);
        space.reset();
        assert_eq!(read32(&space, 0x10), 0);
    }

    #[test]
    fn the_list_of_capabilities_has_msix_and_msi() {
        let mut space = space();
        assert_eq!(read::<2>(&space, 6), [0x10, 0]);
        let [first] = read(&space, 0x34);
        let at = usize::from(first);
        assert_eq!(read::<4>(&space, at), [0x11, 0x50, 15, 0]);
        assert_eq!(read32(&space, at + 4), 0x402);
        assert_eq!(read32(&space, at + 8), 0x802);
        assert_eq!(read::<4>(&space, 0x50), [0x05, 0, 0x86, 0]);
        space.write(at + 2, &[0xff, 0xff]);
        assert!(space.is_function_masked());
        assert_eq!(read::<2>(&space, at + 2), [15, 0xc0]);
        space.write(0x52, &[0xff, 0xff]);
        assert_eq!(read::<2>(&space, 0x52), [0xf7, 0]);
    }

    #[test]
    fn the_command_register_makes_the_device_bus_master() {
        let mut space = space();
        assert!(!space.is_master());
        space.write(4, &[0xff, 0xff]);
        assert!(space.is_master() && space.is_pin_disabled());
        assert_eq!(read::<2>(&space, 4), [0x07, 0x05]);
        let mut status = [0];
        space.read(6, &mut status, true);
        assert_eq!(status, [0x18]);
    }

    #[test]
    fn writes_at_and_past_the_end_are_harmless() {
        let mut space = space();
        space.write(255, &[0xff; 64]);
        space.write(4000, &[0xff; 200]);
        assert_eq!(read::<8>(&space, 4090), [0; 8]);
    }

    #[test]
    fn vendor_capabilities_follow_in_order_and_their_window_selects_an_access() {
        let window = Window { bar: 1, offset: 5, len: 9, data: 13 };
        let mut writable = vec![0; 17];
        for at in [1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] {
            writable[at] = 0xff;
        }
        let first = VendorCapability::new(vec![1, 2, 3, 4, 5]);
        let second = VendorCapability { contents: vec![5; 17], writable, window: Some(window) };
        let model = Model::new(IDENTITY).msi(1).vendor(first).vendor(second);
        model.check().unwrap();
        let mut space = ConfigSpace::new(&model);
        assert_eq!(read::<2>(&space, 0x40), [0x05, 0x50]);
        assert_eq!(read::<8>(&space, 0x50), [0x09, 0x58, 8, 1, 2, 3, 4, 5]);
        assert_eq!(read::<4>(&space, 0x58), [0x09, 0, 20, 5]);
        // BAR at 0x5c, offset at 0x60, length at 0x64, data at 0x68.
        assert_eq!(space.window_access(0x68, 4), None, "a length of 0x05050505");
        space.write(0x58, &[0xff; 20]);
        assert_eq!(read::<6>(&space, 0x58), [0x09, 0, 20, 5, 0xff, 5]);
        space.write(0x5c, &[2]);
        space.write(0x60, &0x104_u32.to_le_bytes());
        for (len, is_access) in
            [(0, false), (1, true), (2, true), (3, false), (4, true), (8, false)]
        {
            space.write(0x64, &u32::to_le_bytes(len));
            let access = WindowAccess { bar: 2, offset: 0x104, len: len as usize };
            assert_eq!(space.window_access(0x68, 1), is_access.then_some(access), "{len}");
        }
        space.write(0x64, &4_u32.to_le_bytes());
        let touches = [(0x67, 1), (0x67, 2), (0x6b, 1), (0x6c, 1), (0, usize::MAX)];
        let touches = touches.map(|(at, len)| space.window_access(at, len).is_some());
        assert_eq!(touches, [false, true, true, false, true]);
        space.write(0x60, &0x106_u32.to_le_bytes());
        assert_eq!(space.window_access(0x68, 4), None, "it is not aligned");
        space.write(0x68, &[1, 2, 3, 4]);
        space.set_window_data(&[9, 8]);
        assert_eq!(space.window_data(), [9, 8, 3, 4]);
    }
}
