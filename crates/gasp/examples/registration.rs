//! The cost of registering RAM, for each GiB: to map, populate and pin it and to read its frame
//! numbers, compared with the bare system calls; and the cost of an audit.
//!
//! `cargo run --release -p gasp --example registration [MiB]`, as root; for pages of 2 MiB the
//! pool must be twice as large.
#![allow(unsafe_code, reason = "makes the bare system calls")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "an address and its use")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may panic")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use gasp::PinMethod;
use gasp::{Backing, Contiguity, MemoryObject, Residency};
use io_uring::IoUring;
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

const ROUNDS: usize = 7;
const HUGE: usize = 2 << 20;

fn main() {
    let mib = std::env::args().nth(1).map_or(1024, |mib| mib.parse().expect("a number of MiB"));
    let len: usize = mib << 20;
    assert!(len.is_multiple_of(HUGE), "an even number of MiB");
    println!("{mib} MiB; the minimum of {ROUNDS} rounds, in ms for each GiB");
    for backing in [Backing::Huge2M, Backing::Thp, Backing::Base] {
        let prefer = [backing];
        let ram = || MemoryObject::ram(len as u64).prefer(&prefer);
        if let Err(error) = ram().create() {
            println!("{backing:>4}: {error}");
            continue;
        }
        let mut ours = Duration::MAX;
        let mut pipe = Duration::MAX;
        let mut bare = Duration::MAX;
        let mut audit = Duration::MAX;
        for _ in 0..ROUNDS {
            bare = bare.min(timed(|| bare_calls(backing, len)));
            let started = Instant::now();
            let object = ram().create().unwrap();
            ours = ours.min(started.elapsed());
            audit = audit.min(timed(|| assert!(object.audit().unwrap().changes.is_empty())));
            drop(object);
            let started = Instant::now();
            let object = ram().pin(&[PinMethod::Pipe]).create().unwrap();
            pipe = pipe.min(started.elapsed());
            drop(object);
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3 * 1024.0 / mib as f64;
        println!(
            "{backing:>4}: registration {:.2}, bare calls {:.2}, ratio {:.2}; by pipe {:.2}; audit {:.3}",
            ms(ours),
            ms(bare),
            ours.as_secs_f64() / bare.as_secs_f64(),
            ms(pipe),
            ms(audit)
        );
        if backing != Backing::Base {
            let wish = Contiguity::IfPossible(len as u64);
            for _ in 0..2 {
                let ram = ram().residency(Residency::Resident).host_contiguous(wish);
                let started = Instant::now();
                let object = ram.create().unwrap();
                let took = ms(started.elapsed());
                println!("      placed, all in {took:.2}: {:?}", object.backing().placement);
            }
        }
    }
}

fn timed<T>(body: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    let kept = body();
    let took = started.elapsed();
    drop(kept);
    took
}

/// The memory and its pin, dropped outside the measured time.
struct Bare {
    ring: IoUring,
    base: *mut libc::c_void,
    len: usize,
    _fd: OwnedFd,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.ring.submitter().unregister_buffers().unwrap();
        // SAFETY: mapped by `bare_calls`, and known to nobody else.
        unsafe { rustix::mm::munmap(self.base, self.len) }.unwrap();
    }
}

/// The fewest system calls with the same effect: memory, pages, pin, frame numbers.
fn bare_calls(backing: Backing, len: usize) -> Bare {
    let huge = match backing {
        Backing::Huge2M => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        _ => MemfdFlags::empty(),
    };
    let fd = rustix::fs::memfd_create("bare", huge | MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len as u64).unwrap();
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // Aligned, as huge pages require.
    // SAFETY: a new mapping at an address of the kernel's choice.
    let area = unsafe {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), len + HUGE, ProtFlags::empty(), flags)
    };
    let area = area.unwrap();
    // SAFETY: `byte_add` asks that the result is inside the area: the distance to the next multiple
    // of `HUGE` is less than `HUGE`, by which the area is longer than `len`.
    let base = unsafe { area.byte_add(area.cast::<u8>().align_offset(HUGE)) };
    // SAFETY: over the area that was just mapped, which nothing else uses.
    unsafe { rustix::mm::mmap(base, len, prot, MapFlags::SHARED | MapFlags::FIXED, &fd, 0) }
        .unwrap();
    let populate = |at: usize, len: usize| {
        // SAFETY: both callers pass a range inside the mapping, which this only populates.
        unsafe { rustix::mm::madvise(base.byte_add(at), len, Advice::LinuxPopulateWrite) }.unwrap();
    };
    if backing == Backing::Thp {
        // SAFETY: the range is the mapping, and the advice does not change what it holds.
        unsafe { rustix::mm::madvise(base, len, Advice::LinuxHugepage) }.unwrap();
        for at in (0..len).step_by(HUGE) {
            populate(at, 4096);
            // SAFETY: the `HUGE` bytes from `at` are inside the mapping, whose length is a multiple
            // of that, as `main` checks; what the memory holds does not change.
            unsafe { libc::madvise(base.byte_add(at), HUGE, libc::MADV_COLLAPSE) };
        }
    }
    populate(0, len);
    let ring = IoUring::new(1).unwrap();
    let pieces = len.div_ceil(1 << 30);
    ring.submitter().register_buffers_sparse(pieces as u32).unwrap();
    for index in 0..pieces {
        let start = index << 30;
        // SAFETY: `start` is below `len`, so the result is inside the mapping.
        let iov_base = unsafe { base.byte_add(start) };
        let iovec = libc::iovec { iov_base, iov_len: (len - start).min(1 << 30) };
        // SAFETY: the buffer is unregistered before it is unmapped, and never used.
        unsafe { ring.submitter().register_buffers_update(index as u32, &[iovec], None) }.unwrap();
    }
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    if backing == Backing::Huge2M {
        let mut entry = [0; 8];
        for at in (0..len).step_by(HUGE) {
            pagemap.read_exact_at(&mut entry, ((base.addr() + at) / 4096 * 8) as u64).unwrap();
        }
    } else {
        let mut entries = vec![0; 512 << 10];
        for at in (0..len).step_by(256 << 20) {
            let entries = &mut entries[..(len - at).min(256 << 20) / 4096 * 8];
            pagemap.read_exact_at(entries, ((base.addr() + at) / 4096 * 8) as u64).unwrap();
        }
    }
    Bare { ring, base, len, _fd: fd }
}
