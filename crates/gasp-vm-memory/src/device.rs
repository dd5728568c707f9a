//! A device's view of guest memory, from which bursts begin.

use std::error::Error;
use std::sync::Arc;

use gasp::{Dma, Vdev};
use vm_memory::GuestAddressSpace;
use vm_memory::bitmap::Bitmap;

use crate::burst::Burst;
use crate::shared::Shared;

/// The guest memory that a device may use, as vm-memory's [`GuestAddressSpace`].
///
/// [`memory`](GuestAddressSpace::memory) begins a [`Burst`], through which the memory is used.
/// `D` is whatever gives the device its memory: a [`Vdev`], whose every access the guest's IOMMU
/// allows or refuses; a [`Guest`](gasp::Guest), which is what firmware and vCPUs see; the
/// `DeviceContext` of `gasp-vdev`. `B` is a dirty bitmap indexed by device address; `()` keeps
/// none.
#[derive(Debug)]
pub struct DeviceMemory<D = Vdev, B = ()> {
    shared: Arc<Shared<D, B>>,
}

impl<D> DeviceMemory<D> {
    /// The memory that `dma` reaches, without a dirty bitmap.
    pub fn new(dma: D) -> Self {
        Self::with_bitmap(dma, ())
    }
}

impl<D, B> DeviceMemory<D, B> {
    /// The memory that `dma` reaches. What is written through a slice is marked in `bitmap`, at
    /// its device address: the address that vhost-user's log uses behind an IOMMU.
    pub fn with_bitmap(dma: D, bitmap: B) -> Self {
        Self { shared: Arc::new(Shared { dma, bitmap }) }
    }

    /// The dirty bitmap.
    pub fn bitmap(&self) -> &B {
        &self.shared.bitmap
    }

    /// What gives the device its memory.
    pub fn dma(&self) -> &D {
        &self.shared.dma
    }
}

impl<D: Dma, B: Bitmap> DeviceMemory<D, B>
where
    D::Error: Error + Send + Sync + 'static,
{
    /// Begins a burst.
    #[inline]
    pub fn burst(&self) -> Burst<D, B> {
        Burst::new(Arc::clone(&self.shared))
    }
}

impl<D, B> Clone for DeviceMemory<D, B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Dma, B: Bitmap> GuestAddressSpace for DeviceMemory<D, B>
where
    D::Error: Error + Send + Sync + 'static,
{
    type M = Burst<D, B>;
    type T = Arc<Burst<D, B>>;

    fn memory(&self) -> Self::T {
        Arc::new(self.burst())
    }
}
