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
            // SAFETY: a `sigaction` consists of integers and of an optional function pointer, for
            // which all zeros is valid: the default action.
            let mut before: libc::sigaction = unsafe { mem::zeroed() };
            // SAFETY: without a new action (null), this only writes the present one to `before`, a
            // local that is valid for that.
            if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
                return false;
            }
            BEFORE.get_or_init(|| before);
            // SAFETY: a `sigaction` consists of integers and of an optional function pointer, for
            // which all zeros is valid; the fields that count are set below.
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
            // SAFETY: `ours` is a valid action: its handler has the signature that SA_SIGINFO
            // requires, and calls only async-signal-safe functions and the previous handler;
            // `BEFORE` and `OURS`, which it reads, are set. The old action is not asked for (null).
            unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0 }
        })
    }

    extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: `context` comes from the kernel, or from a handler that passes it on. With
        // SA_SIGINFO it has the interrupted thread's registers: valid, aligned, and for this
        // handler alone to read and change until it returns.
        let instruction = unsafe { &mut *program_counter(context) };
        // SAFETY: `info` comes from the kernel, or from a handler that passes it on. With
        // SA_SIGINFO it is a valid description of the signal until this handler returns.
        let code = unsafe { (*info).si_code };
        // By a process, or by the kernel about a broken page that nobody has accessed: the
        // interrupted instruction has not raised it.
        let sent = code <= 0 || code == libc::BUS_MCEERR_AO;
        if let Some(instead) = code::instead_of(*instruction as usize).filter(|_| !sent) {
            // The instruction is in a function that keeps nothing on the stack, and returns 1 from
            // there.
            *instruction = instead as _;
            return;
        }
        pass_on(signal, info, context, sent);
    }

    /// The address of the interrupted instruction, in the context of a signal.
    #[cfg(target_arch = "x86_64")]
    fn program_counter(context: *mut c_void) -> *mut i64 {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: `on_sigbus`, the only caller, passes the kernel's context, so the fields are
        // inside it; this only takes an address. REG_RIP is an index of `gregs`.
        unsafe { &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] }
    }

    /// The address of the interrupted instruction, in the context of a signal.
    #[cfg(target_arch = "aarch64")]
    fn program_counter(context: *mut c_void) -> *mut u64 {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: `on_sigbus`, the only caller, passes the kernel's context, so the field is inside
        // it; this only takes an address.
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
                // SAFETY: SIG_DFL is a valid action of any signal, and signal(2) is
                // async-signal-safe.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
                if sent {
                    // The signal is blocked until we return, and then ends the process.
                    // SAFETY: raise(3) requires nothing of its argument, and is async-signal-safe.
                    unsafe { libc::raise(signal) };
                }
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                // SAFETY: it is neither SIG_DFL nor SIG_IGN, so it is the address of a function;
                // whoever installed it with SA_SIGINFO promised the kernel this signature.
                let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
                handler(signal, info, context);
                put_back(kept);
            }
            handler => {
                // SAFETY: it is neither SIG_DFL nor SIG_IGN, so it is the address of a function;
                // whoever installed it without SA_SIGINFO promised the kernel this signature.
                let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
                handler(signal);
                put_back(kept);
            }
        }
    }

    /// The present action of SIGBUS: ours, or that of a handler that calls ours.
    fn current() -> Option<libc::sigaction> {
        // SAFETY: a `sigaction` consists of integers and of an optional function pointer, for which
        // all zeros is valid.
        let mut now: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: without a new action (null), this only writes the present one to `now`, a local
        // that is valid for that; sigaction(2) is async-signal-safe.
        let known = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut now) } == 0;
        match now.sa_sigaction {
            // Another thread is in the previous handler, which has set that.
            libc::SIG_DFL => OURS.get().copied(),
            _ => Some(now).filter(|_| known),
        }
    }

    /// Undoes what the previous handler may have set: the handler of Rust's standard library
    /// removes itself if the signal is not about a stack, so that the instruction is retried
    /// without it. After a signal that was sent there is no instruction to retry.
    fn put_back(kept: Option<libc::sigaction>) {
        if let Some(kept) = kept {
            // SAFETY: `kept` is a valid action: it was in place before, or is ours. The old action
            // is not asked for (null). sigaction(2) is async-signal-safe.
            unsafe { libc::sigaction(libc::SIGBUS, &raw const kept, ptr::null_mut()) };
        }
    }
}
