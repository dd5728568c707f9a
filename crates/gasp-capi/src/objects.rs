//! The objects that C identifies by number: guests, devices, domains, drains.
#![allow(unsafe_code, reason = "writes the first members of a vdev")]

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::Errno;
use parking_lot::{Mutex, MutexGuard};

use crate::arena::{self, Arena, Home};
use crate::boundary::{Failure, Outcome};
use crate::ports::Ports;
use crate::registry::{Lack, Numbered, OBJECTS_MAX, Registry, kind};
use crate::types::{self, QSL_NO_LOCATION, Vdev};

pub(crate) static GUESTS: Registry<Arc<Guest>, Numbered<{ kind(*b"gu") }>> = Registry::new();
pub(crate) static VDEVS: Registry<GuestVdev, VdevPages> = Registry::new();
pub(crate) static DOMAINS: Registry<GuestDomain, Numbered<{ kind(*b"do") }>> = Registry::new();
/// The numbers of drains.
pub(crate) type DrainNumbers = Numbered<{ kind(*b"dr") }>;
/// A drain; `None` once it has been waited for or abandoned.
pub(crate) type ListedDrain = Mutex<Option<gasp::Drain>>;
pub(crate) static DRAINS: Registry<ListedDrain, DrainNumbers> = Registry::new();

/// The numbers of vdevs: addresses of pages, of which each has 16.
pub(crate) struct VdevPages;

impl Home for VdevPages {
    fn arena() -> &'static Arena {
        static ARENA: Arena = Arena::new(OBJECTS_MAX, 16);
        &ARENA
    }
}

/// A guest of the engine, with what only the interface for C needs.
pub(crate) struct Guest {
    pub(crate) engine: gasp::Guest,
    pub(crate) number: usize,
    running: AtomicBool,
    pub(crate) ports: Ports,
    /// Counts changes of regions, each after it was made.
    pub(crate) changes: AtomicU64,
    names: Mutex<Names>,
    /// Whether it belongs to a program in Rust, so that C cannot destroy it.
    pub(crate) embedded: bool,
}

/// The numbers of a guest's devices and domains, by name.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) vdevs: BTreeMap<String, NamedVdev>,
    pub(crate) domains: BTreeMap<String, usize>,
    /// Whether the guest has been destroyed: nothing is added any more.
    pub(crate) closed: bool,
}

/// The number of a device, and what may be done with it.
#[derive(Clone, Copy)]
pub(crate) struct NamedVdev {
    pub(crate) number: usize,
    pub(crate) state: VdevState,
}

/// Who ends a device's being listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum VdevState {
    /// C, or the end of the guest.
    Listed,
    /// The program in Rust that has it.
    Embedded,
    /// A call in C that is about to.
    Ending,
}

#[derive(Clone)]
pub(crate) struct GuestVdev {
    pub(crate) vdev: gasp::Vdev,
    pub(crate) guest: Arc<Guest>,
    pub(crate) held_back: HeldBack,
}

/// Whether a device may not reach its guest's memory at the moment. It is a part of what is listed,
/// so that maps, which have loaded that in any case, touch no more memory for it.
#[derive(Default)]
pub(crate) struct HeldBack(AtomicBool);

impl HeldBack {
    #[inline(always)]
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, held_back: bool) {
        self.0.store(held_back, Ordering::Relaxed);
    }
}

impl Clone for HeldBack {
    fn clone(&self) -> Self {
        Self(AtomicBool::new(self.get()))
    }
}

impl GuestVdev {
    /// The device, unless it is held back.
    #[inline(always)]
    pub(crate) fn reaching(&self) -> Option<&gasp::Vdev> {
        (!self.held_back.get()).then_some(&self.vdev)
    }

    /// The device; `EPERM` if it is held back.
    pub(crate) fn may_reach(&self) -> Outcome<&gasp::Vdev> {
        self.reaching().ok_or_else(held_back)
    }
}

#[cold]
fn held_back() -> Failure {
    let why = "the vdev is a PCI function that is not bus master (command register): its driver \
               has to allow it to reach memory first";
    Failure::Call(Errno::PERM, why)
}

#[derive(Clone)]
pub(crate) struct GuestDomain {
    pub(crate) domain: gasp::Domain,
    pub(crate) guest: Arc<Guest>,
}

#[cold]
pub(crate) fn too_many(lack: Lack) -> Failure {
    match lack {
        Lack::Limit(limit) => {
            let why = format!("the limit of {limit} objects of this kind is reached");
            Failure::Text(Errno::NOSPC, why)
        }
        Lack::Host(errno) => Failure::Call(
            errno,
            "the host has no memory for another vdev, or no mapping (see vm.max_map_count, and \
             ulimit -v)",
        ),
    }
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
    /// A change of its regions has been made, also if it failed in the middle.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Registers a guest with its devices and domains; returns its number.
    pub(crate) fn enlist(engine: gasp::Guest, embedded: bool) -> Outcome<usize> {
        let make = |number| {
            Arc::new(Self {
                engine,
                number,
                running: AtomicBool::new(false),
                ports: Ports::default(),
                changes: AtomicU64::new(0),
                names: Mutex::default(),
                embedded,
            })
        };
        let number = GUESTS.insert(make).map_err(too_many)?;
        let guest = GUESTS.get(number).ok_or_else(no_guest)?;
        let vdevs = guest.engine.vdevs().into_iter();
        let domains = guest.engine.domains().into_iter();
        vdevs
            .map(|vdev| guest.enlist_vdev(&mut guest.names(), vdev, VdevState::Listed))
            .chain(domains.map(|domain| guest.enlist_domain(domain)))
            .try_for_each(|number| number.map(drop))
            .inspect_err(|_| drop(Self::delist(number)))?;
        list(|all| all.push(number));
        Ok(number)
    }

    /// Registers a device of the guest, under a name that no other has, or that an earlier one had;
    /// returns its number.
    pub(crate) fn enlist_vdev(
        self: &Arc<Self>,
        names: &mut Names,
        vdev: gasp::Vdev,
        state: VdevState,
    ) -> Outcome<usize> {
        if names.closed {
            return Err(no_guest());
        }
        let name = vdev.name().to_owned();
        let room = VDEVS.reserve().map_err(too_many)?;
        let page = vdev_pointer(room.number());
        let members = Vdev {
            v_device: ptr::null_mut(),
            v_factory: ptr::null(),
            v_gsp: opaque(self.number),
            v_location: QSL_NO_LOCATION,
        };
        // SAFETY: `page` is the beginning of a page, so it is aligned, and as the number is
        // reserved, valid for writes of its 4 KiB. Nobody else accesses it: no object has it yet.
        unsafe { page.write(members) };
        let number = room.fill(|_| GuestVdev {
            vdev,
            guest: Arc::clone(self),
            held_back: HeldBack::default(),
        });
        names.vdevs.insert(name, NamedVdev { number, state });
        Ok(number)
    }

    /// Begins the destruction of a device by C; `EPERM` if a program in Rust has it.
    pub(crate) fn end_vdev(&self, name: &str, number: usize) -> Outcome {
        let mut names = self.names();
        match names.vdevs.get_mut(name).filter(|named| named.number == number) {
            Some(named) if named.state == VdevState::Embedded => {
                drop(names);
                let why = "gasp_vdev_destroy: the vdev belongs to the program that hosts it";
                Err(Failure::misuse(Errno::PERM, why))
            }
            Some(named) => {
                named.state = VdevState::Ending;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Releases the name of a device that is no longer registered.
    pub(crate) fn forget_vdev(&self, name: &str, number: usize) {
        let mut names = self.names();
        if names.vdevs.get(name).is_some_and(|named| named.number == number) {
            names.vdevs.remove(name);
        }
    }

    pub(crate) fn enlist_domain(self: &Arc<Self>, domain: gasp::Domain) -> Outcome<usize> {
        let mut names = self.names();
        if names.closed {
            return Err(no_guest());
        }
        let name = domain.name().to_owned();
        let make = |_| GuestDomain { domain, guest: Arc::clone(self) };
        let number = DOMAINS.insert(make).map_err(too_many)?;
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
        // By address: a gap between two pages is a mapping more of the process.
        let mut vdevs: Vec<_> = names.vdevs.values().map(|vdev| vdev.number).collect();
        vdevs.sort_unstable();
        vdevs.into_iter().for_each(|vdev| drop(VDEVS.remove(vdev)));
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

/// The number of the guest that this thread has chosen, or 0.
pub(crate) fn chosen() -> usize {
    CHOSEN.get()
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

pub(crate) fn vdev_of(vdev: *const Vdev) -> Outcome<GuestVdev> {
    VDEVS.get(vdev.addr()).ok_or_else(no_vdev)
}

pub(crate) fn domain_of(domain: *const types::Domain) -> Outcome<GuestDomain> {
    DOMAINS.get(domain.addr()).ok_or_else(no_domain)
}

/// The pointer that C receives for the number of a vdev; NULL for 0.
pub(crate) fn vdev_pointer(number: usize) -> *mut Vdev {
    arena::pointer(number)
}

/// The opaque pointer that C receives for the number of anything else.
pub(crate) fn opaque<T>(number: usize) -> *mut T {
    core::ptr::without_provenance_mut(number)
}
