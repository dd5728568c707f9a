//! A virtio driver over PCI, and a guest for it whose IOMMU maps each page of its memory at a device
//! address that is no guest-physical one.

use std::os::fd::OwnedFd;

use gasp::{Access, DeviceAddr, GuestPhys};
use gasp_vdev::IrqKind;
use gasp_vdev::testbus::{self, Options, RAM, TestBus};
use gasp_virtio::{VirtioDevice, VirtioPci};
use rustix::event::{EventfdFlags, eventfd};

/// Device addresses of guest-physical ones.
pub(crate) const IOVA: u64 = 0x4_0000_0000;
/// Where the rings of queue 0 are; those of the next ones follow.
pub(crate) const RINGS: u64 = 0x1_0000;
const RINGS_STEP: u64 = 0x4000;
/// Free memory.
pub(crate) const DATA: u64 = 0x40_0000;

pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const PLATFORM: u64 = 1 << 33;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const IS_INDIRECT: u16 = 4;

/// Status bits.
pub(crate) const STARTED: u8 = 1 | 2 | 8 | 4;
pub(crate) const NEEDS_RESET: u8 = 64;

/// A buffer: guest-physical address, length, whether the device writes it.
pub(crate) type Buffer = (u64, u32, bool);

/// A queue, as the driver sees it.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) index: u16,
    pub(crate) size: u16,
    /// The guest-physical address of its descriptors; the rings follow.
    pub(crate) base: u64,
    notify: u64,
    /// The next free descriptor: they are used round and round.
    free: u16,
    available: u16,
    used: u16,
}

impl Ring {
    pub(crate) fn avail(&self) -> u64 {
        self.base + 0x1000
    }

    pub(crate) fn used(&self) -> u64 {
        self.base + 0x2000
    }
}

/// A device in its guest, and the registers of it that the capabilities name.
pub(crate) struct Driver {
    pub(crate) bus: TestBus,
    pub(crate) common: u64,
    pub(crate) notify: u64,
    pub(crate) notify_step: u64,
    pub(crate) isr: u64,
    pub(crate) device: Option<u64>,
    pub(crate) features: u64,
    pub(crate) rings: Vec<Ring>,
    watched: Option<OwnedFd>,
}

impl Driver {
    pub(crate) fn attach(device: impl VirtioDevice) -> Self {
        Self::attach_to(VirtioPci::new(device), Options::default())
    }

    /// Attaches the device behind a strict IOMMU, which allows it all RAM.
    pub(crate) fn attach_to<D: VirtioDevice>(device: VirtioPci<D>, options: Options) -> Self {
        let bus = options.iommu().attach(device).unwrap();
        let domain = bus.domain().unwrap();
        domain.grant(DeviceAddr(IOVA), GuestPhys(0), RAM, Access::RW).unwrap();
        let mut driver = Self {
            bus,
            common: 0,
            notify: 0,
            notify_step: 0,
            isr: 0,
            device: None,
            features: 0,
            rings: Vec::new(),
            watched: None,
        };
        driver.find_registers();
        driver
    }

    pub(crate) fn config8(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.bus.shell().config_read(at, &mut byte).unwrap();
        byte[0]
    }

    pub(crate) fn config32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.bus.shell().config_read(at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// The vendor-specific capabilities: offset and type.
    pub(crate) fn capabilities(&self) -> Vec<(u64, u8)> {
        let mut all = Vec::new();
        let mut at = u64::from(self.config8(0x34));
        while at != 0 {
            if self.config8(at) == 9 {
                all.push((at, self.config8(at + 3)));
            }
            at = u64::from(self.config8(at + 1));
        }
        all
    }

    fn find_registers(&mut self) {
        for (at, kind) in self.capabilities() {
            let offset = u64::from(self.config32(at + 8));
            match kind {
                1 => self.common = offset,
                2 => {
                    self.notify = offset;
                    self.notify_step = self.config32(at + 16).into();
                }
                3 => self.isr = offset,
                4 => self.device = Some(offset),
                _ => {}
            }
        }
    }

    pub(crate) fn read<const N: usize>(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.bus.shell().bar_read(0, offset, &mut bytes[..N]).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write<const N: usize>(&self, offset: u64, value: u64) {
        self.bus.shell().bar_write(0, offset, &value.to_le_bytes()[..N]).unwrap();
    }

    pub(crate) fn status(&self) -> u8 {
        self.read::<1>(self.common + 0x14) as u8
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write::<1>(self.common + 0x14, status.into());
    }

    /// Resets the device, and waits until it is.
    pub(crate) fn reset(&mut self) {
        self.set_status(0);
        until(|| (self.status() == 0).then_some(()));
        self.rings.clear();
    }

    pub(crate) fn offered(&self) -> u64 {
        let half = |select| {
            self.write::<4>(self.common, select);
            self.read::<4>(self.common + 4)
        };
        half(0) | half(1) << 32
    }

    pub(crate) fn accept(&mut self, features: u64) {
        for select in 0..2 {
            self.write::<4>(self.common + 8, select);
            self.write::<4>(self.common + 0xc, features >> (32 * select) & 0xffff_ffff);
        }
        self.features = features;
    }

    /// Resets the device and starts it, with these features and all queues, of at most this size.
    pub(crate) fn start(&mut self, features: u64, size: u16) {
        self.reset();
        self.set_status(1);
        self.set_status(1 | 2);
        self.accept(features | VERSION_1);
        self.set_status(1 | 2 | 8);
        assert_eq!(self.status(), 1 | 2 | 8);
        self.write::<2>(self.common + 0x10, 0);
        for index in 0..self.read::<2>(self.common + 0x12) as u16 {
            self.set_up(index, size);
        }
        self.set_status(STARTED);
    }

    /// Describes a queue to the device, and enables it with the vector after the configuration's.
    pub(crate) fn set_up(&mut self, index: u16, size: u16) {
        self.write::<2>(self.common + 0x16, index.into());
        let size = size.min(self.read::<2>(self.common + 0x18) as u16);
        let base = RINGS + RINGS_STEP * u64::from(index);
        self.bus.store(base, &[0; RINGS_STEP as usize]).unwrap();
        self.write::<2>(self.common + 0x18, size.into());
        self.write::<2>(self.common + 0x1a, u64::from(index) + 1);
        for (field, at) in [(0x20, base), (0x28, base + 0x1000), (0x30, base + 0x2000)] {
            self.write::<4>(self.common + field, (at + IOVA) & 0xffff_ffff);
            self.write::<4>(self.common + field + 4, (at + IOVA) >> 32);
        }
        let notify = self.notify + self.notify_step * self.read::<2>(self.common + 0x1e);
        self.write::<2>(self.common + 0x1c, 1);
        self.rings.push(Ring { index, size, base, notify, free: 0, available: 0, used: 0 });
    }

    /// Writes a descriptor, of a device address.
    pub(crate) fn describe(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.bus.store(at, &bytes).unwrap();
    }

    /// Makes a chain of these buffers available, without a notification. Returns its head.
    pub(crate) fn put(&mut self, index: usize, buffers: &[Buffer]) -> u16 {
        let ring = self.rings[index].clone();
        let head = ring.free;
        let count = buffers.len() as u16;
        for (done, &(addr, len, writes)) in (0..).zip(buffers) {
            let at = (head + done) % ring.size;
            let flags = if done + 1 < count { NEXT } else { 0 } | if writes { WRITE } else { 0 };
            let place = ring.base + 16 * u64::from(at);
            self.describe(place, addr + IOVA, len, flags, (at + 1) % ring.size);
        }
        self.rings[index].free = (head + count) % ring.size;
        self.offer(index, head);
        head
    }

    /// Makes the chain of a table at `table`, guest-physical, of these buffers available.
    pub(crate) fn put_indirect(&mut self, index: usize, table: u64, buffers: &[Buffer]) -> u16 {
        let count = buffers.len() as u16;
        for (done, &(addr, len, writes)) in (0..).zip(buffers) {
            let flags = if done + 1 < count { NEXT } else { 0 } | if writes { WRITE } else { 0 };
            self.describe(table + 16 * u64::from(done), addr + IOVA, len, flags, done + 1);
        }
        let ring = self.rings[index].clone();
        let place = ring.base + 16 * u64::from(ring.free);
        self.describe(place, table + IOVA, 16 * u32::from(count), IS_INDIRECT, 0);
        self.rings[index].free = (ring.free + 1) % ring.size;
        self.offer(index, ring.free);
        ring.free
    }

    /// Makes a head available.
    pub(crate) fn offer(&mut self, index: usize, head: u16) {
        let ring = &mut self.rings[index];
        let entry = ring.avail() + 4 + 2 * u64::from(ring.available % ring.size);
        ring.available = ring.available.wrapping_add(1);
        let (at, available) = (ring.avail() + 2, ring.available);
        self.bus.store(entry, &head.to_le_bytes()).unwrap();
        self.bus.store(at, &available.to_le_bytes()).unwrap();
    }

    pub(crate) fn notify(&self, index: usize) {
        let ring = &self.rings[index];
        self.write::<2>(ring.notify, ring.index.into());
    }

    fn load16(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.bus.load(at, &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    }

    /// The notifications that the device asks for: the used ring's flags, and its event index.
    pub(crate) fn asks(&self, index: usize) -> (u16, u16) {
        let ring = &self.rings[index];
        let event = ring.used() + 4 + 8 * u64::from(ring.size);
        (self.load16(ring.used()), self.load16(event))
    }

    /// Takes the next used chain, if there is one: its head, and how much was written.
    pub(crate) fn take(&mut self, index: usize) -> Option<(u16, u32)> {
        let ring = &self.rings[index];
        if self.load16(ring.used() + 2) == ring.used {
            return None;
        }
        let mut bytes = [0; 8];
        let at = ring.used() + 4 + 8 * u64::from(ring.used % ring.size);
        self.bus.load(at, &mut bytes).unwrap();
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let ring = &mut self.rings[index];
        ring.used = ring.used.wrapping_add(1);
        // Interrupt for the next one.
        let (event, used) = (ring.avail() + 4 + 2 * u64::from(ring.size), ring.used);
        self.bus.store(event, &used.to_le_bytes()).unwrap();
        Some((word(0) as u16, word(4)))
    }

    /// Waits for the next used chain.
    pub(crate) fn wait(&mut self, index: usize) -> (u16, u32) {
        until(|| self.take(index))
    }

    /// One request: makes it available, notifies, and waits. Returns how much was written.
    pub(crate) fn run(&mut self, index: usize, buffers: &[Buffer]) -> u32 {
        let head = self.put(index, buffers);
        self.notify(index);
        let (used, written) = self.wait(index);
        assert_eq!(used, head);
        written
    }

    /// Waits until the device asks for a reset, and checks that the driver was interrupted for it.
    pub(crate) fn wait_broken(&self) {
        self.wait_needs_reset();
        assert!(self.bus.interrupt(0).unwrap());
    }

    /// Waits until the device asks for a reset.
    pub(crate) fn wait_needs_reset(&self) {
        until(|| (self.status() & NEEDS_RESET != 0).then_some(()));
    }

    /// Has this vector signal an event that [`has_interrupt`](Self::has_interrupt) looks at.
    pub(crate) fn watch(&mut self, vector: u32) {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let events = vec![Some(event.try_clone().unwrap())];
        self.bus.shell().interrupts().assign(IrqKind::Msix, vector, events).unwrap();
        self.watched = Some(event);
    }

    /// Whether an interrupt of the watched vector has come since the last call.
    pub(crate) fn has_interrupt(&self) -> bool {
        rustix::io::read(self.watched.as_ref().unwrap(), &mut [0; 8]).is_ok()
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bus.load(at, &mut bytes).unwrap();
        bytes
    }

    /// Takes back a page, by its guest-physical address.
    pub(crate) fn revoke(&self, at: u64) {
        let domain = self.bus.domain().unwrap();
        assert!(domain.revoke(DeviceAddr(IOVA + at), 4096).unwrap().wait().completed());
    }

    /// Grants a page again, for this access.
    pub(crate) fn grant(&self, at: u64, access: Access) {
        let domain = self.bus.domain().unwrap();
        domain.grant(DeviceAddr(IOVA + at), GuestPhys(at), 4096, access).unwrap();
    }
}

/// Waits until `there` returns a value; it must.
pub(crate) fn until<T>(there: impl FnMut() -> Option<T>) -> T {
    testbus::until(there).unwrap()
}

/// Pseudo-random numbers, the same each time.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
