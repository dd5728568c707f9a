//! What a vdev is doing on each thread: the call of the host that it is in.
//!
//! The functions that C calls find their vdev here, and a crash is reported with it.
#![allow(unsafe_code, reason = "handles signals")]

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};
use std::sync::{Once, OnceLock};

use crate::cpu::GuestCpu;

/// A call of a vdev.
pub(crate) struct Doing<'call> {
    /// The vdev's name, or its file's.
    pub(crate) name: &'call str,
    /// The call: `vread`, its constructor.
    pub(crate) what: &'call str,
    /// The address of its `vdev_t`; `None` while its file is being loaded.
    pub(crate) vdev: Option<usize>,
    /// The processor whose access it answers.
    pub(crate) cpu: Option<&'call GuestCpu>,
    /// Whether a failure that ends the vdev can unwind to the host.
    pub(crate) may_unwind: bool,
}

thread_local! {
    static CURRENT: Cell<*const c_void> = const { Cell::new(ptr::null()) };
}

impl Doing<'_> {
    /// Calls `call`, while this thread does this.
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        struct Restore(*const c_void);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(ptr::from_ref(self).cast()));
        call()
    }

    /// Calls `look` with what this thread does, if that is a call of a vdev.
    pub(crate) fn with<T>(look: impl FnOnce(Option<&Doing<'_>>) -> T) -> T {
        let current = CURRENT.get().cast::<Doing<'_>>();
        // SAFETY: the pointer is null, or one that `run` has set: to a `Doing` that is borrowed
        // there until the pointer is replaced again, on this thread, after `call`. This function is
        // called within `call`, and `look` gets the reference for its own duration only.
        look(unsafe { current.as_ref() })
    }
}

/// The signals of a crash.
const CRASHES: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];

/// The actions before ours.
static BEFORE: [OnceLock<libc::sigaction>; CRASHES.len()] =
    [const { OnceLock::new() }; CRASHES.len()];

/// Has crashes in a vdev reported, with its name, before the process ends as it would without.
pub(crate) fn report_crashes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for ((signal, _), before) in CRASHES.iter().zip(&BEFORE) {
            install(*signal, before);
        }
    });
}

fn install(signal: c_int, before: &OnceLock<libc::sigaction>) {
    // SAFETY: `sigaction` is plain data, for which zeros are valid: no handler, an empty mask.
    let mut found: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: `found` is valid for writes, and nothing is set.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut found) } != 0 {
        return;
    }
    // A handler for SIGBUS belongs to the engine, which has to see all of them first.
    if signal == libc::SIGBUS && found.sa_sigaction != libc::SIG_DFL {
        return;
    }
    if before.set(found).is_err() {
        return;
    }
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { core::mem::zeroed() };
    ours.sa_sigaction = crashed as *const () as usize;
    // On the alternative stack that Rust gives its threads: a stack may be what overflowed.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: `ours` is a valid action, whose handler does only what a handler may.
    unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) };
}

/// Reports the crash, and gives way to the action before: the instruction is run again, and raises
/// the signal again.
extern "C" fn crashed(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    Doing::with(|doing| {
        let Some(doing) = doing else { return };
        let name =
            CRASHES.iter().find(|(number, _)| *number == signal).map_or("a signal", |it| it.1);
        let parts = ["gasp: vdev `", doing.name, "` has crashed: ", name, " in ", doing.what, "\n"];
        for part in parts {
            // SAFETY: `part` is valid for reads of its length. write(2) may be called in a handler.
            unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
        }
    });
    let at = CRASHES.iter().position(|(number, _)| *number == signal);
    if let Some(before) = at.and_then(|at| BEFORE.get(at)).and_then(OnceLock::get) {
        // SAFETY: `before` is an action as sigaction(2) has returned it, which may be called in a
        // handler.
        unsafe { libc::sigaction(signal, ptr::from_ref(before), ptr::null_mut()) };
    }
}

/// The names of a thread's work.
struct Names {
    vdev: String,
    what: String,
}

/// Has this thread work for a vdev, while it lives.
pub(crate) struct Forever {
    names: NonNull<Names>,
    doing: NonNull<Doing<'static>>,
}

impl Forever {
    /// `vdev` is the address of the `vdev_t` of the vdev called `name`.
    pub(crate) fn new(name: &str, vdev: usize, thread: &str) -> Self {
        let names = Names { vdev: name.to_owned(), what: format!("its thread `{thread}`") };
        let at = NonNull::from(Box::leak(Box::new(names)));
        // SAFETY: the box is freed in `drop`, after `doing`, which alone has this reference; until
        // then nobody writes to it.
        let lent: &'static Names = unsafe { at.as_ref() };
        let doing = Doing {
            name: &lent.vdev,
            what: &lent.what,
            vdev: Some(vdev),
            cpu: None,
            may_unwind: false,
        };
        let doing = NonNull::from(Box::leak(Box::new(doing)));
        CURRENT.set(doing.as_ptr().cast_const().cast());
        Self { names: at, doing }
    }
}

impl Drop for Forever {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        // SAFETY: it is of `Box::leak`, and freed once. `CURRENT`, which alone had its address
        // besides, is null.
        drop(unsafe { Box::from_raw(self.doing.as_ptr()) });
        // SAFETY: it is of `Box::leak`, and freed once. What had borrowed it is gone.
        drop(unsafe { Box::from_raw(self.names.as_ptr()) });
    }
}
