//! The objects that C identifies by number: guests, devices, domains, drains.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::Errno;
use parking_lot::{Mutex, MutexGuard};

use crate::boundary::{Failure, Outcome};
use crate::ports::Ports;
use crate::registry::{Registry, kind};
use crate::types;

pub(crate) static GUESTS: Registry<Arc<Guest>, { kind(*b"gu") }> = Registry::new();
pub(crate) static VDEVS: Registry<GuestVdev, { kind(*b"vd") }> = Registry::new();
pub(crate) static DOMAINS: Registry<GuestDomain, { kind(*b"do") }> = Registry::new();
/// The kind of the numbers of drains.
pub(crate) const DRAIN: u16 = kind(*b"dr");
/// A drain; `None` once it has been waited for or abandoned.
pub(crate) type ListedDrain = Mutex<Option<gasp::Drain>>;
pub(crate) static DRAINS: Registry<ListedDrain, DRAIN> = Registry::new();

/// A guest of the engine, with what only the interface for C needs.
pub(crate) struct Guest {
    pub(crate) engine: gasp::Guest,
    pub(crate) number: usize,
    running: AtomicBool,
    pub(crate) ports: Ports,
    names: Mutex<Names>,
}

/// The numbers of a guest's devices and domains, by name.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) vdevs: BTreeMap<String, usize>,
    pub(crate) domains: BTreeMap<String, usize>,
    /// Whether the guest has been destroyed: nothing is added any more.
    pub(crate) closed: bool,
}

#[derive(Clone)]
pub(crate) struct GuestVdev {
    pub(crate) vdev: gasp::Vdev,
    pub(crate) guest: Arc<Guest>,
}

#[derive(Clone)]
pub(crate) struct GuestDomain {
    pub(crate) domain: gasp::Domain,
    pub(crate) guest: Arc<Guest>,
}

#[cold]
fn too_many() -> Failure {
    Failure::Call(Errno::NOSPC, "the limit of 262144 objects of this kind is reached")
}
#[cold]
pub(crate) fn no_vdev() -> Failure {
    Failure::Call(Errno::INVAL, "the vdev is NULL, destroyed, or not a vdev")
}
#[cold]
pub(crate) fn no_guest() -> Failure {
    Failure::Call(Errno::INVAL, "the guest is NULL, destroyed, or not a guest")
}
#[cold]
pub(crate) fn no_domain() -> Failure {
    Failure::Call(Errno::INVAL, "the domain is NULL, destroyed, or not a domain")
}

impl Guest {
    /// Registers a guest with its devices and domains; returns its number.
    pub(crate) fn enlist(engine: gasp::Guest) -> Outcome<usize> {
        let make = |number| {
            Arc::new(Self {
                engine,
                number,
                running: AtomicBool::new(false),
                ports: Ports::default(),
                names: Mutex::default(),
            })
        };
        let number = GUESTS.insert(make).ok_or_else(too_many)?;
        let guest = GUESTS.get(number).ok_or_else(no_guest)?;
        let vdevs = guest.engine.vdevs().into_iter();
        let domains = guest.engine.domains().into_iter();
        vdevs
            .map(|vdev| guest.enlist_vdev(vdev))
            .chain(domains.map(|domain| guest.enlist_domain(domain)))
            .try_for_each(|number| number.map(drop))
            .inspect_err(|_| drop(Self::delist(number)))?;
        list(|all| all.push(number));
        Ok(number)
    }

    pub(crate) fn enlist_vdev(self: &Arc<Self>, vdev: gasp::Vdev) -> Outcome<usize> {
        let mut names = self.names();
        if names.closed {
            return Err(no_guest());
        }
        let name = vdev.name().to_owned();
        let make = |_| GuestVdev { vdev, guest: Arc::clone(self) };
        let number = VDEVS.insert(make).ok_or_else(too_many)?;
        names.vdevs.insert(name, number);
        Ok(number)
    }

    pub(crate) fn enlist_domain(self: &Arc<Self>, domain: gasp::Domain) -> Outcome<usize> {
        let mut names = self.names();
        if names.closed {
            return Err(no_guest());
        }
        let name = domain.name().to_owned();
        let make = |_| GuestDomain { domain, guest: Arc::clone(self) };
        let number = DOMAINS.insert(make).ok_or_else(too_many)?;
        names.domains.insert(name, number);
        Ok(number)
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    /// Begins the running phase; returns whether it had not begun before.
    pub(crate) fn start(&self) -> bool {
        !self.running.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Removes the guest and all its objects from the registries.
    pub(crate) fn delist(number: usize) -> Outcome<()> {
        let guest = GUESTS.remove(number).ok_or_else(no_guest)?;
        list(|all| all.retain(|&other| other != number));
        let closed = Names { closed: true, ..Names::default() };
        let names = core::mem::replace(&mut *guest.names(), closed);
        names.vdevs.values().for_each(|&vdev| drop(VDEVS.remove(vdev)));
        names.domains.values().for_each(|&domain| drop(DOMAINS.remove(domain)));
        Ok(())
    }
}

/// The numbers of all guests.
static ALL: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// The number of the only guest; 0 if there is none, [`SEVERAL`] if there are several.
static ONLY: AtomicUsize = AtomicUsize::new(0);
/// Not the number of any guest.
const SEVERAL: usize = usize::MAX;

thread_local! {
    /// The number of the guest that this thread has chosen, or 0.
    static CHOSEN: Cell<usize> = const { Cell::new(0) };
}

fn list(change: impl FnOnce(&mut Vec<usize>)) {
    let mut all = ALL.lock();
    change(&mut all);
    let only = match all.as_slice() {
        [] => 0,
        [only] => *only,
        _ => SEVERAL,
    };
    ONLY.store(only, Ordering::Release);
}

/// Chooses the guest of this thread's calls that name none; 0 clears the choice.
pub(crate) fn choose(guest: usize) {
    CHOSEN.set(guest);
}

/// The number of the guest of a call that names none: 0 if there is no guest; `ENOTUNIQ` if there
/// are several and this thread has chosen none.
pub(crate) fn current() -> Outcome<usize> {
    match CHOSEN.get() {
        0 => match ONLY.load(Ordering::Acquire) {
            SEVERAL => Err(several()),
            only => Ok(only),
        },
        chosen => Ok(chosen),
    }
}

/// The library does not guess which of several guests a call refers to: a thread that a device
/// has started has chosen none, whatever its parent uses.
#[cold]
fn several() -> Failure {
    let why = "there are several guests, and this thread has not chosen one for its calls: call \
               gasp_guest_use() in each thread that makes such calls";
    Failure::misuse(Errno::NOTUNIQ, why)
}

/// The failure of a call that names no guest.
#[cold]
pub(crate) fn none_current() -> Failure {
    Failure::Call(Errno::NXIO, "there is no guest, or the one that this thread uses was destroyed")
}

/// The guest that C names in a call; `None` in the 8.0 forms, which name none.
pub(crate) type NamedGuest = Option<*const types::GuestSystem>;

/// The guest of a call: the one it names, or the current one.
pub(crate) fn guest_of(named: NamedGuest) -> Outcome<Arc<Guest>> {
    match named {
        Some(guest) => GUESTS.get(guest.addr()).ok_or_else(no_guest),
        None => GUESTS.get(current()?).ok_or_else(none_current),
    }
}

pub(crate) fn vdev_of(vdev: *const types::Vdev) -> Outcome<GuestVdev> {
    VDEVS.get(vdev.addr()).ok_or_else(no_vdev)
}

pub(crate) fn domain_of(domain: *const types::Domain) -> Outcome<GuestDomain> {
    DOMAINS.get(domain.addr()).ok_or_else(no_domain)
}

/// The opaque pointer that C receives for a number.
pub(crate) fn opaque<T>(number: usize) -> *mut T {
    core::ptr::without_provenance_mut(number)
}
