//! The handler for SIGBUS: it ends a guarded access with an error, and passes on all other signals.
#![allow(unsafe_code, reason = "a signal handler")]

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(super) use handler::install;

#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
pub(super) fn install() -> bool {
    false
}

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod handler {
    use core::ffi::{c_int, c_void};
    use core::mem;
    use core::ptr;
    use std::sync::OnceLock;

    use crate::memory::access::guard::code;

    /// The previous action of SIGBUS; set before our handler is installed.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
    /// Our action; also set before our handler is installed.
    static OURS: OnceLock<libc::sigaction> = OnceLock::new();
    static INSTALLED: OnceLock<bool> = OnceLock::new();

    /// Installs the handler, once; `false` if the system refuses.
    pub(in crate::memory::access::guard) fn install() -> bool {
        *INSTALLED.get_or_init(|| {
            // SAFETY: all zeros is a valid `sigaction`: the default action.
            let mut before: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: asks for the action, into a place of ours.
            if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
                return false;
            }
            BEFORE.get_or_init(|| before);
            // SAFETY: all zeros is a valid `sigaction`; its fields are set below.
            let mut ours: libc::sigaction = unsafe { mem::zeroed() };
            ours.sa_sigaction = on_sigbus as *const () as usize;
            // On the alternative stack, so that the previous handler still sees an overflow of the
            // stack.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // The previous handler relies on its mask and `SA_RESTART`. A signal that is ignored
            // interrupts no system call.
            ours.sa_mask = before.sa_mask;
            let ignored = before.sa_sigaction == libc::SIG_IGN;
            ours.sa_flags |= if ignored { libc::SA_RESTART } else { 0 };
            ours.sa_flags |= before.sa_flags & libc::SA_RESTART;
            OURS.get_or_init(|| ours);
            // SAFETY: the handler has the signature that SA_SIGINFO asks for, does nothing
            // that a signal handler may not, and what it looks at is set.
            unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0 }
        })
    }

    extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: with SA_SIGINFO the kernel passes the interrupted thread's registers, which
        // are ours to change until we return.
        let at = unsafe { &mut *counter(context) };
        // SAFETY: with SA_SIGINFO the kernel passes what the signal is about, valid until we
        // return.
        let code = unsafe { (*info).si_code };
        // By a process, or by the kernel about a broken page that nobody has accessed: the
        // interrupted instruction has not raised it.
        let sent = code <= 0 || code == libc::BUS_MCEERR_AO;
        if let Some(instead) = code::instead_of(*at as usize).filter(|_| !sent) {
            // The instruction is in a function that keeps nothing on the stack, and returns 1 from
            // there.
            *at = instead as _;
            return;
        }
        pass_on(signal, info, context, sent);
    }

    /// The address of the interrupted instruction, in the context of a signal.
    #[cfg(target_arch = "x86_64")]
    fn counter(context: *mut c_void) -> *mut i64 {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's context, as the caller says; the index is one of its array.
        unsafe { &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] }
    }

    /// The address of the interrupted instruction, in the context of a signal.
    #[cfg(target_arch = "aarch64")]
    fn counter(context: *mut c_void) -> *mut u64 {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's context, as the caller says.
        unsafe { &raw mut (*context).uc_mcontext.pc }
    }

    /// Takes the action that would have been taken without our handler. A signal that was `sent` is
    /// not about an instruction; if the process survives it, our handler stays.
    fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, sent: bool) {
        let Some(before) = BEFORE.get() else { return };
        let kept = if sent { current() } else { None };
        match before.sa_sigaction {
            libc::SIG_IGN if sent => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                // The instruction is retried when we return, and then ends the process.
                // SAFETY: sets an action; safe in a handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
                if sent {
                    // The signal is blocked until we return, and then ends the process.
                    // SAFETY: safe in a handler.
                    unsafe { libc::raise(signal) };
                }
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                // SAFETY: whoever installed it with SA_SIGINFO promised this signature.
                let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
                handler(signal, info, context);
                put_back(kept);
            }
            handler => {
                // SAFETY: whoever installed it without SA_SIGINFO promised this signature.
                let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
                handler(signal);
                put_back(kept);
            }
        }
    }

    /// The present action of SIGBUS: ours, or that of a handler that calls ours.
    fn current() -> Option<libc::sigaction> {
        // SAFETY: all zeros is a valid `sigaction`.
        let mut now: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: asks for the action, into a place of ours; safe in a handler.
        let told = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut now) } == 0;
        match now.sa_sigaction {
            // Another thread is in the previous handler, which has set that.
            libc::SIG_DFL => OURS.get().copied(),
            _ => Some(now).filter(|_| told),
        }
    }

    /// Undoes what the previous handler may have set: the handler of Rust's standard library
    /// removes itself if the signal is not about a stack, so that the instruction is retried
    /// without it. After a signal that was sent there is no instruction to retry.
    fn put_back(kept: Option<libc::sigaction>) {
        if let Some(kept) = kept {
            // SAFETY: sets an action that was in place before; safe in a handler.
            unsafe { libc::sigaction(libc::SIGBUS, &raw const kept, ptr::null_mut()) };
        }
    }
}
