//! What a vdev receives on a thread of its worker: pulses and timers.
#![allow(unsafe_code, reason = "calls C")]

use core::ffi::c_void;

use gasp::Errno;

use crate::abi::{Pulse, TimerData};
use crate::doing::Doing;
use crate::factory::Calls;
use crate::live::Live;
use crate::worker::{Receiver, Worker};

impl Receiver for Live {
    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn begin(&self) {
        self.guest.choose();
    }

    fn pulse(&self, pulse: &Pulse) {
        let object = self.object.pointer();
        let call = || match self.factory.calls {
            Calls::V800 { pulse: Some(call), .. } => {
                // SAFETY: the function is that of the factory, which is never unloaded, with its
                // vdev, which ends after this thread, and a pulse that is valid during the call.
                Some(unsafe { call(object, core::ptr::from_ref(pulse)) })
            }
            // SAFETY: as above.
            Calls::V710 { pulse: Some(call), .. } => Some(unsafe { call(object, pulse.code) }),
            _ => None,
        };
        match does(self, "pulse", call) {
            Some(0) => {}
            Some(code) => {
                let errno = Errno::from_raw_os_error(code);
                tracing::warn!(vdev = %self.name, pulse = pulse.code, %errno, "`pulse` has failed");
            }
            None => {
                let (vdev, code) = (&self.name, pulse.code);
                tracing::error!(%vdev, code, "a pulse, but no `pulse` function");
            }
        }
    }

    fn expire(&self, data: usize, times: &TimerData) {
        let Some(timer) = self.factory.timer else {
            tracing::error!(vdev = %self.name, "a timer, but no `timer` function");
            return;
        };
        let data: *mut c_void = core::ptr::with_exposed_provenance_mut(data);
        let (object, times) = (self.object.pointer(), core::ptr::from_ref(times));
        // SAFETY: the function is that of the factory, which is never unloaded, with its vdev,
        // which ends after this thread; `data` is what it has asked to get back, and `times` valid
        // during the call. There is no processor, as the header says.
        does(self, "timer", || unsafe { timer(object, data, times, core::ptr::null_mut()) });
    }
}

fn does<T>(live: &Live, what: &str, call: impl FnOnce() -> T) -> T {
    let vdev = Some(live.address());
    Doing { name: &live.name, what, vdev, cpu: None, may_unwind: false }.run(call)
}
