//! The RAM from address 0 on, as memory that linux-loader can write.
#![allow(unsafe_code, reason = "lends a mapping to vm-memory")]

use std::fs::File;

use gasp::{Access, Guest, GuestPhys, MapFlags, Mapping, RegionKind};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::BootError;

/// The RAM from address 0 on. It is mapped for as long as this exists: a removal waits for it.
pub(super) struct LowRam {
    memory: GuestMemoryMmap,
    /// Dropped after what points to it.
    mapping: Mapping,
}

impl LowRam {
    pub(super) fn of(guest: &Guest) -> Result<Self, BootError> {
        let region = guest.space().region_at(GuestPhys(0)).ok_or(BootError::NoRam)?;
        let usable = region.kind() == RegionKind::Ram && region.access().contains(Access::RW);
        if !usable || region.span().start() != GuestPhys(0) {
            return Err(BootError::NoRam);
        }
        let len = region.span().len();
        let mapping = guest.map_firmware(GuestPhys(0), len, MapFlags::RW)?;
        if mapping.object().is_guarded() {
            return Err(BootError::Guarded);
        }
        let (pointer, len) = (mapping.as_mut_ptr()?, mapping.len());
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: `build_raw` asks that the range lies in a valid mapping of this process, for as
        // long as the region is used: `mapping` holds the `len` bytes from its pointer on, for
        // reading and writing, is kept beside the region in the same value, and is dropped after
        // it. The memory cannot be cut off: it is not guarded. Nobody has references to it, as the
        // engine reaches guest memory by volatile and atomic copies, like vm-memory itself.
        let region = unsafe { MmapRegion::<()>::build_raw(pointer, len, prot, flags) };
        // It fails for a pointer that is not a page's, or no bytes: regions are whole pages.
        let region = region.ok().and_then(|it| GuestRegionMmap::new(it, GuestAddress(0)));
        let memory = region.and_then(|it| GuestMemoryMmap::from_regions(vec![it]).ok());
        Ok(Self { memory: memory.ok_or(BootError::NoRam)?, mapping })
    }

    pub(super) fn len(&self) -> u64 {
        self.mapping.len() as u64
    }

    pub(super) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Reads `len` bytes of a file to `start`.
    pub(super) fn read_from(&self, start: u64, mut file: File, len: u64) -> Result<(), String> {
        let len = usize::try_from(len).map_err(|_| "it is too long".to_string())?;
        let read = self.memory.read_exact_volatile_from(GuestAddress(start), &mut file, len);
        read.map_err(|error| error.to_string())
    }
}
