//! The life of a vdev: from its options to its end.
#![allow(unsafe_code, reason = "calls C")]

use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::sync::Arc;

use gasp::Errno;
use gasp::config::Location;
use gasp_capi::embed;

use crate::abi::*;
use crate::controller::{self, ANY_LINE, Refused};
use crate::cpu::ACCESS_MAX;
use crate::error::VdevError;
use crate::factory::Factory;
use crate::host::{Cause, Host};
use crate::live::{Fatal, Live, Memory};
use crate::object::{Members, Object};
use crate::request::{Request, Space, default_space, spaces};
use crate::vio;

/// How long the threads of a vdev may take to end, once it has returned from `TERMINATE`.
const THREADS_END_WITHIN: Duration = Duration::from_secs(2);
/// How long a thread of the host that waits for something may take to end.
const IDLE_ENDS_WITHIN: Duration = Duration::from_millis(200);

/// A vdev in front of a guest.
///
/// | call | of `control` | when |
/// |---|---|---|
/// | [`create`](Self::create) | `OPTIONS_START`, the options, `OPTIONS_END` | for each vdev |
/// | [`assign`](Self::assign) | `ASSIGN` | once all are created |
/// | [`place`](Self::place), [`set_line`](Self::set_line) | | if it has no location or interrupt yet |
/// | [`configured`](Self::configured) | `GUEST_CONFIGURED` | once all have their place |
/// | [`starting`](Self::starting) | `GUEST_STARTING` | when the first processor is about to run |
/// | [`read`](Self::read), [`write`](Self::write) | (`vread`, `vwrite`) | on an access of the guest |
/// | [`status`](Self::status), [`button`](Self::button) | `STATUS`, `BUTTON` | at any time then |
/// | [`terminate`](Self::terminate) | `TERMINATE` | at the end; also when it is dropped |
#[derive(Debug)]
pub struct Instance {
    pub(crate) live: Arc<Live>,
    /// A [`Phase`].
    phase: AtomicU8,
}

/// What is due of the end of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    /// All of it, with `TERMINATE`.
    Lives,
    /// It has failed in a call: all but that.
    Failed,
    /// Nothing.
    Over,
}

/// Where a vdev's registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The space.
    pub space: Space,
    /// The first address or port; `None` if the vdev has left it to the host. On the PCI bus it
    /// is the address that the vdev sees for the start of its BAR.
    pub start: Option<u64>,
    /// The bytes or ports, at least 1.
    pub len: u64,
}

impl Instance {
    /// Creates a vdev, and gives it its options.
    ///
    /// `vdev` is the engine's device, which its maps are checked for.
    ///
    /// # Errors
    /// [`VdevError::Refused`] if it refuses its options; [`VdevError::Host`] if there is no memory.
    pub fn create(
        guest: &embed::ListedGuest,
        vdev: &gasp::Vdev,
        factory: &Arc<Factory>,
        request: &Request,
        host: Arc<dyn Host>,
    ) -> Result<Self, VdevError> {
        let name = request.name.clone();
        let failed = |why: String, errno: Errno| VdevError::Host { vdev: name.clone(), errno, why };
        let foreign = [
            (factory.is_pic, "it is an interrupt controller, and the guest has the host's"),
            (factory.has(VFF_RC), "it is a PCI root complex, and the guest has the host's"),
        ];
        if let Some((_, why)) = foreign.into_iter().find(|(is_it, _)| *is_it) {
            return Err(failed(why.to_owned(), Errno::NOTSUP));
        }
        let listed = guest.list(vdev);
        let listed = listed.map_err(|error| failed(error.to_string(), error.errno()))?;
        listed.hold_back(!host.may_reach_memory());
        let no_memory = |errno: Errno| failed("its state cannot be allocated".into(), errno);
        let memory = Memory::zeroed(factory.extra_space).map_err(no_memory)?;
        let space = request.space(factory).unwrap_or_else(|| default_space(factory));
        let block = Block { location: QSL_NO_LOCATION, length: 0, kind: kind_of(space) };
        let members = Members {
            device: memory.pointer(),
            factory: factory.address,
            guest: guest.pointer(),
            block,
            intr: GuestIntr { pic: core::ptr::null_mut(), param: 0, src_id: 0 },
            mutex: factory.has(VFF_MUTEX).then(|| factory.has(VFF_MUTEX_RECURSIVE)),
        };
        let Some(at) = core::ptr::NonNull::new(listed.pointer()) else {
            return Err(failed("it has no address".into(), Errno::NOMEM));
        };
        // SAFETY: `at` is a page that is valid until `listed` is dropped, which is after the last
        // use of the object: both are in the same structure. Nobody has seen its address yet.
        let object = unsafe { Object::create(at, factory.edition(), &members) };
        let object = object.map_err(|errno| failed("v_mtx cannot be set up".into(), errno))?;
        let live =
            Live::new(name, Arc::clone(factory), guest.clone(), host, object, memory, listed);
        live.enlist();
        let instance = Self { live, phase: AtomicU8::new(Phase::Lives as u8) };
        instance.options(request)?;
        Ok(instance)
    }

    /// The engine's name of it.
    pub fn name(&self) -> &str {
        &self.live.name
    }

    /// The address of its `vdev_t`, which identifies it among the vdevs that exist.
    pub fn address(&self) -> usize {
        self.live.object.pointer().addr()
    }

    /// Its factory.
    pub fn factory(&self) -> &Arc<Factory> {
        &self.live.factory
    }

    fn options(&self, request: &Request) -> Result<(), VdevError> {
        self.call(VDEV_CTRL_OPTIONS_START, "control(OPTIONS_START)", None)?;
        let object = &self.live.object;
        let mut block = object.block();
        match request.location {
            Some(Location::Default(at)) => block.location = at,
            Some(Location::Memory(at)) => block.location = at.0,
            Some(Location::Port(port)) => block.location = port.into(),
            Some(Location::Pci { .. } | Location::PciId { .. }) | None => {}
        }
        if let Some(space) = request.space(self.factory()) {
            block.kind = kind_of(space);
        }
        object.set_block(block);
        if let Some(line) = request.interrupt.as_ref().and_then(|interrupt| interrupt.line()) {
            self.set_line(line);
        }
        for option in &request.options {
            let ctrl = VDEV_CTRL_FIRST_OPTIDX.saturating_add(option.index);
            let what = format!("the option `{}`", option.name);
            self.call(ctrl, &what, option.argument.as_deref()).map_err(|error| match error {
                VdevError::Refused { errno, message, .. } => {
                    let given = option.argument.as_ref().map_or_else(String::new, |argument| {
                        format!(" {}", argument.to_string_lossy())
                    });
                    let why = match message.as_str() {
                        "" => errno.to_string(),
                        message => message.to_owned(),
                    };
                    let message =
                        format!("vdev `{}`: `{}{given}`: {why}", self.name(), option.name);
                    VdevError::Config(option.place.error(&message).with_errno(errno))
                }
                error => error,
            })?;
        }
        self.call(VDEV_CTRL_OPTIONS_END, "control(OPTIONS_END)", None)
    }

    /// Lets it choose a location and an interrupt if it has none.
    ///
    /// # Errors
    /// [`VdevError::Refused`]; [`VdevError::Misbehaved`] if what it has chosen is no place;
    /// [`VdevError::Host`] if it cannot have the interrupt that it has chosen.
    pub fn assign(&self) -> Result<(), VdevError> {
        self.call(VDEV_CTRL_ASSIGN, "control(ASSIGN)", None)?;
        if let Some(Refused { errno, why }) = self.live.refused_line.lock().take() {
            return Err(VdevError::Host { vdev: self.name().to_owned(), errno, why });
        }
        self.placed().map(drop)
    }

    /// Where it is now, as far as that is decided.
    ///
    /// # Errors
    /// [`VdevError::Misbehaved`] if what it has written into `v_block` is no place.
    pub fn placed(&self) -> Result<Placed, VdevError> {
        let block = self.live.object.block();
        let space = match block.kind {
            QST_MEMORY => Space::Memory,
            QST_X86_IO => Space::Ports,
            QST_PCI => Space::Pci,
            kind => return Err(self.misbehaved(&format!("v_block has the type {kind}, which is no place of a vdev; use QST_MEMORY, QST_X86_IO or QST_PCI"))),
        };
        if !spaces(self.factory()).contains(&space) {
            return Err(self.misbehaved("v_block has a type that its own factory_flags exclude"));
        }
        let len = match block.length {
            0 => self.default_len(),
            len => len,
        };
        let start = Some(block.location).filter(|&start| start != QSL_NO_LOCATION);
        let last = start.unwrap_or(0).checked_add(len - 1);
        let most = if space == Space::Ports { 0xffff } else { u64::MAX };
        if last.is_none_or(|last| last > most) {
            return Err(self.misbehaved(&format!(
                "v_block has {len:#x} bytes at {:#x}, which is past the last address",
                start.unwrap_or(0)
            )));
        }
        Ok(Placed { space, start, len })
    }

    /// The bytes of a vdev that does not say how many it has: one register, of the largest width
    /// that its factory allows.
    fn default_len(&self) -> u64 {
        let widths = (1..=ACCESS_MAX).rev();
        widths.into_iter().find(|&width| self.factory().allows(width)).unwrap_or(1) as u64
    }

    /// Gives it a place.
    pub fn place(&self, start: u64, len: u64) {
        let block = self.live.object.block();
        self.live.object.set_block(Block { location: start, length: len, ..block });
    }

    /// Whether its host is to make a region for its registers: it has some, in memory or at ports,
    /// and does not make its regions itself.
    pub fn has_region(&self) -> bool {
        let factory = self.factory();
        self.live.object.block().kind != QST_PCI
            && factory.answers() != (false, false)
            && !factory.has(VFF_LOC_NO)
            && !factory.has(VFF_MANUAL_REGION)
    }

    /// Whether it needs a place from its host.
    pub fn wants_place(&self, placed: Placed) -> bool {
        placed.start.is_none() && self.has_region()
    }

    /// Makes the region of its registers, unless it makes its regions itself, has none, or is on
    /// the PCI bus. [`Decoder`](crate::Decoder) finds it, and so does `gasp_region_info()`.
    ///
    /// # Errors
    /// [`VdevError::Host`] if something is there.
    pub fn make_region(&self) -> Result<(), VdevError> {
        let Placed { space, start, len } = self.placed()?;
        let space = match space {
            Space::Memory => embed::Space::Memory,
            Space::Ports => embed::Space::Ports,
            Space::Pci => return Ok(()),
        };
        let (Some(start), true) = (start, self.has_region()) else { return Ok(()) };
        let flags = gasp_capi::types::GRF_VIRT_RD | gasp_capi::types::GRF_VIRT_WR;
        // `placed` has checked that it does not wrap.
        let span = start..=start.saturating_add(len - 1);
        let made = self.live.listed.add_registers(space, span, flags, 0);
        made.map_err(|error| VdevError::Host {
            vdev: self.name().to_owned(),
            errno: error.errno(),
            why: error.to_string(),
        })
    }

    /// The line of its interrupt, if it has one.
    pub fn line(&self) -> Option<u32> {
        let intr = self.live.object.interrupt();
        self.live.has_interrupt(intr.src_id).then_some(intr.param).filter(|&line| line != ANY_LINE)
    }

    /// Whether it needs an interrupt and has none: its factory says so, or it has asked for any.
    pub fn wants_line(&self) -> bool {
        let intr = self.live.object.interrupt();
        let has_asked = self.live.has_interrupt(intr.src_id);
        let is_pci = self.live.object.block().kind == QST_PCI;
        let needs =
            self.factory().has(VFF_INTR_REQ) || (self.factory().has(VFF_INTR_NONPCI) && !is_pci);
        self.line().is_none() && (has_asked || needs)
    }

    /// Whether it has asked for the power button, with `guest_button_register()`.
    pub fn has_button(&self) -> bool {
        self.live.has_button.load(Ordering::Acquire)
    }

    /// Gives it an interrupt, which it knows by this number.
    pub fn set_line(&self, line: u32) {
        let src_id = self.live.number_interrupt();
        let pic = controller::pointer();
        self.live.object.set_interrupt(GuestIntr { pic, param: line, src_id });
    }

    /// Holds it back from guest memory, or no more: as long as it is a PCI function that is not bus
    /// master, its maps are refused (`EPERM`).
    pub fn hold_back(&self, held_back: bool) {
        self.live.listed.hold_back(held_back);
    }

    /// The guest is complete: threads may start.
    ///
    /// # Errors
    /// [`VdevError::Refused`].
    pub fn configured(&self) -> Result<(), VdevError> {
        self.live.begin_running();
        self.call(VDEV_CTRL_GUEST_CONFIGURED, "control(GUEST_CONFIGURED)", None)
    }

    /// The guest is about to run.
    ///
    /// # Errors
    /// [`VdevError::Refused`].
    pub fn starting(&self) -> Result<(), VdevError> {
        self.call(VDEV_CTRL_GUEST_STARTING, "control(GUEST_STARTING)", None)
    }

    /// What it reports of its state with `qvm_report()`; empty if it has nothing to say.
    pub fn status(&self) -> String {
        *self.live.report.lock() = Some(String::new());
        let done = self.call(VDEV_CTRL_STATUS, "control(STATUS)", None);
        let report = self.live.report.lock().take().unwrap_or_default();
        if let Err(error) = done {
            tracing::debug!(vdev = self.name(), %error, "there is no status");
            self.end_if_fatal(error);
        }
        report
    }

    /// Tells it that the power button was pressed. Returns whether it has asked for that.
    pub fn button(&self) -> bool {
        let asked = self.has_button();
        if let Err(error) = self.call(VDEV_CTRL_BUTTON, "control(BUTTON)", None) {
            tracing::debug!(vdev = self.name(), %error, "the button has no effect");
            self.end_if_fatal(error);
        }
        asked
    }

    /// Ends the guest if a call while it runs has ended the vdev.
    fn end_if_fatal(&self, error: VdevError) {
        if let (VdevError::Refused { message, .. }, true) = (error, self.is_over()) {
            self.live.end(Cause::Fatal(message));
        }
    }

    /// Whether the vdev is called no more: it has ended, or failed in the middle of a call.
    pub(crate) fn is_over(&self) -> bool {
        self.phase.load(Ordering::Acquire) != Phase::Lives as u8
    }

    /// Ends it: its threads, and what it has opened. Returns the names of threads that have not
    /// ended: they go on, but what they map is refused.
    pub fn terminate(self) -> Vec<String> {
        self.finish()
    }

    fn finish(&self) -> Vec<String> {
        let phase = self.phase.load(Ordering::Acquire);
        if phase == Phase::Over as u8 {
            return Vec::new();
        }
        let failed = phase == Phase::Failed as u8;
        if !failed && let Err(error) = self.call(VDEV_CTRL_TERMINATE, "control(TERMINATE)", None) {
            tracing::warn!(vdev = self.name(), %error, "it ends nevertheless");
        }
        // A call of `TERMINATE` that has failed is the last.
        let failed = self.phase.swap(Phase::Over as u8, Ordering::AcqRel) == Phase::Failed as u8;
        // Nobody has told the threads of a vdev that has failed to end, and a callback may wait for a
        // lock that it holds.
        let (threads, callback) = match failed {
            true => (Duration::ZERO, IDLE_ENDS_WITHIN),
            false => (THREADS_END_WITHIN, THREADS_END_WITHIN),
        };
        let mut left = self.live.threads.wait(threads);
        if !self.live.worker.end(callback) {
            left.push("of pulses and timers".to_owned());
        }
        let cdevs = self.live.close_cdevs();
        self.live.delist();
        self.live.set_level(false);
        if let Err(error) = self.live.listed.remove_registers() {
            tracing::warn!(vdev = self.name(), %error, "its regions stay");
        }
        let virtio = vio::forget(self.live.object.pointer());
        if left.is_empty() {
            if !failed {
                // SAFETY: the vdev has returned from `TERMINATE`, the host calls it no more, and its
                // threads have ended, as far as it has told of them.
                unsafe { self.live.memory.free() };
            }
            return left;
        }
        // They may use the state of the vdev, which is given up, its `vdev_t`, and the arrays and
        // buffers that it has seen; but what they map is refused.
        core::mem::forget((cdevs, virtio));
        self.live.listed.retire();
        if !failed {
            let threads = left.join(", ");
            let why = "threads outlive control(TERMINATE): it must end and join them";
            tracing::error!(vdev = self.name(), threads, "{why}");
        }
        left
    }

    /// A call of `control` that has to return `EOK`.
    fn call(
        &self,
        ctrl: u32,
        what: &str,
        argument: Option<&core::ffi::CStr>,
    ) -> Result<(), VdevError> {
        self.done(what, |code| code == 0, || self.live.control(ctrl, what, argument)).map(drop)
    }

    /// The result of a call, if it is a good one.
    pub(crate) fn done(
        &self,
        what: &str,
        is_good: impl FnOnce(i32) -> bool,
        call: impl FnOnce() -> Result<i32, Fatal>,
    ) -> Result<i32, VdevError> {
        if self.is_over() {
            let why = format!("{what}: it has failed before");
            return Err(VdevError::Misbehaved { vdev: self.name().to_owned(), why });
        }
        self.live.error.lock().clear();
        let done = call();
        let message = core::mem::take(&mut *self.live.error.lock());
        let (errno, message) = match done {
            Ok(code) if is_good(code) => return Ok(code),
            Ok(code) => (Errno::from_raw_os_error(code.saturating_abs()), message),
            Err(Fatal(message)) => {
                // It has failed in the middle of the call, and is not called again.
                self.phase.store(Phase::Failed as u8, Ordering::Release);
                (Errno::CANCELED, message)
            }
        };
        let (vdev, phase) = (self.name().to_owned(), what.to_owned());
        Err(VdevError::Refused { vdev, phase, errno, message })
    }

    pub(crate) fn misbehaved(&self, why: &str) -> VdevError {
        VdevError::Misbehaved { vdev: self.name().to_owned(), why: why.to_owned() }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.finish();
    }
}

/// `QST_*` of a space.
pub(crate) fn kind_of(space: Space) -> u16 {
    match space {
        Space::Memory => QST_MEMORY,
        Space::Ports => QST_X86_IO,
        Space::Pci => QST_PCI,
    }
}
