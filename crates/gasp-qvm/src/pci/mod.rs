//! A vdev as a PCI function, for the hosts that know functions alone: `gasp serve`, and the PCI bus
//! of `gasp vm`.
//!
//! ```text
//!   PciVdev ── Device of a gasp_vdev::Shell        one, for all VMMs
//!      └── Running ── Instance, its windows        one for each VMM, and after each reset
//!             └── Seat ── its Host: pin, MSI-X, the end
//! ```
//!
//! A vdev with registers in memory or at ports has them in BAR 0. One that is a PCI device itself
//! describes its BARs and its identity, as `<qvm/vpci.h>` says. Either has its interrupt, `v_intr`,
//! as the pin and as vector 0 of MSI-X.
//!
//! Its VMM decides where a BAR is, and says so to nobody: accesses have an address that is the
//! vdev's `v_block.location`, or one that was assigned to it, and the offset in the BAR.

mod bars;
mod config;
mod function;
mod life;
mod nominal;
mod seat;

use core::fmt;
use std::sync::Arc;

use gasp_capi::embed;
use gasp_vdev::{Device, DeviceContext, Identity, Model, Register, Throttle};
use parking_lot::{Mutex, RwLock};

use self::function::Function;
use self::life::{Running, Seated};
use self::seat::Seat;
use crate::abi::VFF_VDEV_PCI;
use crate::error::VdevError;
use crate::factory::Factory;
use crate::host::End;
use crate::instance::Instance;
use crate::live::Live;
use crate::request::Request;

pub use self::function::{IDENTITY, MSIX_VECTOR};

/// A vdev as a PCI function: a device for a [`Shell`](gasp_vdev::Shell). A clone is the same one.
///
/// An instance of the vdev lives for one VMM: created when that attaches, ended (`TERMINATE`) when
/// it goes. A reset of the function ends it as well, and creates another, unless nothing has been
/// accessed. Each goes through the whole life of a vdev, from its options to `GUEST_STARTING`.
///
/// A vdev that fails, or that is refused when a VMM attaches, reads as ones until the next reset or
/// VMM; [`on_failure`](PciVdevBuilder::on_failure) is told.
///
/// What a vdev maps is checked as for every device: by the guest's IOMMU, and by the bus master bit
/// of the function (`EPERM`). Guest memory that its VMM shares by messages alone cannot be mapped
/// (`ENXIO`).
#[derive(Clone)]
pub struct PciVdev(Arc<Inner>);

struct Inner {
    factory: Arc<Factory>,
    request: Request,
    function: Function,
    guest: Option<embed::ListedGuest>,
    messages: Option<Messages>,
    on_failure: Option<OnFailure>,
    /// The VMM. Held while an instance is created or ended, so that one follows the other.
    seated: Mutex<Option<Seated>>,
    /// What answers accesses, which share it.
    running: RwLock<Option<Running>>,
    master: Mutex<Master>,
    /// Instances that did not start, which a guest can cause by resets.
    refusals: Throttle,
}

/// The bus master bit, and which vdev it is about.
#[derive(Default)]
struct Master {
    enabled: bool,
    live: Option<Arc<Live>>,
}

type Messages = Arc<dyn Fn(u64, u32) + Send + Sync>;
type OnFailure = Arc<dyn Fn(&PciFailure) + Send + Sync>;

/// Why a function reads as ones.
#[derive(Debug)]
#[non_exhaustive]
pub enum PciFailure {
    /// The vdev did not start for this VMM, or after this reset.
    NotStarted(VdevError),
    /// The vdev has ended its guest, or has failed.
    Ended(End),
    /// A thread is in the vdev for ever, after `qvm_fatal()`: the process ends when the call that
    /// reports this returns. Reported after [`Ended`](Self::Ended).
    Stuck(End),
}

impl fmt::Display for PciFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => error.fmt(f),
            Self::Ended(end) | Self::Stuck(end) => end.fmt(f),
        }
    }
}

/// Creates a [`PciVdev`].
#[must_use = "call `build`"]
pub struct PciVdevBuilder {
    factory: Arc<Factory>,
    request: Request,
    identity: Identity,
    guest: Option<embed::ListedGuest>,
    messages: Option<Messages>,
    on_failure: Option<OnFailure>,
}

impl PciVdevBuilder {
    /// Sets the identity of a function whose vdev has none of its own; [`IDENTITY`] by default.
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// Sets the guest of all VMMs, for a host that has listed it; by default the guest of each VMM is
    /// listed when it attaches.
    pub fn guest(self, guest: &embed::ListedGuest) -> Self {
        Self { guest: Some(guest.clone()), ..self }
    }

    /// Sets what sends a message of the vdev (`guest_msi_signal()`), of an address and data, for a
    /// host that can. Otherwise messages are refused, with a line in the log. Called as
    /// [`Host::message`](crate::Host::message) is.
    pub fn messages(self, send: impl Fn(u64, u32) + Send + Sync + 'static) -> Self {
        Self { messages: Some(Arc::new(send)), ..self }
    }

    /// Sets what is told when the function reads as ones from now on. Called by a thread of the vdev
    /// or of the VMM's; must not wait.
    pub fn on_failure(self, told: impl Fn(&PciFailure) + Send + Sync + 'static) -> Self {
        Self { on_failure: Some(Arc::new(told)), ..self }
    }

    /// Creates it. An instance goes through its life before that, in front of a guest without
    /// memory: what it refuses is an error here, and what it is becomes the function.
    ///
    /// # Errors
    /// Those of [`Instance`]; [`VdevError::Misbehaved`] if the vdev cannot be a PCI function.
    pub fn build(self) -> Result<PciVdev, VdevError> {
        let Self { factory, mut request, identity, guest, messages, on_failure } = self;
        // A vdev that can be a PCI device is one here, unless it is requested elsewhere.
        if request.location.is_none() && factory.has(VFF_VDEV_PCI) {
            request.location = Some(function::ANYWHERE);
        }
        let function = life::probe(&factory, &request, identity)?;
        Ok(PciVdev(Arc::new(Inner {
            factory,
            request,
            function,
            guest,
            messages,
            on_failure,
            seated: Mutex::default(),
            running: RwLock::new(None),
            master: Mutex::default(),
            refusals: Throttle::default(),
        })))
    }
}

impl PciVdev {
    /// A vdev of this factory, as it is requested.
    pub fn builder(factory: &Arc<Factory>, request: &Request) -> PciVdevBuilder {
        PciVdevBuilder {
            factory: Arc::clone(factory),
            request: request.clone(),
            identity: IDENTITY,
            guest: None,
            messages: None,
            on_failure: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.request.name
    }

    /// Its factory.
    pub fn factory(&self) -> &Arc<Factory> {
        &self.0.factory
    }

    /// What it reports of its state ([`Instance::status`]); `None` without a VMM.
    pub fn status(&self) -> Option<String> {
        self.with(Instance::status)
    }

    /// Whether it has asked for the power button ([`Instance::has_button`]).
    pub fn has_button(&self) -> bool {
        self.with(Instance::has_button).unwrap_or(false)
    }

    /// Tells it that the power button was pressed ([`Instance::button`]); whether it has asked for
    /// that.
    pub fn button(&self) -> bool {
        self.with(Instance::button).unwrap_or(false)
    }

    /// Whether it reads as ones because it has failed.
    pub fn has_failed(&self) -> bool {
        let running = self.0.running.read();
        let attached = running.is_none() && self.0.seated.try_lock().is_some_and(|it| it.is_some());
        running.as_ref().map_or(attached, |running| running.seat.has_ended())
    }

    fn with<T>(&self, call: impl FnOnce(&Instance) -> T) -> Option<T> {
        let running = self.0.running.read();
        running.as_ref().filter(|running| !running.seat.has_ended()).map(|it| call(&it.instance))
    }
}

impl Device for PciVdev {
    fn model(&self) -> Model {
        self.0.function.model.clone()
    }

    fn attached(&self, context: &DeviceContext) {
        self.0.attach(context);
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        let running = self.0.running.read();
        let found = running.as_ref().and_then(|running| running.reach(at));
        let Some((instance, access)) = found else { return at.width.mask() };
        let mut bytes = [0; 8];
        // What is not supported, or fails, is ones.
        instance.read(access, bytes.get_mut(..at.width as usize).unwrap_or_default());
        u64::from_le_bytes(bytes)
    }

    fn write(&self, _: &DeviceContext, at: Register, value: u64) {
        let running = self.0.running.read();
        if let Some((instance, access)) = running.as_ref().and_then(|it| it.reach(at)) {
            let bytes = value.to_le_bytes();
            instance.write(access, bytes.get(..at.width as usize).unwrap_or_default());
        }
    }

    fn bus_master(&self, enabled: bool) {
        let mut master = self.0.master.lock();
        master.enabled = enabled;
        if let Some(live) = &master.live {
            live.listed.hold_back(!enabled);
        }
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn detached(&self) {
        self.0.detach();
    }
}

impl fmt::Debug for PciVdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciVdev").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PciVdevBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciVdevBuilder").field("request", &self.request).finish_non_exhaustive()
    }
}
