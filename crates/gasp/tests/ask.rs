//! Domains that ask: misses and their answers, invalidation, bounds, and several threads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "ask/answers.rs"]
mod answers;
#[path = "ask/bounds.rs"]
mod bounds;
#[path = "ask/changes.rs"]
mod changes;
#[path = "ask/evictions.rs"]
mod evictions;
#[path = "ask/peer.rs"]
mod peer;
#[path = "ask/runs.rs"]
mod runs;
#[path = "ask/stale.rs"]
mod stale;
mod support;
#[path = "ask/threads.rs"]
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gasp::{
    Access, DeviceAddr, Domain, DomainOptions, Guest, GuestPhys, PageTables, Refusal, Translation,
    TranslationFault, Translator, Vdev,
};
use parking_lot::Mutex;
use support::*;

type Answer = Result<Translation, TranslationFault>;

/// A translator that counts how often it is asked.
struct Asked<F> {
    count: AtomicUsize,
    /// The refusals that it was told of.
    told: Mutex<Vec<(DeviceAddr, Access, Refusal)>>,
    answer: F,
}

impl<F: Fn(DeviceAddr, Access) -> Answer> Asked<F> {
    /// How often it was asked since the last call.
    fn take(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
    }
}

impl<F: Fn(DeviceAddr, Access) -> Answer + Send + Sync> Translator for Asked<F> {
    fn translate(&self, _: &PageTables<'_>, addr: DeviceAddr, access: Access) -> Answer {
        self.count.fetch_add(1, Ordering::SeqCst);
        (self.answer)(addr, access)
    }

    fn refused(&self, addr: DeviceAddr, access: Access, refusal: Refusal) {
        self.told.lock().push((addr, access, refusal));
    }
}

/// A guest with `len` bytes of RAM at 0, a domain that asks `answer`, and a device in it.
struct Scene<F> {
    guest: Guest,
    domain: Domain,
    disk: Vdev,
    asked: Arc<Asked<F>>,
}

impl<F: Fn(DeviceAddr, Access) -> Answer + Send + Sync + 'static> Scene<F> {
    fn new(len: u64, answer: F) -> Self {
        Self::with_limit(len, DomainOptions::LIMIT, answer)
    }

    fn with_limit(len: u64, limit: u64, answer: F) -> Self {
        let (guest, _ram) = iommu_guest(len);
        let asked = Arc::new(Asked { count: AtomicUsize::new(0), told: Mutex::default(), answer });
        let options = DomainOptions { limit, ..DomainOptions::ask(Arc::clone(&asked) as _) };
        let domain = guest.domain("domain", options).unwrap();
        let disk = guest.vdev("disk").unwrap();
        drop(disk.attach(&domain).unwrap());
        Self { guest, domain, disk, asked }
    }
}

/// The page of 4 KiB at `addr`, which leads to the same address with read and write access.
fn same(addr: DeviceAddr, _: Access) -> Answer {
    page(PAGE, addr.0, Access::RW)
}

fn page(size: u64, guest: u64, access: Access) -> Answer {
    Ok(Translation { size, guest: GuestPhys(guest), access })
}

fn refused(reason: u32) -> Answer {
    Err(TranslationFault { reason, keep: false })
}

fn by_translator(reason: u32) -> Refusal {
    Refusal::Translator { reason }
}
