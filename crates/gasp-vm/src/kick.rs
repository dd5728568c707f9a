//! Getting a vCPU's thread out of KVM_RUN.
//!
//! SIGRTMIN is blocked in the thread, and KVM_SET_SIGNAL_MASK unblocks it inside KVM_RUN alone. A
//! signal that is sent a moment too early is therefore pending when the thread enters KVM_RUN,
//! which then returns at once: no kick is lost. No handler ever runs, and none is installed.
#![allow(unsafe_code, reason = "changes a thread's signal mask, and KVM's; signals a thread")]

use core::mem::MaybeUninit;
use core::ptr;
use std::io;

use kvm_ioctls::VcpuFd;
use libc::{c_int, c_ulong, sigset_t};
use parking_lot::Mutex;

use crate::error::MachineError;

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`, whose size is 4 without the set that follows.
const KVM_SET_SIGNAL_MASK: c_ulong = 0x4004_ae8b;

/// `struct kvm_signal_mask` with the kernel's signal set: 64 bits, signal 1 is bit 0.
#[repr(C)]
struct KvmSignalMask {
    len: u32,
    set: [u8; 8],
}

/// The thread of a vCPU, while it has one.
#[derive(Default)]
pub(crate) struct Kick(Mutex<Option<libc::pid_t>>);

impl Kick {
    /// Makes the calling thread the one that is kicked, and KVM_RUN of `vcpu` the place that it is
    /// kicked out of. Until the [`Seat`] is dropped.
    pub(crate) fn sit(&self, vcpu: &VcpuFd) -> Result<Seat<'_>, MachineError> {
        let before = block();
        let mask = KvmSignalMask { len: 8, set: in_guest(&before).to_ne_bytes() };
        // SAFETY: the ioctl reads `len` and as many bytes behind it, which are those of `mask`; it
        // lives for the call. KVM keeps a copy.
        let done = unsafe { vmm_sys_util::ioctl::ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK, &mask) };
        if done < 0 {
            let errno = kvm_ioctls::Error::last();
            return Err(MachineError::call("KVM_SET_SIGNAL_MASK")(errno));
        }
        // SAFETY: the call has no arguments and always succeeds.
        let thread = unsafe { libc::gettid() };
        *self.0.lock() = Some(thread);
        Ok(Seat(self))
    }

    /// Ends the KVM_RUN of the thread, or its next one.
    pub(crate) fn kick(&self) {
        // The lock keeps the thread, and so its number.
        let thread = self.0.lock();
        if let Some(thread) = *thread {
            let (tgkill, signal) = (libc::SYS_tgkill, libc::SIGRTMIN());
            // SAFETY: the call has no arguments and always succeeds.
            let process = unsafe { libc::getpid() };
            // SAFETY: the arguments are numbers. The signal goes to a thread of this process that
            // blocks it: it sits there until it has taken the lock.
            let sent = unsafe { libc::syscall(tgkill, process, thread, signal) };
            if sent != 0 {
                // The user has as many queued signals as they may: who waits kicks once more.
                tracing::debug!(error = %io::Error::last_os_error(), "a vCPU is not kicked");
            }
        }
    }

    /// Consumes the kicks that ended a KVM_RUN, on its thread.
    pub(crate) fn taken(&self) {
        let set = kick_set();
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            // SAFETY: the set and the time are initialised, only read, and live for the call; the
            // pointer for information about the signal may be null.
            let taken =
                unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const now) };
            let interrupted = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if taken < 0 && !interrupted {
                return;
            }
        }
    }
}

/// A thread that can be kicked.
pub(crate) struct Seat<'a>(&'a Kick);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
        self.0.taken();
    }
}

/// Blocks the kick in this thread, and returns the mask of before.
fn block() -> sigset_t {
    let mut before = empty();
    let set = kick_set();
    // It fails only for an invalid first argument.
    // SAFETY: `set` is initialised and only read, `before` is writable, and both live for the
    // call. No code's safety depends on whether this signal is blocked.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
    before
}

/// The kernel's form of the mask inside KVM_RUN: what the thread blocks, without the kick.
fn in_guest(mask: &sigset_t) -> u64 {
    (1..=64_u32)
        .filter(|&signal| signal as c_int != libc::SIGRTMIN() && contains(mask, signal as c_int))
        .fold(0, |all, signal| all | 1 << (signal - 1))
}

fn contains(set: &sigset_t, signal: c_int) -> bool {
    // SAFETY: the set is initialised and only read. A number that is no signal's is an error, as is
    // one that the C library keeps for itself.
    unsafe { libc::sigismember(set, signal) == 1 }
}

fn kick_set() -> sigset_t {
    let mut set = empty();
    // SAFETY: the set is initialised and writable, and the number is that of a signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGRTMIN()) };
    set
}

fn empty() -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is a local variable that is writable, and lives for the call.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised the set: it cannot fail for a valid address.
    unsafe { set.assume_init() }
}
