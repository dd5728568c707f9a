//! System calls without the signals that they raise besides their error, and that by default
//! end the process.
//!
//! A file that grows past the file-size limit (`RLIMIT_FSIZE`, `ulimit -f`) raises SIGXFSZ,
//! and a write to a pipe or socket without a reader raises SIGPIPE. A program that embeds a
//! library expects an error instead. Both signals are sent to the thread that made the call,
//! so it is enough to block them in that thread: around one call
//! ([`without_signals`]), or for the life of a thread that only makes such calls
//! ([`block_in_thread`]).
//!
//! Checking the limit first is not enough: another process can lower it at any time
//! (prlimit(2)).
#![allow(unsafe_code, reason = "changes the calling thread's signal mask")]

use core::mem::MaybeUninit;
use core::ptr;

use libc::{SIG_BLOCK, SIG_SETMASK, SIGPIPE, SIGXFSZ, c_int, sigset_t};

/// The signals that are blocked.
const SIGNALS: [c_int; 2] = [SIGXFSZ, SIGPIPE];

/// Calls `call` with SIGXFSZ and SIGPIPE blocked in this thread, discards those that it
/// raised, and restores the thread's signal mask. A signal that was pending before stays
/// pending.
///
/// It costs four system calls, and one more for a signal that it discards. If another process
/// sends one of the two signals meanwhile, that can be discarded, too.
///
/// # References
/// [pthread_sigmask(3)](https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html),
/// [sigtimedwait(2)](https://man7.org/linux/man-pages/man2/sigtimedwait.2.html)
pub fn without_signals<T>(call: impl FnOnce() -> T) -> T {
    // Restored after a panic as well.
    let _restored = Blocked::new();
    call()
}

/// Blocks SIGXFSZ and SIGPIPE in the calling thread until it ends. For the threads of a
/// library; threads that they start inherit the mask.
///
/// # References
/// [pthread_sigmask(3)](https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html)
pub fn block_in_thread() {
    change_mask(SIG_BLOCK, &set_of(SIGNALS));
}

/// Blocks the signals until dropped; has the mask and the pending signals of before.
struct Blocked {
    mask: sigset_t,
    pending: [bool; SIGNALS.len()],
}

impl Blocked {
    fn new() -> Self {
        let mask = change_mask(SIG_BLOCK, &set_of(SIGNALS));
        Self { mask, pending: pending() }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        for ((signal, before), now) in SIGNALS.into_iter().zip(self.pending).zip(pending()) {
            if now && !before {
                discard(signal);
            }
        }
        change_mask(SIG_SETMASK, &self.mask);
    }
}

/// Changes the calling thread's mask, and returns the previous one.
fn change_mask(how: c_int, set: &sigset_t) -> sigset_t {
    let mut before = empty();
    // It fails only for an invalid `how`.
    // SAFETY: `set` is initialised and only read, `before` is a local variable that is writable,
    // and both live for the call. No code's safety depends on these two signals' being blocked.
    unsafe { libc::pthread_sigmask(how, set, &raw mut before) };
    before
}

/// Which of the signals are pending for this thread or its process.
fn pending() -> [bool; SIGNALS.len()] {
    let mut set = empty();
    // It fails only for an invalid address, and then the set stays empty.
    // SAFETY: `set` is a local variable that is writable, and lives for the call.
    unsafe { libc::sigpending(&raw mut set) };
    // SAFETY: the set is initialised and only read, and the numbers are those of signals.
    SIGNALS.map(|signal| unsafe { libc::sigismember(&raw const set, signal) } == 1)
}

/// Consumes a pending signal, which this thread must block.
fn discard(signal: c_int) {
    let set = set_of([signal]);
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the set and the time are initialised, only read, and live for the call; a null
        // pointer for the information about the signal is allowed, and nothing is written.
        let taken = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const now) };
        let interrupted = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
        if taken == signal || !interrupted {
            return;
        }
    }
}

fn set_of(signals: impl IntoIterator<Item = c_int>) -> sigset_t {
    let mut set = empty();
    for signal in signals {
        // SAFETY: the set is initialised and writable, and the number is that of a signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn empty() -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is a local variable that is writable, and lives for the call.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised the set: it cannot fail for a valid address.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: c_int) -> bool {
        let mask = change_mask(SIG_BLOCK, &empty());
        // SAFETY: the mask is initialised and only read, and the number is that of a signal.
        unsafe { libc::sigismember(&raw const mask, signal) == 1 }
    }

    fn raise(signal: c_int) {
        // SAFETY: it runs no handler and ends nothing: the callers block the signal, so it only
        // becomes pending.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn what_a_call_raises_is_discarded_and_the_mask_is_restored() {
        // In a thread of its own, because the mask is that of a thread.
        std::thread::spawn(|| {
            for signal in SIGNALS {
                without_signals(|| raise(signal));
                assert!(!is_blocked(signal), "or the process would have ended");
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_was_blocked_stays_blocked_and_what_was_pending_stays_pending() {
        std::thread::spawn(|| {
            block_in_thread();
            raise(SIGXFSZ);
            without_signals(|| raise(SIGPIPE));
            assert_eq!(pending(), [true, false]);
            assert!(is_blocked(SIGXFSZ) && is_blocked(SIGPIPE));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_panic_restores_the_mask() {
        std::thread::spawn(|| {
            let panicked = std::panic::catch_unwind(|| without_signals(|| panic!("on purpose")));
            assert!(panicked.is_err() && !is_blocked(SIGXFSZ));
        })
        .join()
        .unwrap();
    }
}
