//! The remapping unit.

use core::fmt;
use std::io;
use std::sync::{Arc, Weak};

use acpi_tables::Aml;
use gasp::{DomainOptions, Drain, Error, Guest, GuestPhys, Operation, Reason, Result, Vdev};
use parking_lot::Mutex;

use crate::acpi;
use crate::capabilities::Capabilities;
use crate::control::Control;
use crate::faults::Faults;
use crate::invalidation::Requester;
use crate::message::Message;
use crate::registers::{PAGE, half};
use crate::requester::RequesterId;
use crate::root::Root;
use crate::shared::Shared;
use crate::thread::{Left, Waker};
use crate::translator::Remapping;

/// A remapping unit of a guest, which all of its PCI devices are behind.
///
/// A clone is the same unit. See the [crate's documentation](crate) for an example.
#[derive(Clone)]
pub struct Unit(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    shared: Arc<Shared>,
    control: Mutex<Control>,
    thread: Waker<Weak<Self>>,
}

impl Unit {
    /// The size in bytes of the register page, which begins at a multiple of it.
    pub const PAGE: u64 = PAGE;

    /// Creates the unit of `guest`, as it is after a reset: translation is disabled, and devices reach
    /// all memory. `send` delivers the unit's own interrupts (fault, and completion of an
    /// invalidation). It is called without locks, on the threads of vCPUs and devices and on the
    /// unit's own.
    ///
    /// # Errors
    /// If the unit's thread cannot be created.
    pub fn new(guest: &Guest, send: impl Fn(Message) + Send + Sync + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            capabilities: Capabilities::new(guest.address_width()),
            root: Root::default(),
            faults: Mutex::new(Faults::new()),
            send: Box::new(send),
        });
        let control = Mutex::new(Control::new(guest.clone(), Arc::clone(&shared)));
        let thread = Waker::new(|unit: &Weak<Inner>| {
            // `with` does what can be done.
            unit.upgrade().map_or(Left::Nothing, |unit| unit.with(Control::leave))
        })?;
        Ok(Self(Arc::new(Inner { shared, control, thread })))
    }

    /// Puts a device behind the unit, as the requester `id`. Several devices can be one requester.
    /// The device is attached to the requester's domain, which is created with the first one; the
    /// drain waits for the mappings that it had before.
    ///
    /// # Errors
    /// `EINVAL` if the guest has no IOMMU, or the device is another guest's; `EEXIST` if the guest has
    /// a second unit with such a requester; `ENOSPC` if the guest has too many domains; otherwise as
    /// [`Vdev::attach`].
    pub fn connect(&self, id: RequesterId, vdev: &Vdev) -> Result<Drain> {
        self.0.with(|control| {
            if let Some(requester) = control.requesters.get(&id) {
                return vdev.attach(&requester.domain);
            }
            let remapping = Arc::new(Remapping::new(&self.0.shared, id));
            let options = DomainOptions::ask(Arc::clone(&remapping) as _);
            let domain = control.guest.domain(&format!("vtd {id}"), options)?;
            match vdev.attach(&domain) {
                Ok(drain) => {
                    control.requesters.insert(id, Requester { domain, remapping });
                    Ok(drain)
                }
                Err(error) => {
                    domain.remove()?;
                    Err(error)
                }
            }
        })
    }

    /// Forgets a requester, whose devices have been removed or attached elsewhere.
    ///
    /// # Errors
    /// `ENOENT` if there is no such requester; `EBUSY` if a device is attached to its domain.
    pub fn disconnect(&self, id: RequesterId) -> Result<()> {
        self.0.with(|control| {
            let requester = control.requesters.get(&id).ok_or_else(|| {
                Error::whole(Operation::Remove, Reason::NotFound("requester of this id"))
            })?;
            requester.domain.clone().remove()?;
            control.requesters.remove(&id);
            Ok(())
        })
    }

    /// Reads registers at `offset` in the page: 4 or 8 bytes at a multiple of their number. Other
    /// reads, which the specification leaves undefined, return zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= PAGE {
            return;
        }
        if let Ok(data) = <&mut [u8; 8]>::try_from(&mut *data) {
            if offset.is_multiple_of(8) {
                *data = self.0.with(|control| control.read_quad(offset)).to_le_bytes();
            }
        } else if let Ok(data) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            let quad = self.0.with(|control| control.read_quad(offset & !7));
            *data = half(quad, offset).to_le_bytes();
        }
    }

    /// Writes registers at `offset` in the page: 4 or 8 bytes at a multiple of their number. Other
    /// writes are ignored.
    ///
    /// An invalidation is made by the calling thread, and is complete on return if no mapping of what
    /// it takes away is held. Otherwise the call returns, and a thread of the unit completes it when
    /// the last of those mappings has been dropped, or the guest's
    /// [drain policy](Guest::drain_policy) ends the wait.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= PAGE {
            return;
        }
        if let Ok(&data) = <&[u8; 8]>::try_from(data) {
            let quad = u64::from_le_bytes(data);
            if offset.is_multiple_of(8) {
                self.0.with(|control| {
                    control.write_half(offset, half(quad, 0));
                    control.write_half(offset + 4, half(quad, 4));
                });
            }
        } else if let Ok(&data) = <&[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.0.with(|control| control.write_half(offset, u32::from_le_bytes(data)));
        }
    }

    /// Sets all registers to what they are after a reset, and invalidates everything. Mappings that
    /// are still held then are drained; invalidations that the guest makes later complete after that.
    pub fn reset(&self) {
        self.0.with(Control::reset);
    }

    /// The ACPI table DMAR of a guest with this unit alone, whose register page is at `registers`.
    pub fn dmar(&self, registers: GuestPhys) -> impl Aml + use<> {
        acpi::dmar(self.0.shared.capabilities.walk.host_address_width, registers)
    }
}

impl Inner {
    /// Calls `access` with the state. Before it, what can complete completes; after it, interrupts are
    /// sent, and the unit's thread is woken if something is left for it.
    pub(crate) fn with<T>(self: &Arc<Self>, access: impl FnOnce(&mut Control) -> T) -> T {
        let mut control = self.control.lock();
        if control.is_busy() {
            control.settle();
            control.run_queue();
        }
        let result = access(&mut control);
        let messages = core::mem::take(&mut control.messages);
        let wakes = control.is_busy() && !core::mem::replace(&mut control.is_awake, true);
        drop(control);
        messages.into_iter().for_each(|message| (self.shared.send)(message));
        if wakes {
            self.thread.wake(Arc::downgrade(self));
        }
        result
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let translates = self.0.shared.root.is_enabled();
        f.debug_struct("Unit").field("translates", &translates).finish_non_exhaustive()
    }
}
