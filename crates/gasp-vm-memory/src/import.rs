//! Memory of a `GuestMemoryMmap` as RAM of a guest.
#![allow(unsafe_code, reason = "hands mapped memory to the engine, with what keeps it mapped")]

use core::ptr::NonNull;
use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gasp::{
    Access, Errno, Error, External, Guest, GuestPhys, MemoryObject, Operation, Reason, Region,
    Residency, Result,
};
use rustix::mm::{MapFlags, ProtFlags};
use vm_memory::bitmap::Bitmap;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

/// Adds every region of `memory` to the guest as RAM, at its own address, and returns the memory
/// objects in order of address.
///
/// The memory is used where it is. It stays mapped until the last object, guest and mapping that
/// use it are gone: they share the regions with `memory`. A region of a file that is mapped shared
/// keeps the file, so that it can be stitched, shared, and pinned by a pipe.
///
/// All of `memory` is added, or nothing. A region that is plugged in later is added on its own: pass
/// a `GuestMemoryMmap` of that region alone
/// ([`from_arc_regions`](vm_memory::GuestRegionCollection::from_arc_regions)).
///
/// What is written through gasp is not marked in the dirty bitmaps of the regions: a device keeps
/// [one of its own](crate::DeviceMemory::with_bitmap).
///
/// # Errors
/// As [`MemoryObject::external`] and [`AddressSpace::add`](gasp::AddressSpace::add); `EMFILE` if
/// there is no descriptor left for a region's file; `EINVAL` if a region does not own its mapping
/// ([`MmapRegion::owned`](vm_memory::MmapRegion::owned)): nothing says how long that stays, so add
/// it with [`MemoryObject::external`] and an owner that keeps it. Nothing is added then, except if a
/// [listener](gasp::SpaceListener) that has allowed a region refuses its removal: that region
/// stays.
///
/// # Safety
/// For as long as the memory is used:
/// * nobody creates a Rust reference to it, and every access by this process is volatile or
///   atomic, as vm-memory's own are;
/// * nobody truncates its files, including whoever they are shared with: the memory is not
///   [guarded](MemoryObject::is_guarded). Seal a file against shrinking before it is shared;
/// * if `residency` is [`Pinned`](Residency::Pinned), nobody punches holes into its files
///   or discards the memory (`MADV_DONTNEED`).
///
/// ```
/// use gasp::{DeviceAddr, Guest, MapFlags, Residency};
/// use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
///
/// let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)])?;
/// let guest = Guest::builder().build()?;
/// // SAFETY: the memory is anonymous and used through vm-memory and gasp alone.
/// unsafe { gasp_vm_memory::add_guest_memory(&guest, &memory, Residency::Resident) }?;
///
/// memory.write_obj(7_u32, GuestAddress(0x1000))?;
/// let mapping = guest.vdev("net")?.map(DeviceAddr(0x1000), 4, MapFlags::READ)?;
/// assert_eq!(mapping.read_obj::<u32>(0)?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub unsafe fn add_guest_memory<B>(
    guest: &Guest,
    memory: &GuestMemoryMmap<B>,
    residency: Residency,
) -> Result<Vec<MemoryObject>>
where
    B: Bitmap + Send + Sync + 'static,
{
    let objects: Vec<(GuestPhys, MemoryObject)> = memory
        .iter()
        .map(|region| {
            // SAFETY: `object_of` asks what this function does.
            let object = unsafe { object_of(region, residency) }?;
            Ok((GuestPhys(region.start_addr().raw_value()), object))
        })
        .collect::<Result<_>>()?;
    let lock = guest.space().lock()?;
    for (index, (start, object)) in objects.iter().enumerate() {
        if let Err(error) = lock.add_ram(Some(*start), object) {
            for (start, object) in objects.iter().take(index) {
                // These were added a moment ago, so the range is right and has no holder but
                // those who guessed: what they hold is marked as revoked.
                let added = Region::ram(*start, object).map(|region| region.span());
                drop(added.ok().map(|span| lock.remove(span)));
            }
            return Err(error);
        }
    }
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

/// The memory object of a region.
///
/// # Safety
/// As [`add_guest_memory`] of the region.
unsafe fn object_of<B>(region: &GuestRegionMmap<B>, residency: Residency) -> Result<MemoryObject>
where
    B: Bitmap + Send + Sync + 'static,
{
    let start = GuestPhys(region.start_addr().raw_value());
    let len = region.size();
    let fail = |reason| Error::new(Operation::AdoptMemory, start, len as u64, reason);
    let mapping = region.get_mmap();
    if !mapping.owned() {
        return Err(fail(Reason::Invalid("the region does not own its mapping")));
    }
    let base = NonNull::new(region.as_ptr()).ok_or_else(|| fail(Reason::ZeroLength))?;
    let owner: Arc<dyn Any + Send + Sync> = mapping;
    let mut external = External::new(base, len, owner);
    external.access = access_of(region.prot());
    external.residency = residency;
    external.file = file_of(region).map_err(|errno| {
        fail(Reason::Os { what: "duplicating the descriptor of a region's file", errno })
    })?;
    // SAFETY: `external` asks, until the owner is dropped,
    // * that the range stays mapped with that access to the same memory: the owner is the
    //   region's mapping, which it owns, as checked above: vm-memory unmaps it when the last `Arc`
    //   is dropped, and never changes it; and this function's caller sees to it that a file is
    //   not truncated;
    // * that a file is mapped shared from that offset on: `file_of` returns one only then;
    // * that nobody creates a reference, and of pinned memory that it stays: this function's
    //   caller sees to it.
    let object = unsafe { MemoryObject::external(&format!("memory at {start}"), external) };
    // An error names the region, of which there may be several.
    object.map_err(|error| fail(error.reason()))
}

/// The access of a mapping with these `PROT_*` bits.
fn access_of(prot: i32) -> Access {
    let prot = ProtFlags::from_bits_retain(prot.cast_unsigned());
    let bits = [
        (ProtFlags::READ, Access::READ),
        (ProtFlags::WRITE, Access::WRITE),
        (ProtFlags::EXEC, Access::EXEC),
    ];
    bits.into_iter()
        .filter(|(bit, _)| prot.contains(*bit))
        .fold(Access::empty(), |all, (_, access)| all | access)
}

/// The file that a region is a shared mapping of, and the region's offset in it.
fn file_of<B: Bitmap>(
    region: &GuestRegionMmap<B>,
) -> core::result::Result<Option<(OwnedFd, u64)>, Errno> {
    let shared = MapFlags::from_bits_retain(region.flags().cast_unsigned());
    let Some(file) = GuestMemoryRegion::file_offset(region) else { return Ok(None) };
    if !shared.contains(MapFlags::SHARED) {
        return Ok(None);
    }
    let fd = rustix::io::fcntl_dupfd_cloexec(file.file().as_fd(), 0)?;
    Ok(Some((fd, file.start())))
}
