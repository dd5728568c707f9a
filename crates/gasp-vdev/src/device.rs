//! The trait that a device implements.

use gasp::{DeviceAddr, Span};

use crate::context::DeviceContext;
use crate::pci::{Model, Register};

/// A virtual PCI device.
///
/// Its methods take `&self` because they run concurrently: register accesses on the front end's
/// thread, [`work`](Self::work) on the device's own. The device guards the state that both use,
/// with atomics or a lock that is never held across a transfer. Only [`attached`](Self::attached),
/// [`reset`](Self::reset) and [`detached`](Self::detached) never overlap `work`.
///
/// [`dma`](crate::dma) is a complete device to start from. This one adds 1 to the byte whose
/// address is written to its only register:
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
    /// The device's model; called once, when its [`Shell`](crate::Shell) is created.
    fn model(&self) -> Model;

    /// Called when a VMM attaches, right after a [`reset`](Self::reset) and before any other call
    /// for this VMM.
    fn attached(&self, context: &DeviceContext) {
        let _ = context;
    }

    /// Reads a register for the guest. `at` lies inside a BAR and is aligned to its width; bits of
    /// the result above the width are dropped. Return 0 for a register that does not exist.
    fn read(&self, context: &DeviceContext, at: Register) -> u64;

    /// Writes a register for the guest; `value` has no bits above the width of `at`. Leave what
    /// takes time to [`work`](Self::work): record it and call [`DeviceContext::ring`].
    fn write(&self, context: &DeviceContext, at: Register, value: u64);

    /// Does what there is to do, on the device's thread, after the doorbell was rung once or
    /// several times. Check [`DeviceContext::should_stop`] before every long step, and return soon
    /// after it is true.
    ///
    /// SIGXFSZ and SIGPIPE are blocked in this thread: a write past the file-size limit fails with
    /// `EFBIG`, and one to a pipe without a reader with `EPIPE`, whatever the program does with
    /// these signals. In the other methods, which run on threads of the front end, such writes need
    /// [`gasp::signal::without_signals`]. Threads that are started here inherit the mask; other
    /// threads of the device need [`gasp::signal::block_in_thread`].
    fn work(&self, context: &DeviceContext) {
        let _ = context;
    }

    /// Called when the guest has revoked `span` and waits until no mapping of it is held: on the
    /// front end's thread, and only if some are held. A device that keeps mappings between calls
    /// drops those that overlap; one that does not has nothing to do.
    fn revoked(&self, context: &DeviceContext, span: Span<DeviceAddr>) {
        let _ = (context, span);
    }

    /// Called when the guest's driver has made the function bus master, or no longer, and with
    /// `false` at a reset. For a device that maps otherwise than through its [`DeviceContext`],
    /// which refuses maps by itself. The function's configuration is locked meanwhile: neither wait,
    /// nor call the shell.
    fn bus_master(&self, enabled: bool) {
        let _ = enabled;
    }

    /// Resets the device to its state after power-on; data that it stores stays. Drop mappings that
    /// are kept between calls. [`work`](Self::work) is not running.
    fn reset(&self);

    /// Called when the VMM has gone and the device's thread has ended. Drop mappings that are kept
    /// between calls; a [`reset`](Self::reset) follows before the next VMM.
    fn detached(&self) {}
}
