//! Walkers of a guest's IOMMU page tables.
//!
//! A guest writes the page tables of its IOMMU in its own memory, and says nothing until it takes
//! something away. A domain of gasp that [asks](gasp::DomainKind::Ask) follows it: on a miss its
//! [`Translator`](gasp::Translator) walks those tables. This crate has the walkers of
//!
//! | | |
//! |---|---|
//! | [`vtd`] | Intel VT-d: second-level tables in legacy mode, of 3 to 5 levels |
//! | [`amd`] | AMD-Vi: host tables of 1 to 6 levels |
//!
//! ```
//! use std::sync::Arc;
//!
//! use gasp::{DeviceAddr, DomainOptions, Guest, GuestPhys, MapFlags, MemoryObject, Unattached};
//! use gasp_page_tables::vtd::{Capabilities, Levels, SecondLevel, Table};
//!
//! let guest = Guest::builder().iommu(Unattached::Deny).build()?;
//! guest.space().add_ram(None, &MemoryObject::ram(2 << 20).create()?)?;
//!
//! // The IOMMU has read from a context entry where the tables of the disk begin.
//! let table = Table { root: GuestPhys(0x1000), levels: Levels::Three };
//! let tables = Arc::new(SecondLevel::new(Capabilities::new(48), table));
//! let domain = guest.domain("disk", DomainOptions::ask(tables))?;
//! let disk = guest.vdev("disk")?;
//! disk.attach(&domain)?.wait();
//!
//! // The guest's driver maps a page at 0x5000, for reading.
//! let entry = |at: u64, entry: u64| guest.write_firmware(GuestPhys(at), &entry.to_le_bytes());
//! entry(0x1000, 0x2000 | 3)?;
//! entry(0x2000, 0x3000 | 3)?;
//! entry(0x3000 + 8 * 5, 0x8000 | 1)?;
//!
//! assert!(disk.map(DeviceAddr(0x5000), 512, MapFlags::READ).is_ok());
//! assert!(disk.map(DeviceAddr(0x5000), 512, MapFlags::WRITE).is_err());
//! let faults = guest.take_faults();
//! assert_eq!(faults.records[0].refusal, gasp::Refusal::Translator { reason: 0x5 });
//!
//! // It takes the page away, and says so.
//! entry(0x3000 + 8 * 5, 0)?;
//! domain.invalidate(DeviceAddr(0x5000), 4096)?.wait();
//! assert!(disk.map(DeviceAddr(0x5000), 512, MapFlags::READ).is_err());
//! # Ok::<(), gasp::Error>(())
//! ```
//!
//! # What a guest can do to a walk
//!
//! The tables are the guest's, and it writes them while they are read. A walk trusts no bit of them:
//! it reads each entry once, at most one for each level; an address that leads outside of system RAM
//! is a fault; and the page that it returns is one that the entries it has read describe. A walk
//! that overlaps a change returns what was valid before it or after it, or a mixture that the guest
//! can also arrange without racing. What is kept of it is removed by the invalidation that follows
//! the change.
//!
//! A walk allocates nothing, and takes one look-up in the guest's own table for each level: 50 ns for
//! four levels whose entries are in the processor's caches (`cargo run --release -p
//! gasp-page-tables --example cost`, November 2026). It holds memory only while it reads an entry of
//! it, so that the removal of memory does not wait for a walk.
//!
//! # What is not here
//!
//! What leads to the tables of a device (root, context, device and PASID tables), registers,
//! commands, and the address ranges that are not memory, such as that of interrupts, which the
//! IOMMU's own model treats before it asks.
//!
//! The engine refuses a device address beyond the guest's
//! [address width](gasp::Guest::address_width), at most 52 bits, before it asks, and without a fault
//! record (decision 3): five levels of VT-d translate fewer than their 57 bits.

pub mod amd;
mod permissions;
mod reader;
mod root;
pub mod vtd;

pub use reader::EntryReader;
