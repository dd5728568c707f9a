//! AMD-Vi: I/O page tables for host translations.
//!
//! [`HostTables`] is the translator of a domain; [`walk`] is one walk, over any memory. The owner of
//! the translator reads the device table and says what it found ([`HostTables::set_table`]).
//!
//! A table has one to six levels. An entry names the level of the next table, which may skip some:
//! the address bits of those must be zero. A page has the size of its level (4 KiB, 2 MiB, 1 GiB
//! and so on), or a larger one below that of the next level, which is in its address bits (next
//! level 7). An access is allowed if the device table and every entry allow it. A fetch of
//! instructions ([`Access::EXEC`](gasp::Access::EXEC)) is a read. Accessed and dirty bits are not set.
//!
//! Reserved are bits 58 to 52 of an entry, in one that leads to a table bits 60 and 59 as well, and
//! the address bits inside a page that do not encode its size. No refusal is kept: a guest does not
//! say when it makes an address valid.

mod fault;
mod host_tables;
mod table;
mod walk;

pub use fault::Fault;
pub use host_tables::HostTables;
pub use table::{Levels, Table};
pub use walk::walk;
