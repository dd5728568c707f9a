//! Stitched maps: the pieces of a scattered range, mapped once more side by side.
//!
//! This is the only map that makes system calls (some microseconds for each piece) and that can
//! fail with any mmap() error (decision 21).

use core::fmt;

use super::failed::Outcome;
use super::port::Port;
use super::remap::Remap;
use super::scatter::Scatter;
use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::{Error, Operation, Reason, Result};
use crate::map_flags::MapFlags;

/// A device's mapping of a scattered range at consecutive addresses, until it is dropped
/// (decision 21).
///
/// The memory is the guest's, not a copy. It stays mapped here until this is dropped, even if
/// the guest's own mapping of it ends; a revoke waits for it as for any other mapping. With a
/// guard page on either side, an access before or after its pages raises SIGSEGV.
pub struct Stitched {
    pages: Remap,
    scatter: Scatter,
}

impl Port<'_> {
    pub(crate) fn map_stitched(&self, addr: u64, len: u64, flags: MapFlags) -> Outcome<Stitched> {
        let scatter = self.map_scatter(Operation::MapStitched, addr, len, flags)?;
        let device = self.device.map(|(name, _)| name);
        Stitched::new(scatter).map_err(|reason| {
            let error = Error::new(Operation::MapStitched, DeviceAddr(addr), len, reason);
            device.map_or_else(|| error.clone(), |device| error.clone().of(device)).into()
        })
    }
}

impl Stitched {
    fn new(scatter: Scatter) -> core::result::Result<Self, Reason> {
        let ranges: Vec<_> =
            scatter.pieces().map(|piece| (piece.object(), piece.offset(), piece.len())).collect();
        let pages = Remap::new(&ranges, scatter.access() | Access::READ)?;
        Ok(Self { pages, scatter })
    }

    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.scatter.device_addr()
    }

    /// The length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.scatter.len()
    }

    /// The access that the mapping was created for.
    pub fn access(&self) -> Access {
        self.scatter.access()
    }

    /// The address of the first byte, for reading. It is valid for [`len`](Self::len) bytes while
    /// `self` lives; otherwise as [`Mapping::as_ptr`](crate::Mapping::as_ptr).
    pub fn as_ptr(&self) -> *const u8 {
        self.pages.as_ptr()
    }

    /// The address of the first byte, for writing; otherwise as [`as_ptr`](Self::as_ptr).
    ///
    /// # Errors
    /// `EACCES` if the mapping was not created for writing.
    pub fn as_mut_ptr(&self) -> Result<*mut u8> {
        let allowed = self.access();
        match allowed.contains(Access::WRITE) {
            true => Ok(self.as_ptr().cast_mut()),
            false => {
                let len = self.len() as u64;
                let reason = Reason::NotAllowed { allowed };
                Err(Error::new(Operation::Access, self.device_addr(), len, reason))
            }
        }
    }

    /// The same range in pieces, at the addresses of the memory objects.
    pub fn scatter(&self) -> &Scatter {
        &self.scatter
    }
}

impl fmt::Debug for Stitched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stitched").field("scatter", &self.scatter).finish_non_exhaustive()
    }
}
