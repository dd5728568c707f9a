//! Register writes of one function that the kernel turns into rings: ioeventfds, which follow the
//! BARs.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use gasp_vdev::{BarKind, Register, Width, WriteEvents};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use crate::eventfd::for_kvm;

/// How many a function may have; KVM has about 1,000 for all devices of a VM.
const MOST: usize = 512;
/// How many BARs a function can have.
const BARS: usize = 6;

/// Where a BAR is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Port(u64),
    Memory(u64),
}

impl Place {
    /// The place in a BAR's register.
    pub(super) fn of(kind: BarKind, register: u64) -> Self {
        match kind {
            BarKind::Io => Self::Port(register & 0xffff_fffc),
            BarKind::Memory32 => Self::Memory(register & 0xffff_fff0),
            BarKind::Memory64 => Self::Memory(register & !0xf),
        }
    }
}

/// The ioeventfds of a function, and where its BARs are.
pub(super) struct Rings {
    vm: Arc<VmFd>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: [Option<Place>; BARS],
    rings: Vec<Ring>,
}

struct Ring {
    at: Register,
    value: Option<u64>,
    event: EventFd,
    /// Where KVM has it.
    registered: Option<IoEventAddress>,
}

impl Rings {
    pub(super) fn new(vm: &Arc<VmFd>) -> Self {
        Self { vm: Arc::clone(vm), state: Mutex::default() }
    }

    /// A BAR is decoded at another place, or no longer.
    pub(super) fn moved(&self, bar: u8, place: Option<Place>) {
        let mut state = self.state.lock();
        let State { places, rings } = &mut *state;
        let Some(current) = places.get_mut(usize::from(bar)) else { return };
        *current = place;
        for ring in rings.iter_mut().filter(|ring| ring.at.bar == bar) {
            ring.unregister(&self.vm);
            // If it fails, the writes arrive at the device.
            ring.register(&self.vm, place);
        }
    }
}

impl Ring {
    /// Returns whether it is registered, if it has a place.
    fn register(&mut self, vm: &VmFd, place: Option<Place>) -> bool {
        let Some(place) = place else { return true };
        let addr = match place {
            Place::Port(base) => base.checked_add(self.at.offset).map(IoEventAddress::Pio),
            Place::Memory(base) => base.checked_add(self.at.offset).map(IoEventAddress::Mmio),
        };
        let Some(addr) = addr else { return false };
        let (event, width) = (&self.event, self.at.width);
        let done = match (self.value, width) {
            // Of any length: KVM recognizes these without decoding the instruction, if it can.
            (None, _) => vm.register_ioevent(event, &addr, NoDatamatch),
            (Some(value), Width::One) => vm.register_ioevent(event, &addr, value as u8),
            (Some(value), Width::Two) => vm.register_ioevent(event, &addr, value as u16),
            (Some(value), Width::Four) => vm.register_ioevent(event, &addr, value as u32),
            (Some(value), Width::Eight) => vm.register_ioevent(event, &addr, value),
        };
        if let Err(error) = &done {
            tracing::debug!(%error, ?place, "a doorbell is not the kernel's");
        }
        self.registered = done.is_ok().then_some(addr);
        done.is_ok()
    }

    fn unregister(&mut self, vm: &VmFd) {
        let Some(addr) = self.registered.take() else { return };
        let (event, width) = (&self.event, self.at.width);
        let done = match (self.value, width) {
            (None, _) => vm.unregister_ioevent(event, &addr, NoDatamatch),
            (Some(value), Width::One) => vm.unregister_ioevent(event, &addr, value as u8),
            (Some(value), Width::Two) => vm.unregister_ioevent(event, &addr, value as u16),
            (Some(value), Width::Four) => vm.unregister_ioevent(event, &addr, value as u32),
            (Some(value), Width::Eight) => vm.unregister_ioevent(event, &addr, value),
        };
        if let Err(error) = done {
            tracing::error!(%error, "a doorbell stays the kernel's");
        }
    }

    fn is(&self, at: Register, value: Option<u64>) -> bool {
        (self.at, self.value) == (at, value)
    }
}

impl WriteEvents for Rings {
    fn connect(&self, at: Register, value: Option<u64>, event: BorrowedFd<'_>) -> bool {
        let mut state = self.state.lock();
        if state.rings.iter().any(|ring| ring.is(at, value)) {
            return true;
        }
        let fits = value.is_none_or(|value| value & !at.width.mask() == 0);
        let place = state.places.get(usize::from(at.bar)).copied();
        let (Some(place), true) = (place, fits && state.rings.len() < MOST) else { return false };
        let Ok(event) = event.try_clone_to_owned() else { return false };
        let mut ring = Ring { at, value, event: for_kvm(event), registered: None };
        let registered = ring.register(&self.vm, place);
        if registered {
            state.rings.push(ring);
        }
        registered
    }

    fn disconnect(&self, at: Register, value: Option<u64>) {
        let mut state = self.state.lock();
        if let Some(index) = state.rings.iter().position(|ring| ring.is(at, value)) {
            state.rings.swap_remove(index).unregister(&self.vm);
        }
    }

    fn disconnect_all(&self) {
        let mut state = self.state.lock();
        state.rings.drain(..).for_each(|mut ring| ring.unregister(&self.vm));
    }
}
