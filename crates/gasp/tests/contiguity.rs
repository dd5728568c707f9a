//! RAM that is placed in the order of its frames, and the views of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;
#[path = "support/trials.rs"]
mod trials;

use std::path::Path;

use gasp::config::Config;
use gasp::{
    Adopt, Backing, Contiguity, DeviceAddr, DomainKind, Guest, GuestPhys, MapFlags, MemoryObject,
    Region, RegionKind, Residency, Seals, Unattached,
};
use libtest_mimic::Arguments;
use support::*;
use trials::*;

const LEN: u64 = 16 * HUGE;
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn main() {
    let mut trials = Vec::new();
    for kind in [Backing::Huge2M, Backing::Thp] {
        let lacks = [frames(), backing(kind, LEN)];
        let mut add = |name: &str, body: fn(Backing)| {
            trials.push(trial(format!("{name} ({kind})"), &lacks, move || body(kind)));
        };
        add("placed_memory_is_never_in_more_runs_than_before", fewer_runs);
        add("every_view_of_placed_memory_shows_the_same_bytes", same_bytes);
        add("a_demand_that_cannot_be_met_is_enomem_and_a_wish_is_not", demand_and_wish);
    }
    let lacks = [frames(), backing(Backing::Huge2M, 2 * LEN)];
    trials.push(trial("spare_pages_go_back_to_the_pool", &lacks, spares_go_back));
    let name = "spare_pages_that_would_exceed_the_file_size_limit_are_not_taken";
    trials.push(trial(name, &lacks, spares_under_a_limit));
    trials.push(trial("a_configuration_demands_and_wishes", &[frames()], configured));
    trials.push(trial("memory_on_demand_cannot_be_placed", &[], on_demand));
    trials.push(trial("exclusive_memory_is_written_by_nobody_else", &[], exclusive));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Takes pages out of the pool and returns them in another order, so that the next ones are
/// not in order.
fn shuffle(kind: Backing) {
    let take = |len| MemoryObject::ram(len).prefer(&[kind]).residency(Residency::Resident).create();
    let mut held: Vec<_> = (0..LEN / HUGE).filter_map(|_| take(HUGE).ok()).collect();
    let mut random = Random::new(11);
    while !held.is_empty() {
        held.swap_remove(random.below(held.len() as u64) as usize);
    }
}

fn placed(kind: Backing, wanted: Contiguity) -> gasp::Result<MemoryObject> {
    shuffle(kind);
    MemoryObject::ram(LEN).prefer(&[kind]).host_contiguous(wanted).create()
}

fn fewer_runs(kind: Backing) {
    let ram = placed(kind, Contiguity::IfPossible(LEN)).unwrap();
    let placement = ram.backing().placement.expect("addresses are known");
    println!("{kind}: {placement:?}");
    let (before, after) = (placement.before, placement.after);
    assert!(after.count <= before.count, "{placement:?}");
    let runs: Vec<u64> = ram.host_extents().map(|extent| extent.len).collect();
    assert_eq!(after.count, runs.len() as u64, "the report describes the memory");
    assert_eq!(Some(after.shortest), runs.iter().copied().min());
    assert_eq!(Some(after.longest), runs.iter().copied().max());
    let pieces = ram.file_extents().unwrap().1;
    if ram.file().is_none() {
        let addrs: Vec<_> = ram.host_extents().map(|extent| extent.addr.unwrap()).collect();
        assert!(addrs.is_sorted(), "in the order of frames");
        assert!(pieces.len() > 1);
    }
    assert_eq!(ram.audit().unwrap().changes, vec![]);
}

fn same_bytes(kind: Backing) {
    let ram = placed(kind, Contiguity::IfPossible(LEN)).unwrap();
    number_pages(&ram, 5);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut bytes = [0; 8];
    // Through a second mapping, in the object's order.
    let alias = ram.alias().unwrap();
    // And through the file, as another process that was sent the pieces would.
    let (fd, pieces) = ram.file_extents().unwrap();
    assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), LEN);
    let mut end = 0;
    for piece in pieces {
        assert_eq!(piece.offset, end, "no gap and no overlap");
        end += piece.len;
        let region =
            |len| Region::memory(RegionKind::Ram, span(0, len), &ram, piece.offset).unwrap();
        let offset = |region: Region| region.file().map(|(_, offset)| offset);
        assert_eq!(offset(region(piece.len)), Some(piece.file_offset));
        assert!(end == LEN || offset(region(piece.len + PAGE)).is_none(), "not one piece");
        let how = Adopt { offset: piece.file_offset, ..whole(piece.len) };
        let peer = MemoryObject::adopt(fd.try_clone_to_owned().unwrap(), how).unwrap();
        for offset in (0..piece.len).step_by(HUGE as usize) {
            let page = (piece.offset + offset) / PAGE;
            peer.read_at(offset, &mut bytes).unwrap();
            assert_eq!(word(&bytes), numbered(5, page), "piece at {:#x}", piece.offset);
            alias.read_at(piece.offset + offset, &mut bytes).unwrap();
            assert_eq!(word(&bytes), numbered(5, page));
        }
    }
    stitched(&ram);
}

/// Maps the chunks of guest memory in reverse order, side by side.
fn stitched(ram: &MemoryObject) {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), ram).unwrap();
    let (disk, domain) = device(&guest, "disk", DomainKind::Translate);
    for index in 0..LEN / HUGE {
        let from = GuestPhys(LEN - (index + 1) * HUGE);
        domain.grant(DeviceAddr(index * HUGE), from, HUGE, gasp::Access::RW).unwrap();
    }
    let whole = disk.map_stitched(DeviceAddr(0), LEN, MapFlags::READ).unwrap();
    let scatter = whole.scatter();
    for index in 0..LEN / HUGE {
        let page = (LEN - (index + 1) * HUGE) / PAGE;
        let mut bytes = [0; 8];
        scatter.read_at((index * HUGE) as usize, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), numbered(5, page));
        assert_eq!(peek(whole.as_ptr().addr() as u64 + index * HUGE), numbered(5, page));
    }
    // Across a boundary, part of a chunk on either side.
    let part = disk.map_stitched(DeviceAddr(HUGE - PAGE), 2 * PAGE, MapFlags::READ).unwrap();
    let page = (LEN - HUGE) / PAGE + 511;
    assert_eq!(peek(part.as_ptr().addr() as u64), numbered(5, page));
}

/// The word at an address of this process, read by the kernel.
fn peek(addr: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 8];
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, addr).unwrap();
    u64::from_le_bytes(bytes)
}

fn demand_and_wish(kind: Backing) {
    // A single run of this length may not exist on this host.
    let runs = placed(kind, Contiguity::IfPossible(LEN)).unwrap();
    let shortest = runs.backing().placement.unwrap().after.shortest;
    drop(runs);
    match placed(kind, Contiguity::AtLeast(LEN)) {
        Ok(ram) => assert_eq!(ram.host_extents().count(), 1),
        Err(error) => {
            assert_eq!(error.errno_name(), "ENOMEM");
            assert!(error.to_string().contains("host-contiguous"), "{error}");
        }
    }
    if shortest >= HUGE {
        let ram = placed(kind, Contiguity::AtLeast(HUGE)).unwrap();
        assert!(ram.host_extents().all(|extent| extent.len >= HUGE));
    }
    // The next backing is tried if the first cannot meet the demand.
    let prefer = [Backing::Base, kind];
    let ram = MemoryObject::ram(LEN).prefer(&prefer).host_contiguous(Contiguity::AtLeast(HUGE));
    if let Ok(ram) = ram.create() {
        assert!(ram.host_extents().all(|extent| extent.len >= HUGE));
        assert_eq!(ram.backing().obtained == kind, !ram.backing().passed_over.is_empty());
    }
}

fn spares_go_back() {
    let free = || -> u64 {
        let number = |file: &str| std::fs::read_to_string(format!("{POOL}/{file}")).unwrap();
        let number = |file| number(file).trim().parse::<u64>().unwrap();
        number("free_hugepages") - number("resv_hugepages")
    };
    let before = free();
    let ram = placed(Backing::Huge2M, Contiguity::IfPossible(LEN)).unwrap();
    println!("{:?}", ram.backing().placement);
    assert_eq!(before - free(), LEN / HUGE, "no more than it needs");
    ram.write_at(0, &vec![1; LEN as usize]).unwrap();
    drop(ram);
    assert_eq!(free(), before);
}

fn spares_under_a_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(LEN), ..before }).unwrap();
    let ram = placed(Backing::Huge2M, Contiguity::IfPossible(LEN));
    setrlimit(Resource::Fsize, before).unwrap();
    let placement = ram.unwrap().backing().placement.unwrap();
    assert_eq!(placement.spare_pages, 0, "{placement:?}");
}

fn configured() {
    let guest = |wanted: &str| {
        let text =
            format!("[[ram]]\nsize = \"8M\"\nbacking = [\"4K\"]\nhost-contiguous = {wanted:?}");
        Config::parse(&text, Path::new("guest.toml")).unwrap().build(None)
    };
    let wish = guest("if possible 1G").unwrap();
    let region = &wish.space().regions()[0];
    let placement = region.object().unwrap().backing().placement.unwrap();
    assert!(placement.after.count >= 1);
    if placement.after.count > 1 {
        let refused = guest("at least 1G").unwrap_err();
        assert_eq!((refused.line(), refused.errno()), (Some(2), gasp::Errno::NOMEM));
        assert!(refused.to_string().contains("host-contiguous"), "{refused}");
    }
    let wrong = "[[ram]]\nsize = \"8M\"\nhost-contiguous = \"16M\"";
    let wrong = Config::parse(wrong, Path::new("guest.toml")).unwrap_err();
    assert!(wrong.to_string().contains("at least"), "{wrong}");
    let pins = "[[ram]]\nsize = \"8M\"\npin = [\"pipe\"]\nexclusive = true";
    assert!(Config::parse(pins, Path::new("guest.toml")).is_ok());
}

fn on_demand() {
    let ram = MemoryObject::ram(LEN).residency(Residency::OnDemand);
    assert_eq!(errno(ram.host_contiguous(Contiguity::IfPossible(HUGE)).create()), "EINVAL");
}

fn exclusive() {
    let ram = MemoryObject::ram(4 * PAGE).prefer(&[Backing::Base]).exclusive(true);
    let ram = ram.create().unwrap();
    assert_eq!(ram.seals(), Seals::SHRINK | Seals::GROW | Seals::FUTURE_WRITE);
    ram.write_at(0, b"ours").unwrap();
    let (fd, _) = ram.file().unwrap();
    let clone = || fd.try_clone_to_owned().unwrap();
    assert_eq!(errno(MemoryObject::adopt(clone(), whole(4 * PAGE))), "EACCES");
    let how = Adopt { access: gasp::Access::READ, ..whole(4 * PAGE) };
    let peer = MemoryObject::adopt(clone(), how).unwrap();
    let mut bytes = [0; 4];
    peer.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"ours");
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    let punched = rustix::fs::fallocate(fd, flags, 0, PAGE);
    assert_eq!(punched, Err(rustix::io::Errno::PERM));
}
