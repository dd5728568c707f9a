//! The cost of an access to memory that its owner may take away, compared with trusted memory.
//!
//! `cargo run --release -p gasp --example guarded`
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may panic")]

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Instant;

use gasp::{Adopt, DeviceAddr, Guest, MapFlags, Mapping, MemoryObject, Residency};
use rustix::fs::MemfdFlags;

const LEN: u64 = 1 << 20;

fn main() {
    let mapping = |trusted| {
        let fd = rustix::fs::memfd_create("guarded", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, LEN).unwrap();
        let how = Adopt { trusted, residency: Residency::Resident, ..Adopt::new("guarded", LEN) };
        let guest = Guest::builder().build().unwrap();
        guest.space().add_ram(None, &MemoryObject::adopt(fd, how).unwrap()).unwrap();
        guest.vdev("disk").unwrap().map(DeviceAddr(0), LEN, MapFlags::RW).unwrap()
    };
    let (ours, theirs) = (mapping(true), mapping(false));
    println!("ns for one access; trusted, guarded");
    show("load of 8 bytes", &ours, &theirs, |it| {
        drop(black_box(it.load::<u64>(64, Ordering::Acquire)))
    });
    show("store of 8 bytes", &ours, &theirs, |it| it.store(64, 1_u64, Ordering::Release).unwrap());
    for len in [8, 64, 512, 4096, 65536] {
        let mut bytes = vec![0; len];
        show(&format!("read of {len} bytes"), &ours, &theirs, |it| {
            it.read_at(0, &mut bytes).unwrap()
        });
    }
}

fn show(what: &str, ours: &Mapping, theirs: &Mapping, mut access: impl FnMut(&Mapping)) {
    let mut best = [f64::MAX; 2];
    for _ in 0..20 {
        for (best, mapping) in best.iter_mut().zip([ours, theirs]) {
            let started = Instant::now();
            for _ in 0..2000 {
                access(black_box(mapping));
            }
            *best = best.min(started.elapsed().as_nanos() as f64 / 2000.0);
        }
    }
    println!("{what:>20}: {:7.1} {:7.1}", best[0], best[1]);
}
