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
/// allows or refuses; a [`Guest`](gasp::Guest), which is what firmware and vCPUs see; a
/// `&DeviceContext` of `gasp-vdev`, in the device's `work`. `B` is a dirty bitmap indexed by device
/// address; `()` keeps none.
///
/// It is not itself a [`GuestMemory`](vm_memory::GuestMemory), and has no `read_obj`: its bursts
/// are, and have. A device that is written for any `M: GuestAddressSpace` takes it as it is.
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
    /// its device address, as vm-memory's `IommuMemory` marks it. A mark past the end of an
    /// [`AtomicBitmap`] is lost, so it has to be as long as the highest address that the device is
    /// granted.
    ///
    /// An [`ArcSlice`] of a bitmap is one that several devices share. (Both types are behind
    /// vm-memory's feature `backend-bitmap`.)
    ///
    /// ```
    /// use core::num::NonZeroUsize;
    /// use std::sync::Arc;
    ///
    /// use gasp::{Guest, MemoryObject};
    /// use gasp_vm_memory::DeviceMemory;
    /// use vm_memory::bitmap::{ArcSlice, AtomicBitmap};
    /// use vm_memory::{Bytes, GuestAddress};
    ///
    /// // Without an IOMMU a device address is the guest-physical one.
    /// let guest = Guest::builder().build()?;
    /// guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
    /// let page = NonZeroUsize::new(4096).ok_or("no page size")?;
    /// let dirty = Arc::new(AtomicBitmap::new(2 << 20, page));
    /// for name in ["disk", "net"] {
    ///     let bitmap = ArcSlice::new(Arc::clone(&dirty), 0);
    ///     let memory = DeviceMemory::with_bitmap(guest.vdev(name)?, bitmap);
    ///     let at = 0x1000 * name.len() as u64;
    ///     memory.burst().write_obj(7_u32, GuestAddress(at))?;
    /// }
    /// let pages = [2, 3, 4].map(|page| dirty.is_bit_set(page));
    /// assert_eq!(pages, [false, true, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`AtomicBitmap`]: https://docs.rs/vm-memory/0.18/vm_memory/bitmap/struct.AtomicBitmap.html
    /// [`ArcSlice`]: https://docs.rs/vm-memory/0.18/vm_memory/bitmap/type.ArcSlice.html
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
