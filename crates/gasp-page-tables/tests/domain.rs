//! A guest whose IOMMU has its tables in guest memory: domains that ask the walkers.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use gasp::{
    Access, DeviceAddr, Domain, DomainOptions, Errno, Guest, GuestPhys, MapFlags, MemoryObject,
    Refusal, Region, Span, Translator, Unattached, Vdev,
};
use gasp_page_tables::{amd, vtd};

const RAM: u64 = 8 << 20;
const ROOT: GuestPhys = GuestPhys(0x1000);

struct Machine {
    guest: Guest,
    tables: Arc<vtd::SecondLevel>,
    domain: Domain,
    disk: Vdev,
}

fn guest() -> Guest {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(None, &MemoryObject::ram(RAM).create().unwrap()).unwrap();
    guest
}

fn attached(guest: &Guest, tables: Arc<dyn Translator>) -> (Domain, Vdev) {
    let domain = guest.domain("disk", DomainOptions::ask(tables)).unwrap();
    let disk = guest.vdev("disk").unwrap();
    disk.attach(&domain).unwrap().wait();
    (domain, disk)
}

fn write(guest: &Guest, at: u64, entry: u64) {
    guest.write_firmware(GuestPhys(at), &entry.to_le_bytes()).unwrap();
}

impl Machine {
    /// Three levels at 0x1000, 0x2000 and 0x3000; the lowest translates the first 2 MiB.
    fn new() -> Self {
        let guest = guest();
        write(&guest, 0x1000, 0x2000 | 3);
        write(&guest, 0x2000, 0x3000 | 3);
        let table = vtd::Table { root: ROOT, levels: vtd::Levels::Three };
        let unit = vtd::Capabilities::new(guest.address_width());
        let tables = Arc::new(vtd::SecondLevel::new(unit, table));
        let (domain, disk) = attached(&guest, Arc::clone(&tables) as _);
        Self { guest, tables, domain, disk }
    }

    fn write(&self, at: u64, entry: u64) {
        write(&self.guest, at, entry);
    }

    /// The guest-physical address that a map of `addr` reaches.
    fn reached(&self, addr: u64, flags: MapFlags) -> Option<u64> {
        reached(&self.disk, addr, flags)
    }

    /// The reason of the fault that a map of `addr` records.
    fn fault(&self, addr: u64, flags: MapFlags) -> u32 {
        fault(&self.guest, &self.disk, addr, flags)
    }
}

fn reached(disk: &Vdev, addr: u64, flags: MapFlags) -> Option<u64> {
    disk.map(DeviceAddr(addr), 16, flags).ok().map(|mapping| mapping.object_offset())
}

fn fault(guest: &Guest, disk: &Vdev, addr: u64, flags: MapFlags) -> u32 {
    let error = disk.map(DeviceAddr(addr), 16, flags).unwrap_err();
    assert_eq!(error.errno(), Errno::FAULT);
    let faults = guest.take_faults().records;
    assert_eq!((faults.len(), faults[0].addr), (1, DeviceAddr(addr)));
    match faults[0].refusal {
        Refusal::Translator { reason } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_device_reaches_what_the_tables_say_until_they_are_invalidated() {
    let machine = Machine::new();
    machine.write(0x3000 + 5 * 8, 0x8000 | 3);
    assert_eq!(machine.reached(0x5010, MapFlags::RW), Some(0x8010));
    assert_eq!(machine.fault(0x6010, MapFlags::READ), 6);
    // What was not there is asked for again, without an invalidation.
    machine.write(0x3000 + 6 * 8, 0x9000 | 1);
    assert_eq!(machine.reached(0x6010, MapFlags::READ), Some(0x9010));
    assert_eq!(machine.fault(0x6010, MapFlags::WRITE), 5);

    let held = machine.disk.map(DeviceAddr(0x5000), 4096, MapFlags::WRITE).unwrap();
    machine.write(0x3000 + 5 * 8, 0xa000 | 3);
    let mut drain = machine.domain.invalidate(DeviceAddr(0x5000), 4096).unwrap();
    assert!(drain.poll().is_none(), "a mapping is held");
    drop(held);
    assert!(drain.wait().completed());
    assert_eq!(machine.reached(0x5010, MapFlags::RW), Some(0xa010));

    machine.write(0x2000, 0);
    machine.domain.invalidate_all().unwrap().wait();
    assert_eq!(machine.fault(0x5000, MapFlags::WRITE), 5);
    assert_eq!(machine.guest.take_faults().records, []);
}

#[test]
fn a_large_page_is_one_entry_of_the_domain() {
    let machine = Machine::new();
    machine.write(0x2000, 2 << 20 | 0x80 | 1);
    for page in 0..512 {
        let addr = page * 4096;
        assert_eq!(machine.reached(addr, MapFlags::READ), Some((2 << 20) + addr));
    }
    assert_eq!(machine.domain.entries(), 1);
    machine.write(0x2000, 2 << 20 | 0x1000 | 0x80 | 1);
    machine.domain.invalidate(DeviceAddr(0x5000), 4096).unwrap().wait();
    assert_eq!(machine.fault(0x5000, MapFlags::READ), 0xc);
}

#[test]
fn another_table_holds_after_an_invalidation() {
    let machine = Machine::new();
    machine.write(0x3000, 0x8000 | 1);
    assert_eq!(machine.reached(0, MapFlags::READ), Some(0x8000));
    // Four levels, of which the second is the table of before.
    machine.write(0x5000, 0x1000 | 3);
    let table = vtd::Table { root: GuestPhys(0x5000), levels: vtd::Levels::Four };
    machine.tables.set_table(table);
    assert_eq!(machine.tables.table(), table);
    machine.write(0x3000, 0x9000 | 1);
    machine.domain.invalidate_all().unwrap().wait();
    assert_eq!(machine.reached(0, MapFlags::READ), Some(0x9000));
    assert_eq!(machine.fault(1 << 39, MapFlags::READ), 6);
    machine.tables.set_table(vtd::Table { root: ROOT, levels: vtd::Levels::Three });
    assert_eq!(machine.fault(1 << 39, MapFlags::READ), 4);
}

#[test]
fn a_table_is_read_from_system_ram_only() {
    let machine = Machine::new();
    let object = || MemoryObject::ram(2 << 20).create().unwrap();
    let span = |start: u64| Span::new(GuestPhys(start), 2 << 20).unwrap();
    let [rom, window, device, reserved, sealed] = [1_u64, 2, 3, 4, 5].map(|gib| gib << 30);
    let space = machine.guest.space();
    space.add(Region::rom(GuestPhys(rom), &object()).unwrap()).unwrap();
    space.add(Region::pass_through(GuestPhys(window), &object()).unwrap()).unwrap();
    space.add(Region::device(span(device), "net")).unwrap();
    space.add(Region::reserved(span(reserved))).unwrap();
    space.add(Region::ram(GuestPhys(sealed), &object()).unwrap()).unwrap();
    space.set_access(span(sealed), Access::WRITE).unwrap().wait();
    let (nowhere, beyond) = (6 << 30, (1 << 48) - 4096);
    for table in [rom, window, device, reserved, sealed, nowhere, beyond, RAM] {
        machine.write(0x2000, table | 3);
        assert_eq!(machine.fault(0, MapFlags::READ), 7, "{table:#x}");
        let root = vtd::Table { root: GuestPhys(table), levels: vtd::Levels::Four };
        machine.tables.set_table(root);
        assert_eq!(machine.fault(0, MapFlags::READ), 7, "{table:#x}");
        machine.tables.set_table(vtd::Table { root: ROOT, levels: vtd::Levels::Three });
    }
    // Memory that is plugged in later is found.
    machine.write(0x2000, nowhere | 3);
    let plugged = MemoryObject::ram(2 << 20).create().unwrap();
    space.add(Region::ram(GuestPhys(nowhere), &plugged).unwrap()).unwrap();
    machine.write(nowhere, 0x8000 | 1);
    assert_eq!(machine.reached(0, MapFlags::READ), Some(0x8000));
}

#[test]
fn memory_of_the_tables_can_be_removed_at_once() {
    let machine = Machine::new();
    machine.write(0x3000, 0x40_0000 | 1);
    assert_eq!(machine.reached(0, MapFlags::READ), Some(0x40_0000));
    let tables = Span::new(GuestPhys(0), 2 << 20).unwrap();
    let mut drain = machine.guest.space().remove(tables).unwrap();
    assert!(drain.poll().is_some(), "a walk holds nothing");
    machine.domain.invalidate_all().unwrap().wait();
    assert_eq!(machine.fault(0, MapFlags::READ), 7);
}

#[test]
fn a_guest_is_freed_with_its_last_handle_though_it_has_translators() {
    let guest = guest();
    let table = vtd::Table { root: ROOT, levels: vtd::Levels::Three };
    let vtd = Arc::new(vtd::SecondLevel::new(vtd::Capabilities::new(48), table));
    let levels = amd::Levels::from_mode(3).unwrap();
    let table = amd::Table { root: ROOT, levels, access: Access::RW };
    let amd = Arc::new(amd::HostTables::new(table));
    let first = guest.domain("vtd", DomainOptions::ask(Arc::clone(&vtd) as _)).unwrap();
    let second = guest.domain("amd", DomainOptions::ask(Arc::clone(&amd) as _)).unwrap();
    drop((guest, first));
    assert_eq!(Arc::strong_count(&vtd), 2, "a domain keeps its guest");
    drop(second);
    assert_eq!((Arc::strong_count(&vtd), Arc::strong_count(&amd)), (1, 1));
}

#[test]
fn a_map_of_several_pages_reads_the_entries_that_follow() {
    let machine = Machine::new();
    let all = |page: u64| 0x3000 + page * 8;
    // 512 pages, in the reverse order; one of them only for reading, one reserved.
    for page in 0..512 {
        machine.write(all(page), (511 - page) << 12 | 3);
    }
    // What comes after the table looks as if it went on.
    machine.write(all(512), 0x9000 | 3);
    machine.write(all(20), 0x4000 | 1);
    machine.write(all(40), 0x5000 | 3 | 1 << 11);
    let kept = |page: u64, pages: u64, flags| {
        machine.domain.invalidate_all().unwrap().wait();
        let mapped = machine.disk.map_scatter(DeviceAddr(page << 12), pages << 12, flags);
        (
            mapped.map(|scatter| scatter.pieces().len()).map_err(|e| e.errno_name()),
            machine.domain.entries(),
        )
    };
    let (read, both) = (MapFlags::READ, MapFlags::RW);
    assert_eq!(kept(0, 1, both), (Ok(1), 1), "none of a map of one page");
    assert_eq!(kept(0, 8, both), (Ok(8), 8));
    assert_eq!(kept(500, 12, both), (Ok(12), 12), "as far as the table goes");
    assert_eq!(kept(509, 4, both), (Err("EFAULT"), 3));
    assert_eq!(kept(18, 4, read), (Ok(4), 4));
    assert_eq!(kept(18, 4, both), (Err("EFAULT"), 2));
    assert_eq!(kept(38, 4, read), (Err("EFAULT"), 2));
    // Those that follow are what each of them is alone.
    let scatter = machine.disk.map_scatter(DeviceAddr(0), 8 << 12, both).unwrap();
    let offsets: Vec<_> = scatter.pieces().map(|piece| piece.as_ptr() as u64 >> 12).collect();
    assert!(offsets.is_sorted_by(|a, b| *a == b + 1), "{offsets:?}");
}

#[test]
fn amd_tables_are_followed_likewise() {
    let guest = guest();
    let entry = |address: u64, next: u64| address | 3 << 61 | next << 9 | 1;
    write(&guest, 0x1000, entry(0x2000, 2));
    write(&guest, 0x2000, entry(0x3000, 1));
    // 32 KiB at 0x10000: its 8 entries are the same.
    for index in 8..16 {
        write(&guest, 0x3000 + index * 8, entry(0x1_8000 | 0x3000, 7));
    }
    let levels = amd::Levels::from_mode(3).unwrap();
    let table = amd::Table { root: ROOT, levels, access: Access::RW };
    let tables = Arc::new(amd::HostTables::new(table));
    let (domain, disk) = attached(&guest, Arc::clone(&tables) as _);
    for page in 8..16 {
        assert_eq!(reached(&disk, page * 4096, MapFlags::RW), Some(0x1_0000 + page * 4096));
    }
    assert_eq!(fault(&guest, &disk, 0x1_0000, MapFlags::READ), amd::Fault::NotPresent.reason());
    let table = amd::Table { access: Access::READ, ..table };
    tables.set_table(table);
    assert_eq!(tables.table(), table);
    domain.invalidate_all().unwrap().wait();
    assert_eq!(reached(&disk, 8 * 4096, MapFlags::READ), Some(0x1_8000));
    let denied = amd::Fault::Denied.reason();
    assert_eq!(fault(&guest, &disk, 8 * 4096, MapFlags::WRITE), denied);
}

#[test]
fn an_address_wider_than_the_guests_is_refused_though_the_tables_translate_it() {
    let guest = guest();
    let entry = |address: u64| address | 3;
    // Five levels; the same page at 0 and at 2^50.
    write(&guest, 0x1000, entry(0x2000));
    write(&guest, 0x1000 + 4 * 8, entry(0x2000));
    for table in [0x2000, 0x3000, 0x4000] {
        write(&guest, table, entry(table + 0x1000));
    }
    write(&guest, 0x5000, entry(0x8000));
    let table = vtd::Table { root: ROOT, levels: vtd::Levels::Five };
    let tables = Arc::new(vtd::SecondLevel::new(vtd::Capabilities::new(48), table));
    let (_domain, disk) = attached(&guest, Arc::clone(&tables) as _);
    assert_eq!(reached(&disk, 0, MapFlags::RW), Some(0x8000));
    assert!(tables.translate(&guest.page_tables(), DeviceAddr(1 << 50), Access::READ).is_ok());
    let error = disk.map(DeviceAddr(1 << 50), 16, MapFlags::RW).unwrap_err();
    assert_eq!(error.errno_name(), "ENXIO");
    assert_eq!(guest.take_faults().records, []);
}
