//! A driver of virtio, for both transports, and a guest with RAM that it shares with its device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gasp::config::Config;
use gasp::{Access as Allowed, DeviceAddr, Domain, DomainKind, DomainOptions, Guest, GuestPhys};
use gasp::{MemoryObject, Unattached};
use gasp_capi::embed::ListedGuest;
use gasp_qvm::{Access, Answer, End, Host, Instance, Request, Space};
use parking_lot::Mutex;

use crate::support::Library;

/// Where the registers are.
pub(crate) const BASE: u64 = 0xfa00_0000;
/// Where the rings of queue `n` are: descriptors, available ring, used ring, a page each.
pub(crate) fn rings(queue: u16) -> [u64; 3] {
    let at = 0x10_0000 + u64::from(queue) * 0x1_0000;
    [at, at + 0x1000, at + 0x2000]
}
/// Where buffers are.
pub(crate) const DATA: u64 = 0x20_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Registers of MMIO.
pub(crate) const QUEUE_SEL: u64 = 0x30;
pub(crate) const STATUS: u64 = 0x70;
pub(crate) const NOTIFY: u64 = 0x50;
pub(crate) const INTERRUPT: u64 = 0x60;
pub(crate) const ACK: u64 = 0x64;
pub(crate) const CONFIG: u64 = 0x100;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;

/// What a vdev has asked its host for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Line(bool),
    Vector(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) msix: AtomicBool,
}

impl Host for Noted {
    fn interrupt(&self, raised: bool) {
        self.events.lock().push(Event::Line(raised));
    }
    fn message(&self, _: u64, _: u32) {}
    fn vector(&self, vector: u16) {
        self.events.lock().push(Event::Vector(vector));
    }
    fn uses_msix(&self) -> bool {
        self.msix.load(Ordering::Relaxed)
    }
    fn end(&self, end: &End) {
        panic!("{end}");
    }
}

/// A guest, a virtio device in C, and the driver's side of it.
pub(crate) struct Driver {
    pub(crate) guest: Guest,
    pub(crate) host: Arc<Noted>,
    pub(crate) device: Instance,
    pub(crate) vdev: gasp::Vdev,
    /// What the device is allowed, if the guest has an IOMMU.
    pub(crate) domain: Option<Domain>,
    _listed: ListedGuest,
    /// The next index of each queue's available ring.
    available: [u16; 4],
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Driver {
    /// A device over MMIO, in a guest of 4 MiB without an IOMMU.
    pub(crate) fn mmio(library: &Library) -> Self {
        Self::new(library, "loc 0xfa000000 intr ioapic:5", false)
    }

    pub(crate) fn new(library: &Library, text: &str, iommu: bool) -> Self {
        let iommu = if iommu { Unattached::Deny } else { Unattached::Bypass };
        let guest = match iommu {
            Unattached::Deny => Guest::builder().iommu(iommu).build().unwrap(),
            _ => Guest::builder().build().unwrap(),
        };
        // Two objects, so that memory is not consecutive at 2 MiB and a half.
        for (at, len) in [(0, 0x28_0000), (0x28_0000, 0x18_0000)] {
            let ram = MemoryObject::ram(len).create().unwrap();
            guest.space().add_ram(Some(GuestPhys(at)), &ram).unwrap();
        }
        let listed = ListedGuest::new(guest.clone()).unwrap();
        let factory = library.load().unwrap();
        let text = format!("ram 1M\nvdev {} {text}\n", factory.name());
        let config = Config::parse(&text, "test.qvmconf".as_ref()).unwrap();
        let request = Request::of(&config.machine().devices[0], &factory).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let vdev = guest.vdev(&format!("{}{number}", request.name)).unwrap();
        let domain = matches!(iommu, Unattached::Deny).then(|| {
            let domain = guest.domain("virtio", DomainOptions::new(DomainKind::Translate)).unwrap();
            vdev.attach(&domain).unwrap().wait();
            domain
        });
        let host: Arc<Noted> = Arc::default();
        let device =
            Instance::create(&listed, &vdev, &factory, &request, Arc::clone(&host) as _).unwrap();
        device.assign().unwrap();
        let placed = device.placed().unwrap();
        if placed.start.is_none() {
            device.place(BASE, placed.len);
        }
        device.configured().unwrap();
        device.starting().unwrap();
        Self { guest, host, device, vdev, domain, _listed: listed, available: [0; 4] }
    }

    /// Grants memory, with the same addresses.
    pub(crate) fn grant(&self, at: u64, len: u64, access: Allowed) {
        let domain = self.domain.as_ref().unwrap();
        domain.grant(DeviceAddr(at), GuestPhys(at), len, access).unwrap();
    }

    pub(crate) fn at(offset: u64) -> Access {
        Access { space: Space::Memory, addr: BASE + offset, cookie: 0 }
    }

    pub(crate) fn read<const N: usize>(&self, offset: u64) -> u64 {
        let mut data = [0; N];
        assert_eq!(self.device.read(Self::at(offset), &mut data), Answer::Done, "{offset:#x}");
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&data);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write<const N: usize>(&self, offset: u64, value: u64) {
        let bytes = value.to_le_bytes();
        let answer = self.device.write(Self::at(offset), &bytes[..N]);
        assert_eq!(answer, Answer::Done, "{offset:#x}");
    }

    pub(crate) fn get(&self, offset: u64) -> u32 {
        self.read::<4>(offset) as u32
    }

    pub(crate) fn set(&self, offset: u64, value: u32) {
        self.write::<4>(offset, value.into());
    }

    pub(crate) fn status(&self) -> u32 {
        self.get(STATUS)
    }

    /// Negotiates up to FEATURES_OK; whether that stays set.
    pub(crate) fn negotiate(&self, features: u64) -> bool {
        self.set(STATUS, 1);
        self.set(STATUS, 3);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set(0x24, select);
            self.set(0x20, half);
        }
        self.set(STATUS, 11);
        self.status() & 8 != 0
    }

    /// Sets up a queue of 8 at its usual place.
    pub(crate) fn queue(&self, index: u16) {
        self.queue_at(index, 8, rings(index));
    }

    pub(crate) fn queue_at(&self, index: u16, size: u32, places: [u64; 3]) {
        self.set(QUEUE_SEL, index.into());
        self.set(0x38, size);
        for (at, place) in [0x80, 0x90, 0xa0].into_iter().zip(places) {
            self.set(at, place as u32);
            self.set(at + 4, (place >> 32) as u32);
        }
        self.set(0x44, 1);
    }

    /// Starts the device with both queues.
    pub(crate) fn start(&self, features: u64) {
        assert!(self.negotiate(features | VERSION_1));
        self.queue(0);
        self.queue(1);
        self.set(STATUS, 15);
    }

    pub(crate) fn poke(&self, at: u64, bytes: &[u8]) {
        self.guest.write_firmware(GuestPhys(at), bytes).unwrap();
    }

    pub(crate) fn peek<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.guest.read_firmware(GuestPhys(at), &mut bytes).unwrap();
        bytes
    }

    /// Writes a descriptor into a table.
    pub(crate) fn descriptor(&self, table: u64, index: u16, entry: (u64, u32, u16, u16)) {
        let (addr, len, flags, next) = entry;
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.poke(table + u64::from(index) * 16, &bytes);
    }

    /// Makes a chain available.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let [_, available, _] = rings(queue);
        let next = &mut self.available[usize::from(queue)];
        let slot = u64::from(*next % 8);
        *next = next.wrapping_add(1);
        let next = *next;
        self.poke(available + 4 + slot * 2, &head.to_le_bytes());
        self.poke(available + 2, &next.to_le_bytes());
    }

    /// A chain of these buffers from descriptor `head` on, made available.
    pub(crate) fn chain(&mut self, queue: u16, head: u16, buffers: &[(u64, u32, u16)]) {
        let [table, ..] = rings(queue);
        for (index, &(addr, len, flags)) in (head..).zip(buffers) {
            let is_last = usize::from(index - head) + 1 == buffers.len();
            let more = if is_last { 0 } else { NEXT };
            self.descriptor(table, index, (addr, len, flags | more, index + 1));
        }
        self.offer(queue, head);
    }

    /// Forgets what it has made available: after a reset.
    pub(crate) fn restart(&mut self) {
        self.available = [0; 4];
        for queue in 0..2 {
            let [_, available, used] = rings(queue);
            self.poke(available, &[0; 24]);
            self.poke(used, &[0; 80]);
        }
    }

    /// The used ring's index, and entry `at` of it.
    pub(crate) fn used(&self, queue: u16, at: u64) -> (u16, u32, u32) {
        let [.., used] = rings(queue);
        let index = u16::from_le_bytes(self.peek(used + 2));
        let id = u32::from_le_bytes(self.peek(used + 4 + at * 8));
        (index, id, u32::from_le_bytes(self.peek(used + 8 + at * 8)))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        core::mem::take(&mut *self.host.events.lock())
    }
}
