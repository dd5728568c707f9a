//! A queue that a hostile driver has laid out, from arbitrary bytes: for the property test, the
//! kept inputs, and the fuzzer.

use std::io::{Read, Write};

use gasp::{
    Access, Backing, DeviceAddr, Domain, DomainKind, DomainOptions, Drain, Guest, GuestPhys,
    MemoryObject, Residency, Unattached,
};
use gasp_vm_memory::{Burst, DeviceMemory};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

const PAGE: u64 = 4096;
const PAGES: u64 = 16;
/// The most chains that are taken: an honest turn of a queue ends, too.
const TURNS: usize = 64;

/// Bytes of an input; zeros past its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// A size that a queue may have mostly, and any number sometimes.
    fn size(&mut self) -> u16 {
        match self.byte() {
            192.. => u16::from(self.byte()) << 8 | u16::from(self.byte()),
            log => 1 << (log % 17).min(15),
        }
    }

    /// An address near memory mostly, and anywhere sometimes.
    fn addr(&mut self) -> u64 {
        match self.byte() {
            255 => self.number(),
            page => u64::from(page) % (PAGES + 1) * PAGE + u64::from(self.byte()) * 16,
        }
    }
}

/// Serves a queue as its driver laid it out: nothing panics, hangs, or is held afterwards, and
/// nothing is written that the device may not write.
///
/// # Panics
/// If something is held after the burst, or was written.
pub(crate) fn serve(bytes: &[u8]) {
    let mut input = Input(bytes);
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let ram = MemoryObject::ram(PAGES * PAGE).prefer(&[Backing::Base]);
    let ram = ram.residency(Residency::OnDemand).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let domain = guest.domain("net", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = guest.vdev("net").unwrap();
    vdev.attach(&domain).unwrap().wait();
    let mut writable = [false; PAGES as usize];
    for page in 0..PAGES {
        let choice = input.byte();
        let access = [Access::empty(), Access::READ, Access::WRITE, Access::RW, Access::RW];
        let access = access[usize::from(choice) % access.len()];
        let target = u64::from(choice >> 4) % PAGES;
        writable[target as usize] |= access.contains(Access::WRITE);
        if !access.is_empty() {
            let (addr, target) = (DeviceAddr(page * PAGE), GuestPhys(target * PAGE));
            domain.grant(addr, target, PAGE, access).unwrap();
        }
    }
    let mut queue = Queue::new(1 << 15).unwrap();
    queue.set_size(input.size());
    let rings = [input.addr(), input.addr(), input.addr()].map(GuestAddress);
    let _ = queue.try_set_desc_table_address(rings[0]);
    let _ = queue.try_set_avail_ring_address(rings[1]);
    let _ = queue.try_set_used_ring_address(rings[2]);
    queue.set_event_idx(input.byte() % 2 == 1);
    queue.set_next_avail(u16::from(input.byte()));
    queue.set_ready(true);
    let revokes = [input.byte(), input.byte(), input.byte()];
    let fill = input.0.repeat((PAGES * PAGE) as usize / input.0.len().max(1));
    if !fill.is_empty() {
        guest.write_firmware(GuestPhys(0), &fill).unwrap();
    }

    let contents = || {
        let mut all = vec![0; (PAGES * PAGE) as usize];
        guest.read_firmware(GuestPhys(0), &mut all).unwrap();
        all
    };
    let before = contents();
    let burst = DeviceMemory::new(vdev.clone()).burst();
    let _ = queue.is_valid(&burst);
    let mut drains = Vec::new();
    turns(&mut queue, &burst, &domain, revokes, &mut drains);
    assert!(burst.held() <= Burst::<gasp::Vdev>::MAX_HELD);
    drop(burst);
    for drain in &mut drains {
        assert!(drain.poll().is_some(), "nothing is held after the burst");
    }
    assert_eq!(vdev.held_by_this_thread(), 0);
    let after = contents();
    let pages = before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize));
    for (page, (before, after)) in pages.enumerate().filter(|(page, _)| !writable[*page]) {
        assert!(before == after, "page {page} was written, and may only be read");
    }
}

fn turns(
    queue: &mut Queue,
    burst: &Burst<gasp::Vdev>,
    domain: &Domain,
    revokes: [u8; 3],
    drains: &mut Vec<Drain>,
) {
    for turn in 0..TURNS {
        let Some(chain) = queue.pop_descriptor_chain(burst) else { break };
        let head = chain.head_index();
        if let Some(&page) = revokes.get(turn) {
            let addr = DeviceAddr(u64::from(page) % PAGES * PAGE);
            drains.extend(domain.revoke(addr, PAGE));
        }
        let mut data = [0; 512];
        let read = chain.clone().reader(burst).ok().and_then(|mut it| it.read(&mut data).ok());
        let written = chain.clone().writer(burst).ok().and_then(|mut it| it.write(&data).ok());
        let descriptors = chain.count();
        assert!(descriptors <= 1 << 16, "a chain ends");
        let written = written.or(read).unwrap_or(0);
        if queue.add_used(burst, head, written as u32).is_err() {
            break;
        }
        let _ = queue.needs_notification(burst);
    }
    let _ = queue.disable_notification(burst);
    let _ = queue.enable_notification(burst);
}
