//! The life of the instances of a function, one for each VMM.

use std::sync::Arc;

use gasp_capi::embed;
use gasp_vdev::{DeviceContext, Identity, Interrupts, Register};
use gasp_virtio::transport::BAR_SIZE;

use core::sync::atomic::{AtomicBool, Ordering};

use super::function::{self, Function, Windows};
use super::nominal::Nominal;
use super::{Inner, PciFailure, Seat, bars};
use crate::abi::{VFF_INTR_NO, VFF_LOC_NO, VFF_MANUAL_REGION};
use crate::access::Access;
use crate::error::VdevError;
use crate::factory::Factory;
use crate::host::Host;
use crate::instance::Instance;
use crate::request::{Request, Space};

/// A VMM, for which there is an instance, and another after a reset.
pub(super) struct Seated {
    vdev: gasp::Vdev,
    interrupts: Arc<Interrupts>,
}

/// An instance that answers accesses.
pub(super) struct Running {
    pub(super) instance: Instance,
    windows: Windows,
    pub(super) seat: Arc<Seat>,
    /// Whether it was accessed: a reset makes no difference before.
    touched: AtomicBool,
}

impl Running {
    /// What an access reaches; `None` if that is no register.
    pub(super) fn reach(&self, at: Register) -> Option<(&Instance, Access)> {
        if self.seat.has_ended() {
            return None;
        }
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
        self.windows.access(at).map(|access| (&self.instance, access))
    }
}

/// Creates an instance, and takes it up to the running guest.
fn start(
    guest: &embed::ListedGuest,
    vdev: &gasp::Vdev,
    factory: &Arc<Factory>,
    request: &Request,
    identity: Identity,
    seat: &Arc<Seat>,
) -> Result<(Instance, Function), VdevError> {
    let host = Arc::clone(seat) as Arc<dyn Host>;
    let instance = Instance::create(guest, vdev, factory, request, host)?;
    instance.assign()?;
    let mut nominal = Nominal::default();
    let mut placed = instance.placed()?;
    if !factory.has(VFF_LOC_NO) && placed.start.is_none() {
        let start = match (placed.space, instance.virtio_function()) {
            (Space::Pci, Some(_)) => nominal.next(Space::Memory, BAR_SIZE),
            (Space::Pci, None) => Some(function::on_bus(request)),
            (space, _) => nominal.next(space, placed.len),
        };
        let start = start.ok_or_else(|| {
            let len = placed.len;
            let why = format!("its registers have {len:#x} bytes, more than a BAR can have");
            instance.misbehaved(&why)
        })?;
        instance.place(start, placed.len);
        placed.start = Some(start);
    }
    if !factory.has(VFF_INTR_NO) && instance.line().is_none() {
        instance.set_line(0);
    }
    // It has ended for a guest of the host's, or of another vdev.
    let _ = guest.start();
    instance.configured()?;
    let bars = match placed.space {
        Space::Pci if instance.virtio_function().is_none() => bars::of(&instance, &mut nominal)?,
        _ => Vec::new(),
    };
    instance.starting()?;
    let function = Function::of(&instance, placed, &bars, identity)?;
    if seat.has_ended() {
        return Err(instance.misbehaved("it has ended its guest before that has started"));
    }
    Ok((instance, function))
}

/// Takes an instance through its life in front of a guest without memory.
pub(super) fn probe(
    factory: &Arc<Factory>,
    request: &Request,
    identity: Identity,
) -> Result<Function, VdevError> {
    if factory.has(VFF_MANUAL_REGION) {
        let why = "it makes its regions itself (VFF_MANUAL_REGION), and a PCI function has BARs: \
                   use it with `loc mem:` in `gasp vm`";
        let (vdev, why) = (request.name.clone(), why.to_owned());
        return Err(VdevError::Misbehaved { vdev, why });
    }
    let host = |error: gasp::Error| VdevError::Host {
        vdev: request.name.clone(),
        errno: error.errno(),
        why: error.to_string(),
    };
    let engine = gasp::Guest::builder().build().map_err(host)?;
    let vdev = engine.vdev(&request.name).map_err(host)?;
    let guest = list(&engine, request)?;
    let seat = Seat::new(&request.name, None, None, None, false);
    let (instance, function) = start(&guest, &vdev, factory, request, identity, &seat)?;
    let left = instance.terminate();
    match left.as_slice() {
        [] => Ok(function),
        names => {
            let vdev = request.name.clone();
            let why = format!(
                "its threads outlive control(TERMINATE), which must end and join them: {}",
                names.join(", ")
            );
            Err(VdevError::Misbehaved { vdev, why })
        }
    }
}

fn list(engine: &gasp::Guest, request: &Request) -> Result<embed::ListedGuest, VdevError> {
    embed::ListedGuest::new(engine.clone()).map_err(|error| VdevError::Host {
        vdev: request.name.clone(),
        errno: error.errno(),
        why: format!("its guest cannot be listed: {error}"),
    })
}

impl Inner {
    /// A VMM has attached.
    pub(super) fn attach(&self, context: &DeviceContext) {
        let mut seated = self.seated.lock();
        self.end();
        let (vdev, interrupts) = (context.vdev().clone(), Arc::clone(context.interrupts()));
        self.start(seated.insert(Seated { vdev, interrupts }));
    }

    /// The function is reset.
    pub(super) fn reset(&self) {
        let seated = self.seated.lock();
        let Some(seated) = &*seated else { return };
        let is_new = |running: &Running| {
            !running.touched.load(Ordering::Relaxed)
                && !running.seat.has_ended()
                && !running.seat.has_signalled()
        };
        if self.running.read().as_ref().is_some_and(is_new) {
            return;
        }
        self.end();
        self.start(seated);
    }

    /// The VMM has gone.
    pub(super) fn detach(&self) {
        let mut seated = self.seated.lock();
        self.end();
        *seated = None;
    }

    /// Creates an instance for this VMM.
    fn start(&self, seated: &Seated) {
        let Self { factory, request, function, messages, on_failure, .. } = self;
        let master = self.master.lock().enabled;
        let (messages, told) = (messages.clone(), on_failure.clone());
        let seat = Seat::new(&request.name, Some(&seated.interrupts), messages, told, master);
        let vdev = &seated.vdev;
        let engine = &vdev.guest();
        let hosts = self.guest.clone().filter(|guest| guest.engine().same(engine));
        // Listed for this instance, which so has a startup phase.
        let guest = hosts.map_or_else(|| list(engine, request), Ok);
        let identity = function.model.identity;
        let started =
            guest.and_then(|guest| start(&guest, vdev, factory, request, identity, &seat));
        let started = started.and_then(|(instance, new)| match new.is_alike(function) {
            true => Ok((instance, new.windows)),
            false => Err(instance.misbehaved("it has other BARs than at its start")),
        });
        match started {
            Ok((instance, windows)) => {
                let mut master = self.master.lock();
                instance.hold_back(!master.enabled);
                master.live = Some(Arc::clone(&instance.live));
                drop(master);
                let touched = AtomicBool::new(false);
                *self.running.write() = Some(Running { instance, windows, seat, touched });
            }
            // It has told itself why, and that its registers are ones.
            Err(_) if seat.has_ended() => {}
            Err(error) => self.refused(error),
        }
    }

    fn refused(&self, error: VdevError) {
        if let Some(count) = self.refusals.next_logged() {
            let vdev = &self.request.name;
            tracing::error!(vdev, %error, count, "it does not start: its registers read as ones");
        }
        if let Some(told) = &self.on_failure {
            told(&PciFailure::NotStarted(error));
        }
    }

    /// Ends the instance, once the accesses that it answers are done. Others read as ones meanwhile.
    fn end(&self) {
        let running = self.running.write().take();
        self.master.lock().live = None;
        if let Some(Running { instance, seat, .. }) = running {
            instance.terminate();
            seat.leave();
        }
    }
}
