//! What a device has to say and do.

use gasp::{DeviceAddr, Span};

use crate::context::DeviceContext;
use crate::pci::{Model, Register};

/// A virtual PCI device.
///
/// Its methods take `&self` because they run at the same time: register accesses on the
/// front end's thread, [`work`](Self::work) on the device's own. State that both touch is
/// the device's to guard, with atomics or a lock that is never held across a transfer. Only
/// [`reset`](Self::reset) is certain not to overlap `work`.
///
/// [`dma`](crate::dma) is a complete device to start from. The smallest
/// one adds 1 to the byte whose address is written to its only register:
///
/// ```
/// use core::sync::atomic::{AtomicU64, Ordering};
/// use gasp::{DeviceAddr, MapFlags};
/// use gasp_vdev::{Bar, DeviceContext, Class, Device, Identity, Model, Register};
///
/// struct Increment(AtomicU64);
///
/// impl Device for Increment {
///     fn model(&self) -> Model {
///         let class = Class { base: 0xff, sub: 0, interface: 0 };
///         let (vendor, device, revision) = (0x1234, 0x0001, 0);
///         let (subsystem_vendor, subsystem) = (0, 0);
///         let identity =
///             Identity { vendor, device, subsystem_vendor, subsystem, revision, class };
///         Model::new(identity).bar(Bar::memory(0, 4096)).pin()
///     }
///
///     fn read(&self, _: &DeviceContext, at: Register) -> u64 {
///         at.part_of(0, self.0.load(Ordering::Relaxed))
///     }
///
///     fn write(&self, context: &DeviceContext, at: Register, value: u64) {
///         self.0.store(value, Ordering::Relaxed);
///         context.ring();
///     }
///
///     fn work(&self, context: &DeviceContext) {
///         let addr = DeviceAddr(self.0.load(Ordering::Relaxed));
///         // Mapped if it can be, and copied by messages otherwise.
///         let done = context.transfer(addr, 1, MapFlags::RW).and_then(|transfer| {
///             let mut byte = [0];
///             transfer.read_at(0, &mut byte)?;
///             transfer.write_at(0, &[byte[0].wrapping_add(1)])
///         });
///         if done.is_ok() {
///             context.signal(0);
///         }
///     }
///
///     fn reset(&self) {
///         self.0.store(0, Ordering::Relaxed);
///     }
/// }
/// # let shell = gasp_vdev::Shell::new("increment", Increment(AtomicU64::new(0))).unwrap();
/// ```
pub trait Device: Send + Sync + 'static {
    /// What the device is; asked once, when its [`Shell`](crate::Shell) is made.
    fn model(&self) -> Model;

    /// A VMM is there. The device is as after a reset, and no other call has been made
    /// for this VMM yet.
    fn attached(&self, context: &DeviceContext) {
        let _ = context;
    }

    /// The guest reads a register. `at` lies inside a BAR and is aligned to its width;
    /// bits above the width are dropped. A register that is not there reads as 0.
    fn read(&self, context: &DeviceContext, at: Register) -> u64;

    /// The guest writes a register; `value` has no bits above the width of `at`. What
    /// takes time is for [`work`](Self::work): note it and [`DeviceContext::ring`].
    fn write(&self, context: &DeviceContext, at: Register, value: u64);

    /// The doorbell was rung, once or several times: do what there is to do, on the
    /// device's thread. Return soon after [`DeviceContext::should_stop`] says so, and before every
    /// long step ask it.
    ///
    /// SIGXFSZ and SIGPIPE are blocked in this thread: a write past the file-size limit is
    /// `EFBIG`, and one to a pipe without a reader `EPIPE`, whatever the program has set. In
    /// the other methods, which run on threads of the front end, such writes need
    /// [`gasp::signal::without_signals`]. Threads that are started here inherit the mask;
    /// others of a device's own need [`gasp::signal::block_in_thread`].
    fn work(&self, context: &DeviceContext) {
        let _ = context;
    }

    /// The guest has taken `[span]` back, and waits until no mapping of it is held. Called
    /// on the front end's thread, only where some are held: a device that keeps mappings
    /// between calls drops those that overlap; one that does not has nothing to do.
    fn revoked(&self, context: &DeviceContext, span: Span<DeviceAddr>) {
        let _ = (context, span);
    }

    /// Back to the state after power-on; data that the device stores stays. Mappings that
    /// are kept between calls are dropped. [`work`](Self::work) is not running.
    fn reset(&self);

    /// The VMM is gone, and the device's thread has ended. Mappings that are kept between
    /// calls are dropped; a [`reset`](Self::reset) follows before the next VMM.
    fn detached(&self) {}
}
