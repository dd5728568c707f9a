//! An emulated Intel VT-d remapping unit, for the devices of a [`gasp::Guest`].
//!
//! A [`Unit`] is a page of registers, which a VMM puts on its bus, and a domain for each requester,
//! to which it attaches the devices. A guest's driver programs it as it does hardware: it writes root,
//! context and page tables in its own memory, and tells the unit only what it takes away.
//!
//! ```
//! use gasp::{DeviceAddr, Guest, GuestPhys, MapFlags, MemoryObject, Unattached};
//! use gasp_vtd::{RequesterId, Unit};
//!
//! let guest = Guest::builder().iommu(Unattached::Deny).build()?;
//! guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
//!
//! let unit = Unit::new(&guest, |message| println!("{message:?}: to the interrupt controllers"))?;
//! let disk = guest.vdev("disk")?;
//! unit.connect(RequesterId(0x0020), &disk)?.wait(); // 00:04.0
//! // Devices in front of a disabled unit reach all memory.
//! assert!(disk.map(DeviceAddr(0x5000), 512, MapFlags::RW).is_ok());
//!
//! // The guest's driver: a root entry for bus 0, a context entry for 00:04.0 with tables of three
//! // levels and domain id 1, and a page at 0x5000.
//! let write = |at: u64, entry: u64| guest.write_firmware(GuestPhys(at), &entry.to_le_bytes());
//! write(0x1000, 0x2000 | 1)?;
//! write(0x2000 + 0x20 * 16, 0x3000 | 1)?;
//! write(0x2000 + 0x20 * 16 + 8, 1 << 8 | 1)?;
//! write(0x3000, 0x4000 | 3)?;
//! write(0x4000, 0x5000 | 3)?;
//! write(0x5000 + 5 * 8, 0x8000 | 1)?;
//! unit.write(0x20, &0x1000_u64.to_le_bytes()); // RTADDR
//! unit.write(0x18, &(1_u32 << 30).to_le_bytes()); // GCMD: set the root table pointer
//! unit.write(0x18, &(1_u32 << 31).to_le_bytes()); // GCMD: enable translation
//!
//! assert_eq!(disk.map(DeviceAddr(0x5000), 512, MapFlags::READ)?.object_offset(), 0x8000);
//! assert!(disk.map(DeviceAddr(0x5000), 512, MapFlags::WRITE).is_err());
//! let mut status = [0; 4];
//! unit.read(0x34, &mut status); // FSTS: a fault is pending
//! assert_eq!(u32::from_le_bytes(status), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the unit has
//!
//! | | |
//! |---|---|
//! | translation | legacy mode: second-level tables of 3 and 4 levels (5, if the guest's addresses have more than 48 bits), pages of 4 KiB, 2 MiB and 1 GiB, pass-through |
//! | invalidation | by queue and by register; global, by domain, by device, by pages with a mask that covers all addresses; 65,536 domain ids |
//! | capabilities | coherent walks, snoop control, draining of reads and writes, zero-length reads; setting the root table pointer invalidates everything (ESRTPS) |
//! | faults | 8 fault recording registers |
//! | not | caching mode, device-TLBs, interrupt remapping, scalable mode, protected memory, fault logs in memory |
//!
//! **Misses.** A map of a device that is not in the requester's domain yet reads the page tables, and
//! before the first of them root and context entry. Those are kept until the context cache is
//! invalidated; nothing that is not present is, so a guest that maps a page writes an entry and no
//! register. A miss costs what the walk of the page tables costs: 226 ns with four levels, and 225 in
//! a domain without root and context (`cargo run --release -p gasp-vtd --example cost`, November 2026,
//! two busy cores).
//!
//! **Invalidation is a revoke.** It takes pages out of the domains that have them under the guest's
//! domain id, and drains the mappings of them. A wait descriptor completes after the drains of all
//! that precedes it; the same holds for the status bits of registers. Invalidations next to each other
//! in the queue are made at once. A vCPU makes an invalidation itself, but does not wait for a mapping
//! that is held: that does a thread of the unit's, which sleeps otherwise. A page and its wait
//! descriptor take 744 ns, of which 615 are the engine's (the same run). A device that does not release
//! a mapping keeps its own guest waiting, as long as the [drain policy](gasp::DrainPolicy) says. An
//! invalidation of more than what has changed, such as of a whole domain, waits for all that is held of
//! it: a device should hold what it maps for one request, and not for ever.
//!
//! **Faults** are recorded if a device was refused, not for what it only asks
//! ([`Vdev::allows`](gasp::Vdev::allows)). The device's access fails with `EFAULT`; the
//! [reason](gasp::Refusal::Translator) is that of the specification, plus 0x100 if the context entry
//! disables fault processing, so that nothing is recorded for the guest. An access to the addresses of
//! interrupts (0xfee0_0000 to 0xfeef_ffff) is refused as if no entry allowed it (5h, 6h), whatever the
//! tables say, unless addresses pass through: MSIs are no memory accesses here. An address beyond the
//! guest's [width](gasp::Guest::address_width), which is also MGAW, is refused by the engine (`ENXIO`),
//! and not recorded.
//!
//! # What a guest can do to it
//!
//! Registers, descriptors and tables are the guest's, and none is trusted. An access to a register
//! processes at most 256 descriptors, and leaves further ones to the unit's thread. While mappings are
//! waited for, the queue stands still, and so does each command that is in progress: a second one of
//! its kind is ignored. What is waited for is never more than what the devices hold, however often the
//! guest invalidates, disables the queue or is reset. A full set of fault recording registers
//! drops faults until software clears the overflow.
//!
//! Where the specification leaves room, docs/decisions.md says what the unit does.

mod acpi;
mod capabilities;
mod commands;
mod context;
mod context_cache;
#[cfg(test)]
mod context_cache_tests;
mod control;
#[cfg(test)]
mod control_tests;
mod descriptor;
mod faults;
mod invalidation;
mod message;
mod page;
mod queue;
mod registers;
mod requester;
mod ring;
mod root;
mod shared;
mod sync;
mod thread;
mod translator;
mod unit;

pub use message::Message;
pub use requester::RequesterId;
pub use unit::Unit;
