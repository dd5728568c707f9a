//! Shared by the integration tests: small guests, memory of every kind, and ways to wait.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp::{
    Access, Adopt, Backing, Deadline, DeviceAddr, Domain, DomainKind, DomainOptions, DrainPolicy,
    Error, External, Guest, GuestPhys, HostPhys, MapFlags, Mapping, MemoryObject, Residency,
    Result, Span, Unattached, Vdev,
};

/// Size of a granule.
pub(crate) const PAGE: u64 = 4096;
/// The page size of a view's middle level.
pub(crate) const HUGE: u64 = 2 << 20;
/// Longer than anything that is not stuck takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Every valid combination of map flags.
pub(crate) fn all_flags() -> Vec<MapFlags> {
    let accesses = (1..8).map(Access::from_bits_truncate);
    let flags = accesses.map(|access| MapFlags::new(access).unwrap());
    flags.flat_map(|flags| [flags, flags.any()]).collect()
}

/// RAM of ordinary pages without host-physical addresses: the same on every machine.
pub(crate) fn ram(len: u64) -> MemoryObject {
    let ram = MemoryObject::ram(len).prefer(&[Backing::Base]).residency(Residency::OnDemand);
    ram.create().unwrap()
}

/// RAM of ordinary pages in memory, with host-physical addresses if this process may read them.
pub(crate) fn resident(len: u64) -> MemoryObject {
    let ram = MemoryObject::ram(len).prefer(&[Backing::Base]).residency(Residency::Resident);
    ram.create().unwrap()
}

/// A memfd of `len` bytes that can be sealed.
pub(crate) fn memfd(len: u64) -> OwnedFd {
    use rustix::fs::MemfdFlags;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("gasp-test", flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

/// The same file, opened again with `flags` of open(2).
pub(crate) fn reopened(fd: &impl AsFd, flags: rustix::fs::OFlags) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
}

/// Parameters to adopt all of a file of `len` bytes.
pub(crate) fn whole(len: u64) -> Adopt<'static> {
    Adopt { residency: Residency::OnDemand, ..Adopt::new("adopted", len) }
}

/// Runs `test` on the memory of `object` as an embedding VMM hands it over: with its file, and to
/// be pinned.
#[allow(unsafe_code, reason = "vouches for memory")]
pub(crate) fn as_external(object: &MemoryObject, access: Access, test: impl FnOnce(&MemoryObject)) {
    let base = std::ptr::NonNull::new(object.as_ptr()).unwrap();
    let mut external = External::new(base, object.len() as usize, Arc::new(()));
    external.access = access;
    external.file = object.file().map(|(fd, offset)| (fd.try_clone_to_owned().unwrap(), offset));
    // SAFETY: `object` keeps the memory mapped, shared and of its file from that offset on, for
    // longer than the test uses it; only the engine accesses it; and nobody takes pages away.
    let made = unsafe { MemoryObject::external("vmm", external) }.unwrap();
    test(&made);
}

/// A pass-through window with the declared host-physical base `host`.
pub(crate) fn window(len: u64, host: u64) -> MemoryObject {
    MemoryObject::pass_through(memfd(len), HostPhys(host), whole(len)).unwrap()
}

/// A guest without an IOMMU, with `len` bytes of RAM at 0.
pub(crate) fn plain_guest(len: u64) -> (Guest, MemoryObject) {
    with_ram(Guest::builder().build().unwrap(), len)
}

/// A guest whose IOMMU denies unattached devices, with `len` bytes of RAM at 0.
pub(crate) fn iommu_guest(len: u64) -> (Guest, MemoryObject) {
    let guest = Guest::builder().iommu(Unattached::Deny).drain(patient()).build().unwrap();
    with_ram(guest, len)
}

fn with_ram(guest: Guest, len: u64) -> (Guest, MemoryObject) {
    let ram = ram(len);
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    (guest, ram)
}

/// A device in a domain of its own, without grants.
pub(crate) fn device(guest: &Guest, name: &str, kind: DomainKind) -> (Vdev, Domain) {
    let domain = guest.domain(name, DomainOptions::new(kind)).unwrap();
    let vdev = guest.vdev(name).unwrap();
    vdev.attach(&domain).unwrap().wait();
    (vdev, domain)
}

/// Drains that wait for ever.
pub(crate) fn patient() -> DrainPolicy {
    DrainPolicy { deadline: LONG, at_deadline: Deadline::Wait }
}

/// Drains that detach what is held after `deadline`.
pub(crate) fn detach_after(deadline: Duration) -> DrainPolicy {
    DrainPolicy { deadline, at_deadline: Deadline::Detach }
}

/// A range of guest-physical addresses.
pub(crate) fn span(start: u64, len: u64) -> Span<GuestPhys> {
    Span::new(GuestPhys(start), len).unwrap()
}

/// A range of device addresses.
pub(crate) fn device_span(start: u64, len: u64) -> Span<DeviceAddr> {
    Span::new(DeviceAddr(start), len).unwrap()
}

/// The name of the errno of a refusal.
pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    error(result).errno_name()
}

/// The error of a refusal.
pub(crate) fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("it must be refused")
}

/// The mapping's first eight bytes.
pub(crate) fn word(mapping: &Mapping) -> u64 {
    let mut bytes = [0; 8];
    mapping.read_at(0, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Writes each page's number into its first eight bytes, with `tag` in the top byte.
pub(crate) fn number_pages(object: &MemoryObject, tag: u8) {
    for page in 0..object.len() / PAGE {
        object.write_at(page * PAGE, &numbered(tag, page).to_le_bytes()).unwrap();
    }
}

/// The word that [`number_pages`] writes into a page.
pub(crate) fn numbered(tag: u8, page: u64) -> u64 {
    u64::from(tag) << 56 | page
}

/// The state that a refused operation must leave unchanged.
#[derive(PartialEq, Debug)]
pub(crate) struct Picture {
    regions: Vec<String>,
    grants: Vec<String>,
}

impl Picture {
    /// The regions of a guest, and the grants of all of its domains.
    pub(crate) fn of(guest: &Guest) -> Self {
        let regions = guest.space().regions().iter().map(|region| format!("{region:?}")).collect();
        let grants = |domain: &Domain| format!("{}: {:?}", domain.name(), domain.grants());
        Self { regions, grants: guest.domains().iter().map(grants).collect() }
    }
}

/// Waits until `done` returns true; returns false after [`LONG`].
pub(crate) fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < LONG {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// The inode number of an object's file. Unlike an address, it is not used again.
pub(crate) fn inode(object: &MemoryObject) -> u64 {
    rustix::fs::fstat(object.file_extents().unwrap().0).unwrap().st_ino
}

/// Number of this process's mappings of the file.
pub(crate) fn times_mapped(inode: u64) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let column = |line: &str| line.split_ascii_whitespace().nth(4).map(str::to_owned);
    let inode = Some(inode.to_string());
    maps.lines().filter(|line| line.contains("/memfd:") && column(line) == inode).count()
}

/// The page map, for reading frame numbers independently of the engine.
pub(crate) fn pagemap() -> Option<File> {
    File::open("/proc/self/pagemap").ok()
}

/// Pseudo-random numbers, the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Runs `body` on a thread of its own, and ends the whole run if it does not end: a look-up that
/// hangs keeps every revoke of the process waiting, so that no other test would end either.
pub(crate) fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || done.send(body()));
    match finished.recv_timeout(LONG) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            let _ = writeln!(std::io::stderr(), "{name} hangs; the run ends here");
            std::process::exit(101)
        }
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}
