//! A range of guest memory that a device reads and writes: mapped if it can be, otherwise
//! copied by messages.

use core::fmt;

use gasp::{Access, DeviceAddr, GRANULE, Location, MapFlags, Mapping, Operation, Reason, Scatter};

use crate::context::DeviceContext;
use crate::error::DmaError;

/// A range of guest memory, checked against the guest's IOMMU, for one transfer.
///
/// Returned by [`DeviceContext::transfer`]. Drop it when the transfer is done: a guest that unmaps
/// mapped memory waits for that.
#[derive(Debug)]
pub struct Transfer<'context> {
    context: &'context DeviceContext,
    addr: DeviceAddr,
    len: u64,
    access: Access,
    way: Way,
}

/// How the memory is reached.
enum Way {
    /// In one piece.
    Mapped(Mapping),
    /// In several.
    Scattered(Scatter),
    /// Each copy is a message to the VMM, or several.
    Messages,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mapped(_) => "mapped",
            Self::Scattered(_) => "scattered",
            Self::Messages => "by messages",
        })
    }
}

impl DeviceContext {
    /// Makes all of `[addr, addr + len)` accessible for one transfer, whatever kind of memory it
    /// is: mapped if it can be, in as many pieces as it takes; otherwise each copy is by messages
    /// to the VMM.
    ///
    /// This is the first choice of a device, which need not know what memory its VMM shares in a
    /// way that can be mapped. [`map`](Self::map), [`map_scatter`](Self::map_scatter) and
    /// [`map_host_contig`](Self::map_host_contig) refuse other memory; they are for devices that
    /// need a pointer or a host-physical address.
    ///
    /// The permissions of the whole range are checked now, and for memory that is reached by
    /// messages again with each copy, because the guest may have revoked them.
    ///
    /// ```
    /// use gasp::{DeviceAddr, MapFlags};
    /// use gasp_vdev::{DeviceContext, DmaError};
    ///
    /// /// Copies `len` bytes inside guest memory.
    /// fn copy(context: &DeviceContext, from: DeviceAddr, to: DeviceAddr, len: u64) -> Result<(), DmaError> {
    ///     let source = context.transfer(from, len, MapFlags::READ)?;
    ///     let target = context.transfer(to, len, MapFlags::WRITE)?;
    ///     let mut buffer = [0; 4096];
    ///     for at in (0..len).step_by(buffer.len()) {
    ///         let part = (len - at).min(buffer.len() as u64) as usize;
    ///         source.read_at(at, &mut buffer[..part])?;
    ///         target.write_at(at, &buffer[..part])?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Vdev::map`](gasp::Vdev::map), except that the memory need not be consecutive, nor
    /// mapped; `EPERM` if the device is not bus master.
    pub fn transfer(
        &self,
        addr: DeviceAddr,
        len: u64,
        flags: MapFlags,
    ) -> Result<Transfer<'_>, DmaError> {
        // A range inside one granule is one piece, found by a single look-up.
        let mapped = match len <= GRANULE - addr.0 % GRANULE {
            true => self.map(addr, len, flags).map(Way::Mapped),
            false => self.map_scatter(addr, len, flags).map(Way::Scattered),
        };
        let way = match mapped {
            Err(DmaError::NoDescriptor { .. }) => {
                self.check_each(addr, len, flags)?;
                Way::Messages
            }
            mapped => mapped?,
        };
        Ok(Transfer { context: self, addr, len, access: flags.access(), way })
    }

    /// Refuses a range of which a part can neither be mapped nor reached by messages. The
    /// permissions of the whole range have been checked.
    #[cold]
    fn check_each(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<(), DmaError> {
        let mut done = 0;
        while done < len {
            // The engine has checked that the range does not wrap.
            let at = DeviceAddr(addr.0.wrapping_add(done));
            let reached = self.messages.as_ref().and_then(|messages| messages.extent(at));
            let step = match reached {
                Some(extent) => extent.max(1),
                None => {
                    let rest = (GRANULE - at.0 % GRANULE).min(len - done);
                    self.vdev.map(at, rest, flags)?;
                    rest
                }
            };
            done = done.saturating_add(step);
        }
        Ok(())
    }
}

impl Transfer<'_> {
    /// The device address of the first byte.
    pub fn device_addr(&self) -> DeviceAddr {
        self.addr
    }

    /// The length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a transfer is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the memory is mapped; otherwise each copy is a message.
    pub fn is_mapped(&self) -> bool {
        !matches!(self.way, Way::Messages)
    }

    /// Copies bytes out of guest memory, from `offset` in the range on.
    ///
    /// # Errors
    /// `EINVAL` if the bytes extend past the end of the range, `EACCES` if the transfer is not for
    /// reading, `EIO` if the VMM has removed mapped memory; by messages, the errors of
    /// [`DeviceContext::read`].
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DmaError> {
        let (at, start) = self.check(offset, into.len(), Access::READ)?;
        match &self.way {
            Way::Mapped(mapping) => Ok(mapping.read_at(at, into)?),
            Way::Scattered(scatter) => Ok(scatter.read_at(at, into)?),
            Way::Messages if into.is_empty() => Ok(()),
            Way::Messages => self.context.read(start, into),
        }
    }

    /// Copies bytes into guest memory, from `offset` in the range on. They are there when the call
    /// returns.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), for writing; a part may have been written.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DmaError> {
        let (at, start) = self.check(offset, from.len(), Access::WRITE)?;
        match &self.way {
            Way::Mapped(mapping) => Ok(mapping.write_at(at, from)?),
            Way::Scattered(scatter) => Ok(scatter.write_at(at, from)?),
            Way::Messages if from.is_empty() => Ok(()),
            Way::Messages => self.context.write(start, from),
        }
    }

    /// The offset as an index, and its device address.
    fn check(
        &self,
        offset: u64,
        len: usize,
        access: Access,
    ) -> Result<(usize, DeviceAddr), DmaError> {
        let len = len as u64;
        let fail =
            |reason| gasp::Error::new(Operation::Access, Location::Offset(offset), len, reason);
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(fail(Reason::OutOfBounds { size: self.len }).into());
        }
        if !self.access.contains(access) {
            return Err(fail(Reason::NotAllowed { allowed: self.access }).into());
        }
        let at = usize::try_from(offset).map_err(|_| fail(Reason::Wraps))?;
        // At most the range's end, which the engine has checked not to wrap.
        Ok((at, DeviceAddr(self.addr.0.wrapping_add(offset))))
    }
}
