//! vm-memory's traits on guest memory of gasp.
//!
//! Virtio devices in Rust are written against vm-memory's [`GuestMemory`](vm_memory::GuestMemory).
//! This crate lets them run on gasp: each access is checked against what the guest's IOMMU allows
//! the device, and a revoke is complete only after the slices that were lent before it.
//! (A domain whose policy is [`Deadline::Detach`](gasp::Deadline::Detach) does not wait for ever:
//! a slice can then outlive the permission, though not its memory; see [`Burst::is_revoked`].)
//!
//! [`DeviceMemory`] is the memory of a device. A [`Burst`] of it is a `GuestMemory`: it holds the
//! pages of the slices that it lends, and a revoke of one of them is complete only after the
//! burst.
//!
//! ```
//! use gasp::{DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, MemoryObject, Unattached};
//! use gasp::Access;
//! use gasp_vm_memory::DeviceMemory;
//! use vm_memory::{Bytes, GuestAddress};
//!
//! let guest = Guest::builder().iommu(Unattached::Deny).build()?;
//! guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
//! let domain = guest.domain("net", DomainOptions::new(DomainKind::Translate))?;
//! let net = guest.vdev("net")?;
//! net.attach(&domain)?.wait();
//! domain.grant(DeviceAddr(0x8000), GuestPhys(0x3000), 0x1000, Access::RW)?;
//!
//! let memory = DeviceMemory::new(net);
//! let burst = memory.burst();
//! burst.write_obj(7_u32, GuestAddress(0x8000))?;
//! assert_eq!(burst.read_obj::<u32>(GuestAddress(0x8000))?, 7);
//! // What is not granted is refused, with a fault record for the guest.
//! assert!(burst.read_obj::<u32>(GuestAddress(0x9000)).is_err());
//!
//! let mut drain = domain.revoke(DeviceAddr(0x8000), 0x1000)?;
//! assert!(drain.poll().is_none(), "the burst holds the page");
//! drop(burst);
//! assert!(drain.wait().completed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A virtio queue
//!
//! [`virtio-queue`](https://docs.rs/virtio-queue) runs over a burst unchanged: pass `&burst` where
//! it asks for memory. Begin a burst for each turn of a queue, and drop it before the device waits
//! for the guest again, or after as many chains as the queue has entries: a driver can add chains
//! as fast as they are taken, and a revoke waits for the burst. `examples/block.rs` is a virtio-blk
//! request path.
//!
//! A compiler that finds no `GuestMemoryBackend` for `DeviceMemory` was given the memory in place
//! of a burst of it.
//!
//! # What vm-memory cannot express
//!
//! * Its traits do not say which kinds of memory to accept, so slices are of RAM only. ROM and
//!   pass-through windows are refused; map them through the device, with
//!   [`MapFlags::any`](gasp::MapFlags::any).
//! * A slice has no access of its own. One that was obtained for reading can be written through in
//!   safe code, as with vm-memory's own types; the engine's `Mapping` refuses that. A device that
//!   does so writes to memory that the guest has granted for reading only. Memory that is mapped
//!   read-only in this process is not lent at all ([`Refused::ReadOnly`]).
//! * vm-memory copies up to 8 bytes at once by volatile accesses, and more, as virtio-queue's
//!   `Reader` and `Writer` do, by plain copies of the machine. The guest, or another slice, may
//!   write the same bytes meanwhile: the result is some mixture of both, as over every memory of
//!   vm-memory. The language does not define such a race; the engine's own copies (`read_at` and
//!   `write_at` of a mapping) are atomic in each word, and have no such limit.
//! * Memory that can be cut off under its mapping ([`is_guarded`](gasp::MemoryObject::is_guarded))
//!   is not lent ([`Refused::Guarded`]), because an access through a slice would end the process.
//!   That is asked when a page is mapped, and not again for each slice, which would cost three
//!   dependent loads: a burst that holds RAM of a huge page pool when its file is first handed out
//!   still lends what it holds. Hand files out before devices run.
//! * A dirty bitmap has no way to refuse a mark: one past its end is lost. A bitmap must cover every
//!   device address that is granted. And what is written through gasp marks no bitmap of a
//!   `GuestMemoryMmap` that was [added](add_guest_memory): combine both for a migration.
//! * [`physical_memory`](vm_memory::GuestMemory::physical_memory) is always `None`: see
//!   [`NoPhysicalMemory`].
//!
//! # Versions
//!
//! vm-memory 0.18, virtio-queue 0.18 and virtio-vsock 0.12 go together. The traits of another
//! version are other traits: use the one that this crate depends on, which is
//! [`gasp_vm_memory::vm_memory`](vm_memory).
//!
//! A crate that asks for a `GuestMemoryBackend`, as linux-loader 0.14 does, wants regions that stay,
//! which a device's view does not have. Let it use the VMM's own `GuestMemoryMmap`, and share that
//! with the guest ([`add_guest_memory`]).

mod burst;
mod cache;
mod device;
mod error;
mod import;
mod near;
#[cfg(test)]
mod near_tests;
mod physical;
mod shared;
mod slices;
mod sync;

pub use burst::Burst;
pub use device::DeviceMemory;
pub use error::Refused;
pub use import::add_guest_memory;
pub use physical::NoPhysicalMemory;
/// The version of vm-memory whose traits these are.
pub use vm_memory;

/// Compiles and runs the examples of `docs/using.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/using.md")]
struct Using;
