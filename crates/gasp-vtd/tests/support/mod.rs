//! A guest with a unit, and a driver of it that goes about it as Linux's does.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use gasp::{
    DeviceAddr, DrainPolicy, Error, Guest, GuestPhys, MapFlags, Mapping, MemoryObject, Unattached,
    Vdev,
};
use gasp_vtd::{Message, RequesterId, Unit};
use parking_lot::Mutex;

pub(crate) const VER: u64 = 0x00;
pub(crate) const CAP: u64 = 0x08;
pub(crate) const ECAP: u64 = 0x10;
pub(crate) const GCMD: u64 = 0x18;
pub(crate) const GSTS: u64 = 0x1c;
pub(crate) const RTADDR: u64 = 0x20;
pub(crate) const CCMD: u64 = 0x28;
pub(crate) const FSTS: u64 = 0x34;
pub(crate) const FECTL: u64 = 0x38;
pub(crate) const FEDATA: u64 = 0x3c;
pub(crate) const FEADDR: u64 = 0x40;
pub(crate) const FEUADDR: u64 = 0x44;
pub(crate) const IQH: u64 = 0x80;
pub(crate) const IQT: u64 = 0x88;
pub(crate) const IQA: u64 = 0x90;
pub(crate) const ICS: u64 = 0x9c;
pub(crate) const IECTL: u64 = 0xa0;
pub(crate) const IEDATA: u64 = 0xa4;
pub(crate) const IEADDR: u64 = 0xa8;
pub(crate) const IEUADDR: u64 = 0xac;
pub(crate) const IQERCD: u64 = 0xb0;

pub(crate) const TE: u32 = 1 << 31;
pub(crate) const SRTP: u32 = 1 << 30;
pub(crate) const QIE: u32 = 1 << 26;

pub(crate) const PFO: u32 = 1;
pub(crate) const PPF: u32 = 2;
pub(crate) const IQE: u32 = 1 << 4;

pub(crate) const READ: MapFlags = MapFlags::READ;
pub(crate) const WRITE: MapFlags = MapFlags::WRITE;
pub(crate) const RW: MapFlags = MapFlags::RW;

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// RAM from 0 on. Tables are from 64 KiB on, pages are what is left.
pub(crate) const RAM: u64 = 16 << 20;
/// The root table, the queue, and the status of its wait descriptors.
pub(crate) const ROOT: u64 = 0x1_0000;
pub(crate) const QUEUE: u64 = 0x1_1000;
pub(crate) const STATUS: u64 = 0x1_3000;
/// A page's bits in an entry.
pub(crate) const R: u64 = 1;
pub(crate) const W: u64 = 2;

pub(crate) const DISK: RequesterId = RequesterId(0x0020);
pub(crate) const NET: RequesterId = RequesterId(0x0129);

pub(crate) struct Machine {
    pub(crate) guest: Guest,
    pub(crate) unit: Unit,
    pub(crate) disk: Vdev,
    pub(crate) net: Vdev,
    messages: Mutex<Receiver<Message>>,
    next_table: AtomicU64,
    tail: Mutex<u64>,
    stamp: AtomicU32,
}

/// The tables of a domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    pub(crate) root: u64,
    pub(crate) levels: u64,
    pub(crate) id: u16,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(DrainPolicy::default(), 48)
    }

    pub(crate) fn with(policy: DrainPolicy, width: u32) -> Self {
        let builder = Guest::builder().iommu(Unattached::Deny).drain(policy).address_width(width);
        let guest = builder.build().unwrap();
        let ram = MemoryObject::ram(RAM).create().unwrap();
        guest.space().add_ram(None, &ram).unwrap();
        let (send, messages): (Sender<Message>, _) = channel();
        let send = Mutex::new(send);
        let unit = Unit::new(&guest, move |message| {
            let _ = send.lock().send(message);
        })
        .unwrap();
        let [disk, net] = [("disk", DISK), ("net", NET)].map(|(name, id)| {
            let vdev = guest.vdev(name).unwrap();
            unit.connect(id, &vdev).unwrap().wait();
            vdev
        });
        Self {
            guest,
            unit,
            disk,
            net,
            messages: Mutex::new(messages),
            next_table: AtomicU64::new(0x2_0000),
            tail: Mutex::new(0),
            stamp: AtomicU32::new(1),
        }
    }

    /// A machine whose driver has enabled translation, with queued invalidation; the disk is in the
    /// domain that it returns.
    pub(crate) fn started() -> (Self, Tables) {
        let machine = Self::new();
        let tables = machine.tables(3, 1);
        machine.start();
        machine.set_context(DISK, tables);
        (machine, tables)
    }

    /// Enables queued invalidation, sets the root table, and enables translation.
    pub(crate) fn start(&self) {
        *self.tail.lock() = 0;
        self.set32(IQT, 0);
        self.set64(IQA, QUEUE);
        self.command(QIE, QIE);
        self.set64(RTADDR, ROOT);
        self.command(QIE | SRTP, SRTP);
        self.command(QIE | TE, TE);
        assert_eq!(self.get32(GSTS), QIE | SRTP | TE);
    }

    /// Disables the queue and enables it again, empty.
    pub(crate) fn start_queue_again(&self) {
        self.command(TE, QIE);
        *self.tail.lock() = 0;
        self.set64(IQT, 0);
        self.command(QIE | TE, QIE);
    }

    /// Writes GCMD, and waits for the status.
    pub(crate) fn command(&self, value: u32, status: u32) {
        self.set32(GCMD, value);
        wait_until("a command is done", || self.get32(GSTS) & status == value & status);
    }

    pub(crate) fn get32(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.unit.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn get64(&self, register: u64) -> u64 {
        let mut bytes = [0; 8];
        self.unit.read(register, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn set32(&self, register: u64, value: u32) {
        self.unit.write(register, &value.to_le_bytes());
    }

    pub(crate) fn set64(&self, register: u64, value: u64) {
        self.unit.write(register, &value.to_le_bytes());
    }

    pub(crate) fn write(&self, addr: u64, value: u64) {
        self.guest.write_firmware(GuestPhys(addr), &value.to_le_bytes()).unwrap();
    }

    pub(crate) fn word(&self, addr: u64) -> u64 {
        self.guest.page_tables().entry(GuestPhys(addr)).unwrap()
    }

    /// A fresh table, which is empty.
    pub(crate) fn table(&self) -> u64 {
        let table = self.next_table.fetch_add(4096, Ordering::Relaxed);
        assert!(table < 0x10_0000, "tables are below 1 MiB");
        self.guest.write_firmware(GuestPhys(table), &[0; 4096]).unwrap();
        table
    }

    pub(crate) fn tables(&self, levels: u64, id: u16) -> Tables {
        Tables { root: self.table(), levels, id }
    }

    /// Where the context entry of a requester is; its root entry is written if it has none.
    pub(crate) fn context(&self, id: RequesterId) -> u64 {
        let root = ROOT + u64::from(id.0 >> 8) * 16;
        if self.word(root) & 1 == 0 {
            let table = self.table();
            self.write(root, table | 1);
        }
        (self.word(root) & !0xfff) + u64::from(id.0 & 0xff) * 16
    }

    /// Writes a context entry, without an invalidation.
    pub(crate) fn set_context(&self, id: RequesterId, tables: Tables) {
        let at = self.context(id);
        self.write(at + 8, u64::from(tables.id) << 8 | (tables.levels - 2));
        self.write(at, tables.root | 1);
    }

    /// The entry that maps a page of the level (1: 4 KiB), with the tables above it, which are made.
    pub(crate) fn entry(&self, tables: Tables, addr: u64, level: u64) -> u64 {
        let mut table = tables.root;
        for above in (level..tables.levels).rev() {
            let at = table + (addr >> (12 + 9 * above) & 0x1ff) * 8;
            if self.word(at) & 3 == 0 {
                let next = self.table();
                self.write(at, next | R | W);
            }
            table = self.word(at) & !0xfff;
        }
        table + (addr >> (12 + 9 * (level - 1)) & 0x1ff) * 8
    }

    pub(crate) fn map(&self, tables: Tables, addr: u64, to: u64, bits: u64) {
        self.write(self.entry(tables, addr, 1), to | bits);
    }

    pub(crate) fn unmap(&self, tables: Tables, addr: u64) {
        self.write(self.entry(tables, addr, 1), 0);
    }

    /// Puts descriptors in the queue, and returns the tail after them, without telling the unit.
    pub(crate) fn put(&self, descriptors: &[[u64; 2]]) -> u64 {
        let mut tail = self.tail.lock();
        for [low, high] in descriptors {
            self.write(QUEUE + *tail * 16, *low);
            self.write(QUEUE + *tail * 16 + 8, *high);
            *tail = (*tail + 1) % 256;
        }
        *tail * 16
    }

    /// The descriptors, and a wait descriptor after them, whose stamp is returned: at once.
    pub(crate) fn post(&self, descriptors: &[[u64; 2]]) -> u32 {
        let stamp = self.stamp.fetch_add(1, Ordering::Relaxed);
        let tail = self.put(&[descriptors, &[wait(stamp)]].concat());
        self.set64(IQT, tail);
        stamp
    }

    pub(crate) fn is_complete(&self, stamp: u32) -> bool {
        self.word(STATUS) as u32 == stamp
    }

    /// The same, and that it has completed before the unit was left.
    pub(crate) fn submit(&self, descriptors: &[[u64; 2]]) {
        let stamp = self.post(descriptors);
        assert!(self.is_complete(stamp), "nothing is held, so it completes at once");
    }

    /// The guest-physical address that a map reaches.
    pub(crate) fn reached(&self, vdev: &Vdev, addr: u64, flags: MapFlags) -> Result<u64, Error> {
        let mapping = vdev.map(DeviceAddr(addr), 16, flags)?;
        Ok(mapping.object_offset())
    }

    pub(crate) fn hold(&self, vdev: &Vdev, addr: u64) -> Mapping {
        vdev.map(DeviceAddr(addr), 16, READ).unwrap()
    }

    /// Refuses a map, and checks with which fault reason, if it is recorded.
    pub(crate) fn assert_refused(&self, vdev: &Vdev, addr: u64, flags: MapFlags) {
        let error = self.reached(vdev, addr, flags).unwrap_err();
        assert_eq!(error.errno_name(), "EFAULT", "{error}");
    }

    /// Takes the fault record, at `index`, and clears it as Linux does.
    pub(crate) fn take_record(&self, index: u64) -> Option<Record> {
        let at = self.records() + index * 16;
        let high = self.get64(at + 8);
        if high >> 63 == 0 {
            return None;
        }
        let record = Record {
            source: high as u16,
            addr: self.get64(at),
            is_read: high >> 62 & 1 != 0,
            reason: (high >> 32) as u8,
        };
        let rest = high & !(3 << 62 | 0xff << 32 | 0xffff);
        assert_eq!(rest, 0, "address type, PASID and reserved bits");
        self.set32(at + 12, 1 << 31);
        Some(record)
    }

    /// Takes the only fault there is.
    pub(crate) fn take_fault(&self) -> Record {
        let status = self.get32(FSTS);
        assert_eq!(status & 0xff, PPF, "one is pending");
        let index = u64::from(status >> 8);
        let record = self.take_record(index).unwrap();
        assert_eq!(self.get32(FSTS) & 0xff, 0, "it was the only one");
        record
    }

    pub(crate) fn records(&self) -> u64 {
        (self.get64(CAP) >> 24 & 0x3ff) * 16
    }

    /// The register IVA; IOTLB is after it.
    pub(crate) fn iva(&self) -> u64 {
        (self.get64(ECAP) >> 8 & 0x3ff) * 16
    }

    /// The messages that were sent since the last call.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().try_iter().collect()
    }
}

/// A fault recording register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) source: u16,
    pub(crate) addr: u64,
    pub(crate) is_read: bool,
    pub(crate) reason: u8,
}

pub(crate) fn context_all() -> [u64; 2] {
    [1 | 1 << 4, 0]
}

pub(crate) fn context_device(id: u16, source: u16, mask: u64) -> [u64; 2] {
    [1 | 3 << 4 | u64::from(id) << 16 | u64::from(source) << 32 | mask << 48, 0]
}

pub(crate) fn iotlb_all() -> [u64; 2] {
    [2 | 1 << 4 | 3 << 6, 0]
}

pub(crate) fn iotlb_domain(id: u16) -> [u64; 2] {
    [2 | 2 << 4 | 3 << 6 | u64::from(id) << 16, 0]
}

/// 2^mask pages from `addr` on.
pub(crate) fn iotlb_pages(id: u16, addr: u64, mask: u64) -> [u64; 2] {
    [2 | 3 << 4 | 3 << 6 | u64::from(id) << 16, addr | mask]
}

/// A wait descriptor that writes `stamp` to [`STATUS`].
pub(crate) fn wait(stamp: u32) -> [u64; 2] {
    [5 | 1 << 5 | u64::from(stamp) << 32, STATUS]
}

/// Waits until `is_true` holds.
///
/// # Panics
/// If it does not in time.
pub(crate) fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}
