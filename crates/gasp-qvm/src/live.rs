//! A vdev that exists: what the host and the functions that C calls know of it.
#![allow(unsafe_code, reason = "calls C, and owns memory that it uses")]

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};

use gasp::Errno;
use gasp_capi::embed;
use gasp_capi::types::Vdev;
use parking_lot::{Mutex, RwLock};

use crate::bar::Installed;
use crate::cdev::Cdev;
use crate::controller::Refused;
use crate::doing::Doing;
use crate::factory::Factory;
use crate::host::{Cause, End, Host};
use crate::object::Object;
use crate::threads::Threads;
use crate::worker::Worker;

/// The target of the trace events about calls of `control`: one with the fields `vdev` and `call`
/// before each, and one that has `code` as well, the result, after it.
pub const CALLS: &str = "gasp_qvm::calls";

/// All that exist, by the address of their `vdev_t`.
static ALL: RwLock<BTreeMap<usize, Arc<Live>>> = RwLock::new(BTreeMap::new());
/// Those that have an interrupt, by its number.
static INTERRUPTS: RwLock<BTreeMap<u32, Weak<Live>>> = RwLock::new(BTreeMap::new());
/// The number of the next interrupt; 0 is none.
static NEXT_INTERRUPT: AtomicU32 = AtomicU32::new(1);

/// A vdev that exists.
pub(crate) struct Live {
    pub(crate) name: String,
    pub(crate) factory: Arc<Factory>,
    pub(crate) guest: embed::ListedGuest,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) object: Object,
    pub(crate) threads: Arc<Threads>,
    pub(crate) worker: Worker,
    /// The state of its own, which `v_device` points to.
    pub(crate) memory: Memory,
    /// The last error that it has logged in a call of `control`.
    pub(crate) error: Mutex<String>,
    /// What it reports of its state, while it is asked.
    pub(crate) report: Mutex<Option<String>>,
    /// Whether it has asked for the power button.
    pub(crate) has_button: AtomicBool,
    /// Whether the guest is complete: its running phase has begun.
    running: AtomicBool,
    /// Why it has no interrupt, though it has tried to assign one.
    pub(crate) refused_line: Mutex<Option<Refused>>,
    /// Its character devices, by the addresses of their `struct cdev_state`.
    pub(crate) cdevs: Mutex<BTreeMap<usize, Arc<Cdev>>>,
    /// Its BARs that are regions of the guest.
    pub(crate) bars: Mutex<Installed>,
    /// The level of its interrupt.
    level: Mutex<bool>,
    /// The number of its interrupt, or 0.
    interrupt: AtomicU32,
    /// Dropped by the host: later calls of C do not find it.
    pub(crate) listed: embed::ListedVdev,
}

/// A failure that ends a vdev, on its way from the C function that it has called to the host's call.
pub(crate) struct Fatal(pub(crate) String);

impl Live {
    /// The vdev of a `vdev_t`, if it exists.
    pub(crate) fn find(vdev: *const Vdev) -> Option<Arc<Self>> {
        ALL.read().get(&vdev.addr()).cloned()
    }

    /// The vdev of the call that this thread is in.
    pub(crate) fn current() -> Option<Arc<Self>> {
        let vdev = Doing::with(|doing| doing.and_then(|doing| doing.vdev))?;
        ALL.read().get(&vdev).cloned()
    }

    /// The address of its `vdev_t`.
    pub(crate) fn address(&self) -> usize {
        self.object.pointer().addr()
    }

    /// The vdev of an interrupt, if it exists.
    pub(crate) fn of_interrupt(number: u32) -> Option<Arc<Self>> {
        INTERRUPTS.read().get(&number).and_then(Weak::upgrade)
    }

    pub(crate) fn enlist(self: &Arc<Self>) {
        ALL.write().insert(self.address(), Arc::clone(self));
    }

    pub(crate) fn delist(&self) {
        ALL.write().remove(&self.address());
        let number = self.interrupt.swap(0, Ordering::AcqRel);
        INTERRUPTS.write().remove(&number);
    }

    /// The number of its interrupt, which it has from now on.
    pub(crate) fn number_interrupt(self: &Arc<Self>) -> u32 {
        let present = self.interrupt.load(Ordering::Acquire);
        if present != 0 {
            return present;
        }
        let mut all = INTERRUPTS.write();
        let next = || NEXT_INTERRUPT.fetch_add(1, Ordering::Relaxed);
        // Numbers wrap after 2^32 vdevs: those in use are left out.
        let number = core::iter::repeat_with(next).find(|it| *it != 0 && !all.contains_key(it));
        let number = number.unwrap_or(0);
        all.insert(number, Arc::downgrade(self));
        self.interrupt.store(number, Ordering::Release);
        number
    }

    /// Sets the level of its interrupt.
    pub(crate) fn set_level(&self, raised: bool) {
        let mut level = self.level.lock();
        match (core::mem::replace(&mut *level, raised), raised) {
            (true, true) => self.host.raised_again(),
            (false, false) => {}
            _ => self.host.interrupt(raised),
        }
    }

    /// Whether a number is that of its interrupt.
    pub(crate) fn has_interrupt(&self, number: u32) -> bool {
        number != 0 && number == self.interrupt.load(Ordering::Acquire)
    }

    /// Sends one edge of its interrupt, whose level stays as it is.
    pub(crate) fn send_edge(&self) {
        let level = self.level.lock();
        for raised in if *level { [false, true] } else { [true, false] } {
            self.host.interrupt(raised);
        }
    }

    /// Closes its character devices. What is returned has their buffers.
    pub(crate) fn close_cdevs(&self) -> BTreeMap<usize, Arc<Cdev>> {
        let cdevs = core::mem::take(&mut *self.cdevs.lock());
        cdevs.values().for_each(|cdev| cdev.close());
        cdevs
    }

    /// Whether the running phase has begun.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    pub(crate) fn begin_running(&self) {
        self.running.store(true, Ordering::Release);
    }

    /// Calls its `control`; its result, or the message of a fatal error.
    pub(crate) fn control(
        self: &Arc<Self>,
        ctrl: u32,
        what: &str,
        argument: Option<&CStr>,
    ) -> Result<i32, Fatal> {
        self.control_at(ctrl, what, argument.map_or(core::ptr::null(), CStr::as_ptr))
    }

    /// As [`control`](Self::control); `argument` is what the header says for this call, and valid
    /// during it.
    pub(crate) fn control_at(
        self: &Arc<Self>,
        ctrl: u32,
        what: &str,
        argument: *const c_char,
    ) -> Result<i32, Fatal> {
        let doing = Doing {
            name: &self.name,
            what,
            vdev: Some(self.address()),
            cpu: None,
            may_unwind: true,
        };
        let (control, object) = (self.factory.control, self.object.pointer());
        // SAFETY: `control` is that of the factory, which is never unloaded, and `object` its
        // vdev's `vdev_t`, which lasts until `terminate`. The argument is what the header says for
        // this call: NULL, or a text that stays as it is meanwhile.
        let call = || unsafe { control(object, ctrl, argument) };
        tracing::trace!(target: CALLS, vdev = %self.name, call = what);
        match catch_unwind(AssertUnwindSafe(|| self.guest.chosen(|| doing.run(call)))) {
            Ok(code) => {
                tracing::trace!(target: CALLS, vdev = %self.name, call = what, code);
                Ok(code)
            }
            Err(payload) => match payload.downcast::<Fatal>() {
                Ok(fatal) => Err(*fatal),
                Err(other) => resume_unwind(other),
            },
        }
    }

    /// Ends its guest.
    pub(crate) fn end(&self, cause: Cause) {
        self.host.end(&End { vdev: self.name.clone(), cause });
    }
}

/// Memory of a vdev: zeros, aligned for anything, which C may free by no means.
pub(crate) struct Memory(Option<NonNull<c_void>>);

// SAFETY: it is an address, which is freed once, by its owner.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing is read or written through it here.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn zeroed(len: u32) -> Result<Self, Errno> {
        if len == 0 {
            return Ok(Self(None));
        }
        // SAFETY: calloc(3) takes any size.
        let place = unsafe { libc::calloc(1, len as usize) };
        match NonNull::new(place) {
            Some(place) => Ok(Self(Some(place))),
            None => Err(Errno::NOMEM),
        }
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.0.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    /// Frees it.
    ///
    /// # Safety
    /// No code of the vdev runs any more.
    pub(crate) unsafe fn free(&self) {
        if let Some(place) = self.0 {
            // SAFETY: it is of calloc(3), and is freed once: the vdev, which alone has it, is at
            // its end. Nobody uses it, as this function asks.
            unsafe { libc::free(place.as_ptr()) };
        }
    }
}

/// A text for C, cut at a NUL.
pub(crate) fn c_text(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("name", &self.name)
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl Live {
    pub(crate) fn new(
        name: String,
        factory: Arc<Factory>,
        guest: embed::ListedGuest,
        host: Arc<dyn Host>,
        object: Object,
        memory: Memory,
        listed: embed::ListedVdev,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker: Worker::new(&name),
            name,
            factory,
            guest,
            host,
            object,
            threads: Arc::default(),
            memory,
            error: Mutex::default(),
            report: Mutex::default(),
            has_button: AtomicBool::new(false),
            running: AtomicBool::new(false),
            refused_line: Mutex::default(),
            cdevs: Mutex::default(),
            bars: Mutex::default(),
            level: Mutex::new(false),
            interrupt: AtomicU32::new(0),
            listed,
        })
    }
}
