//! The trait that a kind of virtio device implements.

use std::sync::Arc;

use gasp_vdev::{Bell, Class};

use crate::queue::{ActiveQueue, Broken};

/// What kind of device it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// The virtio device ID (virtio 1.2, 5), less than 64.
    pub id: u16,
    /// The PCI class code, which drivers of virtio do not look at.
    pub class: Class,
}

/// What a queue waits for after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// Chains of the driver, which is asked to notify of them.
    ForDriver,
    /// The device's own outside: its [`Bell`] will ring. The driver need not notify.
    ForOutside,
    /// Nothing: there is more to do, and the other queues have their turn first.
    NotAtAll,
}

/// A kind of virtio device, which [`VirtioPci`](crate::VirtioPci) makes a PCI function of.
///
/// [`serve`](Self::serve), [`start`](Self::start) and [`reset`](Self::reset) are called on one
/// thread at a time. The configuration is read and written on the front end's thread meanwhile.
///
/// An `Arc` of a device is one, too: its program keeps the other handle (to resize a console, say).
pub trait VirtioDevice: Send + Sync + 'static {
    /// What kind of device it is; always the same.
    fn kind(&self) -> Kind;

    /// The maximum size of each queue: powers of two up to 32,768; always the same.
    fn queues(&self) -> Vec<u16>;

    /// The features of this kind of device that it offers (bits 0 to 23 and from 50 on); always the
    /// same. The transport adds its own.
    fn features(&self) -> u64 {
        0
    }

    /// The device configuration as it is now; always of the same length, at most 4096 bytes.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Writes to the configuration; it may extend past its end.
    fn write_config(&self, offset: usize, bytes: &[u8]) {
        let _ = (offset, bytes);
    }

    /// Counts changes of the configuration by the device (virtio 1.2, 2.5.1). After a change, ring
    /// the [`Bell`]: the driver is interrupted.
    fn config_generation(&self) -> u8 {
        0
    }

    /// The driver has accepted these features, and the device starts (DRIVER_OK).
    fn start(&self, features: u64) {
        let _ = features;
    }

    /// Carries out requests of queue `index`, which [`queue`](ActiveQueue::next) returns until the
    /// turn is over or there are no more. Called when the driver may have added some, and when the
    /// device's [`Bell`] rings.
    ///
    /// # Errors
    /// If the driver has broken the queue: the device stops until it is reset.
    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken>;

    /// The driver or the VMM has reset the device: what it knows of requests is void. What it
    /// stores stays.
    fn reset(&self) {}

    /// A VMM has attached. `bell` wakes the device's thread; `None` if there is no descriptor left
    /// for one, so that the device does without its outside.
    fn attached(&self, bell: Option<Bell>) {
        let _ = bell;
    }

    /// The VMM has gone. End threads that [`attached`](Self::attached) has started.
    fn detached(&self) {}
}

impl<D: VirtioDevice> VirtioDevice for Arc<D> {
    fn kind(&self) -> Kind {
        D::kind(self)
    }

    fn queues(&self) -> Vec<u16> {
        D::queues(self)
    }

    fn features(&self) -> u64 {
        D::features(self)
    }

    fn config(&self) -> Vec<u8> {
        D::config(self)
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        D::write_config(self, offset, bytes);
    }

    fn config_generation(&self) -> u8 {
        D::config_generation(self)
    }

    fn start(&self, features: u64) {
        D::start(self, features);
    }

    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        D::serve(self, index, queue)
    }

    fn reset(&self) {
        D::reset(self);
    }

    fn attached(&self, bell: Option<Bell>) {
        D::attached(self, bell);
    }

    fn detached(&self) {
        D::detached(self);
    }
}
