//! Memory slots, which come and go while the guest runs.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use gasp::{Access, DeviceAddr, Errno, Guest, GuestPhys, MapFlags, Region, Span};
use gasp_vm::{BusDevice, End, Failure, Interrupts, Running, layout};
use parking_lot::Mutex;

use crate::support::{Flat, PATIENCE, POWER_OFF, Registers, Trials, ram};

pub(crate) fn trials() -> Trials {
    vec![
        ("memory_that_is_added_is_the_guests_at_once", added),
        ("memory_that_is_removed_is_gone_and_kept_for_its_holders", removed),
        ("a_write_to_rom_exits_and_changes_nothing", rom),
        ("memory_that_may_not_be_read_has_no_slot", unreadable),
        ("a_region_that_is_split_and_merged_is_never_missing", split),
        ("a_device_may_change_the_regions", from_a_device),
        ("memory_that_its_owner_takes_away_hurts_the_guest_alone", taken_away),
        ("ram_is_placed_around_the_hole", around_the_hole),
        ("a_vm_that_ends_leaves_the_guest", leaves),
    ]
}

/// Reads an address from port 0x510, and writes what is there to 0x514; then stores 0x12345678
/// there, and reads and reports it once more. Address 0 is the end.
const PROBE: &[u8] = &[
    // again:
    0x66, 0xba, 0x10, 0x05, // mov dx, 0x510
    0xed, // in eax, dx
    0x85, 0xc0, // test eax, eax
    0x74, 0x17, // jz end
    0x89, 0xc6, // mov esi, eax
    0x66, 0xba, 0x14, 0x05, // mov dx, 0x514
    0x8b, 0x06, // mov eax, [esi]
    0xef, // out dx, eax
    0xb8, 0x78, 0x56, 0x34, 0x12, // mov eax, 0x12345678
    0x89, 0x06, // mov [esi], eax
    0x31, 0xc0, // xor eax, eax
    0x8b, 0x06, // mov eax, [esi]
    0xef, // out dx, eax
    0xeb, 0xe0, // jmp again
          // end:
];
const STORED: u32 = 0x1234_5678;
const ONES: u32 = 0xffff_ffff;

struct Prober {
    addrs: Mutex<Receiver<u32>>,
    values: Sender<u32>,
}

impl BusDevice for Prober {
    fn read(&self, _: u64, data: &mut [u8]) {
        let addr = self.addrs.lock().recv().unwrap_or(0);
        data.copy_from_slice(&addr.to_le_bytes());
    }
    fn write(&self, _: u64, data: &[u8]) {
        let _ = self.values.send(u32::from_le_bytes(data.try_into().unwrap()));
    }
}

/// A running guest that touches memory as it is told.
struct Probed {
    /// Dropped first, so that the guest waits for nothing more.
    addrs: Sender<u32>,
    values: Receiver<u32>,
    running: Running,
    flat: Flat,
}

impl Probed {
    fn new() -> Self {
        let flat = Flat::new(Interrupts::Kernel, &[PROBE, POWER_OFF]);
        let ((addrs, receiver), (sender, values)) = (channel(), channel());
        let prober = Prober { addrs: Mutex::new(receiver), values: sender };
        flat.machine.ports().add(0x510, 8, Arc::new(prober)).unwrap();
        let running = flat.start();
        Self { flat, running, addrs, values }
    }

    /// What the guest reads at an address, and reads there again after it has stored its number.
    fn touch(&self, addr: u32) -> (u32, u32) {
        self.addrs.send(addr).unwrap();
        let value = || self.values.recv_timeout(PATIENCE).unwrap();
        (value(), value())
    }

    fn end(self) {
        self.addrs.send(0).unwrap();
        assert_eq!(self.running.wait_for(PATIENCE), Some(End::PowerOff));
    }
}

fn value_at(guest: &Guest, addr: u32) -> u32 {
    let mut value = [0; 4];
    guest.read_firmware(GuestPhys(addr.into()), &mut value).unwrap();
    u32::from_le_bytes(value)
}

fn added() {
    let probed = Probed::new();
    let guest = &probed.flat.guest;
    let addr = 0x4000_0ffe;
    assert_eq!(probed.touch(addr), (ONES, ONES), "nothing is there");
    let base = GuestPhys(0x4000_0000);
    guest.space().add_ram(Some(base), &ram(2 << 20)).unwrap();
    assert_eq!(probed.touch(addr), (0, STORED));
    assert_eq!(value_at(guest, addr), STORED);
    guest.write_firmware(GuestPhys(addr.into()), &[1, 0, 0, 0]).unwrap();
    assert_eq!(probed.touch(addr), (1, STORED));
    let mmio = probed.running.exits().mmio;
    assert_eq!(mmio, 3 * 2, "an access across a page that nobody has is two");
    probed.end();
}

fn removed() {
    let probed = Probed::new();
    let guest = &probed.flat.guest;
    let (addr, base) = (0x4000_0000, GuestPhys(0x4000_0000));
    guest.space().add_ram(Some(base), &ram(2 << 20)).unwrap();
    assert_eq!(probed.touch(addr), (0, STORED));
    let disk = guest.vdev("disk").unwrap();
    let held = disk.map(DeviceAddr(base.0), 4096, MapFlags::RW).unwrap();
    let span = Span::new(base, 2 << 20).unwrap();
    let mut drain = guest.space().remove(span).unwrap();
    assert_eq!(probed.touch(addr), (ONES, ONES), "the slot is gone before the drain ends");
    assert!(drain.poll().is_none(), "a mapping is held");
    assert_eq!(held.read_obj::<u32>(0).unwrap(), STORED, "and its memory is there");
    drop(held);
    assert!(drain.wait().completed());
    guest.space().add_ram(Some(base), &ram(2 << 20)).unwrap();
    assert_eq!(probed.touch(addr), (0, STORED), "other memory at the same place");
    probed.end();
}

fn rom() {
    let probed = Probed::new();
    let guest = &probed.flat.guest;
    let (addr, base) = (0x4000_0004, GuestPhys(0x4000_0000));
    let object = ram(2 << 20);
    guest.space().add_rom(Some(base), &object).unwrap();
    let device = Arc::new(Registers::default());
    probed.flat.machine.mmio().add(base.0, 32, device.clone()).unwrap();
    assert_eq!(probed.touch(addr), (0, 0));
    assert_eq!(*device.log.lock(), [('w', 4, 4)], "reads are of the memory");
    probed.flat.machine.mmio().remove(base.0).unwrap();
    assert_eq!(probed.touch(addr), (0, 0), "nobody takes the write");
    probed.end();
}

fn unreadable() {
    let probed = Probed::new();
    let guest = &probed.flat.guest;
    let base = GuestPhys(0x4000_0000);
    let object = ram(2 << 20);
    let region = Region::ram(base, &object).unwrap().restricted(Access::WRITE);
    guest.space().add(region).unwrap();
    assert_eq!(probed.touch(0x4000_0000), (ONES, ONES));
    let span = Span::new(base, 2 << 20).unwrap();
    drop(guest.space().set_access(span, Access::RW).unwrap());
    assert_eq!(probed.touch(0x4000_0000), (0, STORED));
    drop(guest.space().set_access(span, Access::READ).unwrap());
    assert_eq!(probed.touch(0x4000_0000), (STORED, STORED), "read-only");
    probed.end();
}

/// Counts at 0x2000, and powers off if the count is not what it was.
const COUNT: &[u8] = &[
    0x31, 0xdb, // xor ebx, ebx
    0xbe, 0x00, 0x20, 0x00, 0x00, // mov esi, 0x2000
    // again:
    0x89, 0x1e, // mov [esi], ebx
    0x3b, 0x1e, // cmp ebx, [esi]
    0x75, 0x0b, // jne end
    0x43, // inc ebx
    0xeb, 0xf7, // jmp again
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, // end: nop
];

fn split() {
    let flat = Flat::new(Interrupts::Kernel, &[COUNT, POWER_OFF]);
    let running = flat.start();
    let part = Span::new(GuestPhys(0x10_0000), 0x1000).unwrap();
    let until = Instant::now() + Duration::from_millis(500);
    let mut changes = 0;
    while Instant::now() < until {
        let before = value_at(&flat.guest, 0x2000);
        for access in [Access::READ, Access::RWX] {
            drop(flat.guest.space().set_access(part, access).unwrap());
        }
        let pieces = flat.guest.space().regions().len();
        assert_eq!(pieces, 1, "merged again");
        changes += 1;
        while value_at(&flat.guest, 0x2000) == before && Instant::now() < until {
            assert_eq!(running.wait_for(Duration::ZERO), None);
        }
    }
    assert!(changes > 10, "{changes}");
    assert_eq!(running.wait_for(Duration::ZERO), None);
    assert_eq!(running.exits().mmio, 0);
}

/// Splits a region while its vCPU waits for the access to be done.
struct Splits(Guest);

impl BusDevice for Splits {
    fn read(&self, _: u64, data: &mut [u8]) {
        let part = Span::new(GuestPhys(0x10_0000), 0x1000).unwrap();
        drop(self.0.space().set_access(part, Access::READ).unwrap());
        data.fill(7);
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

fn from_a_device() {
    const GUEST: &[u8] = &[
        0xe4, 0x70, // in al, 0x70
        0xa2, 0x00, 0x20, 0x00, 0x00, // mov [0x2000], al
    ];
    let flat = Flat::new(Interrupts::Kernel, &[GUEST, POWER_OFF]);
    let device = Arc::new(Splits(flat.guest.clone()));
    flat.machine.ports().add(0x70, 1, device).unwrap();
    let _running = flat.run();
    assert_eq!(value_at(&flat.guest, 0x2000), 7);
    assert_eq!(flat.guest.space().regions().len(), 3);
}

fn taken_away() {
    let probed = Probed::new();
    let guest = &probed.flat.guest;
    let (addr, base) = (0x4000_0000, GuestPhys(0x4000_0000));
    // A file that cannot be sealed.
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 << 20).unwrap();
    let mut adopt = gasp::Adopt::new("shared", 2 << 20);
    adopt.residency = gasp::Residency::OnDemand;
    let object = gasp::MemoryObject::adopt(file.try_clone().unwrap().into(), adopt).unwrap();
    guest.space().add_ram(Some(base), &object).unwrap();
    assert_eq!(probed.touch(addr), (0, STORED));
    file.set_len(0).unwrap();
    probed.addrs.send(addr).unwrap();
    // A KVM that emulates the access finds no memory there; another one fails.
    if probed.values.recv_timeout(PATIENCE) == Ok(ONES) {
        return;
    }
    let end = probed.running.wait_for(PATIENCE);
    let fault = Failure::Call("KVM_RUN", Errno::FAULT);
    assert!(matches!(&end, Some(End::Failed { why, .. }) if *why == fault), "{end:?}");
}

fn around_the_hole() {
    let guest = Guest::builder().build().unwrap();
    let machine = gasp_vm::Machine::builder().build(&guest).unwrap();
    // Never touched: it takes no memory.
    let object = gasp::MemoryObject::ram((3 << 30) + (2 << 20))
        .residency(gasp::Residency::OnDemand)
        .prefer(&[gasp::Backing::Base])
        .create()
        .unwrap();
    layout::add_ram(&guest, &object).unwrap();
    let spans: Vec<_> =
        guest.space().regions().iter().map(|it| (it.span().start(), it.span().len())).collect();
    assert_eq!(spans, [(GuestPhys(0), 3 << 30), (layout::HIGH, 2 << 20)]);
    let taken = layout::add_ram(&guest, &ram(2 << 20)).unwrap_err();
    assert_eq!(taken.errno_name(), "EEXIST");
    drop(machine);
}

fn leaves() {
    let flat = Flat::new(Interrupts::None, &[POWER_OFF]);
    drop(flat.run());
    let Flat { guest, machine } = flat;
    drop(machine);
    // Nobody listens any more: more regions than KVM has slots are no error.
    let many = gasp::MemoryObject::ram(33_000 * 4096)
        .residency(gasp::Residency::OnDemand)
        .prefer(&[gasp::Backing::Base])
        .create()
        .unwrap();
    guest.space().add_ram(Some(layout::HIGH), &many).unwrap();
    let lock = guest.space().lock().unwrap();
    for page in (0..33_000).step_by(2) {
        let span = Span::new(GuestPhys(layout::HIGH.0 + page * 4096), 4096).unwrap();
        drop(lock.set_access(span, Access::READ).unwrap());
    }
    drop(lock);
    let refused = gasp_vm::Machine::builder().build(&guest).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("no memory slot left"), "{text}");
}
