//! Guest memory for virtual devices.
//!
//! A virtual device does DMA to a guest's memory. It needs a pointer to that memory, without
//! a copy: checked against what the guest's IOMMU allows *this* device, and valid while it
//! is used, whatever the guest changes meanwhile. Sometimes it needs the contiguous
//! host-physical address as well, to program real hardware with it. This crate provides both
//! as a [`Mapping`].
//!
//! ```
//! use gasp::{Backing, DeviceAddr, Guest, MapFlags, MemoryObject};
//!
//! let guest = Guest::builder().build()?;
//! let ram = MemoryObject::ram(2 << 20).prefer(&[Backing::Base]).create()?;
//! guest.space().add_ram(None, &ram)?;
//!
//! let disk = guest.vdev("disk")?;
//! let request = disk.map(DeviceAddr(0x1000), 512, MapFlags::RW)?;
//! request.write_at(0, b"a sector")?;
//! match disk.map_host_contig(DeviceAddr(0x1000), 0x8000, MapFlags::READ) {
//!     Ok(mapping) => println!("{} bytes at {}", mapping.len(), mapping.run().addr),
//!     Err(error) => println!("{error}"), // EPERM without the privilege, EAGAIN without pins
//! }
//! # Ok::<(), gasp::Error>(())
//! ```
//!
//! The modules, each knowing only those above it:
//!
//! | | |
//! |---|---|
//! | addresses, [`Bytes`], access, [`Error`] | a type for each kind of address; sizes as people write them; one error with one errno |
//! | memory | memory objects: created, adopted or declared; pinned; their frame numbers |
//! | space | guest memory: regions (split, merge, find, walk) and the objects placed in them |
//! | view | a domain's view of guest memory: one word for each page, looked up without locks |
//! | protocol | the protocol between look-ups and revokes; knows no memory |
//! | mapping | [`Mapping`], [`Scatter`], [`Stitched`], [`Fence`]; revoke and [`Drain`] |
//! | iommu | domains and their grants |
//! | guest | [`Guest`], [`Domain`], [`Vdev`]: the API of programs |
//! | [`config`] | a guest from a file, in TOML or the configuration language of qvm |
//! | [`broker`] | frame numbers for processes without the privilege to read them |
//! | [`signal`] | system calls without their signals; knows none of the others |

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod access;
mod addr;
#[cfg(feature = "broker")]
pub mod broker;
mod bytes;
#[cfg(feature = "config")]
pub mod config;
mod dma;
mod error;
mod fault;
#[doc(hidden)]
pub mod ffi;
mod guest;
mod iommu;
mod map_flags;
mod mapping;
mod memory;
mod peer;
mod protocol;
pub mod signal;
mod space;
mod span;
mod sync;
mod thread_lock;
mod view;

pub use access::Access;
pub use addr::{Address, DeviceAddr, GRANULE, GuestPhys, HostPhys};
pub use bytes::Bytes;
pub use dma::Dma;
pub use error::{
    Errno, Error, Location, Operation, Reason, Refusal, Result, errno_name, system_words,
};
pub use fault::{FAULTS_KEPT, Fault, Faults};
pub use guest::{
    AddressSpace, Domain, Grant, Guest, GuestBuilder, SpaceChange, SpaceListener, SpaceLock, Vdev,
};
pub use iommu::{
    AskCounts, DomainKind, DomainOptions, Following, Translation, TranslationFault, Translator,
    Unattached,
};
pub use map_flags::MapFlags;
pub use mapping::{
    Deadline, Drain, DrainPolicy, Drained, Fence, HostMapping, Integer, Mapping, PageTables, Piece,
    Scatter, Stitched,
};
pub use memory::{
    Adopt, Alias, Audit, Backing, BackingReport, Change, Contiguity, External, FileExtent,
    FrameAccess, HostExtent, HostRun, MemoryObject, PassedOver, PinAccess, PinMethod, Placement,
    Ram, RamProgress, Residency, Runs, Seals, Stability, frame_access, pin_access,
};
pub use space::{Region, RegionKind, Search, Walk, WalkEntry};
pub use span::Span;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("gasp is for hosts with 64-bit pointers");
#[cfg(not(target_os = "linux"))]
compile_error!("gasp is for Linux");
