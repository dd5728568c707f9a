//! Tables of arbitrary bytes, walked and mapped through: for the property test, the kept inputs, and
//! the fuzzer.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use gasp::{
    Access, Backing, DeviceAddr, Domain, DomainOptions, Guest, GuestPhys, MapFlags, MemoryObject,
    Refusal, Translation, TranslationFault, Translator, Unattached, Vdev,
};
use gasp_page_tables::{EntryReader, amd, vtd};

/// The guest has so much memory, at 0: all of it tables.
const RAM: u64 = 64 << 10;
/// The bytes of an input before those of the tables.
const HEAD: usize = 16;

/// Counts the entries that are read.
struct Counting<'a>(&'a Guest, Cell<u32>);

impl EntryReader for Counting<'_> {
    fn entry(&self, addr: GuestPhys) -> Option<u64> {
        self.1.set(self.1.get() + 1);
        assert!(self.1.get() <= 6, "a walk reads one entry for each level");
        self.0.entry(addr)
    }
}

/// Walks tables of `bytes`, and maps what they lead to: nothing panics or hangs, a page is one that
/// a domain takes, and a device reaches what the walk has found, or gets the walk's reason.
///
/// # Panics
/// If one of these does not hold.
pub(crate) fn serve(bytes: &[u8]) {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    let guest = GUEST.get_or_init(guest);
    let mut head = [0; HEAD];
    let (first, tables) = bytes.split_at(bytes.len().min(HEAD));
    head[..first.len()].copy_from_slice(first);
    let [kind, levels, width, flags, access, page, root, mapped, rest @ ..] = head;
    let addr = u64::from_le_bytes(rest);
    let fill = tables.repeat(RAM as usize / tables.len().max(1));
    if !fill.is_empty() {
        guest.write_firmware(GuestPhys(0), &fill).unwrap();
    }
    let access = Access::from_bits_truncate(access);
    let root = GuestPhys(u64::from(root % 18) << 12 | u64::from(page));
    let has = |bit: u8| flags & 1 << bit != 0;
    // The address as it is, and with fewer bits, which the tables are more likely to translate.
    for (turn, narrow) in [0, 7, 16, 25, 40].into_iter().enumerate() {
        // One of them is mapped as well, which takes longer.
        let mapped = turn == usize::from(mapped % 5);
        let addr = DeviceAddr(addr >> narrow);
        let count = Counting(guest, Cell::new(0));
        if kind % 2 == 0 {
            let unit = vtd::Capabilities {
                host_address_width: u32::from(width),
                guest_address_width: 30 + u32::from(flags >> 4) * 2,
                pages_2m: has(0),
                pages_1g: has(1),
                snoop_control: has(2),
                device_tlb: has(3),
            };
            let levels = vtd::Levels::from_aw(1 + levels % 3).unwrap();
            let table = vtd::Table { root, levels };
            let found = vtd::walk(&count, &unit, table, addr, access);
            let tables = Arc::new(vtd::SecondLevel::new(unit, table));
            check((guest, mapped), tables, addr, access, found.map_err(Into::into));
        } else {
            let levels = amd::Levels::from_mode(1 + levels % 6).unwrap();
            let table = amd::Table { root, levels, access: Access::from_bits_truncate(flags) };
            let found = amd::walk(&count, table, addr, access);
            let tables = Arc::new(amd::HostTables::new(table));
            check((guest, mapped), tables, addr, access, found.map_err(Into::into));
        }
    }
}

fn guest() -> Guest {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let ram = MemoryObject::ram(RAM).prefer(&[Backing::Base]).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    guest
}

/// Checks what a walk has found, by itself and, if it is `mapped`, against what a device of the guest
/// reaches through the same tables.
fn check(
    (guest, mapped): (&Guest, bool),
    tables: Arc<dyn Translator>,
    addr: DeviceAddr,
    access: Access,
    found: Result<Translation, TranslationFault>,
) {
    assert_eq!(tables.translate(&guest.page_tables(), addr, access), found);
    if let Ok(Translation { size, guest: page, access: allowed }) = found {
        assert!(size.is_power_of_two() && size >= 4096, "{size:#x}");
        assert!(page.is_aligned(size), "{page} {size:#x}");
        assert!(page.0 + (size - 1) < 1 << 52, "{page} {size:#x}");
        assert!(!allowed.is_empty() && allowed.contains(access), "{allowed} {access}");
    }
    if let (true, Ok(flags)) = (mapped, MapFlags::new(access))
        && addr.0 >> guest.address_width() == 0
    {
        let domain = guest.domain("disk", DomainOptions::ask(tables)).unwrap();
        let disk = guest.vdev("disk").unwrap();
        disk.attach(&domain).unwrap().wait();
        map(guest, &disk, addr, flags, found);
        remove(disk, domain);
    }
}

fn map(
    guest: &Guest,
    disk: &Vdev,
    addr: DeviceAddr,
    flags: MapFlags,
    found: Result<Translation, TranslationFault>,
) {
    let mapped = disk.map(addr, 1, flags).map(|mapping| mapping.object_offset());
    let faults = guest.take_faults().records;
    match found {
        Ok(Translation { size, guest: page, .. }) => {
            let target = page.0 + (addr.0 & (size - 1));
            assert_eq!(faults, []);
            assert_eq!(mapped.ok(), (target < RAM).then_some(target), "{addr}");
        }
        Err(TranslationFault { reason, .. }) => {
            assert!(mapped.is_err(), "{addr}");
            assert_eq!(faults[0].refusal, Refusal::Translator { reason });
        }
    }
}

fn remove(disk: Vdev, domain: Domain) {
    disk.remove().wait();
    domain.remove().unwrap();
}
