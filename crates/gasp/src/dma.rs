//! The trait of everything that gives a device access to guest memory.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::{Error, Result};
use crate::guest::{Guest, Vdev};
use crate::map_flags::MapFlags;
use crate::mapping::{Mapping, Scatter};

/// Access to guest memory by the addresses that a device uses.
///
/// A device model that is written against this trait works with any front end. A [`Vdev`]
/// checks each access against the guest's IOMMU. A [`Guest`] is memory as firmware and vCPUs
/// see it, with guest-physical addresses and without an IOMMU. `gasp_vdev::DeviceContext` is a
/// `Vdev` some of whose memory can be reached only by messages. A reference to one of them, or an
/// `Arc`, is `Dma` as well, for a device that borrows or shares its front end.
///
/// ```
/// use gasp::{DeviceAddr, Dma};
/// use zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(FromBytes, IntoBytes, Immutable)]
/// #[repr(C)]
/// struct Descriptor {
///     addr: u64,
///     len: u32,
///     flags: u32,
/// }
///
/// /// Marks a descriptor as done.
/// fn complete<D: Dma>(dma: &D, at: DeviceAddr) -> Result<(), D::Error> {
///     let descriptor: Descriptor = dma.read_obj(at)?;
///     dma.write_obj(at, &Descriptor { flags: descriptor.flags | 1, ..descriptor })
/// }
/// ```
pub trait Dma {
    /// The error of a failed access.
    type Error;

    /// Maps all of `[addr, addr + len)`, or nothing; see [`Vdev::map`]. The mapping has `len` bytes
    /// and the access of `flags`. Its own address is another one if the implementation translates.
    ///
    /// # Errors
    /// Those of the implementation.
    fn map(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> core::result::Result<Mapping, Self::Error>;

    /// Maps all of `[addr, addr + len)` in as many pieces as it takes, or nothing; see
    /// [`Vdev::map_scatter`]. Otherwise as [`map`](Self::map).
    ///
    /// # Errors
    /// Those of the implementation.
    fn map_scatter(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> core::result::Result<Scatter, Self::Error>;

    /// Maps the page of [`GRANULE`] bytes in which `[addr, addr + len)` lies, for whoever uses more
    /// of it later. An error, and a fault record, is about the range itself, as far as the
    /// implementation can tell.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    #[inline]
    fn map_page(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> core::result::Result<Mapping, Self::Error> {
        let _ = len;
        self.map(page_of(addr), GRANULE, flags)
    }

    /// Whether [`map_scatter`](Self::map_scatter) would succeed now, without a fault record if it
    /// would not; see [`Vdev::allows`]. An implementation that does not say otherwise maps the
    /// range, and may leave a record.
    fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        self.map_scatter(addr, len, flags).is_ok()
    }

    /// Copies out of guest memory; see [`Vdev::read`].
    ///
    /// # Errors
    /// Those of the implementation.
    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> core::result::Result<(), Self::Error>;

    /// Copies into guest memory; see [`Vdev::write`].
    ///
    /// # Errors
    /// Those of the implementation.
    fn write(&self, addr: DeviceAddr, from: &[u8]) -> core::result::Result<(), Self::Error>;

    /// Copies a value of a fixed layout out of guest memory. The copy is not atomic: if the
    /// guest writes the value meanwhile, its parts can be of different times.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn read_obj<T: FromBytes + IntoBytes>(
        &self,
        addr: DeviceAddr,
    ) -> core::result::Result<T, Self::Error> {
        let mut value = T::new_zeroed();
        self.read(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value of a fixed layout into guest memory.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn write_obj<T: IntoBytes + Immutable + ?Sized>(
        &self,
        addr: DeviceAddr,
        value: &T,
    ) -> core::result::Result<(), Self::Error> {
        self.write(addr, value.as_bytes())
    }
}

/// The address of the page that an address lies in.
#[inline]
fn page_of(addr: DeviceAddr) -> DeviceAddr {
    DeviceAddr(addr.0 - addr.0 % GRANULE)
}

impl Dma for Vdev {
    type Error = Error;

    #[inline]
    fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        Vdev::map(self, addr, len, flags)
    }

    #[inline]
    fn map_scatter(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Scatter> {
        Vdev::map_scatter(self, addr, len, flags)
    }

    #[inline]
    fn map_page(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        match Self::map_page_of(|| Some(self), page_of(addr), GRANULE, flags) {
            Some(mapping) => Ok(mapping),
            None => map_page_if_granted(self, addr, len, flags),
        }
    }

    fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        Vdev::allows(self, addr, len, flags)
    }

    #[inline]
    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<()> {
        Vdev::read(self, addr, into)
    }

    #[inline]
    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<()> {
        Vdev::write(self, addr, from)
    }
}

/// Maps a page of which the range was refused a moment ago, or returns why the range is.
#[cold]
#[inline(never)]
fn map_page_if_granted<D: Dma>(
    dma: &D,
    addr: DeviceAddr,
    len: u64,
    flags: MapFlags,
) -> core::result::Result<Mapping, D::Error> {
    drop(dma.map(addr, len, flags)?);
    dma.map(page_of(addr), GRANULE, flags)
}

impl Dma for Guest {
    type Error = Error;

    fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        self.map_firmware(GuestPhys(addr.0), len, flags)
    }

    fn map_scatter(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Scatter> {
        self.map_firmware_scatter(GuestPhys(addr.0), len, flags)
    }

    fn map_page(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        match Dma::map(self, page_of(addr), GRANULE, flags) {
            Err(_) => map_page_if_granted(self, addr, len, flags),
            mapping => mapping,
        }
    }

    fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
        self.allows_firmware(GuestPhys(addr.0), len, flags)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<()> {
        self.read_firmware(GuestPhys(addr.0), into)
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<()> {
        self.write_firmware(GuestPhys(addr.0), from)
    }
}

/// `Dma` through a pointer.
macro_rules! through {
    ($pointer:ty) => {
        impl<D: Dma> Dma for $pointer {
            type Error = D::Error;

            #[inline]
            fn map(
                &self,
                addr: DeviceAddr,
                len: u64,
                flags: MapFlags,
            ) -> core::result::Result<Mapping, D::Error> {
                D::map(self, addr, len, flags)
            }

            fn map_scatter(
                &self,
                addr: DeviceAddr,
                len: u64,
                flags: MapFlags,
            ) -> core::result::Result<Scatter, D::Error> {
                D::map_scatter(self, addr, len, flags)
            }

            #[inline]
            fn map_page(
                &self,
                addr: DeviceAddr,
                len: u64,
                flags: MapFlags,
            ) -> core::result::Result<Mapping, D::Error> {
                D::map_page(self, addr, len, flags)
            }

            fn allows(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> bool {
                D::allows(self, addr, len, flags)
            }

            #[inline]
            fn read(
                &self,
                addr: DeviceAddr,
                into: &mut [u8],
            ) -> core::result::Result<(), D::Error> {
                D::read(self, addr, into)
            }

            #[inline]
            fn write(&self, addr: DeviceAddr, from: &[u8]) -> core::result::Result<(), D::Error> {
                D::write(self, addr, from)
            }
        }
    };
}

through!(&D);
through!(Arc<D>);
