//! What a check of a vdev asks, and a host does not.
#![allow(unsafe_code, reason = "tries the mutex of a vdev")]

use std::thread;

use crate::abi::*;
use crate::access::Access;
use crate::cpu::GuestCpu;
use crate::factory::{Calls, Factory};
use crate::host::Status;
use crate::instance::Instance;
pub use crate::live::CALLS;

/// How a vdev has answered an access that was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tried {
    /// What `vread` or `vwrite` has returned.
    pub status: u32,
    /// The value of a read, in the first bytes, if the vdev has supplied one with
    /// `guest_cpu_write()`.
    pub value: Option<[u8; 8]>,
}

impl Factory {
    /// `factory_flags`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// `acc_sizes`.
    pub fn access_sizes(&self) -> u32 {
        self.acc_sizes
    }

    /// `extra_space`, in bytes.
    pub fn extra_space(&self) -> u32 {
        self.extra_space
    }

    /// Whether it has `pic`: its vdevs are interrupt controllers.
    pub fn is_controller(&self) -> bool {
        self.is_pic
    }

    /// The names of its functions, in the order of the structure.
    pub fn callbacks(&self) -> Vec<&'static str> {
        let (vread, vwrite) = self.answers();
        let pulse = match self.calls {
            Calls::V800 { pulse, .. } => pulse.is_some(),
            Calls::V710 { pulse, .. } => pulse.is_some(),
        };
        let all = [
            ("control", true),
            ("vread", vread),
            ("vwrite", vwrite),
            ("pulse", pulse),
            ("timer", self.timer.is_some()),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
}

impl Instance {
    /// The length that the vdev itself has written into `v_block`; 0 if none.
    pub fn own_length(&self) -> u64 {
        self.live.object.block().length
    }

    /// The names of its threads that are running, as far as `vdev_thread_create()` has started them.
    pub fn threads(&self) -> Vec<String> {
        self.live.threads.names()
    }

    /// Whether a thread other than a new one holds `v_mtx`; never without `VFF_MUTEX`.
    ///
    /// A vdev's own threads may hold it for a moment.
    pub fn mutex_is_held(&self) -> bool {
        if !self.factory().has(VFF_MUTEX) {
            return false;
        }
        // Another thread: a recursive mutex can be locked again by the one that holds it.
        thread::scope(|scope| scope.spawn(|| self.mutex_is_busy()).join().unwrap_or(false))
    }

    fn mutex_is_busy(&self) -> bool {
        let mutex = self.live.object.mutex();
        // SAFETY: `mutex` is the member of a `vdev_t` that lasts as long as `self`. It was
        // initialized when the vdev was created, because the factory has VFF_MUTEX. If the vdev has
        // destroyed it, the C library returns EINVAL, as for each use by the vdev itself.
        match unsafe { libc::pthread_mutex_trylock(mutex) } {
            0 => {
                // SAFETY: as above, and this thread has just locked it.
                unsafe { libc::pthread_mutex_unlock(mutex) };
                false
            }
            code => code == libc::EBUSY,
        }
    }

    /// Calls `vread` for `len` bytes, 1 to 8, as [`read`](Self::read) does, and leaves what follows
    /// from its status to the caller. `None` if there is no `vread`, or the width is not allowed.
    pub fn try_read(&self, access: Access, len: usize) -> Option<Tried> {
        let cpu = GuestCpu::reads(len);
        let status = self.ask(access, len, &cpu, "vread")?;
        Some(Tried { status, value: cpu.supplied() })
    }

    /// Calls `vwrite` with these bytes, 1 to 8; as [`try_read`](Self::try_read).
    pub fn try_write(&self, access: Access, data: &[u8]) -> Option<Tried> {
        let status = self.ask(access, data.len(), &GuestCpu::writes(data), "vwrite")?;
        Some(Tried { status, value: None })
    }
}

/// The name of what `vread` or `vwrite` has returned, such as `VRS_BUS_ERROR`.
pub fn status_name(status: u32) -> String {
    Status(status).to_string()
}
